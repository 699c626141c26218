"""What a run record costs the job that writes it.

Run: `python benchmarks/core_records.py [--quick] [--json]`. Figure: `record_us`, the median over rounds
of the mean time of one `Recorder.record` call with a step, a total, a rate and two metrics, in
microseconds; at most 20 are allowed. Baseline: a bare `os.write` of the same line to the same folder
(`bare_write_us`), interleaved with it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tandem.core.records import Recorder

LIMIT_US = 20.0


def record_us(folder: Path, count: int) -> float:
    """Return microseconds a record, over `count` records."""
    recorder = Recorder(folder / "events.jsonl")
    start = time.perf_counter()
    for step in range(count):
        recorder.record(step=step, total=count, rate=12.5, loss=0.25, accuracy=0.75)
    elapsed_s = time.perf_counter() - start
    recorder.close()
    if recorder.dropped:
        message = f"{recorder.dropped} records were dropped"
        raise RuntimeError(message)
    return elapsed_s / count * 1e6


def bare_write_us(folder: Path, count: int) -> float:
    """Return microseconds a `write(2)` of one record's bytes, over `count` calls."""
    line = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)[0]
    fd = os.open(folder / "bare.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    start = time.perf_counter()
    for _ in range(count):
        os.write(fd, line)
    elapsed_s = time.perf_counter() - start
    os.close(fd)
    return elapsed_s / count * 1e6


def main() -> None:
    """Measure, print, and leave with exit code 1 where a record costs more than is allowed."""
    parser = argparse.ArgumentParser(description="what a run record costs")
    parser.add_argument("--quick", action="store_true", help="a second or two")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    count, rounds = (5_000, 7) if options.quick else (50_000, 15)
    with tempfile.TemporaryDirectory() as name:
        pairs = [(record_us(Path(name), count), bare_write_us(Path(name), count)) for _ in range(rounds)]
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    machine = f"{platform.node()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}, {rounds} rounds of {count} records")
    worst = max(pair[0] for pair in pairs)
    print(f"a record {ours:.2f} us (worst round {worst:.2f}), a bare write {bare:.2f} us")
    if options.json:
        print(json.dumps({"record_us": ours, "bare_write_us": bare, "_commit": commit(), "_kept": []}))
    if ours > LIMIT_US:
        raise SystemExit(1)


def commit() -> str:
    """Return the commit this runs at, with a plus sign where files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
