"""What the local engine gives a job: cores, memory, environment, locks; and what it tells of strangers."""

import contextlib
import errno
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest

from tandem.core.clock import VirtualClock
from tandem.core.errors import ConfigError
from tandem.core.gpu import Gpu as FoundGpu
from tandem.core.machine import Core, Hardware
from tandem.core.process import journal, locks
from tandem.core.process.keeper import keeper_path, spawn
from tandem.core.process.spec import Locks, Spec
from tandem.share import events as ev
from tandem.share.engines.local import AGAIN_MOST_S, AGAIN_S
from tandem.share.model import Need, Placement, Share
from tandem.share.node import attempt_spec, bandwidth, local_node
from tandem.share.node.attempt import Attempt
from tandem.share.node.launch import Launch
from tests import disks
from tests.conftest import requires
from tests.contract.test_engines import Stage
from tests.share.conftest import Home
from tests.waiting import until


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path))
    made = Stage("local", tmp_path / "home")
    yield made
    for job in range(1, 5):
        made.engine.execute(ev.StopJob(job, 1, "", 0.0, "the test is over"), None)
    attempts = [made.paths.attempt_dir(job, 1) for job in range(1, 5)]
    until(lambda: [made.engine.poll(), not any(map(journal.keeper_alive, attempts))][1], "the end of all jobs")
    made.engine.close()


def out(stage: Stage, job: int) -> str:
    return (stage.paths.job_dir(job) / "stdout").read_text()


def test_a_job_is_pinned_and_told_how_many_threads(stage: Stage) -> None:
    stage.start(1, "grep Cpus_allowed_list /proc/self/status; echo $OMP_NUM_THREADS $TORCH_NUM_THREADS; umask", core=-1)
    stage.expect(ev.Ended(1, 1))
    core = stage.engine.nodes()[0].cores[-1]
    assert out(stage, 1).split() == ["Cpus_allowed_list:", str(core), "1", "1", "0022"]


@requires("cgroup")
def test_a_job_that_takes_more_memory_than_it_asked_for_is_stopped(stage: Stage) -> None:
    placement = stage.placement()
    share = placement.shares[0]
    small = Placement((Share(share.node, Need(mem_mib=32), share.cores),))
    script = "exec dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null"
    stage.engine.execute(ev.StartJob(1, 1, small), stage.launch(1, script))
    until(lambda: [stage.poll(), _end(stage, 1)][1], "the end")
    end = _end(stage, 1)
    assert end is not None
    assert (end.signal, end.reason) == (signal.SIGKILL, "killed by signal 9: it reached its memory limit of 32MiB")


def _end(stage: Stage, job: int) -> ev.Ended | None:
    return next((event for event in stage.seen if isinstance(event, ev.Ended) and event.job == job), None)


UUIDS = {0: "GPU-a", 1: "GPU-b"}
LAUNCH = Launch(("x",), "/", {"A": "1", "CUDA_VISIBLE_DEVICES": "7"}, {"OMP_NUM_THREADS": "5"}, run_dir="/r")


def test_the_environment_follows_the_placement_but_not_against_the_submission() -> None:
    share = Share("n", Need(cpu_milli=3000, gpus=2), (0, 2, 4), (0, 1))
    env = attempt_spec.environment(9, 2, LAUNCH, share, UUIDS)
    assert env["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    assert (env["OMP_NUM_THREADS"], env["MKL_NUM_THREADS"], env["A"]) == ("5", "3", "1")
    assert (env["TANDEM_JOB_ID"], env["TANDEM_ATTEMPT_NUMBER"], env["TANDEM_RUN_DIR"]) == ("9", "2", "/r")
    assert attempt_spec.environment(9, 2, LAUNCH, Share("n", Need()), UUIDS)["CUDA_VISIBLE_DEVICES"] == ""


def test_fractions_of_a_gpu_take_different_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path))
    third = Share("n", Need(gpu_milli=333), gpus=(1,))
    taken: dict[int, set[int]] = {1: set()}
    for _ in range(3):
        ranges, mine = attempt_spec.gpu_locks(third, taken)
        assert len(mine[1]) == 33
        assert not mine[1] & taken[1]
        assert {lock.first for lock in ranges} == {100 + slot for slot in mine[1]}
        taken[1] |= mine[1]
    whole, _ = attempt_spec.gpu_locks(Share("n", Need(gpus=1), gpus=(0,)), {})
    assert [(lock.first, lock.count) for lock in whole] == [(0, 100)]


@pytest.mark.slow
def test_a_core_that_somebody_else_holds_is_not_given_out(stage: Stage, tmp_path: Path) -> None:
    core = stage.engine.nodes()[0].cores[0]
    held = Locks(core_file=str(locks.lock_file("cores")))
    waits = Spec(argv=("sleep", "100"), env={"PATH": os.environ["PATH"]}, cores=(core,), locks=held)
    with spawn(waits, tmp_path / "stranger") as stranger:
        until(lambda: journal.state(tmp_path / "stranger") == "running", "the stranger")
        stage.start(1, "exit 0")
        why = f"somebody else on this machine holds core {core}"
        stage.expect(ev.StartRefused(1, 1, why))
        node = stage.engine.nodes()[0].id
        assert stage.seen.index(ev.ForeignUse(node, (core,), ())) < stage.seen.index(ev.StartRefused(1, 1, why))
        stranger.send("kill")
        until(lambda: journal.state(tmp_path / "stranger") == "ended", "the stranger's end")
        stranger.wait()
    stage.expect(ev.ForeignUse(node, (), ()))  # looked for every few seconds
    stage.start(2, "exit 0")
    stage.expect(ev.Ended(2, 1))


@pytest.mark.slow
def test_a_core_is_still_held_once_its_lock_file_was_removed(stage: Stage) -> None:
    """The file is looked for every few seconds."""
    core = stage.engine.nodes()[0].cores[0]
    stage.start(1, "exec sleep 1000")
    stage.expect(ev.Started(1, 1))
    stage.poll()
    locks.lock_file("cores").unlink()
    with locks.held([core]):  # who takes it before that
        until(
            lambda: [stage.poll(), stage.engine.describe()["also_held"]][1] == [f"core {core} of job 1"], "the notice"
        )
    until(lambda: [stage.poll(), stage.engine.describe()["also_held"]][1] == [], "the second try")
    assert locks.foreign_holders("cores", [core]) == {core}


def test_a_core_of_a_suspended_job_can_be_used_by_another(stage: Stage) -> None:
    stage.start(1, "while :; do sleep 0.01; done")
    stage.expect(ev.Started(1, 1))
    stage.engine.execute(ev.SuspendJob(1, 1), None)
    stage.expect(ev.SuspendDone(1, 1))
    stage.start(2, "exit 3")
    stage.expect(ev.Ended(2, 1, code=3))
    assert _end(stage, 1) is None  # it stands still all the while


@requires("cgroup")
def test_a_killed_keeper_leaves_no_control_group_behind(stage: Stage) -> None:
    stage.start(1, "sleep 100 & wait")
    stage.expect(ev.Started(1, 1))
    fate = journal.read(stage.paths.attempt_dir(1, 1))
    assert fate.keeper is not None
    assert fate.process is not None
    lines = Path(f"/proc/{fate.process.pid}/cgroup").read_text().splitlines()
    groups = {line.rpartition("/")[2] for line in lines if line.endswith(".1.1")}
    assert len(groups) == 1
    os.kill(fate.keeper.pid, signal.SIGKILL)
    why = "its end is not known: its keeper was killed, or the machine restarted"
    stage.expect(ev.Ended(1, 1, lost=True, reason=why))
    assert not [path for path in Path("/sys/fs/cgroup").glob("**/tandem/*") if path.name in groups]


def test_a_resumed_job_moves_to_its_new_cores(stage: Stage) -> None:
    stage.start(1, "while :; do sleep 0.01; done")
    stage.expect(ev.Started(1, 1))
    process = journal.read(stage.paths.attempt_dir(1, 1)).process
    assert process is not None
    stage.engine.execute(ev.SuspendJob(1, 1), None)
    stage.expect(ev.SuspendDone(1, 1))
    stage.engine.execute(ev.ResumeJob(1, 1, stage.placement(-1)), None)
    stage.expect(ev.ResumeDone(1, 1))
    assert os.sched_getaffinity(process.pid) == {stage.engine.nodes()[0].cores[-1]}


@pytest.mark.slow
def test_a_job_whose_cores_somebody_else_took_stays_suspended_until_they_are_free(stage: Stage, tmp_path: Path) -> None:
    stage.start(1, "while :; do sleep 0.01; done")
    stage.expect(ev.Started(1, 1))
    stage.engine.execute(ev.SuspendJob(1, 1), None)
    stage.expect(ev.SuspendDone(1, 1))
    core = stage.engine.nodes()[0].cores[-1]
    held = Locks(core_file=str(locks.lock_file("cores")))
    waits = Spec(argv=("sleep", "100"), env={"PATH": os.environ["PATH"]}, cores=(core,), locks=held)
    with spawn(waits, tmp_path / "stranger") as stranger:
        until(lambda: journal.state(tmp_path / "stranger") == "running", "the stranger")
        stage.engine.execute(ev.ResumeJob(1, 1, stage.placement(-1)), None)
        stage.expect(ev.ResumeRefused(1, 1))
        assert [told.cores for told in stage.seen if isinstance(told, ev.ForeignUse)][-1] == (core,)
        stranger.send("kill")
        until(lambda: journal.state(tmp_path / "stranger") == "ended", "its end")
    stage.engine.execute(ev.ResumeJob(1, 1, stage.placement(-1)), None)
    stage.expect(ev.ResumeDone(1, 1))


def test_a_job_that_was_to_move_when_the_daemon_was_killed_moves(stage: Stage) -> None:
    """The stored placement is the new one, and its keeper was not told of it."""
    job = stage.start(1, "while :; do sleep 0.01; done")
    stage.expect(ev.Started(1, 1))
    process = journal.read(stage.paths.attempt_dir(1, 1)).process
    assert process is not None
    stage.engine.execute(ev.SuspendJob(1, 1), None)
    stage.expect(ev.SuspendDone(1, 1))
    stage.restart(replace(job, placement=stage.placement(-1), started=True))
    stage.engine.execute(ev.ResumeJob(1, 1, stage.placement(-1)), None)
    stage.expect(ev.ResumeDone(1, 1))
    assert os.sched_getaffinity(process.pid) == {stage.engine.nodes()[0].cores[-1]}
    assert not [told for told in stage.seen if isinstance(told, ev.ForeignUse) and told.cores]


def test_a_job_that_ran_is_lost_with_its_journal_and_keeper(stage: Stage) -> None:
    stage.start(1, "sleep 100")
    stage.expect(ev.Started(1, 1))
    keeper = journal.read(stage.paths.attempt_dir(1, 1)).keeper
    assert keeper is not None
    shutil.rmtree(stage.paths.attempt_dir(1, 1))
    os.kill(keeper.pid, signal.SIGKILL)
    until(lambda: [stage.poll(), _end(stage, 1)][1], "the end")
    end = _end(stage, 1)
    assert end is not None
    assert end.lost


def test_a_stop_saves_then_asks_then_kills(stage: Stage) -> None:
    said = stage.paths.job_dir(1) / "said"
    trap = f"trap 'echo usr1 >> {said}' USR1; trap 'echo term >> {said}' TERM; echo on >> {said}; while :; do :; done"
    stage.start(1, trap)
    until(said.exists, "the traps")
    stage.engine.execute(ev.StopJob(1, 1, "SIGUSR1", 0.6, "moved"), None)
    stage.expect(ev.Ended(1, 1, signal=signal.SIGKILL))  # killed: nobody knows that it saved
    assert said.read_text().split() == ["on", "usr1", "term"]


def test_a_frozen_job_is_thawed_to_save(stage: Stage) -> None:
    said = stage.paths.job_dir(1) / "said"
    stage.start(1, f"trap 'exit 0' USR1; echo on > {said}; while :; do sleep 0.01; done")
    until(said.exists, "the trap")
    stage.engine.execute(ev.SuspendJob(1, 1), None)
    stage.expect(ev.SuspendDone(1, 1))
    stage.engine.execute(ev.StopJob(1, 1, "SIGUSR1", 30.0, "moved"), None)
    stage.expect(ev.Ended(1, 1, saved=True))
    assert said.read_text() == "on\n"  # it was not started anew


def test_a_frozen_job_saves_though_another_has_its_core(stage: Stage) -> None:
    said = stage.paths.job_dir(1) / "said"
    stage.start(1, f"trap 'exit 0' USR1; echo on > {said}; while :; do sleep 0.01; done")
    until(said.exists, "the trap")
    stage.engine.execute(ev.SuspendJob(1, 1), None)
    stage.expect(ev.SuspendDone(1, 1))
    stage.start(2, "while :; do sleep 0.01; done")
    stage.expect(ev.Started(2, 1))
    stage.engine.execute(ev.StopJob(1, 1, "SIGUSR1", 60.0, "cancelled"), None)
    stage.expect(ev.Ended(1, 1, saved=True))


def test_a_job_whose_own_folder_cannot_be_made_ends_with_the_reason(stage: Stage) -> None:
    (stage.paths.data / "jobs").rmdir()
    stage.start(1, "exit 0")
    until(lambda: [stage.poll(), _end(stage, 1)][1], "the end")
    end = _end(stage, 1)
    assert end is not None
    assert end.code == 126
    assert f"{stage.paths.job_dir(1)}, which cannot be made (No such file or directory)" in end.reason


@pytest.mark.slow
def test_a_full_disk_delays_a_start(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tandem.core.process.keeper.start", refuse)
    stage.start(1, "exit 0")
    stage.expect(ev.StartRefused(1, 1, "No space left on device"))
    folder = stage.paths.attempt_dir(1, 1)
    until(lambda: [stage.engine.poll(), not folder.exists()][1], "the attempt to be cleared away")


def test_a_keeper_that_has_gone_is_said_and_starts_are_tried_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native, clock = keeper_path(), VirtualClock(100.0)
    assert native is not None
    copy = shutil.copy(native, tmp_path / "keeper")
    monkeypatch.setenv("TANDEM_KEEPER", str(copy))
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path))
    stage = Stage("local", tmp_path / "home", clock)
    copy.unlink()
    refused: list[float] = []
    placement = stage.placement()
    for number in range(1, 20):
        stage.engine.execute(ev.StartJob(1, number, placement), stage.launch(1, "exit 0"))
        while not (told := [one for one in stage.engine.poll() if isinstance(one, ev.StartRefused)]):
            clock.advance_to(clock.now_s + 0.5)
        refused.append(clock.now_s - 100.0)
        assert f"the keeper {copy} has gone" in told[0].why
    assert str(copy) in str(stage.engine.describe()["lacking"])
    waits = [later - sooner for sooner, later in itertools.pairwise([0.0, *refused])]
    assert waits[0] == AGAIN_S
    assert waits == sorted(waits)
    assert waits[-1] == AGAIN_MOST_S
    shutil.copy(native, copy)
    stage.engine.execute(ev.StartJob(1, 99, placement), stage.launch(1, "exit 0"))
    until(lambda: any(isinstance(one, ev.Ended) for one in stage.engine.poll()), "the end")
    assert stage.engine.describe()["lacking"] == ""
    stage.engine.close()


@requires("root")
@pytest.mark.slow
def test_a_job_waits_again_wherever_its_start_finds_that_no_more_files_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one file more to be made each time, the start gets one step further: the daemon, its keeper, the job."""
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path))
    monkeypatch.setattr("tandem.share.engines.local.TIDY_S", 1e9)  # what is cleared away makes room
    with disks.small(tmp_path / "small", 16, files=300) as folder:
        clock = VirtualClock(100.0)
        stage = Stage("local", folder / "home", clock)
        placement, refused = stage.placement(), []
        ballast = [folder / str(k) for k in range(300)]
        for number in range(1, 20):
            with contextlib.suppress(OSError):
                for path in ballast:
                    path.touch()
            for path in [path for path in ballast if path.exists()][:number]:
                path.unlink()
            stage.engine.execute(ev.StartJob(number, 1, placement), stage.launch(number, "exit 0"))
            told: list[ev.Event] = []

            def over(told: list[ev.Event] = told) -> bool:
                told += stage.engine.poll()
                clock.advance_to(clock.now_s + 0.5)
                return any(isinstance(one, ev.StartRefused | ev.Ended) for one in told)

            until(over, "the end or the refusal")
            why = [one.why for one in told if isinstance(one, ev.StartRefused)]
            if not why:
                assert [event for event in told if isinstance(event, ev.Ended)] == [ev.Ended(number, 1, 0, at=ANY)]
                break
            refused += why
        stage.engine.close()
    assert {why.partition(":")[0].partition(" '")[0] for why in refused} == {
        "No space left on device",
        "its keeper could not write its journal",
        "cannot open the output",
    }


HARDWARE = Hardware(
    "lab",
    tuple(Core(k, k // 2, k) for k in range(4)),
    8 << 30,
    (FoundGpu(0, "GPU-a", "NVIDIA H100 80GB HBM3", 80 << 30),),
)


def test_the_node_is_what_the_machine_has_or_less(tmp_path: Path) -> None:
    found = local_node.discover({"membw": "20G", "mem": "2G", "labels": "fast,big"}, tmp_path / "bw", HARDWARE)
    node = found.node
    assert (node.id, node.cpu_milli, node.mem_mib, node.membw_mbs) == ("lab", 4000, 2048, 21474)
    assert (node.cores, node.numa, node.labels) == ((0, 1, 2, 3), (0, 0, 1, 1), {"fast", "big"})
    assert [(gpu.type, gpu.mem_mib, gpu.uuid) for gpu in node.gpus] == [("h100", 81920, "GPU-a")]
    assert found.uuids == {0: "GPU-a"}


def bursts(monkeypatch: pytest.MonkeyPatch, *rates: float) -> list[float]:
    """Let bursts come to these rates in turn; returns those that are still to come."""
    left = list(rates)
    monkeypatch.setattr("tandem.core.machine.copy_bandwidth", lambda *_: left.pop(0))
    return left


def lab(cores: int = 4) -> Hardware:
    return Hardware("lab", HARDWARE.cores[:cores], 8 << 30, ())


def test_the_best_burst_is_the_bandwidth_and_is_kept_for_these_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = bursts(monkeypatch, 4e9, 3e9, 12.5e9, 2e9, 4e9, 7e9, 7e9, 7e9, 7e9, 7e9)
    assert local_node.discover({}, tmp_path / "bw", lab()).node.membw_mbs == 12_500
    assert local_node.discover({}, tmp_path / "bw", lab()).node.membw_mbs == 12_500
    assert len(left) == 5
    assert local_node.discover({}, tmp_path / "bw", lab(cores=2)).node.membw_mbs == 7_000  # fewer give less
    assert not left


def test_a_measurement_that_cannot_be_kept_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "bw")

    monkeypatch.setattr("tandem.share.node.bandwidth.written_aside", full)
    bursts(monkeypatch, *[5e9] * 5)
    assert local_node.discover({}, Path("bw"), lab()).node.membw_mbs == 5000


@pytest.mark.parametrize(("load", "doubtful"), [(1.9, False), (2.1, True)])
def test_a_measurement_is_kept_with_when_and_under_which_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: float, doubtful: bool
) -> None:
    bursts(monkeypatch, *[5e9] * 5)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    made = bandwidth.measure(lab(), now=123.0)
    bandwidth.keep(tmp_path / "bw", made)
    assert bandwidth.kept(tmp_path / "bw") == made
    assert (made.mbs, made.measured_at, made.load, made.doubtful) == (5000, 123.0, load, doubtful)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"of": "lab 0,1", "mbs": 7}', '{"host": "lab", "cores": 3}'])
def test_a_measurement_of_another_form_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "bw").write_text(text)
    bursts(monkeypatch, *[5e9] * 5)
    assert local_node.discover({}, tmp_path / "bw", lab()).node.membw_mbs == 5000


@pytest.mark.parametrize("mem", ["900G", "8193M", "0", "lots"])
def test_more_memory_than_there_is_cannot_be_given_out(tmp_path: Path, mem: str) -> None:
    with pytest.raises(ConfigError, match=f"mem = '{mem}'"):
        local_node.discover({"membw": "off", "mem": mem}, tmp_path / "bw", HARDWARE)
    whole = local_node.discover({"membw": "off", "mem": "8G"}, tmp_path / "bw", HARDWARE)
    assert whole.node.mem_mib == 8192


@pytest.mark.parametrize("options", [{"cores": "0-99999"}, {"cores": "x"}, {"croes": "0"}])
def test_a_bad_option_is_refused(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="cores"):
        local_node.discover(options, tmp_path / "bw")


def test_an_end_from_the_journal_becomes_an_event() -> None:
    attempt = Attempt(1, 2, Share("n", Need()))
    assert attempt.end(journal.parse("exit 3 0 0 0 1 5.0\n")) == ev.Ended(1, 2, code=3, at=5.0)
    assert attempt.end(journal.parse("exit -1 9 0 0 1 5.0\n")) == ev.Ended(1, 2, signal=9, at=5.0)
    failed = attempt.end(journal.parse("exec-failed 2 cannot execute 'x'\n"))
    assert failed == ev.Ended(1, 2, code=127, reason="cannot execute 'x'")
    assert "GPU 2" in getattr(attempt.end(journal.parse("busy /run/lock/gpus 250\n")), "why", "")


def test_memory_is_named_where_it_was_the_reason() -> None:
    attempt = Attempt(1, 2, Share("n", Need(mem_mib=100)))

    def why(journal_: str) -> str:
        return getattr(attempt.end(journal.parse(journal_)), "reason", "")

    kills = "memory-kills 1 104857600\n"
    assert why(f"{kills}exit -1 9 0 0 1 5.0\n") == "killed by signal 9: it reached its memory limit of 100MiB"
    assert "exit status 137; one of its processes was killed at" in why(f"{kills}exit 137 0 0 0 1 5.0\n")
    assert why(f"{kills}exit 0 0 0 0 1 5.0\n") == "", "it ended well all the same"
    grown = why("exit -1 9 0 0 99000 5.0\n")
    assert "it had grown to 96.7MiB, and had asked for 100MiB of memory" in grown
    assert why("exit -1 9 0 0 50000 5.0\n") == "", "somebody else killed it"
    attempt.killed = True
    assert why("exit -1 9 0 0 99000 5.0\n") == "", "its time was over"


def test_files_that_the_user_named_follow_the_umask_and_others_are_private() -> None:
    def flags(stdout: str, stderr: str) -> tuple[bool, bool]:
        launch = Launch(("x",), "/", {}, {}, stdout=stdout, stderr=stderr, run_dir="/d/jobs/7")
        output = attempt_spec.keeper_spec(launch, Share("n", Need()), {}, Locks(), ()).output
        return output.stdout_by_umask, output.stderr_by_umask

    assert flags("/d/jobs/7/stdout", "/d/jobs/7/stderr") == (False, False)
    assert flags("/home/me/log", "/home/me/log") == (True, True)
    assert flags("/d/jobs/7/stdout", "/d/jobs/71/err") == (False, True)


@pytest.mark.slow
def test_two_daemons_on_one_host_never_give_a_core_out_twice(make_home: Callable[..., Home], tmp_path: Path) -> None:
    mine = f"mkdir {tmp_path}/core-$TANDEM_CORES || exit 9; sleep 0.1; rmdir {tmp_path}/core-$TANDEM_CORES"
    homes = [make_home("one").start(), make_home("two").start()]
    for _ in range(2):
        for home in homes:
            with home.client() as client:
                client.submit([{"argv": ["sh", "-c", mine], "cwd": "/"}] * 6)
    for home in homes:
        with home.client() as client:
            assert [(end["state"], end["exit_code"]) for end in client.wait(list(range(1, 13)))] == [("done", 0)] * 12
