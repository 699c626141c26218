"""What is left when the keeper, the scheduler or the disk fails at the worst moment."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.core.process import cgroups, journal, strays
from tandem.core.process import keeper as keepers
from tandem.core.process.cgroups import Layout
from tandem.core.process.spec import Spec
from tests.core.process.attempts import ENV, Attempt, Launch, is_running, number_in
from tests.waiting import until

JOB = "sleep 1000 & echo $! > {0}/child; (setsid sleep 1001 &); wait"


def clean(attempt: Attempt, layout: Layout) -> None:
    strays.kill_strays(attempt.folder)
    cgroups.remove_stale(layout, attempt.folder.name, ())


@pytest.mark.parametrize(
    ("point", "expected", "executed"),
    [
        ("before-claim", "unclaimed", False),
        ("after-claim", "lost", False),
        ("after-pid", "lost", True),
        ("after-exec", "lost", True),
        ("before-exit", "lost", True),
    ],
)
def test_a_keeper_killed_at_any_point_leaves_the_truth(
    launch: Launch, layout: Layout, tmp_path: Path, point: str, expected: str, executed: bool
) -> None:
    script = "exit 0" if point == "before-exit" else JOB.format(tmp_path)
    attempt = launch("sh", "-c", script, layout=layout, keeper_env={"TANDEM_KEEPER_CRASH": point})
    fate = attempt.end()
    assert attempt.keeper.returncode == -signal.SIGKILL
    assert journal.state(attempt.folder) == expected
    assert (fate.process is not None) == executed  # no pid in the journal: certainly nothing was executed
    clean(attempt, layout)
    if fate.process is not None:
        until(lambda: not is_running(fate.process.pid), "the main process to end")
    if point in {"before-claim", "after-claim", "after-pid"}:
        assert not (tmp_path / "child").exists()
    assert not stray(attempt)
    assert not [group for parent in layout.parents() for group in parent.glob(attempt.folder.name)]


def stray(attempt: Attempt) -> list[int]:
    mark = f"TANDEM_ATTEMPT={attempt.folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0") and is_running(int(path.parent.name)):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_keeper_killed_while_the_job_runs(launch: Launch, layout: Layout, tmp_path: Path) -> None:
    attempt = launch("sh", "-c", JOB.format(tmp_path), layout=layout)
    child = number_in(tmp_path / "child")
    keeper_pid = attempt.keeper.pid
    assert keeper_pid is not None
    assert journal.state(attempt.folder) == "running"
    assert strays.kill_strays(attempt.folder) == 0  # the keeper lives: nothing is a stray
    os.kill(keeper_pid, signal.SIGKILL)
    attempt.end()
    assert journal.state(attempt.folder) == "lost"
    until(lambda: not is_running(attempt.pid), "the kernel to kill the main process")
    clean(attempt, layout)
    until(lambda: not is_running(child), "the child to be killed")
    assert not stray(attempt)


SPAWNER = """
import sys, time
from pathlib import Path
from tandem.core.process import keeper
from tandem.core.process.spec import Spec
folder, command, *argv = sys.argv[1:]
keeper.spawn(Spec(argv=tuple(argv), env={"PATH": "/usr/bin:/bin"}), Path(folder), command=command.split(" "))
print("spawned", flush=True)
time.sleep(1000)
"""


def test_a_job_outlives_its_scheduler_and_is_adopted(command: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / "attempt"  # longer than a socket's path may be
    folder.parent.mkdir()
    words = [
        sys.executable,
        "-c",
        SPAWNER,
        str(folder),
        " ".join(command),
        "sh",
        "-c",
        "trap 'exit 6' TERM; while :; do :; done",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as scheduler:
        assert scheduler.stdout is not None
        assert scheduler.stdout.readline() == "spawned\n"
        process = until(lambda: journal.read(folder).process, "the pid")
        scheduler.kill()
    assert journal.state(folder) == "running"
    assert is_running(process.pid)
    adopted = keepers.adopt(folder)
    assert adopted is not None
    with adopted:
        attempt = Attempt(adopted, folder)
        assert f"pid={process.pid} ended=0" in attempt.command("ping").text
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sh\0"), "exec")
        until(lambda: int(status(process.pid)["SigCgt"], 16) & (1 << (signal.SIGTERM - 1)), "the handler")
        assert attempt.command("term").kind == "ok"
        assert attempt.end().exit_code == 6


def status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def test_a_job_that_ended_without_a_scheduler_is_known(launch: Launch) -> None:
    attempt = launch("sh", "-c", "exit 4")
    attempt.keeper.close()
    until(lambda: journal.state(attempt.folder) == "ended", "the end")
    assert attempt.fate.exit_code == 4
    adopted = keepers.adopt(attempt.folder)  # a keeper that is just leaving may still be found; it says so
    if adopted is not None:
        with adopted:
            assert until(adopted.recv, "the word that it is gone").kind == "gone"


def test_a_full_disk_starts_nothing(command: tuple[str, ...], tmp_path: Path) -> None:
    keepers.prepare(Spec(argv=("touch", str(tmp_path / "ran")), env=ENV), tmp_path / "a")
    limited = ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command]  # every write fails
    with keepers.start(tmp_path / "a", command=limited) as keeper:
        assert keeper.wait() == 73
    assert journal.state(tmp_path / "a") == "unclaimed"
    assert not (tmp_path / "ran").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["spec"]


def test_nothing_is_executed_before_its_pid_is_durable(command: tuple[str, ...], tmp_path: Path) -> None:
    """A disk that takes the claim but not the pid."""
    keepers.prepare(Spec(argv=("touch", str(tmp_path / "ran")), env=ENV), tmp_path / "a")
    limited = [shutil.which("prlimit") or "prlimit", "--fsize=100", *command]
    with keepers.start(tmp_path / "a", command=limited) as keeper:
        assert keeper.wait() == 73
    fate = journal.read(tmp_path / "a")
    assert (fate.claimed, fate.process) == (True, None)
    assert journal.state(tmp_path / "a") == "lost"
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_an_end_that_cannot_be_written_is_told_and_written_later(launch: Launch, tmp_path: Path) -> None:
    attempt = launch("sh", "-c", f"while [ ! -e {tmp_path}/go ]; do :; done; exit 8")
    attempt.message("started")
    keeper_pid = attempt.keeper.pid
    assert keeper_pid is not None
    soft, hard = resource.prlimit(keeper_pid, resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    (tmp_path / "go").touch()
    volatile = attempt.message("ended")
    assert (volatile.durable, volatile.fate.exit_code) == (False, 8)
    assert journal.state(attempt.folder) == "running"
    assert "ended=1" in attempt.command("ping").text
    resource.prlimit(keeper_pid, resource.RLIMIT_FSIZE, (soft, hard))
    assert attempt.message("ended").durable
    assert attempt.end().exit_code == 8
