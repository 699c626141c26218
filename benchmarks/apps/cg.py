"""Conjugate gradient on a 3-D Poisson system of 100^3 unknowns in CSR form: bound by memory bandwidth.

A step is one iteration; after 400 of them the next system begins, with another right-hand side. The
solution is manufactured (a fixed random field), so the true error is known. It has to be below the
Chebyshev bound of conjugate gradient, `2 ((sqrt(k) - 1) / (sqrt(k) + 1))^n` of the first error in the
energy norm, with the exact condition number k of the grid; and the residual that the iteration carries has
to be the true one, computed by differences on the grid instead of the matrix.

Run: `python cg.py --scale 1`. SIGUSR1 saves a checkpoint. Limits: one thread; 250 MB of memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
from application import Application, launch

if TYPE_CHECKING:
    from application import Arrays
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

SIDE = 100
ITERATIONS_PER_SYSTEM = 400
STANDARD_STEPS = 400


def poisson() -> scipy.sparse.csr_array:
    """Return the 7-point Laplacian, 6 on the diagonal and -1 to each neighbour, with fixed edges."""
    line = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(SIDE, SIDE))
    return scipy.sparse.csr_array(scipy.sparse.kronsum(scipy.sparse.kronsum(line, line), line))


def laplacian(values: Vector) -> Vector:
    """Apply the same operator by differences on the grid, without the matrix."""
    grid = np.pad(values.reshape(SIDE, SIDE, SIDE), 1)
    inside = slice(1, -1)
    total = 6 * grid[inside, inside, inside]
    for axis in range(3):
        for shift in (-1, 1):
            total -= np.roll(grid, shift, axis)[inside, inside, inside]
    return total.ravel()


def manufactured(system: int) -> Vector:
    """Return the solution of the given system, chosen before its right-hand side."""
    return np.random.default_rng(system).standard_normal(SIDE**3)


def chebyshev_bound(iterations: int) -> float:
    """Return the largest energy-norm error that conjugate gradient may leave, relative to the first."""
    angle = math.pi / (2 * (SIDE + 1))
    root = 1 / math.tan(angle)  # square root of the condition number cot(angle)^2
    return 2 * ((root - 1) / (root + 1)) ** iterations


def run(app: Application) -> str:
    app.phase("load")
    matrix = poisson()
    total = app.amount(STANDARD_STEPS)
    x, residual, direction, scratch = (np.zeros(SIDE**3) for _ in range(4))
    start, squared = 0, 0.0
    if saved := app.resume(total):
        start, arrays = saved
        x, residual, direction = arrays["x"], arrays["residual"], arrays["direction"]
        squared = float(arrays["squared"])

    app.phase("solve")

    def state() -> Arrays:
        return {"x": x, "residual": residual, "direction": direction, "squared": np.array(squared)}

    for step in app.steps(total, start=start, state=state):
        if (step - 1) % ITERATIONS_PER_SYSTEM == 0:
            right = matrix @ manufactured((step - 1) // ITERATIONS_PER_SYSTEM)
            x[:], residual[:], direction[:] = 0, right, right
            squared = float(residual @ residual)
        image = matrix @ direction
        length = squared / float(direction @ image)
        x += np.multiply(direction, length, out=scratch)
        residual -= np.multiply(image, length, out=scratch)
        before, squared = squared, float(residual @ residual)
        direction *= squared / before
        direction += residual
        app.note(residual=math.sqrt(squared))

    app.phase("check")
    if app.spoiled:
        x *= 1.05
    return verdict(app, total, x, residual)


def verdict(app: Application, total: int, x: Vector, residual: Vector) -> str:
    """Check the last system's solution and return the line about it."""
    system, iterations = divmod(total - 1, ITERATIONS_PER_SYSTEM)
    solution = manufactured(system)
    right = laplacian(solution)
    gap = float(np.linalg.norm(right - laplacian(x) - residual) / np.linalg.norm(right))
    app.require(gap < 1e-10, f"the carried residual is off the true one by {gap:.1e} (allowed 1e-10)")
    off = x - solution
    error = math.sqrt(float(off @ laplacian(off)) / float(solution @ right))
    bound = chebyshev_bound(iterations + 1)
    app.require(error <= bound, f"the error in the energy norm is {error:.2e}, above the bound {bound:.2e}")
    return f"{total} iterations on {SIDE}^3 unknowns, error {error:.9e} (bound {bound:.1e})"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
