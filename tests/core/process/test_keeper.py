"""The life of a job under its keeper."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tandem.core.process import cgroups, journal, locks
from tandem.core.process import keeper as keepers
from tandem.core.process.cgroups import Layout, Shares
from tandem.core.process.spec import JobSpecError, Limits, Locks, Output, Spec, TimeLimit
from tests.conftest import requires
from tests.core.process.attempts import (
    ENV,
    Attempt,
    Launch,
    cpu_s,
    is_running,
    number_in,
    observe,
    state_of,
)
from tests.waiting import until

BUSY = "while :; do :; done"


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def group_of(layout: Layout, attempt: Attempt, controller: str) -> Path:
    return layout.v1[controller] / cgroups.PARENT_NAME / attempt.folder.name


def test_runs_to_its_true_exit_code_and_leaves_nothing(launch: Launch, layout: Layout) -> None:
    attempt = launch(*sh("exit 3"), layout=layout, shares=Shares(cores=(0,), memory_bytes=1 << 28))
    started = attempt.message("started")
    ended = attempt.message("ended")
    fate = attempt.end()
    assert (fate.exit_code, fate.signal) == (3, 0)
    assert fate.process is not None
    assert started.text.split()[0] == str(fate.process.pid)
    assert ended.durable
    assert (ended.fate.exit_code, ended.fate.usage) == (3, fate.usage)
    assert attempt.keeper.returncode == 0
    assert journal.state(attempt.folder) == "ended"
    assert [path.name for path in attempt.folder.iterdir()] == ["journal"]
    assert not [group for parent in layout.parents() for group in parent.glob(attempt.folder.name)]


def test_a_signal_is_told_as_a_signal(launch: Launch) -> None:
    fate = launch(*sh("kill -SEGV $$")).end()
    assert (fate.exit_code, fate.signal) == (-1, signal.SIGSEGV)


def test_usage_counts_what_the_job_used(launch: Launch) -> None:
    fate = launch(*sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")).end()
    assert fate.usage is not None
    assert 0.01 < fate.usage.user_s < 20
    assert fate.usage.max_rss_bytes > 100_000
    assert fate.started_at is not None
    assert fate.ended_at is not None
    assert fate.ended_at > fate.started_at


def test_the_job_gets_exactly_its_arguments_and_environment(launch: Launch, tmp_path: Path) -> None:
    odd = ["", "a b", "quote'\"", "line\nend", "ü€😀", "-n", "x=y="]
    env = {"PATH": ENV["PATH"], "LINES": "one\ntwo", "EMPTY": "", "UMLAUT": "äöü"}
    out = tmp_path / "o"
    spec = Spec(argv=("printf", "%s\\0", *odd), env=env, output=Output(stdout=str(out)))
    assert launch(spec=spec).end().exit_code == 0
    assert out.read_bytes().decode().split("\0")[:-1] == odd
    out.unlink()
    attempt = launch(spec=Spec(argv=("env", "-0"), env=env, output=Output(stdout=str(out))))
    attempt.end()
    expected = {*(f"{k}={v}" for k, v in env.items()), f"TANDEM_ATTEMPT={attempt.folder}"}
    assert set(out.read_text().split("\0")[:-1]) == expected


def test_the_job_starts_clean(launch: Launch, tmp_path: Path) -> None:
    """Own session, no foreign descriptors, default signals, the cores, umask, niceness and limits asked for."""
    cwd = tmp_path / "a b"
    cwd.mkdir()
    script = "ls /proc/self/fd | wc -l; pwd; umask; ulimit -n; nice; cat; cut -d' ' -f6 /proc/$$/stat; echo $$"
    spec = Spec(
        argv=sh(f"{script}; exec cat /proc/self/status"),  # by exec: a shell blocks signals for a moment when it forks
        env=ENV,
        cwd=str(cwd),
        cores=(0,),
        output=Output(stdout=str(tmp_path / "o")),
        limits=Limits(nice=3, umask=0o027, rlimits={7: (123, 456)}),
    )
    with open(os.devnull) as leak:  # noqa: PTH123 - a descriptor that must not leak
        os.set_inheritable(leak.fileno(), True)
        assert launch(spec=spec).end().exit_code == 0
    lines = (tmp_path / "o").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines[7:] if ":\t" in line)
    assert lines[:5] == ["4", str(cwd), "0027", "123", str(os.nice(0) + 3)]
    assert lines[5] == lines[6]  # leader of its own session
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & 0x7FFFFFFF == 0
    assert status["Cpus_allowed_list"].strip() == "0"


def test_output_of_100_mb_is_unharmed_and_private(launch: Launch, tmp_path: Path) -> None:
    out = tmp_path / "big"
    spec = Spec(argv=sh("yes tandem | head -c 100000000"), env=ENV, output=Output(stdout=str(out)))
    assert launch(spec=spec).end().exit_code == 0
    assert out.stat().st_size == 100_000_000
    assert out.stat().st_mode & 0o777 == 0o600
    with out.open("rb") as file:
        assert all(chunk == b"tandem\n" * 1000 for chunk in iter(lambda: file.read(7000), b"") if len(chunk) == 7000)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002, 0o077, 0])
@pytest.mark.parametrize("by_umask", [False, True])
def test_output_is_private_or_as_a_redirection_makes_it(
    launch: Launch, tmp_path: Path, umask: int, by_umask: bool
) -> None:
    out, err, shell = tmp_path / "out", tmp_path / "err", tmp_path / "shell"
    output = Output(stdout=str(out), stderr=str(err), open_as_user=True, stdout_by_umask=by_umask)
    spec = Spec(argv=sh(f"umask; : > {shell}"), env=ENV, output=output, limits=Limits(umask=umask))
    assert launch(spec=spec).end().exit_code == 0
    assert int(out.read_text(), 8) == umask
    assert shell.stat().st_mode & 0o777 == 0o666 & ~umask
    assert out.stat().st_mode == (shell.stat().st_mode if by_umask else 0o100600)
    assert err.stat().st_mode == 0o100600


@pytest.mark.parametrize(
    ("change", "number", "reason"),
    [
        ({"argv": ("no-such-program",)}, 2, "cannot execute 'no-such-program'"),
        ({"argv": ("/etc/passwd",)}, 13, "cannot execute '/etc/passwd'"),
        ({"argv": ("/",)}, 13, "cannot execute '/'"),
        ({"cwd": "/no/such"}, 2, "cannot enter the directory '/no/such'"),
        ({"output": Output(stdout="/no/such/file")}, 2, "cannot open the output '/no/such/file'"),
        ({"cores": (8000,)}, 22, "cannot run on the cores '8000'"),
    ],
)
def test_why_it_could_not_execute(launch: Launch, change: dict[str, object], number: int, reason: str) -> None:
    spec = Spec(**{"argv": ("true",), "env": ENV, **change})  # type: ignore[arg-type]
    attempt = launch(spec=spec)
    ended = attempt.message("ended")
    fate = attempt.end()
    assert fate.exec_error is not None
    assert fate.exec_error[0] == number
    assert reason in fate.exec_error[1]
    assert ended.fate.exec_error == fate.exec_error
    assert fate.exit_code is None
    assert journal.state(attempt.folder) == "ended"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda path: path.symlink_to("/dev/null"), "open the output '{}': it is a link"),
        (os.mkfifo, "open the output '{}': it is a pipe"),
        (Path.mkdir, "open the output '{}': it is a folder"),
        (
            lambda path: path.hardlink_to(shutil.copy(__file__, f"{path}2")),
            "use as an output '{}': it has several names",
        ),
    ],
    ids=["link", "pipe", "folder", "names"],
)
def test_what_is_never_an_output_is_named(
    launch: Launch, tmp_path: Path, made: Callable[[Path], object], why: str
) -> None:
    out = tmp_path / "out"
    made(out)
    fate = launch(spec=Spec(argv=("true",), env=ENV, output=Output(stdout=str(out)))).end()
    assert fate.exec_error is not None
    assert fate.exec_error[1] == f"cannot {why.format(out)}"


def test_a_missing_interpreter_is_named(launch: Launch, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    fate = launch(str(script)).end()
    assert fate.exec_error is not None
    assert fate.exec_error[1].startswith("cannot find the interpreter of")


def test_outputs_are_never_opened_through_links_or_pipes(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        fate = launch(spec=Spec(argv=("true",), env=ENV, output=Output(stdout=str(tmp_path / name)))).end()
        assert fate.exec_error is not None
        assert "output" in fate.exec_error[1]
    assert not (tmp_path / "target").exists()


def test_an_attempt_is_never_started_twice(launch: Launch, command: tuple[str, ...], tmp_path: Path) -> None:
    attempt = launch(*sh(f"echo once >> {tmp_path}/runs; exec sleep 1000"))
    attempt.message("started")
    before = (attempt.folder / "journal").read_bytes()
    with keepers.start(attempt.folder, command=command) as second:
        assert until(lambda: second.recv(), "the end of the second keeper").kind == "gone"
        assert second.wait() == 75
    assert (attempt.folder / "journal").read_bytes() == before
    assert sorted(path.name for path in attempt.folder.iterdir()) == ["ctl", "journal"]
    attempt.command("kill")
    attempt.end()
    with keepers.start(attempt.folder, command=command) as third:
        assert third.wait() == 75
    assert (tmp_path / "runs").read_text() == "once\n"
    with pytest.raises(JobSpecError, match="number a new attempt"):
        keepers.prepare(Spec(argv=("true",)), attempt.folder)


def test_commands(launch: Launch, tmp_path: Path) -> None:
    traps = f"trap 'echo usr1 >> {tmp_path}/got' USR1; trap 'echo term >> {tmp_path}/got; exit 7' TERM"
    attempt = launch(*sh(f"{traps}; echo $$ > {tmp_path}/pid; {BUSY}"))
    number_in(tmp_path / "pid")
    assert attempt.command("ping").text.startswith(f"ping pid={attempt.pid} ended=0 suspended=0 throttle=1")
    assert attempt.command("signal 10").kind == "ok"
    until(lambda: (tmp_path / "got").exists() and (tmp_path / "got").read_text() == "usr1\n", "USR1")
    for wrong in (
        "signal",
        "signal 0",
        "signal 65",
        "signal x",
        "throttle 0",
        "throttle 2",
        "throttle",
        "pin x",
        "pin",
        "dance",
        " ",
        "kill 1 2",
    ):
        assert attempt.command(wrong).kind == "error", wrong
    assert attempt.command("term").kind == "ok"
    assert attempt.end().exit_code == 7
    assert (tmp_path / "got").read_text() == "usr1\nterm\n"


def test_kill_reaches_the_whole_tree(launch: Launch, layout: Layout, tmp_path: Path) -> None:
    """Also a daemon that left the session and was forked twice."""
    daemon = f"(setsid sh -c 'sleep 1000 & echo $! > {tmp_path}/daemon; exec sleep 1001' &)"
    attempt = launch(*sh(f"{daemon}; sleep 1002 & echo $! > {tmp_path}/child; wait"), layout=layout)
    pids = [number_in(tmp_path / "daemon"), number_in(tmp_path / "child")]
    assert attempt.command("kill").kind == "ok"
    assert attempt.end().signal == signal.SIGKILL
    assert not [pid for pid in pids if is_running(pid)]


def test_the_end_of_the_main_process_ends_its_daemons(launch: Launch, layout: Layout, tmp_path: Path) -> None:
    daemon = f"(setsid sh -c 'sleep 1000 & echo $! > {tmp_path}/daemon; wait' &)"
    attempt = launch(*sh(f"{daemon}; while [ ! -s {tmp_path}/daemon ]; do :; done; exit 5"), layout=layout)
    assert attempt.end().exit_code == 5
    assert not is_running(number_in(tmp_path / "daemon"))


def test_a_fork_bomb_does_not_escape(launch: Launch, layout: Layout, tmp_path: Path) -> None:
    """Every generation leaves the session, forks its successors and dies."""
    bomb = tmp_path / "bomb"
    bomb.write_text(f"#!/bin/sh\necho x >> {tmp_path}/count\nsetsid {bomb} &\nsleep 0.05\n")
    bomb.chmod(0o755)
    attempt = launch(*sh(f"for i in 1 2 3 4 5; do {bomb} & done; sleep 1000"), layout=layout)
    until(lambda: (tmp_path / "count").exists() and (tmp_path / "count").stat().st_size > 40, "some generations")
    attempt.command("kill")
    attempt.end()
    mark = f"TANDEM_ATTEMPT={attempt.folder}".encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if marked(path, mark)]


def marked(environ: Path, mark: bytes) -> bool:
    try:
        return mark in environ.read_bytes()
    except OSError:
        return False


def test_suspend_stops_all_cpu_time_and_resume_continues(launch: Launch, layout: Layout, tmp_path: Path) -> None:
    attempt = launch(*sh(f"(setsid sh -c 'echo $$ > {tmp_path}/inner; {BUSY}' &) ; {BUSY}"), layout=layout)
    pids = [attempt.pid, number_in(tmp_path / "inner")]
    until(lambda: all(cpu_s(pid) > 0.05 for pid in pids), "both to run")
    assert attempt.command("suspend").kind == "ok"
    before = [cpu_s(pid) for pid in pids]
    observe(lambda: None, 0.3)
    assert [cpu_s(pid) for pid in pids] == before
    assert "suspended=1" in attempt.command("ping").text
    assert attempt.command("resume").kind == "ok"
    until(lambda: all(cpu_s(pid) > was for pid, was in zip(pids, before, strict=True)), "both to run on")
    attempt.command("kill")
    assert attempt.end().signal == signal.SIGKILL


@pytest.mark.parametrize("held", ["suspend", "throttle 0.01"])
def test_kill_works_in_every_state(launch: Launch, layout: Layout, held: str) -> None:
    attempt = launch(*sh(f"sleep 1000 & {BUSY}"), layout=layout)
    attempt.message("started")
    assert attempt.command(held).kind == "ok"
    assert attempt.command("kill").kind == "ok"
    assert attempt.end().signal == signal.SIGKILL


def test_term_wakes_a_suspended_job(launch: Launch, layout: Layout, tmp_path: Path) -> None:
    attempt = launch(*sh(f"trap 'exit 9' TERM; echo $$ > {tmp_path}/ready; {BUSY}"), layout=layout)
    number_in(tmp_path / "ready")
    attempt.command("suspend")
    assert attempt.command("term").kind == "ok"
    assert attempt.end().exit_code == 9


def test_a_signal_wakes_a_suspended_job_though_others_have_its_core(
    launch: Launch, command: tuple[str, ...], tmp_path: Path
) -> None:
    """It asks the job to save its state and end; whoever has the core had it suspended."""
    cores = tmp_path / "cores"
    cores.touch()
    held = Locks(core_file=str(cores))
    script = sh(f"trap 'exit 9' USR1; echo $$ > {tmp_path}/ready; {BUSY}")
    attempt = launch(spec=Spec(argv=script, env=ENV, cores=(0,), locks=held))
    number_in(tmp_path / "ready")
    assert attempt.command("suspend").kind == "ok"
    other = launch(spec=Spec(argv=sh(BUSY), env=ENV, cores=(0,), locks=held))
    other.message("started")
    assert attempt.command("resume").text.startswith("resume busy")
    assert attempt.command(f"signal {int(signal.SIGUSR1)}").kind == "ok"
    assert attempt.end().exit_code == 9


@pytest.mark.slow
def test_throttle_gives_about_its_share(launch: Launch, layout: Layout) -> None:
    attempt = launch(*sh(BUSY), layout=layout, shares=Shares(cores=(0,)))
    pid = attempt.pid
    attempt.message("started")
    assert attempt.command("throttle 0.25").kind == "ok"
    before = cpu_s(pid)
    states = observe(lambda: state_of(pid), 2.0)
    used = (cpu_s(pid) - before) / 2.0
    assert 0 < used < 0.4
    if layout.kind == "none":  # stood still for three quarters of the time, by its own keeper
        assert 0.55 < states.count("T") / len(states) < 0.95
    else:  # a quarter of 100 ms of one core (on a busy machine the job may get less, and never meet its quota)
        assert (group_of(layout, attempt, "cpu") / "cpu.cfs_quota_us").read_text() == "25000\n"
    assert attempt.command("throttle 1").kind == "ok"
    assert "T" not in observe(lambda: state_of(pid), 0.3)
    if layout.kind != "none":
        assert (group_of(layout, attempt, "cpu") / "cpu.cfs_quota_us").read_text() == "-1\n"


@pytest.mark.slow
@pytest.mark.parametrize("held", ["suspend", "throttle 0.01"])
def test_without_a_scheduler_what_is_held_back_goes_on_once_no_job_holds_a_core(
    launch: Launch, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path / "locks"))
    claim = Locks(core_file=str(locks.lock_file("cores")))
    beside = launch(spec=Spec(argv=("sleep", "1000"), env=ENV, cores=(max(os.sched_getaffinity(0)),), locks=claim))
    beside.message("started")
    steps = cgroups.steps(layout, f"test.{os.getpid()}.alone", Shares(cores=(0,)))
    attempt = launch(spec=Spec(argv=sh(BUSY), env=ENV, cores=(0,), locks=claim, cgroup=steps))
    attempt.message("started")
    assert attempt.command(held).kind == "ok"
    with keepers.adopt(attempt.folder) or pytest.fail("no keeper") as scheduler:
        attempt.message("replaced")
        observe(lambda: None, 1.3)
        assert status(scheduler, held)  # somebody is there who decides
    observe(lambda: None, 1.3)
    with keepers.adopt(attempt.folder) or pytest.fail("no keeper") as scheduler:
        assert status(scheduler, held)  # another job runs
    beside.command("kill")
    beside.end()
    before = cpu_s(attempt.pid)
    until(lambda: cpu_s(attempt.pid) > before + 0.5, "the job to run as fast as it can")
    with keepers.adopt(attempt.folder) or pytest.fail("no keeper") as scheduler:
        assert not status(scheduler, held)
    assert locks.foreign_holders("cores", [0]) == {0}
    assert (attempt.fate.continued_at is not None) == (held == "suspend")  # a throttled one ran all the while


def limited(script: str, run_s: float, grace_s: float, checkpoint: str = "") -> Spec:
    return Spec(argv=sh(script), env=ENV, time_limit=TimeLimit(run_s=run_s, grace_s=grace_s, checkpoint=checkpoint))


@pytest.mark.slow
def test_a_time_limit_is_held_once_no_scheduler_is_there(launch: Launch, tmp_path: Path) -> None:
    traps = f"trap 'echo save >> {tmp_path}/heard' USR1; trap 'echo term >> {tmp_path}/heard; exit 0' TERM"
    attempt = launch(spec=limited(f"{traps}; echo $$ > {tmp_path}/pid; {BUSY}", 0.3, 1.0, "SIGUSR1"))
    number_in(tmp_path / "pid")
    observe(lambda: None, 1.3)
    assert not (tmp_path / "heard").exists()  # that is the scheduler's to do
    with keepers.adopt(attempt.folder) or pytest.fail("no keeper"):
        attempt.message("replaced")
    until(lambda: attempt.fate.ended, "the end")
    assert (tmp_path / "heard").read_text() == "save\nterm\n"
    assert attempt.fate.exit_code == 0
    assert attempt.fate.timed_out_at is not None


@pytest.mark.slow
def test_an_end_at_the_limit_is_carried_through_whoever_comes(launch: Launch) -> None:
    attempt = launch(spec=limited(f"trap '' TERM; {BUSY}", 0.3, 1.5))
    attempt.message("started")
    with keepers.adopt(attempt.folder) or pytest.fail("no keeper"):
        attempt.message("replaced")
    until(lambda: attempt.fate.timed_out_at, "the limit")
    with keepers.adopt(attempt.folder) or pytest.fail("no keeper") as scheduler:
        assert scheduler.send("suspend")
        assert until(scheduler.recv, "an answer").text == "suspend its time limit is over"
        until(lambda: attempt.fate.ended, "the end")
    assert attempt.fate.signal == signal.SIGKILL


@pytest.mark.slow
def test_a_suspended_job_does_not_come_nearer_to_its_limit(launch: Launch, layout: Layout) -> None:
    steps = cgroups.steps(layout, f"test.{os.getpid()}.limited", Shares())
    attempt = launch(spec=replace(limited(BUSY, 1.5, 0.0), cgroup=steps))
    attempt.message("started")
    assert attempt.command("suspend").kind == "ok"
    observe(lambda: None, 0.8)
    assert attempt.command("resume").kind == "ok"
    with keepers.adopt(attempt.folder) or pytest.fail("no keeper"):
        attempt.message("replaced")
    until(lambda: attempt.fate.ended, "the end")
    assert attempt.fate.started_at is not None
    assert attempt.fate.timed_out_at is not None
    assert attempt.fate.timed_out_at - attempt.fate.started_at >= 0.8 + 1.5 - 0.05  # clocks of two kinds


def status(keeper: keepers.Keeper, held: str) -> bool:
    """Whether the keeper says that it holds its job back in this way."""
    assert keeper.send("ping")
    answer = until(keeper.recv, "an answer").text
    return ("suspended=1" if held == "suspend" else "throttle=0.01") in answer


def test_throttling_does_not_wake_a_suspended_job(launch: Launch, layout: Layout) -> None:
    attempt = launch(*sh(BUSY), layout=layout, shares=Shares(cores=(0,)))
    attempt.message("started")
    for command in ("throttle 0.5", "suspend", "throttle 0.7", "throttle 1"):
        assert attempt.command(command).kind == "ok"
    before = cpu_s(attempt.pid)
    observe(lambda: None, 0.25)
    assert cpu_s(attempt.pid) == before
    attempt.command("resume")
    until(lambda: cpu_s(attempt.pid) > before, "the job to run on")


def test_pin_moves_every_thread_and_its_locks(
    launch: Launch, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = launch(*sh(f"sleep 1000 & echo $! > {tmp_path}/child; wait"), layout=layout, shares=Shares(cores=(0,)))
    pids = [attempt.pid, number_in(tmp_path / "child")]
    assert [os.sched_getaffinity(pid) for pid in pids] == [{0}, {0}]
    last = max(os.sched_getaffinity(0))
    assert attempt.command(f"pin {last}").kind == "ok"
    assert [os.sched_getaffinity(pid) for pid in pids] == [{last}, {last}]
    assert attempt.command("pin 8000").kind == "error"
    assert [os.sched_getaffinity(pid) for pid in pids] == [{last}, {last}]
    assert attempt.command("ping").text.endswith(f"cores={last}")


def test_memory_is_limited(launch: Launch, layout: Layout) -> None:
    """A job that wants more than its share is killed where a memory group can be made."""
    attempt = launch(
        *sh("head -c 200000000 /dev/zero | tail -c 199999999 | wc -c"),
        layout=layout,
        shares=Shares(memory_bytes=30 << 20),
    )
    fate = attempt.end()
    out = (attempt.folder.parent / "out").read_text()
    assert fate.ended
    assert (out == "199999999\n") == (layout.kind == "none")


@requires("cgroup")
@pytest.mark.parametrize(("script", "end"), [("exec {}", (-1, 9)), ("{}; exit 5", (5, 0)), ("{}; exit 0", (0, 0))])
def test_a_kill_for_want_of_memory_is_told_durably(launch: Launch, script: str, end: tuple[int, int]) -> None:
    """It is in the journal of a job that did not end well; of one that did, nothing is said."""
    wants = sh(script.format("dd if=/dev/zero of=/dev/null bs=200M count=1"))
    fate = launch(*wants, layout=cgroups.discover(), shares=Shares(memory_bytes=30 << 20)).end()
    assert (fate.exit_code, fate.signal) == end
    assert (fate.memory_kills, fate.memory_limit_bytes) == ((1, 30 << 20) if end != (0, 0) else (0, 0))


def test_a_newer_connection_replaces_the_older(launch: Launch) -> None:
    attempt = launch("sleep", "1000")
    attempt.message("started")
    second = keepers.adopt(attempt.folder)
    assert second is not None
    attempt.message("replaced")
    third = keepers.adopt(attempt.folder)
    assert third is not None
    assert until(second.recv, "the word that it was replaced").kind == "replaced"
    assert until(second.recv, "the end of the connection").kind == "gone"
    third.send("kill")
    kinds = [until(third.recv, "a message").kind for _ in range(3)]
    assert kinds == ["ok", "ended", "gone"]
    second.close()
    third.close()
    assert keepers.adopt(attempt.folder) is None
    assert attempt.fate.signal == signal.SIGKILL


def test_a_bad_spec_is_an_end_with_a_reason(command: tuple[str, ...], tmp_path: Path) -> None:
    for name, content, reason in [
        ("empty", b"", "names no program"),
        ("torn", b"argv=true\0env=A", "cut short"),
        ("unknown", b"argv=true\0colour=blue\0", "bad field colour"),
        ("number", b"argv=true\0uid=-1\0", "bad field uid"),
        ("naked", b"argv\0", "without '='"),
    ]:
        folder = tmp_path / name
        keepers.prepare(Spec(argv=("true",)), folder)
        (folder / "spec").write_bytes(content)
        with keepers.start(folder, command=command) as keeper:
            assert keeper.wait() == 0
        fate = journal.read(folder)
        assert fate.exec_error is not None
        assert reason in fate.exec_error[1]
        assert not (folder / "spec").exists()


def test_a_spec_that_others_can_read_is_refused(command: tuple[str, ...], tmp_path: Path) -> None:
    keepers.prepare(Spec(argv=("true",)), tmp_path / "a")
    (tmp_path / "a" / "spec").chmod(0o644)
    with keepers.start(tmp_path / "a", command=command) as keeper:
        keeper.wait()
    fate = journal.read(tmp_path / "a")
    assert fate.exec_error == (22, "the spec is not a private file of this user")


def test_wrong_usage_has_its_own_exit_code(native: Path, tmp_path: Path) -> None:
    for arguments in ([], ["/no/such"], [str(tmp_path), "x"], [str(tmp_path), "2"]):
        assert os.spawnv(os.P_WAIT, native, [str(native), *arguments]) == 64
