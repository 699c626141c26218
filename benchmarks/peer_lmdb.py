"""LMDB as a peer: random reads by key, in batches. Run by the interpreter of .venv-peers.

    .venv-peers/bin/python benchmarks/peer_lmdb.py FOLDER BATCH THREADS

Reads the paths of the files it is to store, one a line, up to an empty line, and answers "ready". Then each line is a
round: a seed, with which all files are read once in a random order; answers "CPU_S WALL_S BYTES". A batch is one
transaction and one `get` of bytes for each key (`getmulti`, and buffers joined, were as fast or slower).
"""

import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb


def main(folder: str, batch: int, threads: int) -> None:
    """Serve rounds until the input ends."""
    paths = list(iter(lambda: sys.stdin.readline().rstrip("\n"), ""))
    size = sum(Path(path).stat().st_size for path in paths)
    with lmdb.open(folder, map_size=3 * size + (64 << 20)) as made, made.begin(write=True) as writing:
        for number, path in enumerate(paths):
            writing.put(b"%08d" % number, Path(path).read_bytes())
    # No locks and no readahead: what LMDB's own documentation advises for random reads of what does not change.
    environment = lmdb.open(folder, readonly=True, lock=False, readahead=False)

    def read(keys: list[bytes]) -> int:
        with environment.begin() as reading:
            return sum([len(data) for data in [reading.get(key) for key in keys]])

    print("ready", flush=True)
    with ThreadPoolExecutor(threads) as pool:
        for line in sys.stdin:
            keys = [b"%08d" % number for number in range(len(paths))]
            random.Random(int(line)).shuffle(keys)
            batches = [keys[start : start + batch] for start in range(0, len(keys), batch)]
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            total = sum(map(read, batches) if threads == 1 else pool.map(read, batches))
            print(time.process_time() - cpu_s, time.perf_counter() - wall_s, total, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
