"""A real daemon with real keepers: lives of jobs, restarts, kills at every named point."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tandem.core.errors import DaemonError, TandemError
from tandem.core.machine import discover
from tandem.core.process import journal
from tandem.estimate.profile import PhaseProfile, Profile
from tandem.estimate.profiling.store import as_json, save
from tandem.share import crash
from tandem.share.daemon.client import Client
from tandem.share.simulate.replay import replay
from tandem.share.store.lock import named_socket
from tests import disks
from tests.conftest import requires
from tests.core.process.attempts import is_running
from tests.share.conftest import Home, fill
from tests.waiting import until

SLOW = pytest.mark.slow
pytestmark = SLOW  # a daemon's start alone takes more than half a second

NEVER_ENDS = ["sh", "-c", "while :; do sleep 0.05; done"]


def submit(client: Client, *jobs: dict[str, Any]) -> list[int]:
    return [job for made in client.submit(jobs, environ={"PATH": os.environ["PATH"]}) for job in made["ids"]]


def shell(script: str, **more: object) -> dict[str, Any]:
    return {"argv": ["sh", "-c", script], **more}


def text(client: Client, job: int, which: str = "stdout") -> str:
    return Path(client.log_path(job)[which]).read_text()


def running(client: Client, job: int) -> Callable[[], bool]:
    return lambda: bool(client.show(job)["state"] == "running")


def test_profiles_that_cannot_be_read_are_named_once_and_the_others_are_used(home: Home) -> None:
    phase = PhaseProfile("", 1.0, 10.0, 0.02, 1.0)
    fine = save(home.paths.data, Profile("cg", ("cg",), discover().fingerprint, 1, 0.0, 1.0, 0, (phase,)))
    folder = home.paths.data / "profiles" / fine.machine
    told = as_json(fine)
    bad = {
        "half": "{",
        "newer": json.dumps({"format": 99, "profiles": [told]}),
        "huge": json.dumps({"format": 1, "profiles": [{**told, "key": "huge", "cpus": 10**400}]}),
        "surrogate": json.dumps({"format": 1, "profiles": [{**told, "key": "\ud800"}]}),
        "rate": json.dumps({"format": 1, "profiles": [{**told, "phases": [{**told["phases"][0], "rate": "fast"}]}]}),
    }
    for name, text in bad.items():
        (folder / f"{name}.json").write_text(text)
    with home.start().client() as client:
        for _ in range(2):
            client.profiled()
        assert [one["app"] for one in client.profiles()] == ["cg"]
    assert home.stop() == 0
    said = (home.folder / "out").read_text()
    for name in bad:
        assert said.count(f"a profile is left aside: {folder / name}.json cannot be read (") == 1
    assert "rate is 'fast', which is no number" in said


def test_the_life_of_a_few_jobs(home: Home) -> None:
    with home.start().client() as client:
        odd = "na'me\n\"é\\"
        jobs = submit(
            client,
            shell("echo out; echo err >&2; echo $OMP_NUM_THREADS $TANDEM_JOB_ID; exit 3", name=odd, cpus=2),
            {"argv": ["no-such-programme"]},
            shell("kill -9 $$", after="1:any"),
            shell("echo $TANDEM_ARRAY_INDEX", array="4,7"),
            shell("true", after="1"),
        )
        ends = client.wait(jobs)
        assert [(e["state"], e["exit_code"], e["signal"]) for e in ends] == [
            ("failed", 3, 0),
            ("failed", 127, 0),
            ("failed", 0, 9),
            ("done", 0, 0),
            ("done", 0, 0),
            ("cancelled", None, None),
        ]
        assert "no-such-programme" in ends[1]["reason"]
        assert "No such file" in ends[1]["reason"]
        assert "job 1" in ends[5]["reason"]
        assert text(client, 1) == "out\n2 1\n"
        assert text(client, 1, "stderr") == "err\n"
        assert (text(client, 4), text(client, 5)) == ("4\n", "7\n")
        assert Path(client.log_path(1)["stdout"]).stat().st_mode & 0o777 == 0o600
        assert client.show(1)["name"] == odd
        assert {row["id"] for row in client.history()} == set(jobs)
        quoted = client.promises(mine=True)
        assert {(row["job"], row["moment"]) for row in quoted} >= {(1, "submit"), (1, "start")}
        assert until(lambda: not list((home.folder / "attempts").iterdir()), "the attempts to be cleared away")
    assert home.stop() == 0
    assert not home.paths.socket.exists()


def test_jobs_are_stopped_held_and_limited(home: Home) -> None:
    save = "trap 'echo saved; exit 0' USR1; echo ready; while :; do sleep 0.02; done"
    with home.start().client() as client:
        saved, limited, held = submit(
            client,
            shell(save, checkpoint="USR1", grace=20),
            {"argv": NEVER_ENDS, "time": 0.3, "grace": 0.2},
            shell("true", hold=True),
        )
        until(lambda: text(client, saved) == "ready\n" if running(client, saved)() else False, "the trap to be set")
        assert client.cancel([saved]) == [saved]
        ends = client.wait([saved, limited])
        assert [end["state"] for end in ends] == ["cancelled", "timeout"]
        assert text(client, saved) == "ready\nsaved\n"
        assert client.show(held)["state"] == "held"
        assert "held" in client.show(held)["why"]
        client.release([held])
        assert client.wait([held])[0]["state"] == "done"
        stubborn = submit(client, shell("trap '' TERM; while :; do :; done", grace=0.2))
        until(running(client, stubborn[0]), "the start")
        client.cancel(every=True)
        assert client.wait(stubborn)[0]["signal"] == signal.SIGKILL


def test_a_killed_daemon_loses_nothing_it_acknowledged_and_jobs_run_on(home: Home) -> None:
    with home.start().client() as client:
        runs, ends, waits = submit(
            client,
            shell("while [ ! -e go ]; do sleep 0.02; done; echo done", cwd=str(home.folder)),
            shell("true"),
            shell("echo after", after="1"),
        )
        until(running(client, runs), "the start")
        client.wait([ends])
        pid = Path(f"{home.folder}/attempts/{runs}.1/journal").read_text().split("pid ")[1].split()[0]
        more = submit(client, *[shell("true") for _ in range(5)])
    home.kill()
    assert Path(f"/proc/{pid}").exists()
    with home.start().client() as client:
        assert client.show(runs)["state"] == "running"
        assert client.show(runs)["attempt"] == 1
        (home.folder / "go").touch()
        assert {end["state"] for end in client.wait([runs, waits, *more])} == {"done"}
        assert (text(client, runs), text(client, waits)) == ("done\n", "after\n")
        log = list(client.log())
    assert home.stop() == 0
    replayed = replay(log)
    assert replayed.epochs == 2
    assert replayed.decisions >= 8
    assert not replayed.differences


def test_an_end_while_no_daemon_runs_is_not_missed(home: Home) -> None:
    with home.start().client() as client:
        [job] = submit(client, shell("while [ ! -e go ]; do sleep 0.02; done; exit 7", cwd=str(home.folder)))
        until(running(client, job), "the start")
    assert home.stop() == 0
    (home.folder / "go").touch()
    attempt = home.folder / "attempts" / f"{job}.1"
    until(lambda: journal.state(attempt) == "ended", "the end")
    ended_at = journal.read(attempt).ended_at
    assert ended_at is not None
    time.sleep(1.5)
    with home.start().client() as client:
        assert client.wait([job])[0]["exit_code"] == 7
        assert client.show(job)["ended_at"] == pytest.approx(ended_at, abs=0.01)  # and not when it was noticed


def test_a_time_limit_is_held_without_a_daemon_and_the_next_one_says_so(home: Home) -> None:
    obeys, lingers = "trap 'exit 0' TERM", "trap 'while [ ! -e go ]; do sleep 0.02; done; exit 0' TERM"
    loop = "echo ready; while :; do sleep 0.02; done"
    with home.start().client() as client:
        jobs = submit(
            client,
            shell(f"{obeys}; {loop}", time=3, grace=60),
            shell(f"{lingers}; {loop}", time=3, grace=120, cwd=str(home.folder)),
        )
        for job in jobs:
            until(lambda job=job: running(client, job)() and text(client, job) == "ready\n", "the traps to be set")
    home.kill()
    fates = [home.folder / "attempts" / f"{job}.1" for job in jobs]
    until(lambda: journal.read(fates[0]).ended and journal.read(fates[1]).timed_out_at, "the limits to be held")
    ended_at = journal.read(fates[0]).ended_at
    with home.start().client() as client:
        assert client.wait(jobs[:1])
        (home.folder / "go").touch()
        ends = client.wait(jobs)
        assert [(end["state"], end["exit_code"], end["signal"]) for end in ends] == [("timeout", 0, 0)] * 2
        assert {end["reason"] for end in ends} == {"its time limit of 3 s is over"}
        assert ends[0]["ended_at"] == pytest.approx(ended_at, abs=0.01)
        log = list(client.log())
    assert not replay(log).differences


def test_a_suspended_job_goes_on_without_a_daemon_and_the_next_one_counts_it(home: Home) -> None:
    count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
    with home.start("--engine-set", "cores=0").client() as client:
        [harvest] = submit(client, shell(count, **{"class": "harvest", "expected": 60}))
        until(running(client, harvest), "the start")
        [primary] = submit(client, shell("while [ ! -e go ]; do sleep 0.02; done", cwd=str(home.folder), expected=5))
        until(lambda: client.show(harvest)["state"] == "suspended" and running(client, primary)(), "the suspension")
        stood = text(client, harvest)
        output = Path(client.log_path(harvest)["stdout"])
    assert home.stop() == 0
    told = (home.folder / "out").read_text().splitlines()[-1]
    assert told.endswith("stopped by SIGTERM; runs on: 1 job; goes on once no other job holds a core: 1 suspended job")
    attempt = home.folder / "attempts" / f"{harvest}.1"
    assert journal.read(attempt).continued_at is None
    assert output.read_text() == stood
    (home.folder / "go").touch()
    went_on = until(lambda: journal.read(attempt).continued_at, "the job to go on")
    until(lambda: output.read_text() != stood, "the job to go on")
    with home.start("--engine-set", "cores=0").client() as client:
        until(running(client, harvest), "the job to be resumed")  # it was suspended anew, for a moment
        assert client.wait([primary])[0]["state"] == "done"
        assert client.show(harvest)["attempt"] == 1
        log = list(client.log())
        [alone] = [one for one in client.show(harvest)["coruns"] if one["began_at"] == went_on]
        assert alone["beside"] == []
        client.down(kill=True)
    assert "WentOn" in str(log)
    assert not replay(log).differences


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_stops_the_daemon_unless_that_is_ignored(home: Home, ignored: bool) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)  # a daemon inherits it
    try:
        home.start()
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with home.client() as client:
        submit(client, shell("true", hold=True))
        assert home.process is not None
        home.process.send_signal(signal.SIGHUP)
        if ignored:
            client.down(kill=True)
    assert home.process.wait(60) == 0
    assert not home.paths.socket.exists()
    told = (home.folder / "out").read_text().splitlines()[-1]
    assert told.endswith(": stopped" if ignored else "stopped by SIGHUP; waits for the next daemon: 1 job")


def test_a_job_whose_keeper_was_killed_is_lost_or_retried(home: Home) -> None:
    with home.start().client() as client:
        jobs = submit(client, {"argv": NEVER_ENDS}, {"argv": NEVER_ENDS, "retries": 1})
        for job in jobs:
            until(running(client, job), "the start")
            keeper = journal.read(home.folder / "attempts" / f"{job}.1").keeper
            assert keeper is not None
            os.kill(keeper.pid, signal.SIGKILL)
        [lost] = client.wait(jobs[:1])
        assert lost["state"] == "lost"
        until(lambda: client.show(jobs[1])["attempt"] == 2 and running(client, jobs[1])(), "the second attempt")
        client.cancel(jobs[1:])
        assert client.wait(jobs[1:])[0]["state"] == "cancelled"


def test_a_keeper_that_was_killed_with_the_daemon_takes_no_other_job_with_it(home: Home) -> None:
    with home.start("--engine-set", "cores=0-1").client() as client:
        [lost, other] = submit(client, {"argv": NEVER_ENDS}, {"argv": NEVER_ENDS})
        until(lambda: running(client, lost)() and running(client, other)(), "the start of both")
        keeper = journal.read(home.folder / "attempts" / f"{lost}.1").keeper
        assert keeper is not None
    home.kill()
    os.kill(keeper.pid, signal.SIGKILL)
    with home.start("--engine-set", "cores=0-1").client() as client:
        assert client.wait([lost])[0]["state"] == "lost"
        process = journal.read(home.folder / "attempts" / f"{other}.1").process
        assert process is not None
        assert Path(f"/proc/{process.pid}").exists()
        assert running(client, other)()
        client.down(kill=True)


def test_a_job_whose_attempt_folder_is_gone_is_lost_and_runs_on_nowhere(home: Home) -> None:
    with home.start().client() as client:
        [job] = submit(client, {"argv": NEVER_ENDS})
        until(running(client, job), "the start")
        process = journal.read(home.folder / "attempts" / f"{job}.1").process
        assert process is not None
    home.kill()
    shutil.rmtree(home.folder / "attempts" / f"{job}.1")
    with home.start().client() as client:
        [lost] = client.wait([job])
        assert lost["state"] == "lost"
        assert "journal of its keeper is gone" in lost["reason"]
        until(lambda: not is_running(process.pid), "the end of what was left")
        assert client.wait(submit(client, shell("true", cpus=os.cpu_count())))[0]["state"] == "done"


class Lines:
    """Jobs that each append their id to one file: who ran, and how often."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.path = home.folder / "ran"
        self.path.touch()

    def job(self, **more: object) -> dict[str, Any]:
        return shell(f"echo $TANDEM_JOB_ID >> {self.path}", **more)

    def check(self, jobs: list[int]) -> None:
        """Every job ended well, exactly once, and ran exactly once."""
        with self.home.client() as client:
            ends = client.wait(jobs)
            log = list(client.log())
        assert Counter(end["state"] for end in ends) == {"done": len(jobs)}
        assert Counter(map(int, self.path.read_text().split())) == dict.fromkeys(jobs, 1)
        told = Counter(e["job"] for entry in log for e in entry.get("events", ()) if e["is"] == "Ended")
        assert told == dict.fromkeys(jobs, 1)
        assert not replay(log).differences


@pytest.mark.parametrize("point", crash.POINTS)
def test_killed_at_a_named_point_no_job_is_lost_or_run_twice(home: Home, point: str) -> None:
    home.folder.mkdir()
    lines = Lines(home)
    with home.start().client() as client:
        jobs = submit(client, lines.job(hold=True), lines.job(hold=True), lines.job(after="1,2"))
    home.stop()
    home.start(**{crash.VARIABLE: point})
    try:
        with home.client() as client:
            client.release([1, 2])
            client.wait(jobs)
    except DaemonError:
        pass
    assert home.process is not None
    assert home.process.wait(60) == -signal.SIGKILL
    with home.start().client() as client:
        for job in jobs[:2]:
            if client.show(job)["state"] == "held":  # the crash came before the release was acknowledged
                client.release([job])
    lines.check(jobs)


def test_killed_at_random_moments_no_job_is_lost_or_run_twice(home: Home) -> None:
    home.folder.mkdir()
    lines = Lines(home)
    dice = random.Random(1)
    jobs: list[int] = []
    home.start()
    for _ in range(50):
        with home.client() as client:
            jobs += submit(client, *[lines.job() for _ in range(4)])
            aim = dice.randrange(12)
            for seen, _ in enumerate(client.watch()):  # a random number of steps further
                if seen > aim or not live(home):
                    break
        home.kill()
        home.start()
    assert len(jobs) == 200
    lines.check(jobs)


def live(home: Home) -> list[Any]:
    """The queue, asked on a connection of its own."""
    with home.client() as client:
        return client.queue()


def test_a_second_daemon_is_refused(make_home: Callable[..., Home]) -> None:
    home = make_home().start()
    assert home.process is not None
    words = [sys.executable, "-m", "tandem.share.daemon"]
    second = subprocess.run(words, env=home.env, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert f"process {home.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert home.answers()


@pytest.mark.parametrize("socket", ["removed", "there"])
def test_a_daemon_whose_lock_is_removed_stays_the_only_one(home: Home, socket: str) -> None:
    home.start()
    assert home.process is not None
    with home.client() as client:
        waits, runs = submit(client, shell("true", hold=True), {"argv": NEVER_ENDS})
        until(running(client, runs), "the start")
    home.paths.lock.unlink()
    if socket == "removed":
        home.paths.socket.unlink()
    words = [sys.executable, "-m", "tandem.share.daemon"]
    second = subprocess.run(words, env=home.env, capture_output=True, text=True, timeout=60, check=False)
    assert f"process {home.process.pid}" in second.stderr
    with Client.connect(paths=home.paths) as client:  # which would start one, if none ran
        assert client.call("ping")["pid"] == home.process.pid
        assert {view["id"] for view in client.queue()} == {waits, runs}
    until(home.paths.lock.exists, "the lock's file to be made again")
    until(lambda: named_socket(home.paths, home.process.pid) == home.paths.socket, "its process in it")


def test_a_daemon_is_found_from_a_session_with_another_runtime_folder(home: Home, tmp_path: Path) -> None:
    run = tmp_path / "run"
    here, there = home.paths.socket, run / "tandem" / "tandem.sock"
    run.mkdir()
    home.start("--home", str(home.folder), "--socket", str(there))
    assert home.process is not None
    elsewhere = replace(home.paths, socket=tmp_path / "other" / "tandem.sock")
    for places in (home.paths, elsewhere, replace(home.paths, socket=there)):
        with Client.connect(paths=places) as client:  # which would start one, if none ran
            assert client.call("ping")["pid"] == home.process.pid
    shutil.rmtree(run)
    run.touch()  # the last session has ended: the folder cannot be made again
    until(lambda: named_socket(home.paths, home.process.pid) == here, "the lock to name another socket")
    for places in (home.paths, elsewhere):
        with Client.connect(start=False, paths=places) as client:
            assert client.call("ping")["pid"] == home.process.pid
            assert client.doctor()["socket"] == str(here)


def test_a_daemon_ends_when_its_data_folder_is_moved_and_the_next_one_there_goes_on(
    make_home: Callable[..., Home], tmp_path: Path
) -> None:
    first, moved, gate = make_home("home").start(), make_home("moved"), tmp_path / "gate"
    assert first.process is not None
    with first.client() as client:
        gated = shell(f"echo first; while ! test -e {gate}; do sleep 0.05; done")
        [job, next_] = submit(client, gated, shell("echo next", hold=True))
        until(running(client, job), "the start")
        first.process.send_signal(signal.SIGSTOP)
        first.folder.rename(moved.folder)
        with moved.client() as there:
            asked = [(there, there.send("queue")), (client, client.send("wait", jobs=[job]))]
            first.process.send_signal(signal.SIGCONT)
            for each, key in asked:
                with pytest.raises(
                    DaemonError, match=f"{first.folder} is no longer the folder.*ask again where it is now"
                ):
                    each.receive(key)
    assert first.process.wait(60) == 2
    assert f"{first.folder} is no longer the folder" in (moved.folder / "out").read_text()
    assert not first.folder.exists(), "nothing was made at the path that it had"
    with first.start().client() as client:  # another one's job of the same number, which ends first
        [other] = submit(client, shell("true"))
        assert (other, client.wait([other])[0]["state"]) == (job, "done")
    with moved.start().client() as client:
        assert client.show(job)["state"] == "running"
        assert text(client, job) == "first\n"
        client.release([next_])  # it had not started
        gate.touch()
        assert [end["state"] for end in client.wait([job, next_])] == ["done", "done"]
        assert text(client, next_) == "next\n"
        assert client.show(next_)["run_dir"] == str(moved.paths.job_dir(next_))


def test_the_first_client_starts_the_daemon_once(home: Home) -> None:
    script = "from tandem.share.daemon.client import Client; print(Client.connect().call('ping')['pid'])"
    words = [sys.executable, "-c", script]
    clients = [subprocess.Popen(words, env=home.env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    pids = {client.communicate(timeout=60)[0].strip() for client in clients}
    assert len(pids) == 1
    with home.client() as client:
        client.down()
    assert not home.answers()


def test_a_daemon_that_cannot_start_says_why(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LOCK_DIR", home.env["TANDEM_LOCK_DIR"])
    with pytest.raises(DaemonError, match="did you mean 'hybrid'"):
        Client.connect(paths=home.paths, options=["--policy", "hybird"])
    home.paths.database.write_bytes(b"no database" * 1000)
    with pytest.raises(DaemonError, match="corrupted"):
        Client.connect(paths=home.paths)


def test_down_can_take_all_jobs_with_it(home: Home) -> None:
    with home.start().client() as client:
        jobs = submit(client, {"argv": NEVER_ENDS}, {"argv": NEVER_ENDS, "hold": True})
        until(running(client, jobs[0]), "the start")
        client.down(kill=True)
    assert home.process is not None
    assert home.process.wait(60) == 0
    with home.start().client() as client:
        assert [end["state"] for end in client.wait(jobs)] == ["cancelled", "cancelled"]
        assert client.queue() == []


def test_down_returns_when_the_process_has_ended(home: Home, tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()  # the interpreter takes its time to end
    (tmp_path / "slow" / "sitecustomize.py").write_text("import atexit, time; atexit.register(time.sleep, 0.5)\n")
    with home.start(PYTHONPATH=str(tmp_path / "slow")).client() as client:
        client.down(kill=True)
    assert home.ended()


def test_a_flood_of_output_goes_to_the_file(home: Home) -> None:
    megabytes = 1024
    with home.start().client() as client:
        [job] = submit(client, shell(f"head -c {megabytes}M /dev/zero"))
        assert client.wait([job])[0]["state"] == "done"
        output = Path(client.log_path(job)["stdout"])
        assert output.stat().st_size == megabytes << 20
        output.unlink()


@pytest.fixture
def small_home(small_disk: Path, make_home: Callable[..., Home]) -> Iterator[Home]:
    """A data folder on a small disk; its jobs end before the disk goes."""
    made = make_home(small_disk.name)
    yield made
    made.clear()


def test_a_full_disk_refuses_submissions_and_harms_no_running_job(small_home: Home, tmp_path: Path) -> None:
    with small_home.start().client() as client:
        go = tmp_path / "go"
        [job] = submit(client, shell(f"while [ ! -e {go} ]; do sleep 0.02; done; exit 5", stdout="/dev/null"))
        until(running(client, job), "the start")
        ballast = fill(small_home.folder)
        with pytest.raises(TandemError, match="no room left"):
            submit(client, shell("true"))
        assert client.show(job)["state"] == "running"
        assert "no room left" in client.call("doctor")["store"]
        go.touch()
        assert client.wait([job])[0]["exit_code"] == 5
        ballast.unlink()
        done = until(lambda: _accepted(client), "room for submissions")
        assert client.wait(done)[0]["state"] == "done"
        assert not replay(list(client.log())).differences
    assert small_home.stop() == 0


@requires("root")
def test_where_no_more_files_can_be_made_nothing_is_taken_in_and_what_waits_goes_on_waiting(
    make_home: Callable[..., Home], tmp_path: Path
) -> None:
    with disks.small(tmp_path / "few", 16, files=400) as folder:
        home = make_home(folder.name)
        with home.start("--engine-set", "cores=0").client() as client:
            go = tmp_path / "go"
            gate = f"while [ ! -e {go} ]; do sleep 0.02; done; exit 5"
            runs, waits = submit(client, shell(gate, stdout="/dev/null"), shell("echo here"))
            until(running(client, runs), "the start")
            ballast = [folder / str(k) for k in range(400)]
            with contextlib.suppress(OSError):
                for path in ballast:
                    path.touch()
            for path in [path for path in ballast if path.exists()][:6]:  # a start may find some
                path.unlink()
            with pytest.raises(TandemError, match=r"no room left on the disk of .* \([0-9]+ files more\)"):
                submit(client, shell("true"))
            go.touch()
            assert client.wait([runs])[0]["exit_code"] == 5
            until(lambda: "disk" in client.show(waits)["why"], "its turn")
            assert client.show(waits)["state"] == "queued"
            for path in ballast:
                path.unlink(missing_ok=True)
            assert client.wait([waits])[0]["state"] == "done"
        assert home.stop() == 0


def test_jobs_that_fill_the_disk_can_be_cancelled_and_reach_their_time_limit(small_home: Home) -> None:
    hog = "while :; do cat /dev/zero >> $TANDEM_RUN_DIR/hog; sleep 0.01; done"  # takes all room that comes free
    with small_home.start("--engine-set", "cores=0-1").client() as client:
        cancelled, limited, waiting = submit(
            client,
            shell(hog, stderr="/dev/null"),
            shell(hog, stderr="/dev/null", time=3.0, grace=0.2),
            shell("true", cpus=2),
        )
        until(lambda: _accepted(client, hold=True) == [], "the disk to be full")
        assert client.cancel([cancelled]) == [cancelled]
        ends = client.wait([cancelled, limited])
        assert [end["state"] for end in ends] == ["cancelled", "timeout"]
        assert "disk" in client.show(waiting)["why"]  # its cores are free, but its start could not be stored
        assert client.show(waiting)["state"] == "queued"
        small_home.kill()
    with small_home.start().client() as client:  # what was stored on the full disk is there
        assert [end["state"] for end in client.wait([cancelled, limited])] == ["cancelled", "timeout"]
        hogs = list((small_home.folder / "jobs").glob("*/hog"))
        assert hogs  # one may have taken all the room before the other had begun its file
        for hog in hogs:
            hog.unlink()
        assert client.wait([waiting])[0]["state"] == "done"
        assert not replay(list(client.log())).differences


def _accepted(client: Client, **more: object) -> list[int]:
    try:
        return submit(client, shell("true", **more))
    except TandemError:
        return []
