"""2-D heat equation by an explicit 5-point stencil on a grid of 3072 x 3072: bound by memory bandwidth.

Each step makes whole-grid passes over arrays of 75 MB, far above a last-level cache. The start is a sum of
two sine modes; each is an eigenvector of the stencil, so that after n steps the exact grid is known: every
mode times the n-th power of its decay factor. For few steps that also agrees with the continuous heat
equation.

Run: `python stencil.py --scale 1`. SIGUSR1 saves a checkpoint. Limits: one thread; 230 MB of memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from application import Application, launch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Grid = NDArray[np.float64]

CELLS = 3072
DIFFUSION = 0.2  # time step x diffusivity / cell area; stable below 0.25
MODES = ((1.0, 40, 56), (0.5, 120, 88))  # amplitude, half waves down, half waves across
STANDARD_STEPS = 110


def exact(steps: int) -> Grid:
    """Return the solution after some steps, by the decay of the two modes; the edge is held at 0."""
    at = np.arange(CELLS + 1) * (math.pi / CELLS)
    grid = np.zeros((CELLS + 1, CELLS + 1))
    for amplitude, down, across in MODES:
        decay = 1 - 4 * DIFFUSION * sum(math.sin(k * math.pi / (2 * CELLS)) ** 2 for k in (down, across))
        grid += np.outer(amplitude * decay**steps * np.sin(down * at), np.sin(across * at))
    grid[0], grid[-1], grid[:, 0], grid[:, -1] = 0, 0, 0, 0
    return grid


def advance(now: Grid, new: Grid) -> None:
    """Set the inside of `new` to `now` one time step later."""
    inside = new[1:-1, 1:-1]
    np.add(now[:-2, 1:-1], now[2:, 1:-1], out=inside)
    inside += now[1:-1, :-2]
    inside += now[1:-1, 2:]
    inside *= DIFFUSION / (1 - 4 * DIFFUSION)
    inside += now[1:-1, 1:-1]
    inside *= 1 - 4 * DIFFUSION


def run(app: Application) -> str:
    app.phase("load")
    total = app.amount(STANDARD_STEPS)
    saved = app.resume(total)
    start, now = (saved[0], saved[1]["grid"]) if saved else (0, exact(0))

    app.phase("solve")
    grids = [now, now.copy()]
    for _ in app.steps(total, start=start, state=lambda: {"grid": grids[0]}):
        advance(*grids)
        grids.reverse()
    now = grids[0]

    app.phase("check")
    if app.spoiled:
        now[CELLS // 3, CELLS // 5] += 1e-6
    wanted = exact(total)
    np.subtract(now, wanted, out=wanted)
    error = float(np.max(np.abs(wanted, out=wanted)))
    app.require(error < 1e-11, f"the grid is off the analytic decay by {error:.1e} (allowed 1e-11)")
    norm = float(np.linalg.norm(now))
    return f"{total} time steps on {CELLS} x {CELLS} cells, norm {norm:.12e}, error {error:.1e}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
