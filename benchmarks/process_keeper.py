"""What a keeper costs: from the request to the job's exec, against plain `posix_spawn` of the same program.

    python benchmarks/process_keeper.py [--quick] [--json] [--directory DIR]

Both times end when the parent knows that exec succeeded (posix_spawn returns; the keeper reports `started`). Rounds are
interleaved. `keeper_cost_ms` is the median difference with the journal in memory (the keeper's own work),
`keeper_disk_cost_ms` the same with the journal made durable on DIR's disk, whose sync times it then contains;
`prepare_ms` is the scheduler's part (directory, spec, sync), `cgroup_cost_ms` is what control groups add. Goal:
keeper_cost_ms < 2.
"""

import argparse
import json
import os
import platform
import select
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tandem.core.process import cgroups, keeper
from tandem.core.process.spec import CgroupStep, Spec

PROGRAM = "/bin/true"


def plain_ms() -> float:
    """Return the time of a plain posix_spawn."""
    before = time.perf_counter()
    pid = os.posix_spawn(PROGRAM, [PROGRAM], {})
    took = time.perf_counter() - before
    os.waitpid(pid, 0)
    return took * 1e3


def kept_ms(attempt_dir: Path, steps: tuple[CgroupStep, ...] = ()) -> tuple[float, float]:
    """Return (from starting the keeper to exec, preparing), each in milliseconds."""
    began = time.perf_counter()
    keeper.prepare(Spec(argv=(PROGRAM,), cores=(0,), cgroup=steps), attempt_dir)
    prepared = time.perf_counter()
    with keeper.start(attempt_dir) as running:
        started = 0.0
        while True:
            select.select([running], [], [])
            message = running.recv()
            if message is not None and message.kind == "started":
                started = time.perf_counter()
            if message is not None and message.kind == "gone":
                break
        if running.wait() != 0 or not started:
            raise SystemExit(f"the keeper failed: {(attempt_dir / 'journal').read_text()}")
    return (started - prepared) * 1e3, (prepared - began) * 1e3


def measure(rounds: int, disk: Path, memory: Path) -> dict[str, float]:
    """Return the figures from interleaved rounds."""
    layout = cgroups.discover()
    shares = cgroups.Shares(cores=(0,), memory_bytes=1 << 30)
    rows: dict[str, list[float]] = {"plain": [], "memory": [], "disk": [], "prepare": [], "cgroup": []}
    for index in range(rounds):
        steps = cgroups.steps(layout, f"bench.{os.getpid()}.{index}", shares)
        todo: list[Callable[[], None]] = [
            lambda: rows["plain"].append(plain_ms()),
            lambda index=index: rows["memory"].append(kept_ms(memory / f"m{index}")[0]),  # type: ignore[misc]
            lambda index=index: add(rows, kept_ms(disk / f"d{index}")),  # type: ignore[misc]
            lambda index=index, steps=steps: rows["cgroup"].append(kept_ms(memory / f"c{index}", steps)[0]),  # type: ignore[misc]
        ]
        for turn in todo[index % 4 :] + todo[: index % 4]:
            turn()
    middle = {name: statistics.median(values) for name, values in rows.items()}
    p95 = statistics.quantiles([a - b for a, b in zip(rows["memory"], rows["plain"], strict=True)], n=20)[-1]
    return {
        "plain_spawn_ms": middle["plain"],
        "keeper_ms": middle["memory"],
        "keeper_cost_ms": middle["memory"] - middle["plain"],
        "keeper_cost_p95_ms": p95,
        "keeper_disk_cost_ms": middle["disk"] - middle["plain"],
        "prepare_ms": middle["prepare"],
        "cgroup_cost_ms": middle["cgroup"] - middle["memory"],
    }


def add(rows: dict[str, list[float]], times: tuple[float, float]) -> None:
    """Append one round on disk."""
    rows["disk"].append(times[0])
    rows["prepare"].append(times[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--directory", type=Path, help="where the durable journals are written (default: $TMPDIR)")
    options = parser.parse_args()
    shm = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as disk,
        tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as memory,
    ):
        figures = measure(100 if options.quick else 400, Path(disk), Path(memory))
    layout = cgroups.which(cgroups.discover())
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {keeper.keeper_command()[0]}; {layout}")
    for name, value in figures.items():
        print(f"{name:22s} {value:8.3f}")
    if options.json:
        print(json.dumps({**figures, "_commit": commit(), "_kept": []}))


def commit() -> str:
    """Return the commit that was measured, or "unknown" outside a repository."""
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
