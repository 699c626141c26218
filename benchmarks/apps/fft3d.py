"""3-D Poisson equation on a periodic cube of 144^3 points, by FFT: transforms that live in memory.

A step solves two problems at once, one in the real and one in the imaginary part: transform, divide by the
symbol of the Laplacian, transform back, all in place. The right-hand sides are manufactured from known
solutions.

Run: `python fft3d.py --scale 1 --threads 2`. Limits: 210 MB of memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
from application import Application, launch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Cube = NDArray[np.complex128]

SIDE = 144
STANDARD_STEPS = 42


def manufactured() -> tuple[Cube, Cube]:
    """Return a solution and its right-hand side -Laplace(solution), one problem in each part.

    The first is a product of sines, the second `exp(cos x) cos(2y + z)`; Laplacians are worked out by hand.
    """
    at = np.arange(SIDE) * (2 * math.pi / SIDE)
    x, y, z = np.meshgrid(at, at, at, indexing="ij", sparse=True)
    first = np.sin(3 * x) * np.cos(2 * y) * np.sin(5 * z)
    bump, wave = np.exp(np.cos(x)), np.cos(2 * y + z)
    solution = first + 1j * (bump * wave)
    second_right = (5 * bump - bump * (np.sin(x) ** 2 - np.cos(x))) * wave
    return solution, (9 + 4 + 25) * first + 1j * second_right


def inverse_symbol() -> NDArray[np.float64]:
    """Return 1 / |k|^2 on the grid of wave numbers, and 0 for the mean, which the equation leaves free."""
    k = scipy.fft.fftfreq(SIDE, 1 / SIDE)
    squared = k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2
    squared[0, 0, 0] = math.inf
    return np.asarray(1 / squared)


def run(app: Application) -> str:
    app.phase("load")
    solution, right = manufactured()
    symbol = inverse_symbol()
    work = np.empty_like(right)

    app.phase("solve")
    total = app.amount(STANDARD_STEPS)
    for step in app.steps(total):
        np.multiply(right, step, out=work)
        work = scipy.fft.fftn(work, overwrite_x=True, workers=app.threads)
        app.within(step - 0.5)
        work *= symbol
        work = scipy.fft.ifftn(work, overwrite_x=True, workers=app.threads)
        app.note(corner=float(work[1, 2, 3].real / step))

    app.phase("check")
    if app.spoiled:
        work *= 1.0001
    work /= total
    work -= solution
    error = float(np.max(np.abs(work)))
    app.require(error < 1e-11, f"the largest error is {error:.1e} (allowed 1e-11)")
    return f"{total} solves on {SIDE}^3 points, largest error {error:.1e}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
