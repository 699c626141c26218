"""Random reads of many small files: a space against the files themselves and against LMDB, all in the page cache.

    python benchmarks/data_read.py [--quick] [--json] [--folder DIR]

Every round reads all files once, in a random order of its own, 256 to a batch; what is read from the space is verified.
Rounds are interleaved. Raw is `open(path, "rb").read()`; LMDB runs in a process of its own (.venv-peers, `make peers`),
as its documentation advises for random reads. CPU ratios are of samples per CPU-second (user and system, all threads)
with one thread; the wall ratio is with two threads for the space, against the faster of LMDB with one and with two.
Without --quick three more peers are shown (peer_reads.py): single random reads by mosaicml-streaming and LitData, and
WebDataset's way through its tar files, of a part of the files each, counted up to all.

Figures: `read_vs_raw_cpu`, `read_vs_lmdb_cpu`, `read_vs_lmdb_wall` (the lower of the two sets of files, each with its
lower bound as `..._low`); `read_per_cpu_s` (samples a CPU-second, 5-15 KB), `noise_floor` (percent);
`open_million_ms`, `open_million_mb` (a fresh process imports `tandem.data.space`, opens a space of 1,000,000 samples
and looks one up by path and by number: the median, and the most memory it ever held), `open_million_alone_ms`
(without the import), `open_million_cpu_ms` (its CPU time, which others on the machine do not stretch). Goals: 7, 1.3,
1.5; 50 ms; 40 MB.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import data_files, measuring
from tandem.data.space import Space, layout
from tandem.data.space.columns import Columns
from tandem.data.space.shard import ShardWriter
from tandem.data.space.writer import SpaceWriter, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Cost = tuple[float, float]
    """CPU and wall seconds of a round."""

BATCH = 256
SHOWN = {"streaming": 10_000, "litdata": 200, "webdataset": 10_000}
"""Peers that no figure is about, and how many samples a round reads of them."""
MILLION = 1_000_000
OPENING = """
import time
begun, begun_cpu = time.perf_counter(), time.process_time()
from tandem.data.space import Space
imported = time.perf_counter()
space = Space.open({folder!r})
number = space.number("train/class0777/image0777123.jpg")
assert space.read(number) == b"777123" and space.read(123456) == b"123456"
ended = time.perf_counter()
memory_kb = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
cpu_s = time.process_time() - begun_cpu
print(1e3 * (ended - begun), 1e3 * (ended - imported), int(memory_kb) / 1024, 1e3 * cpu_s)
"""


def main() -> None:
    """Measure and print."""
    parser = measuring.options((__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", help="where files are written [the system's for temporary ones]")
    options = parser.parse_args()
    print(f"{measuring.machine()}; commit {measuring.commit()}")
    found: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory(prefix="tandem-read-", dir=options.folder) as folder:
        random_set = data_files.random_files(Path(folder) / "random", 5_000 if options.quick else 50_000)
        mnist_set = data_files.mnist_files(Path(folder) / "mnist", 5_000 if options.quick else 60_000)
        sets = {"5-15 KB": random_set, "MNIST": mnist_set}
        found |= open_million(Path(folder) / "million", 5 if options.quick else 15)
        rounds = 7 if options.quick else 11
        for name, paths in sets.items():
            shown = {} if options.quick else SHOWN
            for figure, value in compare(name, paths, Path(folder), rounds, shown).items():
                found[figure] = value if found.get(figure) is None else min(found[figure] or 0, value)
    measuring.finish(found, as_json=options.json)


def compare(name: str, paths: Sequence[str], folder: Path, rounds: int, shown: Mapping[str, int]) -> dict[str, float]:
    """The ratios for one set of files."""
    space = packed(paths, folder / f"{name}.space")
    total = sum(Path(path).stat().st_size for path in paths)
    with ExitStack() as stack:
        one = stack.enter_context(Space.open(space, threads=1))
        two = stack.enter_context(Space.open(space, threads=2))
        sides: dict[str, Callable[[int], Cost]] = {
            "raw": lambda seed: raw(paths, seed, total),
            "space": lambda seed: ours(one, seed, total),
            "space, 2 threads": lambda seed: ours(two, seed, total),
        }
        for threads in (1, 2):
            if (peer := Peer.lmdb(paths, folder / f"{name}.lmdb{threads}", threads, total)) is not None:
                stack.callback(peer.close)
                sides[f"LMDB, {threads} threads"] = peer.round
        for kind, most in shown.items():
            if (peer := Peer.shown(kind, paths, folder / f"{name}.{kind}", most, total)) is not None:
                stack.callback(peer.close)
                sides[kind] = peer.round
        costs = interleaved(sides, rounds)
    for side, rows in costs.items():
        cpu, wall = (len(paths) / statistics.median(row[i] for row in rows) for i in (0, 1))
        print(f"{name:8s} {side:18s} {cpu:10,.0f} samples/CPU-s {wall:10,.0f} samples/s")
    return ratios(name, costs, len(paths))


def ratios(name: str, costs: dict[str, list[Cost]], samples: int) -> dict[str, float]:
    """Figures of what was measured."""

    def column(side: str, which: int) -> list[float]:
        return [row[which] for row in costs[side]]

    told = {"read_vs_raw_cpu": measuring.ratio(column("raw", 0), column("space", 0))}
    if "LMDB, 1 threads" in costs:
        told["read_vs_lmdb_cpu"] = measuring.ratio(column("LMDB, 1 threads", 0), column("space", 0))
        best = min(("LMDB, 1 threads", "LMDB, 2 threads"), key=lambda side: statistics.median(column(side, 1)))
        told["read_vs_lmdb_wall"] = measuring.ratio(column(best, 1), column("space, 2 threads", 1))
    found = {}
    for figure, value in told.items():
        print(f"{name:8s} {figure}: {value}")
        found |= {figure: value.mid, f"{figure}_low": value.low}
    if name != "MNIST":
        found["read_per_cpu_s"] = samples / statistics.median(column("space", 0))
        found["noise_floor"] = measuring.noise_floor(column("space", 0))
    return found


def interleaved(sides: dict[str, Callable[[int], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """One round of each side after another, in an order that turns; the first, which warms up, is left out."""
    costs: dict[str, list[Cost]] = {side: [] for side in sides}
    names = list(sides)
    for number in range(rounds + 1):
        turn = number % len(names)
        for side in names[turn:] + names[:turn]:
            cost = sides[side](number)
            if number:
                costs[side].append(cost)
    return costs


def raw(paths: Sequence[str], seed: int, total: int) -> Cost:
    """Every file opened and read."""
    order = np.random.default_rng(seed).permutation(len(paths)).tolist()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    size = 0
    for number in order:
        with open(paths[number], "rb") as file:  # noqa: PTH123 - as programs do
            size += len(file.read())
    cost = time.process_time() - cpu_s, time.perf_counter() - wall_s
    assert size == total
    return cost


def ours(space: Space, seed: int, total: int) -> Cost:
    """Every sample, in batches."""
    order = np.random.default_rng(seed).permutation(len(space))
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    size = 0
    for start in range(0, len(order), BATCH):
        size += len(space.read_batch(order[start : start + BATCH]).data_S)
    cost = time.process_time() - cpu_s, time.perf_counter() - wall_s
    assert size == total
    return cost


class Peer:
    """Another way to read, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], samples: int, total: int) -> None:
        """Use `Peer.lmdb` and `Peer.shown`."""
        self._process, self._samples, self._total = process, samples, total

    @classmethod
    def lmdb(cls, paths: Sequence[str], folder: Path, threads: int, total: int) -> Peer | None:
        """LMDB, batch by batch; None where it is not installed."""
        folder.mkdir()
        return cls._started("LMDB", ["peer_lmdb.py", str(folder), str(BATCH), str(threads)], paths, total)

    @classmethod
    def shown(cls, kind: str, paths: Sequence[str], folder: Path, most: int, total: int) -> Peer | None:
        """A peer of peer_reads.py; None where it is not installed."""
        return cls._started(kind, ["peer_reads.py", kind, str(folder), str(most)], paths, total)

    @classmethod
    def _started(cls, name: str, command: list[str], paths: Sequence[str], total: int) -> Peer | None:
        """Start it and let it store the files."""
        python = measuring.ROOT / ".venv-peers" / "bin" / "python"
        if not python.exists():
            print(f"{name} is not installed: run `make peers`")
            return None
        whole = [str(python), str(measuring.ROOT / "benchmarks" / command[0]), *command[1:]]
        process = subprocess.Popen(whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        peer = cls(process, len(paths), total)
        try:
            if peer._ask("\n".join(paths) + "\n\n") == "ready\n":
                return peer
        except BrokenPipeError:
            pass
        print(f"{name} does not run: `make peers` installs it anew")
        return None

    def round(self, seed: int) -> Cost:
        """One round; of a peer that read a part of the files, what all would have cost."""
        cpu_s, wall_s, size, *read = self._ask(f"{seed}\n").split()
        share = self._samples / int(read[0]) if read else 1.0
        assert read or int(size) == self._total
        return share * float(cpu_s), share * float(wall_s)

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _ask(self, text: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()
        for line in self._process.stdout:  # some packages write there too
            if line == "ready\n" or line[0].isdigit():
                return line
        return ""


def packed(paths: Sequence[str], folder: Path) -> Path:
    """A space of these files, numbered as they are."""
    with SpaceWriter(folder) as writer:
        for path in paths:
            writer.add(path.lstrip("/"), Path(path).read_bytes())
        writer.commit()
    return folder


def open_million(folder: Path, times: int) -> dict[str, float]:
    """What opening a space of a million samples costs a fresh process."""
    target = Target(folder)
    with ShardWriter(target.pending, target.space_id) as shard:  # PartWriter takes three times as long
        written_N3 = np.array([shard.add(b"%d" % number) for number in range(MILLION)], np.uint64)
        entry = shard.finish()
    paths = [b"train/class%04d/image%07d.jpg" % (number // 1000, number) for number in range(MILLION)]
    written_N3[:, 2] += np.uint64(0o100644 << layout.SIZE_BITS)
    target.commit([Columns(written_N3, np.zeros(MILLION, np.int64), paths, [entry])])
    told = []
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", OPENING.format(folder=str(folder))]
    for _ in range(times + 1):  # the first may have to compile modules
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
        told.append([float(word) for word in done.stdout.split()])
    return {
        "open_million_ms": statistics.median(row[0] for row in told[1:]),
        "open_million_alone_ms": statistics.median(row[1] for row in told[1:]),
        "open_million_mb": max(row[2] for row in told[1:]),
        "open_million_cpu_ms": statistics.median(row[3] for row in told[1:]),
    }


if __name__ == "__main__":
    main()
