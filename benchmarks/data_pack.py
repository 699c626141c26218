"""Packing many small files into a space: how fast, and how much larger it is than what it holds.

    python benchmarks/data_pack.py [--quick] [--json] [--folder DIR]

Packs files of 5 to 15 KB, just written and so in the page cache, in as many processes as there are cores, and makes it
all durable. Beside it goes `cp -r` of the same files followed by `sync`, for what the file system can do; not with
--quick, where copies would take most of the time.

Figures: `pack_files_per_s` (the median of the rounds), `pack_vs_copy` (wall; None with --quick), `size_overhead`
(bytes of the files over those of its samples, less 1; 5-15 KB), `size_overhead_bytes` (MNIST PNGs: bytes for each
sample beyond it and its path). Goals: 4,000; 0.01; 40.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import data_files, measuring
from tandem.data.pack.packing import pack
from tandem.data.space import Space


def main() -> None:
    """Measure and print."""
    parser = measuring.options((__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", help="where files are written [the system's for temporary ones]")
    options = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    with tempfile.TemporaryDirectory(prefix="tandem-pack-", dir=options.folder) as folder:
        root = Path(folder)
        paths = data_files.random_files(root / "random", 8_000 if options.quick else 50_000)
        data_files.mnist_files(root / "mnist", 3_000 if options.quick else 60_000)
        packing, copying = [], []
        for _ in range(5 if options.quick else 7):
            packing.append(packing_s(root))
            copying += [] if options.quick else [copying_s(root)]
        gain = measuring.ratio(copying, packing) if copying else None
        print(f"pack_vs_copy: {gain or 'not measured with --quick'}")
        found = {
            "pack_files_per_s": len(paths) / statistics.median(packing),
            "pack_vs_copy": gain and gain.mid,
            "pack_vs_copy_low": gain and gain.low,
            "size_overhead": overhead(root / "random.space")[0],
        }
        run(root / "mnist", root / "mnist.space")
        found["size_overhead_bytes"] = overhead(root / "mnist.space")[1]
    measuring.finish(found, as_json=options.json)


def packing_s(root: Path) -> float:
    """Seconds to pack."""
    space = root / "random.space"
    shutil.rmtree(space, ignore_errors=True)
    os.sync()
    began = time.perf_counter()
    run(root / "random", space)
    return time.perf_counter() - began


def copying_s(root: Path) -> float:
    """Seconds to copy the files and make them durable."""
    copy = root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    os.sync()
    began = time.perf_counter()
    subprocess.run(["cp", "-r", root / "random", copy], check=True)
    subprocess.run(["sync", "-f", copy], check=True)
    return time.perf_counter() - began


def run(source: Path, space: Path) -> None:
    """Pack a folder."""
    pack(str(source), str(space), workers=len(os.sched_getaffinity(0)), tell=lambda done, of: None)


def overhead(folder: Path) -> tuple[float, float]:
    """Bytes of the files over those of the samples, less 1; and bytes for each sample beyond it and its path."""
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with Space.open(folder) as space:
        paths = sum(len(space.index.path_bytes(number)) for number in range(len(space)))
        return held / space.data_bytes - 1, (held - space.data_bytes - paths) / len(space)


if __name__ == "__main__":
    main()
