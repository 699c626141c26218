"""A space behind HTTP: what reading ahead and the node's cache make of the distance.

    python benchmarks/data_remote.py [--quick] [--json] [--delay SECONDS]

A loopback server, a process of its own, answers each request after 30 ms, about what an object store takes. A loader
with two threads reads samples of 5 to 15 KB, undecoded; rounds are interleaved, each with a cache of its own, in
memory where the machine has such a folder.

Figures: `remote_ahead_gain` (first epoch, in order, batches of 64 and 4 ms of computing (a sleep) for each: wall
without over with reading ahead; the loader's own threads read four batches before their time either way),
`remote_ahead_wait` (the share of that epoch spent waiting, with reading ahead), `remote_shuffled_gain` (the same gain
of a shuffled first epoch, whose first batches need blocks from everywhere), `remote_cached_vs_local` (five shuffled
epochs in CPU time: of the space in a folder over the space at the URL, all of it cached by then; 1 is as fast as a
folder), `remote_amplification` (bytes fetched over bytes of samples in a first epoch), `remote_misses_vs_lru` (blocks
fetched through a cache of 60 % of the space: by the least recently used over by the known future; shuffled, batches of
16), `noise_floor` (of the epochs from a folder). `_low` is the lower bound of the interval.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import data_files, measuring
from benchmarks.range_server import RangeServer
from tandem.data import Loader
from tandem.data.cache.keeping import contents
from tandem.data.cache.settings import RemoteSettings
from tandem.data.pack.packing import pack
from tandem.data.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 256
SMALL_BATCH = 64
COMPUTE_S = 0.004
EPOCHS = 5
BLOCK_BYTES = 256 << 10


def main() -> None:
    """Measure and print."""
    parser = measuring.options((__doc__ or "").splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.03, help="seconds each request waits [0.03]")
    parser.add_argument("--serve", help="serve this folder until standard input ends")
    options = parser.parse_args()
    if options.serve:
        return serve(Path(options.serve), options.delay)
    print(f"{measuring.machine()}; commit {measuring.commit()}; {1000 * options.delay:g} ms a request")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="tandem-remote-", dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder)
        data_files.random_files(root / "files", 4000 if options.quick else 20_000)
        pack(str(root / "files"), str(root / "space"), workers=2, shard_bytes=16 << 20, tell=lambda done, of: None)
        command = [sys.executable, __file__, "--serve", str(root / "space"), "--delay", str(options.delay)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdin is not None
            url = server.stdout.readline().strip()
            found = measured(root, url, 7)
            server.stdin.close()
    measuring.finish(found, as_json=options.json)
    return None


def serve(folder: Path, delay_s: float) -> None:
    """Serve a folder."""
    with RangeServer(folder, delay_s) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def measured(root: Path, url: str, rounds: int) -> dict[str, float | None]:
    """All figures."""
    seconds: dict[str, list[float]] = {}
    amplification, waits = [], []
    for number in range(rounds):
        for ahead_bytes, shuffle in ((0, False), (256 << 20, False), (0, True), (256 << 20, True)):
            name = f"{'shuffled' if shuffle else 'in order'}, {'with' if ahead_bytes else 'without'}"
            cache = root / f"cache-{number}-{ahead_bytes}-{shuffle}"
            settings = RemoteSettings(folder=str(cache), block_bytes=BLOCK_BYTES, ahead_bytes=ahead_bytes)
            with Space.open(url, threads=1, remote=settings) as space:
                spent_s, wait = first_epoch(space, shuffle=shuffle)
                seconds.setdefault(name, []).append(spent_s)
                amplification.append(fetched_bytes(space) / space.data_bytes)
                if ahead_bytes and not shuffle:
                    waits.append(wait)
                if ahead_bytes and shuffle:
                    seconds.setdefault("cached", []).append(epochs_cpu_s(space, number))
            shutil.rmtree(cache)
        with Space.open(root / "space", threads=1) as space:
            seconds.setdefault("folder", []).append(epochs_cpu_s(space, number))
        print(f"round {number + 1}: " + "; ".join(f"{name} {spent[-1]:.2f} s" for name, spent in seconds.items()))
    found: dict[str, float | None] = {}
    for figure, above, below in (
        ("remote_ahead_gain", "in order, without", "in order, with"),
        ("remote_shuffled_gain", "shuffled, without", "shuffled, with"),
        ("remote_cached_vs_local", "folder", "cached"),
    ):
        ratio = measuring.ratio(seconds[above], seconds[below])
        print(f"{figure}: {ratio}")
        found |= {figure: ratio.mid, f"{figure}_low": ratio.low}
    return found | {
        "remote_ahead_wait": statistics.median(waits),
        "remote_amplification": max(amplification),
        "remote_misses_vs_lru": small_cache(root, url),
        "noise_floor": measuring.noise_floor(seconds["folder"]),
    }


def first_epoch(space: Space, *, shuffle: bool) -> tuple[float, float]:
    """Seconds of an epoch with some computing, and the share of it spent waiting."""
    with Loader(space, SMALL_BATCH, shuffle=shuffle, workers=2) as loader:
        began = time.perf_counter()
        for _batch in loader:
            time.sleep(COMPUTE_S)
        return time.perf_counter() - began, loader.metrics()["data_wait_share"]


def epochs_cpu_s(space: Space, seed: int) -> float:
    """CPU seconds of some epochs."""
    with Loader(space, BATCH, seed=seed, workers=2) as loader:
        began = time.process_time()
        for _ in range(EPOCHS):
            for _batch in loader:
                pass
        return time.process_time() - began


def small_cache(root: Path, url: str) -> float:
    """Blocks fetched by the least recently used, over those fetched by the known future."""

    def fetched(name: str, read: Callable[[Space], None]) -> int:
        with Space.open(root / "space") as whole:
            limit = int(0.6 * whole.data_bytes)
        settings = RemoteSettings(folder=str(root / name), block_bytes=BLOCK_BYTES, limit_bytes=limit, ahead_bytes=0)
        with Space.open(url, threads=1, remote=settings) as space:
            read(space)
            return fetched_bytes(space)

    def loader_of(space: Space) -> Loader:
        return Loader(space, 16, seed=1, workers=0, prefetch=1, decode=len)

    def by_the_future(space: Space) -> None:
        with loader_of(space) as loader:
            for number, _batch in enumerate(loader):
                if number == 40:
                    break

    def by_use(space: Space) -> None:
        numbers_N = loader_of(space).coming(41 * 16)
        for begin in range(0, len(numbers_N), 16):
            space.read_batch(numbers_N[begin : begin + 16])

    return fetched("by-use", by_use) / fetched("by-future", by_the_future)


def fetched_bytes(space: Space) -> int:
    """What the cache of a space has fetched in all."""
    return int(contents(space.home.cache)["fetched_bytes"])  # type: ignore[attr-defined]  # a remote home has one


if __name__ == "__main__":
    main()
