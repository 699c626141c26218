"""Who may be the daemon of a data folder, whatever becomes of the files in it."""

import errno
import fcntl
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tandem.core.errors import DaemonError
from tandem.share import paths
from tandem.share.paths import Paths
from tandem.share.store.lock import Lock, holder, named_socket


@pytest.fixture
def place(tmp_path: Path) -> Paths:
    (tmp_path / "home").mkdir()
    return paths.home(tmp_path / "home")


@pytest.mark.parametrize("file", ["there", "removed", "another's"])
def test_a_second_daemon_is_told_who_has_the_folder(place: Paths, file: str) -> None:
    lock = Lock(place)
    if file != "there":
        place.lock.unlink()
    if file == "another's":
        place.lock.write_text("1\n")
    assert holder(place) == os.getpid()
    with pytest.raises(DaemonError, match=f"the first is process {os.getpid()}"):
        Lock(place)
    lock.close()
    assert holder(place) is None
    Lock(place).close()


@pytest.mark.parametrize("how", ["-s", "-x"])
@pytest.mark.parametrize(
    ("what", "is_left"),
    [
        (["home"], True),
        (["home"], False),
        (["home/daemon.lock"], True),
        (["home/daemon.lock"], False),
        (["home", "home/daemon.lock"], True),
    ],
)
def test_who_locks_the_folder_or_its_file_is_no_daemon(
    place: Paths, tmp_path: Path, how: str, what: list[str], is_left: bool
) -> None:
    if is_left:
        Lock(place).close()  # leaves its file, with the number of a process that runs
    locked = [word for one in what for word in ("flock", how, str(tmp_path / one))]
    with subprocess.Popen(
        [*locked, "sh", "-c", "echo locked; read end"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        assert holder(place) is None
        with pytest.raises(DaemonError, match=f"{place.data} is locked by process {other.pid}, which is no daemon"):
            Lock(place)
        other.communicate()
    Lock(place).close()


def test_a_daemon_on_a_full_disk_is_known_by_the_folder(place: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    lock = Lock(place)
    assert place.lock.read_bytes() == b""
    assert holder(place) == os.getpid()
    lock.close()
    assert holder(place) is None


def test_a_link_in_place_of_the_file_is_named(place: Paths, tmp_path: Path) -> None:
    place.lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DaemonError, match=rf"{place.lock} is a link; .*remove the link"):
        Lock(place)
    assert not (tmp_path / "elsewhere").exists()
    place.lock.unlink()
    lock = Lock(place)
    place.lock.unlink()
    place.lock.symlink_to(tmp_path / "elsewhere")
    lock.keep()  # whoever put it there cannot oust the daemon
    assert holder(place) == os.getpid()
    lock.close()


def test_a_lock_whose_process_has_gone_is_told_of(place: Paths) -> None:
    folder = os.open(place.data, os.O_RDONLY)
    subprocess.run(["flock", str(folder)], pass_fds=[folder], check=True)  # which ends, as in `flock 9`
    assert holder(place) is None
    with pytest.raises(DaemonError, match=f"{place.data} is locked by a process that cannot be seen from here"):
        Lock(place)
    os.close(folder)
    Lock(place).close()


def test_a_file_that_has_gone_is_made_again(place: Paths) -> None:
    lock = Lock(place)
    before = len(list(Path("/proc/self/fd").iterdir()))
    place.lock.unlink()
    lock.keep()
    made = place.lock.stat().st_ino
    lock.keep()
    assert place.lock.stat().st_ino == made
    assert place.lock.read_text() == f"{os.getpid()}\n{place.socket}\n"
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with place.lock.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.close()


def test_the_file_says_where_its_process_listens(place: Paths) -> None:
    lock = Lock(place)
    assert named_socket(place, os.getpid()) == place.socket
    assert named_socket(place, os.getpid() + 1) is None
    lock.name(Path("/run/odd\nname.sock"))
    assert named_socket(place, os.getpid()) == Path("/run/odd\nname.sock")
    place.lock.unlink()
    lock.keep()
    assert named_socket(place, os.getpid()) == Path("/run/odd\nname.sock")
    place.lock.write_text(f"{os.getpid()}\n")
    assert named_socket(place, os.getpid()) is None
    lock.close()


def test_a_file_that_another_holds_is_left_to_it(place: Paths) -> None:
    lock = Lock(place)
    place.lock.unlink()
    with place.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DaemonError, match="a second daemon"):
            lock.keep()
    lock.close()


@pytest.mark.parametrize("in_its_place", ["nothing", "another"])
def test_a_folder_that_was_moved_is_missed(place: Paths, tmp_path: Path, in_its_place: str) -> None:
    lock = Lock(place)
    place.data.rename(tmp_path / "moved")
    if in_its_place == "another":
        place.data.mkdir()
        Lock(place).close()
    with pytest.raises(DaemonError, match=f"{place.data} is no longer the folder"):
        lock.keep()
    with pytest.raises(DaemonError, match=f"process {os.getpid()}"):
        Lock(paths.home(tmp_path / "moved"))
    lock.close()


def test_where_no_folder_can_be_locked_the_file_is(place: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    truly = fcntl.flock

    def of_files_only(fd: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        truly(fd, operation)

    monkeypatch.setattr(fcntl, "flock", of_files_only)
    lock = Lock(place)
    assert holder(place) == os.getpid()
    with pytest.raises(DaemonError, match=f"process {os.getpid()}"):
        Lock(place)
    lock.close()
