"""Feeding a training: batches in an exact global shuffle, beside torch's DataLoader and the best peers.

Run: `python benchmarks/data_loader.py [--quick] [--json]`. Sizes: 50,000 files of 5 to 15 KB and the 60,000 MNIST PNGs
of `../shared/data` (or `TANDEM_SHARED_DATA`; as many drawn ones where they are absent); ``--quick`` takes 6,000 and
3,000. Everything is read once before it counts, so all sides read from the page cache. A round is an epoch of every
side (three, undecoded, of all but torch), one after another; batches have 64 samples, and undecoded ones are lists of
`bytes` on every side. Peers run in processes of their own, one for each package (`peer_loaders.py`); those of
`.venv-peers` are left out where it is not made (`make peers`). The slow ones, mosaicml-streaming, and WebDataset and
LitData, which are only shown since their shuffles are not exact, and decoding by OpenCV are left out by ``--quick``.

Figures (each ratio with its 95 % interval's lower end as NAME_low): `loader_vs_torch_wall` and
`loader_decode_vs_torch_wall` (samples a second, beside torch's DataLoader over raw files, undecoded, and decoded on
both sides by Pillow; `loader_decode_opencv_vs_torch_wall`: by OpenCV, where it is installed; ours in threads or
processes, whichever was faster), `loader_vs_best_exact_peer` (beside the fastest of LMDB, HF datasets and
mosaicml-streaming on the files of 5 to 15 KB), `loader_vs_best_exact_peer_cpu` (the same in samples a CPU-second, all
threads; what is left of it where others use the machine) and `loader_vs_best_exact_peer_png` (on the PNGs, undecoded),
`resume_ms` (the worst of 20: a new loader, a state from anywhere in an epoch, until the first batch is there),
`au_retinanet` and `au_resnet50` (MLPerf Storage's accelerator utilisation, compute by sleep: batches of 24 samples of
322 KB each 0.04755 s, and of 64 samples of 116 KB each 0.195 s; the first step does not count).
"""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import measuring
from benchmarks.peer_loaders import DECODERS, stack
from tandem.data import Batches, Decode, Loader
from tandem.data.space import Space
from tandem.data.space.writer import SpaceWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    Cost = tuple[float, float]
    """Seconds, and CPU seconds of the process that consumes, a sample."""

    Costs = dict[str, list[Cost]]
    Sides = dict[str, Callable[[int], Cost]]
    Results = dict[str, float | None]

BATCH = 64
WORKERS = 2
ROUNDS = 7
EPOCHS = 3  # a round, of those that take little
ROOT = Path(__file__).resolve().parent.parent
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
EXACT_PEERS = ("lmdb", "hf", "streaming")
SHOWN_PEERS = ("litdata", "webdataset")
SLOW_PEERS = ("streaming", *SHOWN_PEERS)


class Peer:
    """Another package to feed a training with, in a process of its own; it gets ready while others do.

    Args:
        jobs: What it is to do: a kind of `peer_loaders.py`, its files, and where it may store them.
    """

    def __init__(self, jobs: list[tuple[str, Path, Path]]) -> None:
        python = sys.executable if jobs[0][0].startswith("torch") else str(PEERS_PYTHON)
        script = str(ROOT / "benchmarks" / "peer_loaders.py")
        self._process = subprocess.Popen(
            [python, script, str(BATCH), *(str(word) for job in jobs for word in job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._ready = False

    def side(self, which: int) -> Callable[[int], Cost]:
        """Seconds, and CPU seconds of its process, a sample over one epoch of one of its jobs."""

        def epoch(seed: int) -> Cost:
            assert self._process.stdin is not None
            self.get_ready()
            self._process.stdin.write(f"{which} {seed}\n")
            self._process.stdin.flush()
            passed_s, samples, _, cpu_s = self._answer().split()
            return float(passed_s) / int(samples), float(cpu_s) / int(samples)

        return epoch

    def get_ready(self) -> None:
        """Wait for what it does before the first epoch."""
        if not self._ready:
            self._ready = self._answer().startswith("ready")

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]  # a pipe
        self._process.wait(60)

    def _answer(self) -> str:
        """The next line of our own protocol; some packages write to standard output too."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ready") or line[0].isdigit():
                return line
        message = f"a peer ended with status {self._process.wait()}"
        raise RuntimeError(message)


def epoch_cost(loader: Loader) -> Cost:
    """Seconds, and CPU seconds, a sample over the loader's next epoch; lengths are looked at as peers do."""
    begun_s, begun_cpu_s, samples, size_bytes = time.perf_counter(), time.process_time(), 0, 0
    for batch in loader:
        samples += len(batch)
        if isinstance(batch, list):
            size_bytes += sum(map(len, batch))
    return (time.perf_counter() - begun_s) / samples, (time.process_time() - begun_cpu_s) / samples


def random_files(folder: Path, count: int, low: int, high: int) -> None:
    """Files of random bytes of `low` to `high` bytes, a thousand a folder."""
    rng = np.random.default_rng(0)
    for number, size in enumerate(rng.integers(low, high + 1, count).tolist()):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.bin"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(rng.bytes(size))


def png_files(folder: Path, count: int) -> str:
    """MNIST's PNG files, or drawn ones of the same size; returns what they are."""
    folder.mkdir()
    shared = Path(os.environ.get("TANDEM_SHARED_DATA", ROOT.parent / "shared" / "data"))
    archive = shared / "images" / "mnist_train_png.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as opened:
            names = sorted(name for name in opened.namelist() if name.endswith(".png"))
            for number, name in enumerate(names[:: max(1, len(names) // count)][:count]):
                (folder / f"{number:05d}.png").write_bytes(opened.read(name))
        return "MNIST"
    from PIL import Image

    rng = np.random.default_rng(28)
    rows, columns = np.mgrid[:28, :28]
    for number, (row, column, radius) in enumerate(rng.uniform((10, 10, 3), (18, 18, 9), (count, 3)).tolist()):
        off = np.abs(np.hypot(rows - row, columns - column) - radius)
        file = io.BytesIO()
        Image.fromarray((255 * np.exp(-off)).astype(np.uint8)).save(file, "PNG")
        (folder / f"{number:05d}.png").write_bytes(file.getvalue())
    return "drawn"


def packed(files: Path, folder: Path) -> Space:
    """A space of these files. Loaders have threads of their own: one for each batch is enough."""
    with SpaceWriter(folder) as writer:
        for path in sorted(path for path in files.rglob("*") if path.is_file()):
            writer.add(path.relative_to(files).as_posix(), path.read_bytes())
        writer.commit()
    return Space.open(folder, threads=1)


def packed_random(folder: Path, count: int, size: int) -> Space:
    """A space of samples of one size, without files."""
    content = np.random.default_rng(1).bytes(size)
    with SpaceWriter(folder) as writer:
        for number in range(count):
            writer.add(f"{number:06d}", number.to_bytes(8, "little") + content[8:])
        writer.commit()
    return Space.open(folder, threads=1)


def rounds(sides: Sides, epochs_a_round: int = 1) -> Costs:
    """What a sample costs every side in interleaved rounds, after one that does not count."""
    found: Costs = {name: [] for name in sides}
    for seed in range(ROUNDS + 1):
        for name, side in sides.items():
            times = 1 if name.startswith("torch") else epochs_a_round
            epochs = [side(times * seed + i) for i in range(times)]
            if seed:
                found[name].append((mean(one[0] for one in epochs), mean(one[1] for one in epochs)))
    for name, costs in found.items():
        rates = [1 / wall_s for wall_s, _ in costs]
        print(
            f"  {name:24s} {np.median(rates):10,.0f} samples/s   rounds differ by {measuring.noise_floor(rates):.0f} %"
        )
    return found


def compared(figure: str, found: Costs, peers: list[str], results: Results, *, ours: str = "tandem") -> None:
    """Ours beside the fastest of some peers."""
    which = 1 if figure.endswith("_cpu") else 0
    if not peers:
        results[figure] = results[f"{figure}_low"] = None
        return
    best = min(peers, key=lambda name: float(np.median([cost[0] for cost in found[name]])))
    ratio = measuring.ratio([cost[which] for cost in found[best]], [cost[which] for cost in found[ours]])
    print(f"  {figure}: {ratio} beside {best}")
    results[figure], results[f"{figure}_low"] = ratio.mid, ratio.low


def undecoded(name: str, space: Space, peers: Sides) -> Costs:
    """Costs of all sides on these files, as lists of bytes."""
    print(f"{name}, undecoded:")
    with Loader(space, BATCH, workers=WORKERS) as loader:
        return rounds({"tandem": lambda _: epoch_cost(loader), **peers}, EPOCHS)


def decoded(space: Space, decoder: str, peer: Callable[[int], Cost], results: Results, figure: str) -> None:
    """Torch and ours, in threads and in processes, with the same decoder and the same stacking."""
    print(f"PNGs, decoded by {decoder} and stacked:")
    with ExitStack() as open_loaders:
        sides: Sides = {"torch": peer}
        for where in ("threads", "processes"):
            loader = open_loaders.enter_context(
                Loader(space, BATCH, decode=Decode(DECODERS[decoder], stack), workers=WORKERS, decode_in=where)  # type: ignore[arg-type]
            )
            sides[where] = lambda _, loader=loader: epoch_cost(loader)  # type: ignore[misc]
        found = rounds(sides)
    ours = min(("threads", "processes"), key=lambda where: float(np.median([cost[0] for cost in found[where]])))
    print(f"  better in {ours}")
    compared(figure, found, ["torch"], results, ours=ours)


def resume_ms(space: Space, trials: int = 20) -> float:
    """The worst time from a state to its first batch, in milliseconds; the space is open."""
    with Loader(space, BATCH) as loader:
        state = loader.state_dict()
    worst_s = 0.0
    for trial in range(trials):
        position = BATCH * (trial * len(space) // trials // BATCH)
        begun_s = time.perf_counter()
        with Loader(space, BATCH, workers=WORKERS) as resumed:
            resumed.load_state_dict({**state, "epoch": trial, "position": position})
            next(iter(resumed))
            worst_s = max(worst_s, time.perf_counter() - begun_s)
    return 1000 * worst_s


def utilisation(space: Space, batch: int, compute_s: float, steps: int) -> float:
    """Compute time over all time, from the second step on."""
    with Loader(space, Batches(batch, last="drop"), workers=WORKERS) as loader:
        batches = itertools.chain.from_iterable(iter(loader) for _ in itertools.count())
        next(batches)
        time.sleep(compute_s)
        begun_s = time.perf_counter()
        for batch_ in itertools.islice(batches, steps):
            assert len(batch_) == batch
            time.sleep(compute_s)
        return steps * compute_s / (time.perf_counter() - begun_s)


def measure(*, quick: bool, scratch: Path) -> Results:
    """All figures."""
    results: Results = {}
    there = [
        kind for kind in (*EXACT_PEERS, *SHOWN_PEERS) if PEERS_PYTHON.exists() and not (quick and kind in SLOW_PEERS)
    ]
    exact = [kind for kind in there if kind in EXACT_PEERS]
    decoders = [name for name, package in (("pillow", "PIL"), ("opencv", "cv2")) if find_spec(package)]
    if quick:
        decoders = decoders[:1]
    files, pngs = scratch / "files", scratch / "pngs"
    random_files(files, 6000 if quick else 50_000, 5000, 15_000)
    source = png_files(pngs, 3000 if quick else 60_000)
    with ExitStack() as open_peers:

        def peer(*jobs: tuple[str, Path]) -> list[Callable[[int], Cost]]:
            one = Peer([(kind, of, scratch / f"{of.name}.{kind}") for kind, of in jobs])
            open_peers.callback(one.close)
            started.append(one)
            return [one.side(which) for which in range(len(jobs))]

        started: list[Peer] = []
        torch_files, *torch_pngs = peer(("torch", files), *((f"torch-{name}", pngs) for name in decoders))
        others = {kind: peer((kind, files), (kind, pngs)) for kind in there}
        space, png_space = packed(files, scratch / "files.space"), packed(pngs, scratch / "pngs.space")
        for one in started:
            one.get_ready()

        sides = {"torch": torch_files, **{kind: of_files for kind, (of_files, _) in others.items()}}
        found = undecoded("files of 5 to 15 KB", space, sides)
        compared("loader_vs_torch_wall", found, ["torch"], results)
        compared("loader_vs_best_exact_peer", found, exact, results)
        compared("loader_vs_best_exact_peer_cpu", found, exact, results)
        results["resume_ms"] = resume_ms(space)
        found = undecoded(f"PNGs ({source})", png_space, {kind: of_pngs for kind, (_, of_pngs) in others.items()})
        compared("loader_vs_best_exact_peer_png", found, exact, results)
        for name, side in zip(decoders, torch_pngs, strict=True):
            figure = "loader_decode_vs_torch_wall" if name == "pillow" else f"loader_decode_{name}_vs_torch_wall"
            decoded(png_space, name, side, results, figure)

    steps = 20 if quick else 400
    retinanet = packed_random(scratch / "retinanet.space", 250 if quick else 3000, 322_957)
    results["au_retinanet"] = utilisation(retinanet, 24, 0.04755, steps)
    resnet = packed_random(scratch / "resnet.space", 500 if quick else 6000, 114_660)
    results["au_resnet50"] = utilisation(resnet, 64, 0.195, steps // 4)
    return results


def main() -> None:
    """Measure and print."""
    given = measuring.options("batches in an exact global shuffle, beside torch's DataLoader and others").parse_args()
    print(measuring.machine())
    with tempfile.TemporaryDirectory(prefix="tandem-loader-") as scratch:
        found = measure(quick=given.quick, scratch=Path(scratch))
    measuring.finish(found, as_json=given.json)


if __name__ == "__main__":
    main()
