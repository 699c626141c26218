"""Image preparation as a training job does it: decode PNG files, enlarge, normalise.

The images are 2,000 MNIST digits (`images/mnist_test_png.zip` in $TANDEM_SHARED_DATA, or in
`../shared/data` beside the repository); where the archive is absent, as many images of the same size are
drawn. A step prepares 50 of them to 96 x 96. Enlarging is linear, so the mean of all prepared pixels is
known from the mean small image and the weights of bilinear interpolation, which are worked out here; with
the same weights the last image is enlarged again.

Run: `python imageprep.py --scale 1`. Limits: one thread.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from application import Application, launch
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.float64]

IMAGES, IMAGES_PER_STEP = 2000, 50
SMALL, LARGE = 28, 96
MEAN, SPREAD = 0.1307, 0.3081  # of the pixels of MNIST, between 0 and 1
ARCHIVE = "images/mnist_test_png.zip"
STANDARD_STEPS = 800


def archive_path() -> Path | None:
    """Return where the MNIST archive is, or None."""
    shared = os.environ.get("TANDEM_SHARED_DATA")
    root = Path(shared) if shared else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return root / ARCHIVE if (root / ARCHIVE).is_file() else None


def read_images(archive: Path) -> list[bytes]:
    """Return the first PNG files of an archive."""
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.endswith(".png"))
        return [opened.read(name) for name in names[:: max(1, len(names) // IMAGES)][:IMAGES]]


def draw_images() -> list[bytes]:
    """Return generated PNG files: a bright ring of some radius somewhere on black."""
    rng = np.random.default_rng(28)
    rows, columns = np.mgrid[:SMALL, :SMALL]
    files = []
    for row, column, radius in rng.uniform((10, 10, 3), (18, 18, 9), (IMAGES, 3)):
        off = np.abs(np.hypot(rows - row, columns - column) - radius)
        file = io.BytesIO()
        Image.fromarray((255 * np.exp(-off)).astype(np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    return files


def enlarging_weights() -> Pixels:
    """Return the share of every small pixel of a line in every large one, by bilinear interpolation."""
    at = (np.arange(LARGE) + 0.5) * (SMALL / LARGE) - 0.5
    triangle = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(SMALL)))
    return np.asarray(triangle / triangle.sum(1, keepdims=True))


def run(app: Application) -> str:
    app.phase("load")
    archive = archive_path()
    files = read_images(archive) if archive else draw_images()
    small = np.zeros((SMALL, SMALL), dtype=np.uint8)
    small_sum = np.zeros((SMALL, SMALL))
    prepared = np.empty((LARGE, LARGE), dtype=np.float32)
    prepared_sum = 0.0

    app.phase("prepare")
    total = app.amount(STANDARD_STEPS)
    count = total * IMAGES_PER_STEP
    for step in app.steps(total):
        for number in range((step - 1) * IMAGES_PER_STEP, step * IMAGES_PER_STEP):
            image = Image.open(io.BytesIO(files[number % len(files)])).convert("L")
            small = np.asarray(image)
            small_sum += small
            large = image.resize((LARGE, LARGE), Image.Resampling.BILINEAR)
            np.multiply(np.asarray(large), np.float32(1 / (255 * SPREAD)), out=prepared)
            prepared -= MEAN / SPREAD
            prepared_sum += float(prepared.sum(dtype=np.float64))
        app.note(mean=prepared_sum / (step * IMAGES_PER_STEP * LARGE**2))

    app.phase("check")
    mean = prepared_sum / (count * LARGE**2) + (0.01 if app.spoiled else 0)
    weights = enlarging_weights()
    wanted = (float((weights @ small_sum @ weights.T).mean()) / (255 * count) - MEAN) / SPREAD
    off = abs(mean - wanted)
    app.require(off < 1e-3, f"the pixels average {mean:.5f}, not {wanted:.5f} (allowed 1e-3 off)")
    greys = (prepared * SPREAD + MEAN) * 255
    off = float(np.max(np.abs(greys - weights @ small @ weights.T)))
    app.require(off < 1.01, f"the last image is {off:.2f} of 255 greys off (allowed 1.01)")
    source = "MNIST" if archive else "drawn"
    return f"{count:,} {source} images to {LARGE} x {LARGE}, mean {mean:.5f}, expected {wanted:.5f}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
