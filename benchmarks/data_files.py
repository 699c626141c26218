"""Files for the benchmarks of the data path: random ones of 5 to 15 KB, and the MNIST digits as PNGs where they are."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path

from benchmarks.measuring import ROOT

FOLDERS_OF = 500


def random_files(folder: Path, count: int, *, seed: int = 1) -> list[str]:
    """Make `count` files of 5 to 15 KB of random bytes, 500 to a folder; returns their paths."""
    rng = random.Random(seed)
    pool = rng.randbytes(16 << 20)
    paths = []
    for number in range(count):
        path = folder / f"{number // FOLDERS_OF:04d}" / f"{number:07d}.bin"
        if number % FOLDERS_OF == 0:
            path.parent.mkdir(parents=True)
        start = rng.randrange(len(pool) - 15_000)
        path.write_bytes(pool[start : start + rng.randrange(5_000, 15_000)])
        paths.append(str(path))
    return paths


def mnist_files(folder: Path, most: int) -> list[str]:
    """Unpack up to `most` of the MNIST training PNGs; made-up files of the same size where they are not at hand."""
    data = Path(os.environ.get("TANDEM_SHARED_DATA", ROOT.parent / "shared" / "data"))
    archive = data / "images" / "mnist_train_png.zip"
    if not archive.exists():
        print("the MNIST PNGs are not at hand: files of 289 random bytes stand in for them")
        return _stand_ins(folder, most)
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if name.endswith(".png")][:most]
        file.extractall(folder, names)
    return [str(folder / name) for name in names]


def _stand_ins(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True)
    paths = [str(folder / f"{number:05d}.png") for number in range(count)]
    for path in paths:
        Path(path).write_bytes(os.urandom(289))
    return paths
