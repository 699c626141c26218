"""Nothing is given out twice on one machine, whoever schedules it."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.core.errors import MachineBusyError
from tandem.core.process import locks
from tandem.core.process.spec import ByteRange, Locks, Spec
from tests.core.process.attempts import ENV, Launch
from tests.waiting import until


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "locks"
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(path))
    return path


def holding(*cores: int, ranges: tuple[ByteRange, ...] = ()) -> Spec:
    held = Locks(core_file=str(locks.lock_file("cores")), ranges=ranges)
    return Spec(argv=("sleep", "1000"), env=ENV, cores=cores, locks=held)


def test_everybody_can_lock(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        path = locks.lock_file("cores")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_a_core_is_held_while_the_job_runs(launch: Launch) -> None:
    assert locks.foreign_holders("cores", range(4)) == frozenset()
    attempt = launch(spec=holding(0))
    attempt.message("started")
    assert locks.foreign_holders("cores", range(4)) == {0}
    second = launch(spec=holding(0))
    assert second.end().busy == (str(locks.lock_file("cores")), 0)
    attempt.command("kill")
    attempt.end()
    assert locks.foreign_holders("cores", range(4)) == frozenset()


def test_a_killed_keeper_holds_nothing(launch: Launch) -> None:
    attempt = launch(spec=holding(0))
    attempt.message("started")
    pid = attempt.keeper.pid
    assert pid is not None
    os.kill(pid, 9)
    attempt.end()
    until(lambda: not locks.foreign_holders("cores", [0]), "the lock to vanish")


def test_locks_follow_the_pinning(launch: Launch) -> None:
    other = max(os.sched_getaffinity(0))
    first = launch(spec=holding(0))
    first.message("started")
    assert first.command(f"pin {other}").kind == "ok"
    assert locks.foreign_holders("cores", range(other + 1)) == {other}
    second = launch(spec=holding(0))
    second.message("started")
    refused = second.command(f"pin {other}")
    assert (refused.kind, "busy" in refused.text) == ("error", True)
    assert second.command(f"pin 0,{other}").kind == "error"
    assert locks.foreign_holders("cores", range(other + 1)) == {0, other}
    assert "cores=0" in second.command("ping").text


def test_parts_of_a_gpu_are_held_apart(launch: Launch) -> None:
    launch(spec=holding(ranges=(locks.gpu_range(1, slots=50),))).message("started")
    launch(spec=holding(ranges=(locks.gpu_range(1, first_slot=50, slots=25),))).message("started")
    assert locks.foreign_holders("gpus", range(3)) == {1}
    assert locks.held_slots(1) == frozenset(range(75))
    assert locks.held_slots(0) == frozenset()
    third = launch(spec=holding(ranges=(locks.gpu_range(1, first_slot=50, slots=50),)))
    assert third.end().busy == (str(locks.lock_file("gpus")), 150)
    launch(spec=holding(ranges=(locks.gpu_range(1, first_slot=75, slots=25),))).message("started")


def test_a_missing_lock_file_is_not_taken_for_free(launch: Launch, tmp_path: Path) -> None:
    lost = ByteRange(path=str(tmp_path / "nowhere"), first=3)
    assert launch(spec=holding(ranges=(lost,))).end().busy == (lost.path, 3)


def test_a_link_in_place_of_the_directory_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineBusyError, match="install -d -m 1777"):
        locks.lock_dir()


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path / "missing" / "locks"))
    for make in (True, False):
        with pytest.raises(MachineBusyError, match=r"cannot be made .No such file or directory.; .*install -d -m 1777"):
            locks.lock_dir(make=make)


def test_a_directory_is_only_made_where_that_is_asked_for(folder: Path) -> None:
    assert locks.lock_dir(make=False) == folder
    assert not folder.exists()
    assert locks.lock_dir() == folder
    assert folder.stat().st_mode & 0o7777 == 0o1777


def test_looking_takes_nothing() -> None:
    """A second process that looks at the same time sees nothing held."""
    look = "from tandem.core.process import locks; print(sorted(locks.foreign_holders('cores', range(8))))"
    with locks._open("cores") as fd:
        assert not locks._is_held(fd, 0, 8)
        seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert seen.stdout == "[]\n"


def test_a_suspended_job_holds_no_core_and_two_can_swap(launch: Launch) -> None:
    """The cores of a suspended job are somebody else's; it may come back on others, even on each other's."""
    first, second = launch(spec=holding(0)), launch(spec=holding(1))
    for attempt in (first, second):
        attempt.message("started")
    for attempt in (first, second):
        attempt.command("suspend")
    assert locks.foreign_holders("cores", range(2)) == frozenset()
    third = launch(spec=holding(0))
    third.message("started")
    refused = first.command("resume")
    assert (refused.kind, "busy" in refused.text) == ("error", True)
    first.command("pin 1")
    first.command("resume")
    third.command("kill")
    third.end()
    second.command("pin 0")
    second.command("resume")
    assert locks.foreign_holders("cores", range(2)) == {0, 1}
    second.command("suspend")
    second.command("term")  # it may end without its core
    second.end()
    assert locks.foreign_holders("cores", range(2)) == {1}


def test_who_may_hold_a_core_is_said_where_one_is_held() -> None:
    words = "held by a job, another scheduler or another `tandem profile`.*wait until it has ended"
    with locks.held([0]), pytest.raises(MachineBusyError, match=words), locks.held([0, 1]):
        pass


def test_a_block_holds_cores_and_whole_gpus_and_gives_them_back() -> None:
    with locks.held([1], [0]):
        assert locks.foreign_holders("cores", range(4)) == {1}
        assert len(locks.held_slots(0)) == locks.GPU_SLOTS
        with pytest.raises(MachineBusyError, match="GPU 0, held by"), locks.held([2], [0]):
            pass
        assert locks.foreign_holders("cores", range(4)) == {1}, "one that was refused holds nothing"
    assert locks.held_slots(0) == frozenset()


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_held_is_locked_again_in_a_file_that_was_made_anew(launch: Launch, folder: Path, asked: bool) -> None:
    attempt = launch(spec=holding(0, ranges=(locks.gpu_range(1, slots=50),)))
    attempt.message("started")
    for kind in locks.KINDS:
        (folder / kind).unlink()
    assert locks.foreign_holders("cores", range(2)) == frozenset(), "a new file, in which nobody has locked yet"
    assert locks.held_slots(1) == frozenset()
    if asked:
        assert attempt.command("lock").kind == "ok"
    else:  # no scheduler is there: it looks by itself
        attempt.keeper.close()
    until(lambda: locks.foreign_holders("cores", range(2)) == {0}, "the core's lock")
    until(lambda: locks.held_slots(1) == frozenset(range(50)), "the GPU's lock")


def test_a_core_that_was_taken_meanwhile_is_said_and_tried_again(launch: Launch, folder: Path) -> None:
    attempt = launch(spec=holding(0, ranges=(locks.gpu_range(1),)))
    attempt.message("started")
    (folder / "cores").unlink()
    assert attempt.command("lock").kind == "ok", "nobody else can hold it where no file is"
    with locks.held([0]):
        assert attempt.command("lock").text == f"lock busy {folder / 'cores'} 0"
    assert attempt.command("lock").kind == "ok"
    assert locks.foreign_holders("cores", range(2)) == {0}


def test_cores_are_locked_in_the_file_that_is_there_now(launch: Launch, folder: Path) -> None:
    attempt = launch(spec=holding(0))
    attempt.message("started")
    assert attempt.command("suspend").kind == "ok"
    (folder / "cores").unlink()
    assert locks.foreign_holders("cores", range(2)) == frozenset()
    with locks.held([0]):
        assert "busy" in attempt.command("resume").text
    assert attempt.command("resume").kind == "ok"
    assert locks.foreign_holders("cores", range(2)) == {0}
    assert attempt.command("suspend").kind == "ok"
    assert attempt.command("lock").kind == "ok"
    assert locks.foreign_holders("cores", range(2)) == frozenset(), (
        "a suspended job holds no core in the new file either"
    )


def test_a_removed_file_shows_and_an_old_one_is_touched(folder: Path) -> None:
    now = 2_000_000_000.0
    with locks.held([0]):
        before = locks.identity("cores", now)
        assert locks.identity("cores", now) == before
        (folder / "cores").unlink()
        assert locks.identity("cores", now) != before
    path = folder / "cores"
    os.utime(path, (now - 7200, now - 7200))
    locks.identity("cores", now - 7100)
    assert path.stat().st_mtime == now - 7200
    locks.identity("cores", now)
    assert path.stat().st_mtime != now - 7200
