"""Writers that are killed at any moment: a space is what it was, or what it is to be, and whoever comes next goes on.

`TANDEM_KILLS` says how often each kind of writer is killed (100). They are forked off a process that has imported
everything, so that a moment costs little; a part of the kills of packing goes to packing in several processes.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pytest

from tandem.data.pack.packing import pack
from tandem.data.space import Space
from tandem.data.space.changing import compact, delete
from tandem.data.space.scrub import scrub
from tandem.data.space.writer import KEPT_S, PACKING, Target

KILLS = int(os.environ.get("TANDEM_KILLS", "100"))
SHARD_BYTES = 12_000
FIRST = {f"a{i % 3}/f{i:04d}": random.Random(i).randbytes(300 + 7 * i) for i in range(90)}
MORE = {f"b{i % 3}/g{i:04d}": random.Random(-i).randbytes(200 + 7 * i) for i in range(90)}

FORKING = """
import os, sys, traceback
from multiprocessing import resource_tracker
from tandem.data.pack.packing import pack
from tandem.data.space.changing import compact

first, more, shard_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
quietly = dict(shard_bytes=shard_bytes, tell=lambda done, of: None)
changes = {
    "pack": lambda space: pack(first, space, workers=1, **quietly),
    "pack in processes": lambda space: pack(first, space, workers=2, **quietly),
    "append": lambda space: pack(more, space, append=True, workers=1, **quietly),
    "compact": lambda space: compact(space, **quietly),
}
if __name__ == "__main__":
    resource_tracker.ensure_running()  # or each would start its own
    for line in sys.stdin:
        kind, space = line.rstrip("\\n").split("\\t")
        pid = os.fork()
        if pid == 0:
            os.setsid()
            try:
                changes[kind](space)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Writers:
    """Starts writers one after another, each in a process group of its own."""

    def __init__(self, root: Path) -> None:
        for name, contents in (("first", FIRST), ("more", MORE)):
            for path, data in contents.items():
                (root / name / path).parent.mkdir(parents=True, exist_ok=True)
                (root / name / path).write_bytes(data)
        self.first, self.more = root / "first", root / "more"
        script = root / "forking.py"
        script.write_text(FORKING)
        self._told = (root / "told").open("w")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(self.first), str(self.more), str(SHARD_BYTES)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._told, text=True,
        )  # fmt: skip

    def start(self, kind: str, space: Path) -> int:
        """Start one; returns its process id."""
        assert self._process.stdin is not None
        print(kind, space, sep="\t", file=self._process.stdin, flush=True)
        return self._line()

    def status(self) -> int:
        """Wait for it; returns how it ended."""
        return self._line()

    def run(self, kind: str, space: Path) -> float:
        """Let one do all it has to do; returns how long that took."""
        began = time.monotonic()
        self.start(kind, space)
        assert self.status() == 0, Path(self._told.name).read_text()
        return time.monotonic() - began

    def close(self) -> None:
        """Start no more."""
        self._process.communicate(timeout=60)
        self._told.close()

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be: what was written is there after a kill on any disk, and waiting for one is slow."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="tandem-kills-", dir=memory) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writers]:
    made = Writers(tmp_path_factory.mktemp("writers"))
    yield made
    made.close()


def contents(folder: Path) -> dict[str, bytes] | None:
    """All that a reader finds; None where there is no space."""
    if not (folder / "current").exists():
        return None
    with Space.open(folder, threads=1) as space:
        batch = space.read_batch(range(len(space)))
        return {space.path(number): bytes(data) for number, data in enumerate(batch)}


def is_what_was_or_is_to_be(space: Path, *states: dict[str, bytes] | None) -> dict[str, bytes] | None:
    found = contents(space)
    assert found in states
    if found is not None:
        assert list(scrub(str(space))) == []
    return found


def members(sessions: set[int]) -> list[int]:
    """Processes of these sessions that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) in sessions and state != "Z":
                found.append(int(stat.parent.name))
    return found


def begin(kind: str, writers: Writers, folder: Path) -> tuple[dict[str, bytes] | None, dict[str, bytes]]:
    """What is there before such a change, made in a folder, and what is to be there after it."""
    if kind.startswith("pack"):
        return None, FIRST
    pack(str(writers.first), str(folder), workers=1, shard_bytes=SHARD_BYTES, tell=lambda done, of: None)
    if kind == "append":
        return FIRST, FIRST | MORE
    delete(str(folder), prefix="a1/")
    left = {path: data for path, data in FIRST.items() if not path.startswith("a1/")}
    return left, left


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pack", "pack in processes", "append", "compact"])
def test_a_writer_killed_at_any_moment_leaves_what_was_or_what_is_to_be(
    kind: str, writers: Writers, folder: Path
) -> None:
    kills = max(1, KILLS // 15) if kind == "pack in processes" else KILLS  # these start processes of their own
    first, space = folder / "first", folder / "space"
    before, after = begin(kind, writers, first)

    def reset() -> None:
        shutil.rmtree(space, ignore_errors=True)
        if first.exists():
            shutil.copytree(first, space)

    took_s = []
    for _ in range(3):
        reset()
        took_s.append(writers.run(kind, space))
    assert contents(space) == after

    rng = random.Random(KILLS)
    killed = 0
    sessions: set[int] = set()
    reset()
    for _ in range(kills):
        pid = writers.start(kind, space)
        sessions.add(pid)
        time.sleep(rng.uniform(0, median(took_s)))  # the moment is what is drawn
        with contextlib.suppress(ProcessLookupError):  # it was done; or, in its first moments, it has no group yet
            os.kill(pid, signal.SIGKILL) if rng.random() < 0.5 else os.killpg(pid, signal.SIGKILL)
        status = writers.status()
        assert status in (0, -signal.SIGKILL)
        killed += status != 0
        found = is_what_was_or_is_to_be(space, before, after)
        if status == 0 or found == after != before or rng.random() < 0.3:
            reset()  # else the next goes on with what this one left
    assert killed >= kills // 4
    deadline_s = time.monotonic() + 60
    while left := members(sessions):
        assert time.monotonic() < deadline_s, left  # whoever works for a writer ends with it
        time.sleep(0.01)

    if contents(space) != after or kind == "compact":
        writers.run(kind, space)
    assert contents(space) == after
    compact(str(space))
    assert list(scrub(str(space))) == []
    assert list((space / "pending").iterdir()) == []
    with Space.open(space) as opened:
        named = {entry.file_name for entry in opened.index.shards}
    assert {path.name for path in (space / "shards").iterdir()} == named


def test_what_killed_writers_left_is_cleared_away_but_packing_that_may_go_on_only_after_a_week(
    writers: Writers, tmp_path: Path
) -> None:
    space = tmp_path / "s"
    quietly = {"shard_bytes": SHARD_BYTES, "tell": lambda done, of: None}
    pack(str(writers.first), str(space), workers=1, **quietly)  # type: ignore[arg-type]
    alive = Target(space, f"{PACKING}alive")
    week_ago_s = time.time() - KEPT_S
    for name, age_s in (("pack-young", 3600), ("pack-old", -3600), ("pack-alive", -3600), ("other", 3600)):
        folder = space / "pending" / name
        folder.mkdir(exist_ok=True)
        (folder / "lock").touch()
        (folder / "some.shard").write_bytes(b"half")
        for path in (*folder.iterdir(), folder):
            os.utime(path, (week_ago_s + age_s, week_ago_s + age_s))
    assert {path.name for path in (space / "pending").iterdir()} == {"pack-young", "pack-old", "pack-alive", "other"}
    pack(str(writers.more), str(space), append=True, workers=1, **quietly)  # type: ignore[arg-type]
    assert {path.name for path in (space / "pending").iterdir()} == {"pack-young", "pack-alive"}
    alive.close()
    compact(str(space))
    assert {path.name for path in (space / "pending").iterdir()} == {"pack-young"}
    assert contents(space) == FIRST | MORE
