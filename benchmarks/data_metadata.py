"""Many small files behind a slow metadata server, read for the first time: one by one, and from a space beside them.

    python benchmarks/data_metadata.py [--quick] [--json] [--folder DIR]

The server is a FUSE mount that answers each lookup, open and stat after 0.1, 0.3, 1 or 3 ms, in 16 threads, and delays
no read (slow_metadata.cpp; needs a C++ compiler and Debian's fuse3). The files, of 5 to 15 KB, and a space of them lie
behind it. For every round and side it is mounted anew, so that nothing of what it told is kept, and what lies behind it
is dropped from the page cache. A round reads the same files in an order of its own, in one thread: `open(path,
"rb").read()` for each, which costs a lookup and an open; and from the space, which is opened first, 256 to a batch,
verified. So the ratio grows with the delay, and with how many files share the opening of the space.

Figures: `metadata_vs_raw` (wall, at 1 ms; `..._low`: its lower bound), `metadata_vs_raw_0.1ms`, `..._0.3ms`,
`..._3ms`, `metadata_vs_raw_8_threads` (at 1 ms, against eight threads that read files side by side), `noise_floor`
(percent, raw at 1 ms), `metadata_answer_ms` (what an answer took at 1 ms, as the server measured it). Goal: 17.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import data_files, measuring, slow_metadata
from benchmarks.data_cold import drop
from benchmarks.data_read import BATCH, packed
from tandem.data.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Side = Callable[[Path, Sequence[int]], int]
    """Reads files by their numbers, below a mountpoint, and returns how many bytes there were."""

READ = {0.1: 4000, 0.3: 4000, 1.0: 4000, 3.0: 4000}
QUICK_READ = {0.1: 300, 0.3: 300, 1.0: 700, 3.0: 120}
"""How many files a round reads, by the delay in milliseconds."""
ROUNDS = 7
GOAL_AT_MS = 1.0
MANY = 8


def main() -> None:
    """Measure and print."""
    parser = measuring.options((__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", help="where files are written [the system's for temporary ones]")
    options = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    with tempfile.TemporaryDirectory(prefix="tandem-metadata-", dir=options.folder) as folder:
        try:
            program = slow_metadata.compiled(Path(folder))
        except FileNotFoundError as error:
            print(error)
            return measuring.finish({"metadata_vs_raw": None}, as_json=options.json)
        bench = Bench(Path(folder), program, 2000 if options.quick else 50_000)
        found = curve(bench, QUICK_READ if options.quick else READ)
    measuring.finish(found, as_json=options.json)


class Bench:
    """Files and a space of them in a folder, and what reads them through a mount."""

    def __init__(self, folder: Path, program: Path, files: int) -> None:
        """Write so many files, and pack them."""
        self.root, self.mountpoint = folder / "server", folder / "mount"
        self.names = data_files.random_files(self.root / "files", files)
        packed(self.names, self.root / "files.space")
        os.sync()
        self.program = program
        self.answers_ms: list[float] = []

    def order(self, read: int, seed: int) -> list[int]:
        """Which files a round reads, one after another."""
        return np.random.default_rng(seed).permutation(len(self.names))[:read].tolist()

    def seconds(self, side: Side, delay_ms: float, order: Sequence[int]) -> float:
        """How long one side takes when nothing is cached."""
        chosen = [self.names[number] for number in order]
        drop([*chosen, *map(str, (self.root / "files.space" / "shards").iterdir())])
        with slow_metadata.mounted(self.program, self.root, self.mountpoint, delay_ms) as told:
            began = time.perf_counter()
            size = side(self.mountpoint, order)
            passed_s = time.perf_counter() - began
        assert size == sum(Path(name).stat().st_size for name in chosen)
        if delay_ms == GOAL_AT_MS:
            self.answers_ms.append(told[1])
        return passed_s

    def raw(self, mountpoint: Path, order: Sequence[int]) -> int:
        """Each file opened and read."""
        return sum(map(self._size_read, self._seen(mountpoint, order)))

    def raw_side_by_side(self, mountpoint: Path, order: Sequence[int]) -> int:
        """The same in several threads."""
        with ThreadPoolExecutor(MANY) as pool:
            return sum(pool.map(self._size_read, self._seen(mountpoint, order)))

    def space(self, mountpoint: Path, order: Sequence[int]) -> int:
        """The space opened, and its samples read in batches."""
        with Space.open(mountpoint / "files.space", threads=1) as space:
            batches = (order[start : start + BATCH] for start in range(0, len(order), BATCH))
            return sum(len(space.read_batch(batch).data_S) for batch in batches)

    def _seen(self, mountpoint: Path, order: Sequence[int]) -> list[str]:
        before = len(str(self.root))
        return [f"{mountpoint}{self.names[number][before:]}" for number in order]

    @staticmethod
    def _size_read(path: str) -> int:
        with open(path, "rb") as file:  # noqa: PTH123 - as programs do
            return len(file.read())


def curve(bench: Bench, read: dict[float, int]) -> dict[str, float | None]:
    """The ratio at each delay."""
    found: dict[str, float | None] = {}
    for delay_ms, count in read.items():
        sides: dict[str, Side] = {"raw": bench.raw, "space": bench.space}
        if delay_ms == GOAL_AT_MS:
            sides["raw, 8 threads"] = bench.raw_side_by_side
        costs_s = interleaved(bench, sides, delay_ms, count)
        gain = measuring.ratio(costs_s["raw"], costs_s["space"])
        rates = ", ".join(f"{side} {count / statistics.median(costs):,.0f}" for side, costs in costs_s.items())
        print(f"{delay_ms:3} ms, {count:,} of {len(bench.names):,} files: {rates} files/s; {gain}", flush=True)
        if delay_ms != GOAL_AT_MS:
            found[f"metadata_vs_raw_{delay_ms:g}ms"] = gain.mid
            continue
        found |= {
            "metadata_vs_raw": gain.mid,
            "metadata_vs_raw_low": gain.low,
            "metadata_vs_raw_8_threads": measuring.ratio(costs_s["raw, 8 threads"], costs_s["space"]).mid,
            "noise_floor": measuring.noise_floor(costs_s["raw"]),
            "metadata_answer_ms": statistics.median(bench.answers_ms),
        }
    return found


def interleaved(bench: Bench, sides: dict[str, Side], delay_ms: float, count: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, in an order that turns."""
    costs_s: dict[str, list[float]] = {side: [] for side in sides}
    names = list(sides)
    for seed in range(ROUNDS):
        turn, order = seed % len(names), bench.order(count, seed)
        for side in names[turn:] + names[:turn]:
            costs_s[side].append(bench.seconds(sides[side], delay_ms, order))
    return costs_s


if __name__ == "__main__":
    main()
