"""Peers that read single samples: mosaicml-streaming and LitData at random, WebDataset one after another.

    .venv-peers/bin/python benchmarks/peer_reads.py KIND FOLDER MOST        KIND: streaming, litdata, webdataset

Reads the paths of the files it is to store, one a line, up to an empty line, and answers "ready". Then each line is a
round: a seed, with which up to MOST samples are read, each `dataset[number]` in a random order. Answers "CPU_S WALL_S
BYTES SAMPLES". WebDataset has no access by number: it goes through its tar files from the beginning.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peer_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Read = Callable[[Sequence[int]], Iterable[bytes]]


def by_streaming(paths: Sequence[Path], folder: Path) -> Read:
    """mosaicml-streaming."""
    peer_stores.mds(paths, folder)
    dataset: Any = peer_stores.streaming().StreamingDataset(local=str(folder), shuffle=False, batch_size=1)
    return lambda numbers: (dataset[number]["data"] for number in numbers)


def by_litdata(paths: Sequence[Path], folder: Path) -> Read:
    """LitData."""
    peer_stores.chunks(paths, folder)
    from litdata import StreamingDataset

    dataset: Any = StreamingDataset(str(folder))
    return lambda numbers: (dataset[number] for number in numbers)


def by_webdataset(paths: Sequence[Path], folder: Path) -> Read:
    """WebDataset, in the order of its files."""
    names = peer_stores.tars(paths, folder)
    import webdataset

    dataset: Any = webdataset.WebDataset(names, shardshuffle=False)
    return lambda numbers: (sample["bin"] for sample in itertools.islice(dataset, len(numbers)))


MAKERS = {"streaming": by_streaming, "litdata": by_litdata, "webdataset": by_webdataset}


def main(kind: str, folder: Path, most: int) -> None:
    """Serve rounds until the input ends."""
    paths = [Path(name) for name in iter(lambda: sys.stdin.readline().rstrip("\n"), "")]
    read = MAKERS[kind](paths, folder)
    print("ready", flush=True)
    for line in sys.stdin:
        numbers = list(range(len(paths)))
        random.Random(int(line)).shuffle(numbers)
        asked = numbers[:most]
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        sizes = [len(data) for data in read(asked)]
        cost = time.process_time() - cpu_s, time.perf_counter() - wall_s
        if kind != "webdataset":
            assert sizes == [paths[number].stat().st_size for number in asked]
        print(*cost, sum(sizes), len(sizes), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
