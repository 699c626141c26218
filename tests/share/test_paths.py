"""Where a daemon keeps its things, and where a client looks for one."""

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from tandem.share import paths


def test_the_variable_decides_for_both() -> None:
    environ = {"TANDEM_HOME": "/srv/t", "HOME": "/home/me"}
    assert paths.of_daemon(environ, 1000) == paths.of_client(environ, 1000)
    assert paths.of_daemon(environ, 1000).socket == Path("/srv/t/tandem.sock")
    assert paths.of_daemon(environ, 0).shared


def test_root_is_the_system_and_a_user_is_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.of_daemon({}, 0) == paths.Paths(Path("/var/lib/tandem"), Path("/run/tandem/tandem.sock"), shared=True)
    mine = paths.of_daemon({"HOME": "/home/me"}, 1000)
    assert mine.data == Path("/home/me/.local/share/tandem")
    assert mine.socket == mine.data / "tandem.sock"
    environ = {"XDG_DATA_HOME": "/data", "XDG_RUNTIME_DIR": str(tmp_path)}
    runtime = paths.of_daemon(environ, 1000)
    assert (runtime.data, runtime.socket) == (Path("/data/tandem"), tmp_path / "tandem" / "tandem.sock")
    with monkeypatch.context() as su:  # which leaves the variable of who called it
        su.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
        assert paths.of_daemon(environ, 1000).socket == Path("/data/tandem/tandem.sock")
    monkeypatch.setattr(paths, "SYSTEM_SOCKET", tmp_path / "system.sock")
    assert paths.of_client(environ, 1000) == runtime
    (tmp_path / "system.sock").touch()
    assert paths.of_client(environ, 1000).shared
    (tmp_path / "system.sock").unlink()
    monkeypatch.setattr(paths, "SYSTEM_DATA", tmp_path)
    assert paths.of_client(environ, 1000) == runtime
    (tmp_path / "tandem.db").touch()  # root's daemon is stopped: a user's own would have other jobs
    assert paths.of_client(environ, 1000).shared
    assert paths.of_daemon(environ, 1000) == runtime


def test_a_runtime_folder_that_cannot_hold_the_socket_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.chdir(short)
        too_long = Path(short) / ("\N{SNOWMAN}" * 30)  # in bytes, not in characters
        for folder in (Path("relative"), too_long):
            folder.mkdir()
            environ = {"XDG_DATA_HOME": "/data", "XDG_RUNTIME_DIR": str(folder)}
            assert paths.of_daemon(environ, 1000).socket == Path("/data/tandem/tandem.sock")
        monkeypatch.undo()


def test_a_folder_too_deep_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    found = paths.home(deep)
    assert found.socket == paths.home(deep).socket
    assert found.socket != paths.home(deep.parent / "z").socket
    paths.prepare(found)
    assert stat.S_IMODE(found.socket.parent.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(found.socket))
        found.socket.unlink()


@pytest.mark.parametrize(("shared", "data", "attempts"), [(False, 0o700, 0o700), (True, 0o711, 0o700)])
def test_folders_are_closed_to_others(tmp_path: Path, shared: bool, data: int, attempts: int) -> None:
    found = paths.home(tmp_path / "home", shared=shared)
    paths.prepare(found)
    paths.prepare(found)
    assert stat.S_IMODE(found.data.stat().st_mode) == data
    assert stat.S_IMODE((found.data / "jobs").stat().st_mode) == data
    assert stat.S_IMODE((found.data / "attempts").stat().st_mode) == attempts


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = paths.home(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to uid"):
        paths.prepare(found)
