"""What a keeper costs: from the request to the job's exec, against plain `posix_spawn` of the same program.

    python benchmarks/process_keeper.py [--quick] [--json] [--directory DIR]

Both times end when the parent knows that exec succeeded (posix_spawn returns; the keeper reports `started`). Rounds are
interleaved in rotating order. `keeper_cost_ms` is the median of keeper minus the median of plain, with the journal made
durable on DIR's disk; `keeper_memory_cost_ms` is the same with the journal in memory, which is the keeper's own work
without the disk. `prepare_ms` is the scheduler's part (directory, spec, sync). `keeper_cgroups_ms` is the keeper with
every control group there is, measured in a block of its own because removing groups slows the next process down.
`noise_ms` is the spread (90th minus 10th percentile) of plain spawns. Goal: keeper_cost_ms < 2.
"""

import argparse
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
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
    cores = tuple(sorted(os.sched_getaffinity(0)))  # all: waiting for one busy core is not the keeper's cost
    began = time.perf_counter()
    keeper.prepare(Spec(argv=(PROGRAM,), cores=cores, cgroup=steps), attempt_dir)
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
            sys.exit(f"the keeper failed: {(attempt_dir / 'journal').read_text()}")
    return (started - prepared) * 1e3, (prepared - began) * 1e3


def measure(rounds: int, disk: Path, memory: Path) -> dict[str, float]:
    """Return the figures."""
    rows: dict[str, list[float]] = {name: [] for name in ("plain", "memory", "disk", "prepare", "cgroups")}
    for index in range(rounds):
        for name in ("plain", "memory", "disk", "plain", "disk", "memory")[index % 2 * 3 :][:3]:
            if name == "plain":
                rows[name].append(plain_ms())
                continue
            spawned, prepared = kept_ms((disk if name == "disk" else memory) / f"{name}{index}")
            rows[name].append(spawned)
            rows["prepare"] += [prepared] * (name == "disk")
    layout, shares = cgroups.discover(), cgroups.Shares(memory_bytes=1 << 30)
    for index in range(rounds // 2):
        steps = cgroups.steps(layout, f"bench.{os.getpid()}.{index}", shares)
        rows["cgroups"].append(kept_ms(memory / f"cgroup{index}", steps)[0])
    middle = {name: statistics.median(values) for name, values in rows.items()}
    tenths = statistics.quantiles(rows["plain"], n=10)
    return {
        "plain_spawn_ms": middle["plain"],
        "noise_ms": tenths[-1] - tenths[0],
        "keeper_cost_ms": middle["disk"] - middle["plain"],
        "keeper_memory_cost_ms": middle["memory"] - middle["plain"],
        "keeper_cost_p90_ms": statistics.quantiles(rows["disk"], n=10)[-1] - middle["plain"],
        "keeper_cgroups_ms": middle["cgroups"],
        "prepare_ms": middle["prepare"],
    }


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
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, commit {commit()}")
    print(f"{keeper.keeper_command()[0]}; {cgroups.which(cgroups.discover())}")
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
