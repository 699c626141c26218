"""A space behind HTTP: what reading ahead and the node's cache make of the distance.

    python benchmarks/data_remote.py [--quick] [--json] [--delay SECONDS]

A loopback server, a process of its own, answers each request after 5 ms. A loader reads shuffled epochs of 5 to 15 KB
samples in batches of 256, undecoded, and after each batch computes for 4 ms (a sleep). Rounds are interleaved; each
has a cache of its own, in memory where the machine has such a folder.

Figures: `remote_ahead_gain` (first epoch, wall, without over with reading ahead: the loader's own two threads read
four batches before their time either way), `remote_cached_vs_local` (second epoch, wall and without computing: the
space in a folder over the space at the URL, whose cache holds it by then; 1 is as fast as a folder),
`remote_amplification` (bytes fetched over bytes of samples, first epoch of a cache that holds all),
`remote_misses_vs_lru` (blocks fetched in the second and third epoch through a cache of 60 % of the space: by the least
recently used over by what is known of the future), `noise_floor`. `_low` is the lower bound of the interval.
"""

from __future__ import annotations

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
COMPUTE_S = 0.004
BLOCK_BYTES = 256 << 10


def main() -> None:
    """Measure and print."""
    parser = measuring.options((__doc__ or "").splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.005, help="seconds each request waits [0.005]")
    parser.add_argument("--serve", help="serve this folder until standard input ends")
    options = parser.parse_args()
    if options.serve:
        return serve(Path(options.serve), options.delay)
    print(f"{measuring.machine()}; commit {measuring.commit()}; {1000 * options.delay:g} ms a request")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="tandem-remote-", dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder)
        data_files.random_files(root / "files", 5000 if options.quick else 20_000)
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
    ahead, without, cached, local, amplification = [], [], [], [], []
    for number in range(rounds):
        for list_, ahead_bytes in ((without, 0), (ahead, 256 << 20)):
            settings = RemoteSettings(
                folder=str(root / f"c{number}-{ahead_bytes}"), block_bytes=BLOCK_BYTES, ahead_bytes=ahead_bytes
            )
            with Space.open(url, threads=1, remote=settings) as space:
                list_.append(epoch_s(space, number, COMPUTE_S))
                if ahead_bytes:
                    amplification.append(fetched_bytes(space) / space.data_bytes)
                    cached.append(epoch_s(space, number + 100, 0))
        with Space.open(root / "space", threads=1) as space:
            local.append(epoch_s(space, number + 100, 0))
        print(f"round {number + 1}: first epoch {without[-1]:.2f} s, with reading ahead {ahead[-1]:.2f} s; "
              f"from the cache {cached[-1]:.3f} s, from a folder {local[-1]:.3f} s")  # fmt: skip
    gain, near = measuring.ratio(without, ahead), measuring.ratio(local, cached)
    print(f"remote_ahead_gain: {gain}\nremote_cached_vs_local: {near}")
    return {
        "remote_ahead_gain": gain.mid,
        "remote_ahead_gain_low": gain.low,
        "remote_cached_vs_local": near.mid,
        "remote_cached_vs_local_low": near.low,
        "remote_amplification": max(amplification),
        "remote_misses_vs_lru": small_cache(root, url),
        "noise_floor": measuring.noise_floor(local),
    }


def epoch_s(space: Space, seed: int, compute_s: float) -> float:
    """Seconds of one epoch."""
    with Loader(space, BATCH, seed=seed, workers=2) as loader:
        began = time.perf_counter()
        for _batch in loader:
            if compute_s:
                time.sleep(compute_s)
        return time.perf_counter() - began


def small_cache(root: Path, url: str) -> float:
    """Blocks fetched by the least recently used, over those fetched by the known future; single samples, in order."""

    def fetched(name: str, read: Callable[[Space], None]) -> int:
        with Space.open(root / "space") as whole:
            limit = int(0.6 * whole.data_bytes)
        settings = RemoteSettings(
            folder=str(root / name), block_bytes=BLOCK_BYTES, limit_bytes=limit, ahead_bytes=0
        )  # fmt: skip
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
