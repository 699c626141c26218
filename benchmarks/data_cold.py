"""Cold random reads of many small files: nothing of what is read is in the page cache.

    python benchmarks/data_cold.py [--quick] [--json] [--folder DIR]

Before every round the files it reads are dropped from the page cache (`POSIX_FADV_DONTNEED`, which needs no rights and
harms nobody else). A round reads a tenth of the files, chosen anew: 256 to a batch from the space, one after another as
files. Read bytes are what the kernel counts for this process (`read_bytes` of /proc/self/io).

Figures: `cold_vs_raw_wall` (what the reader chooses by itself, against `open(path, "rb").read()`; `..._low`: its lower
bound), `cold_amplification` (bytes read for each byte of a sample), `cold_amplification_direct` and
`cold_direct_vs_raw_wall` (past the page cache; None where the file system does not allow it). Goals: 3, 1.4, 1.15.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import data_files, measuring
from benchmarks.data_read import BATCH, packed
from tandem.core.errors import DataError
from tandem.data.space import Space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tandem.data.space.reading import How

SHARE = 10


def main() -> None:
    """Measure and print."""
    parser = measuring.options((__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", help="where files are written [the system's for temporary ones]")
    options = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    with tempfile.TemporaryDirectory(prefix="tandem-cold-", dir=options.folder) as folder:
        paths = data_files.random_files(Path(folder) / "random", 20_000 if options.quick else 50_000)
        space = packed(paths, Path(folder) / "random.space")
        os.sync()
        found = measure(paths, space, 7 if options.quick else 11)
    measuring.finish(found, as_json=options.json)


def measure(paths: Sequence[str], space: Path, rounds: int) -> dict[str, float | None]:
    """Interleaved rounds of files, the reader's own choice, and direct reads."""
    rows: dict[str, list[tuple[float, float]]] = {"raw": [], "auto": [], "direct": []}
    for seed in range(rounds):
        numbers = np.random.default_rng(seed).permutation(len(paths))[: len(paths) // SHARE]
        rows["raw"].append(raw(paths, numbers))
        rows["auto"].append(ours(space, numbers, "auto"))
        try:
            rows["direct"].append(ours(space, numbers, "direct"))
        except DataError as error:
            print(f"no direct reads: {error.given}")
    for side, costs in rows.items():
        if costs:
            rate = len(paths) // SHARE / statistics.median(wall_s for wall_s, _ in costs)
            print(f"{side:7s} {rate:9,.0f} samples/s, {statistics.median(read for _, read in costs):.3f} bytes a byte")
    raw_s = [wall_s for wall_s, _ in rows["raw"]]
    gain = measuring.ratio(raw_s, [wall_s for wall_s, _ in rows["auto"]])
    print(f"cold_vs_raw_wall: {gain}")
    direct = rows["direct"] if len(rows["direct"]) == rounds else None
    return {
        "cold_vs_raw_wall": gain.mid,
        "cold_vs_raw_wall_low": gain.low,
        "cold_amplification": statistics.median(read for _, read in rows["auto"]),
        "cold_amplification_direct": statistics.median(read for _, read in direct) if direct else None,
        "cold_direct_vs_raw_wall": measuring.ratio(raw_s, [wall_s for wall_s, _ in direct]).mid if direct else None,
    }


def raw(paths: Sequence[str], numbers: NDArray[np.int64]) -> tuple[float, float]:
    """Seconds, and bytes read for each byte of a file."""
    chosen = [paths[number] for number in numbers.tolist()]
    drop(chosen)
    before, began = read_bytes(), time.perf_counter()
    size = 0
    for path in chosen:
        with open(path, "rb") as file:  # noqa: PTH123 - as programs do
            size += len(file.read())
    return time.perf_counter() - began, (read_bytes() - before) / size


def ours(folder: Path, numbers: NDArray[np.int64], how: How) -> tuple[float, float]:
    """The same from the space."""
    drop([str(path) for path in (folder / "shards").iterdir()])
    with Space.open(folder, how=how, threads=1) as space:
        before, began = read_bytes(), time.perf_counter()
        size = 0
        for start in range(0, len(numbers), BATCH):
            size += len(space.read_batch(numbers[start : start + BATCH]).data_S)
        return time.perf_counter() - began, (read_bytes() - before) / size


def drop(paths: Sequence[str]) -> None:
    """Take files out of the page cache."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def read_bytes() -> int:
    """Bytes that this process has had read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


if __name__ == "__main__":
    main()
