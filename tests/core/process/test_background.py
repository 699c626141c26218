"""Work in the background: its command learns how it began, and it goes on by itself."""

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tandem.core.errors import SpaceError, TandemError
from tandem.core.process.background import begin

Ready = Callable[[], None]


def ended(process: int) -> int:
    """Wait for a child and return its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_it_goes_on_once_it_is_ready(tmp_path: Path) -> None:
    hears, tells = os.pipe()

    def work(ready: Ready) -> None:
        ready()
        ready()  # only the first counts
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print("says something")
        os.write(tells, b"%d %d %s" % (os.getpid(), os.getsid(0), os.fsencode(Path.cwd())))
        signal.pause()

    process = begin(work, str(tmp_path / "log"))
    assert select.select([hears], [], [], 30)[0]
    assert os.read(hears, 100) == b"%d %d /" % (process, process)
    os.kill(process, signal.SIGTERM)
    assert ended(process) == 1  # it was stopped in its work
    assert (tmp_path / "log").read_text().startswith("says something\n")
    os.close(hears)
    os.close(tells)


def test_work_that_ends_well_ends_with_status_0(tmp_path: Path) -> None:
    assert ended(begin(lambda ready: ready(), str(tmp_path / "log"))) == 0


def test_a_mistake_before_it_is_ready_is_the_command_s(tmp_path: Path) -> None:
    def work(_: Ready) -> None:
        raise SpaceError(given="no space", allowed="a space", todo="make one")

    with pytest.raises(SpaceError) as caught:
        begin(work, str(tmp_path / "log"))
    assert (caught.value.given, caught.value.allowed, caught.value.todo) == ("no space", "a space", "make one")
    assert "no space; allowed: a space; make one" in (tmp_path / "log").read_text()


def test_a_crash_before_it_is_ready_is_told_and_stands_in_the_log(tmp_path: Path) -> None:
    def work(_: Ready) -> None:
        raise ZeroDivisionError

    with pytest.raises(TandemError, match=f"the process in the background ended; .*; see {tmp_path}/log"):
        begin(work, str(tmp_path / "log"))
    assert "ZeroDivisionError" in (tmp_path / "log").read_text()


def test_one_that_is_killed_before_it_is_ready_is_told(tmp_path: Path) -> None:
    with pytest.raises(TandemError, match="the process in the background ended"):
        begin(lambda _: os.kill(os.getpid(), signal.SIGKILL), str(tmp_path / "log"))


def test_a_log_that_cannot_be_written_is_said_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        begin(lambda ready: ready(), str(tmp_path / "no" / "log"))
