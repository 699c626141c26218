"""What waits outlives its daemon: it goes on with the next, whether the one before was killed or stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tandem.core.errors import DaemonLostError, DaemonStoppedError
from tandem.share.daemon.client import Client
from tandem.share.daemon.lasting import Lasting
from tests.cli.test_jobs import HERE, Screen, blocked_by
from tests.conftest import requires
from tests.waiting import until

if TYPE_CHECKING:
    import subprocess

    from tests.cli.conftest import Shell

pytestmark = pytest.mark.slow

LOST = "tandem: the daemon went away while it was asked: another is started\n"
STOPPED = "tandem: the daemon was stopped: it is waited for\n"


@pytest.fixture
def tandem(tandem_: Shell) -> Shell:
    """The command with a daemon that has one core to give out."""
    tandem_("up", *HERE)
    return tandem_


def daemon_of(tandem: Shell) -> int:
    return int(json.loads(tandem("doctor", "--json"))["daemon"]["pid"])


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def all_wait(*waiting: subprocess.Popen[str]) -> None:
    """Return once each of them has asked: one connection for what it waits for, one for what it asks meanwhile."""
    for process in waiting:
        until(lambda of=process.pid: connections(of) == 2)


def connections(process: int) -> int:
    found = 0
    for fd in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was just closed
            found += fd.readlink().name.startswith("socket:")
    return found


def test_who_waits_goes_on_when_the_daemon_was_killed(tandem: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    submitting = tandem.start(
        "submit", "--wait", "--", "sh", "-c", f"echo a; while [ ! -e {gate} ]; do sleep 0.02; done; echo b"
    )
    assert submitting.stdout is not None
    submitting.stdout.readline()
    following = tandem.start("logs", "-f", "1")
    assert following.stdout is not None
    assert following.stdout.readline() == "a\n"
    waiting = tandem.start("wait", "1", "--json")
    all_wait(submitting, following, waiting)
    os.kill(daemon_of(tandem), signal.SIGKILL)
    for process in (submitting, following, waiting):
        assert first_line(process) == LOST
    gate.touch()
    said = submitting.communicate(timeout=30)[0]
    assert (said.startswith("job 1: done after"), submitting.returncode) == (True, 0)
    assert (following.communicate(timeout=30)[0], following.returncode) == ("b\n", 0)
    ends = json.loads(waiting.communicate(timeout=30)[0])
    assert ([end["state"] for end in ends["ends"]], ends["waiting"], waiting.returncode) == (["done"], [], 0)


def test_what_ended_while_no_daemon_ran_is_told(tandem: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tandem("submit", "-q", *blocked_by(gate))
    tandem("submit", "-q", "--after", "1", "--", "true")
    waiting = tandem.start("wait", "1", "2")
    all_wait(waiting)
    tandem("down")
    assert first_line(waiting) == STOPPED
    gate.touch()
    tandem("up", *HERE)
    told = waiting.communicate(timeout=30)[0]
    assert (told.count("job 1: done after"), told.count("job 2: done after"), waiting.returncode) == (1, 1, 0)


def test_the_time_to_wait_counts_while_no_daemon_runs(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", *blocked_by(tmp_path / "never"))
    waiting = tandem.start("wait", "--timeout", "4s", "1")
    all_wait(waiting)
    tandem("down")
    said = waiting.communicate(timeout=30)[1]
    assert (said, waiting.returncode) == (STOPPED + "tandem: the time is over; not ended: 1\n", 1)


def test_the_queue_on_the_screen_goes_on(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", "--name", "watched", *blocked_by(tmp_path / "never"))
    screen = Screen(tandem.prefix, "queue", "--watch")
    screen.read_until("watched")
    os.kill(daemon_of(tandem), signal.SIGKILL)
    screen.read_until("another is started")
    screen.text = ""
    assert "watched" in screen.read_until("watched")
    screen.process.send_signal(signal.SIGINT)
    assert screen.close() == 130


def test_a_stopped_daemon_is_not_waited_for_for_ever(tandem: Shell) -> None:
    told: list[str] = []
    with Lasting(told.append, back_s=0.3) as lasting:
        tandem("down")
        with pytest.raises(DaemonStoppedError, match="the daemon was stopped"):
            lasting.ask(Client.nodes)
        assert told == ["the daemon was stopped: it is waited for"]
        with pytest.raises(DaemonLostError):
            lasting.another()


@requires("root")
def test_somebody_elses_daemon_is_not_started_here(tandem: Shell, home: Path) -> None:
    told: list[str] = []
    with Lasting(told.append, back_s=0.3) as lasting:
        os.kill(daemon_of(tandem), signal.SIGKILL)
        os.chown(home, 4242, 4242)
        with pytest.raises(DaemonLostError, match="the daemon went away"):
            lasting.ask(Client.nodes)
    assert told == ["the daemon went away while it was asked: it is waited for"]
    os.chown(home, 0, 0)
