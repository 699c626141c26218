"""A linear classifier trained with PyTorch on images that a loader reads from a space; on the GPU if there is one.

The space holds 2,000 PNG files in folders of ten classes: MNIST digits (`images/mnist_train_png.zip` in
$TANDEM_SHARED_DATA, or in `../shared/data` beside the repository), or, where the archive is absent, drawn bars of ten
slopes. It is packed while loading, into a temporary folder. A step is one shuffled batch of 64, decoded by Pillow in
the loader's threads. At the end the accuracy on the same images has to be at least 0.75, and no sample may have been
read more often than there were epochs.

Run records carry `samples_per_s` and `data_wait_share`, the part of the time spent waiting for data.

Run: `python spacetrain.py --scale 1 --device auto`. Limits: at least 100 steps.
"""

from __future__ import annotations

import io
import itertools
import os
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from application import Application, launch
from PIL import Image

from tandem.data import Batches, Decode, Loader
from tandem.data.space import Space
from tandem.data.space.writer import SpaceWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILES, CLASSES, SIDE, BATCH = 2000, 10, 28, 64
ACCURACY, LEARNING_RATE = 0.75, 0.1
STANDARD_STEPS = 450
ARCHIVE = "images/mnist_train_png.zip"


def mnist_files() -> dict[str, bytes]:
    """Return PNG files of the shared archive by paths that begin with their class; empty where it is absent."""
    shared = os.environ.get("TANDEM_SHARED_DATA")
    root = Path(shared) if shared else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not (root / ARCHIVE).is_file():
        return {}
    with zipfile.ZipFile(root / ARCHIVE) as opened:
        names = sorted(name for name in opened.namelist() if name.endswith(".png"))
        return {"/".join(name.split("/")[-2:]): opened.read(name) for name in names[:: len(names) // FILES][:FILES]}


def drawn_files() -> dict[str, bytes]:
    """Return as many drawn images: a bar through some point, its slope being its class."""
    rng = np.random.default_rng(10)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    files = {}
    for number, (row, column) in enumerate(rng.uniform(12, 16, (FILES, 2))):
        slope = np.pi * (number % CLASSES) / CLASSES
        off = np.abs((rows - row) * np.cos(slope) - (columns - column) * np.sin(slope))
        file = io.BytesIO()
        Image.fromarray((255 * np.exp(-off)).astype(np.uint8)).save(file, "PNG")
        files[f"{number % CLASSES}/{number:05d}.png"] = file.getvalue()
    return files


def packed(files: dict[str, bytes], folder: Path) -> Space:
    """Write the files into a space, in the order of their paths."""
    with SpaceWriter(folder) as writer:
        for path in sorted(files):
            writer.add(path, files[path])
        writer.commit()
    return Space.open(folder, threads=1)


def image(view: memoryview, number: int) -> tuple[NDArray[np.float32], int]:
    """Return the pixels of a PNG file, between 0 and 1, and the number of the sample."""
    pixels = np.asarray(Image.open(io.BytesIO(view)).convert("L"), dtype=np.float32)
    return pixels.ravel() / 255, number


def batch(images: list[tuple[NDArray[np.float32], int]]) -> tuple[NDArray[np.float32], list[int]]:
    """Return the images as one array, and their numbers."""
    return np.stack([pixels for pixels, _ in images]), [number for _, number in images]


def run(app: Application) -> str:
    app.phase("load")
    torch.set_num_threads(app.threads)
    files = mnist_files()
    source = "MNIST" if files else "drawn"
    with tempfile.TemporaryDirectory() as scratch, packed(files or drawn_files(), Path(scratch) / "space") as space:
        labels = np.array([int(space.path(number).split("/")[0]) for number in range(len(space))])
        weights = torch.zeros(SIDE * SIDE, CLASSES, device=app.device)
        times = np.zeros(len(space), dtype=np.int64)
        total = app.amount(STANDARD_STEPS, least=100)
        decode = Decode(image, batch, numbered=True)
        with Loader(space, Batches(BATCH, last="drop"), decode=decode, workers=app.threads) as loader:
            app.phase("train")
            epochs = itertools.chain.from_iterable(iter(loader) for _ in itertools.count())
            for _ in app.steps(total):
                pixels, numbers = next(epochs)
                times[numbers] += 1
                descend(weights, torch.from_numpy(pixels).to(app.device), torch.from_numpy(labels[numbers]))
                app.note(**loader.metrics())

        app.phase("check")
        if app.spoiled:
            weights = weights.roll(1, dims=1)
            times[0] += 100
        epoch_steps = len(space) // BATCH
        whole, rest = divmod(total, epoch_steps)
        app.require(int(times.max()) <= whole + (rest > 0), f"a sample was read {times.max()} times in {whole} epochs")
        app.require(int(times.sum()) == total * BATCH, f"{times.sum()} samples were read, not {total * BATCH}")
        pixels, numbers = batch([image(memoryview(space.read(number)), number) for number in range(len(space))])
        scores = torch.from_numpy(pixels) @ weights.cpu()
        accuracy = float((scores.argmax(1).numpy() == labels[numbers]).mean())
        app.require(accuracy >= ACCURACY, f"the accuracy is {accuracy:.3f}, below {ACCURACY}")
    return f"{total} batches of {BATCH} {source} images from a space, accuracy {accuracy:.4f}"


@torch.no_grad()
def descend(weights: torch.Tensor, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    """Take one step down the gradient of the cross entropy, which for a linear classifier is short to write out."""
    errors = torch.softmax(pixels @ weights, 1) - torch.nn.functional.one_hot(labels, CLASSES).to(pixels.device)
    weights.sub_(pixels.T @ errors, alpha=LEARNING_RATE / len(labels))


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__, gpu_found=torch.cuda.is_available))
