"""What waits outlives its daemon: it goes on with the next, whether the one before was killed or stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tandem.core.errors import DaemonError, DaemonLostError, DaemonStoppedError
from tandem.share.daemon import patience
from tandem.share.daemon.client import Client
from tandem.share.daemon.lasting import Lasting
from tests.cli.test_jobs import CORE, HERE, Screen, blocked_by
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


def background(lasting: Lasting) -> Future[object]:
    """Ask in a thread that keeps no failing test from ending."""
    future: Future[object] = Future()

    def ask() -> None:
        try:
            future.set_result(lasting.ask(Client.nodes))
        except DaemonError as error:
            future.set_exception(error)

    Thread(target=ask, daemon=True).start()
    return future


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
    all_wait(submitting, waiting)
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
    gate = tmp_path / "gate"
    tandem("submit", "-q", *blocked_by(gate))
    waiting = tandem.start("wait", "--timeout", "4s", "1")
    all_wait(waiting)
    tandem("down")
    said = waiting.communicate(timeout=30)[1]
    gate.touch()  # nobody else ends the job
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


def test_who_waits_is_told_how_jobs_ended_that_the_daemon_took_with_it(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", "--grace", "0s", *blocked_by(tmp_path / "never"))
    submitting = tandem.start("submit", "--wait", "-q", "--", "true")
    assert submitting.stdout is not None
    assert submitting.stdout.readline() == "2\n"
    asking = [tandem.start("wait", "1", "2"), tandem.start("wait", "1", "--json"), tandem.start("logs", "-f", "1")]
    all_wait(submitting, *asking[:2])
    until(lambda: connections(asking[2].pid) == 1)
    tandem("down", "--kill")
    told = [process.communicate(timeout=30) for process in (submitting, *asking)]
    assert "waited for" not in "".join(err for _, err in told)
    assert [process.returncode for process in (submitting, *asking)] == [1, 1, 1, 0]
    assert sorted(told[1][0].splitlines())[0].startswith("job 1: cancelled")
    assert len(told[1][0].splitlines()) == 2
    assert [end["state"] for end in json.loads(told[2][0])["ends"]] == ["cancelled"]


def test_who_begins_to_wait_while_the_daemon_stands_still_goes_on_when_it_is_killed(
    tandem: Shell, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    tandem("submit", "-q", *blocked_by(gate))
    daemon = daemon_of(tandem)
    os.kill(daemon, signal.SIGSTOP)
    asking = [
        tandem.start("wait", "1"),
        tandem.start("logs", "-f", "1"),
        tandem.start("submit", "--wait", "--", "true"),
    ]
    for process in asking:
        until(lambda of=process.pid: connections(of) == 1)
    os.kill(daemon, signal.SIGKILL)
    for process in asking[:2]:
        assert first_line(process) == LOST
    gate.touch()
    assert asking[0].communicate(timeout=30)[0].startswith("job 1: done after")
    assert asking[1].communicate(timeout=30) == ("", "")
    said = asking[2].communicate(timeout=30)[1]
    assert said.startswith(
        "tandem: the daemon went away while it was asked; allowed: a daemon that runs; the jobs may have been"
    )
    assert [process.returncode for process in asking] == [0, 0, 2]


def test_the_time_to_wait_counts_while_the_daemon_stands_still(tandem: Shell, tmp_path: Path) -> None:
    tandem("submit", "-q", *blocked_by(tmp_path / "never"))
    daemon = daemon_of(tandem)
    os.kill(daemon, signal.SIGSTOP)
    try:
        waiting = tandem.run("wait", "--timeout", "1s", "1")
    finally:
        os.kill(daemon, signal.SIGCONT)
    unanswered = "tandem: the time is over, and the daemon has not answered\n"
    assert (waiting.returncode, waiting.stdout, waiting.stderr) == (1, "", unanswered)


def test_a_daemon_that_stands_still_is_waited_for(tandem: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SAY_S", 0.1)
    monkeypatch.setattr(patience, "GIVE_UP_S", 0.2)
    told: list[str] = []
    daemon = daemon_of(tandem)
    with Lasting(told.append) as lasting:
        os.kill(daemon, signal.SIGSTOP)
        try:
            asked = background(lasting)
            until(lambda: told)
        finally:
            os.kill(daemon, signal.SIGCONT)
        assert asked.result(timeout=30)
    assert told[0].endswith("and does nothing: it is waited for")


def test_a_stopped_daemon_is_waited_for_as_long_as_its_data_folder_is_there(tandem: Shell, home: Path) -> None:
    told: list[str] = []
    with Lasting(told.append) as lasting:
        tandem("down")
        asked = background(lasting)
        until(lambda: told)
        with pytest.raises(DaemonLostError):
            lasting.another()
        assert not asked.done()
        home.rename(home.parent / "gone")
        with pytest.raises(DaemonStoppedError, match="the daemon was stopped"):
            asked.result(timeout=30)
    assert told == ["the daemon was stopped: it is waited for"]


def test_who_takes_over_from_a_killed_daemon_gives_out_no_other_cores(tandem_: Shell, home: Path) -> None:
    tandem_("up", "--cores", CORE, "--machine", "membw=off", "--machine", "mem=1G")
    told = json.loads(tandem_("nodes", "--json"))
    for _ in range(2):
        os.kill(daemon_of(tandem_), signal.SIGKILL)
        assert json.loads(tandem_("nodes", "--json")) == told
    os.kill(daemon_of(tandem_), signal.SIGKILL)
    tandem_("up", "--machine", "mem=2G")
    (node,) = json.loads(tandem_("nodes", "--json"))
    assert (node["capacity"]["mem_mib"], node["cores"]) == (2048, [int(CORE)]), (
        "what is given counts, and the rest stays"
    )
    tandem_("down")
    assert not (home / "machine.json").exists()
    (home / "machine.json").write_text("{")
    tandem_("up", *HERE)


def test_settings_of_a_killed_daemon_that_do_not_hold_any_more_are_named_as_such(tandem_: Shell, home: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "machine.json").write_text(json.dumps({"cores": "99999", "membw": "off"}))
    refused = tandem_.run("queue")
    assert refused.returncode == 2
    assert "cores = '99999', which the daemon before was told that was killed; allowed: a list" in refused.stderr
    assert f"; give what holds now: `tandem up --cores {','.join(map(str, sorted(os.sched_getaffinity(0))))}`" in (
        refused.stderr
    )
    refused = tandem_.run("up", "--cores", "88888")
    assert "cores = '88888'; allowed: " in refused.stderr
    tandem_("up", "--cores", CORE)


@requires("root")
def test_somebody_elses_daemon_is_not_started_here(tandem: Shell, home: Path) -> None:
    told: list[str] = []
    tandem("submit", "--wait", "--", "true")
    with Lasting(told.append) as lasting:
        daemon = daemon_of(tandem)
        os.chown(home, 4242, 4242)
        os.kill(daemon, signal.SIGKILL)
        asked = background(lasting)
        until(lambda: told)
        refused = tandem.run("queue")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"the daemon of uid 4242 that serves {home} does not run" in refused.stderr
        assert "does not run; that is for 4242 to start" in tandem("doctor", status=1)
        waiting = tandem.start("wait", "1")
        assert (
            first_line(waiting) == f"tandem: the daemon of uid 4242 that serves {home} does not run: it is waited for\n"
        )
        screen = Screen(tandem.prefix, "queue", "--watch")
        assert "does not run: it is waited for" in " ".join(screen.read_until("waited for").split())
        unanswered = tandem.run("wait", "--json", "--timeout", "0s", "1")
        assert (unanswered.returncode, json.loads(unanswered.stdout)) == (1, {"ends": [], "waiting": None})
        assert unanswered.stderr.endswith("the time is over, and the daemon has not answered\n")
        assert not asked.done()
        os.chown(home, 0, 0)
        tandem("up", *HERE)
        assert asked.result(timeout=30)
        assert waiting.communicate(timeout=30)[0].startswith("job 1: done after")
        assert "0 running" in screen.read_until("0 running")
        screen.process.send_signal(signal.SIGINT)
        assert screen.close() == 130
    assert told == ["the daemon went away while it was asked: it is waited for"]
