"""STREAM triad: three 128 MB arrays swept over and over; the memory-bandwidth hog.

Each step overwrites the oldest of three arrays with `previous + s * latest`, in blocks that stay in the L2
cache, so that memory sees two reads and one write per element. The recurrence has a closed form in two
scalars, to which every element is compared at the end.

Run: `python stream.py --scale 1`. Limits: one thread; 400 MB of memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from application import Application, launch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

ELEMENTS = 16 * 2**20
BLOCK = 16 * 2**10
FACTOR = 1e-4
STANDARD_STEPS = 145


def start_values(first: int, last: int) -> Vector:
    """Return the starting values of elements first..last, which differ so that a misplaced one is noticed."""
    return 1.0 + (np.arange(first, last) % 1021) / 1021


def sweep(target: Vector, previous: Vector, latest: Vector, tell: Callable[[float], None]) -> None:
    """Set `target = previous + FACTOR * latest`; `tell` hears after each eighth what part is done."""
    for first in range(0, ELEMENTS, BLOCK):
        if first and first % (ELEMENTS // 8) == 0:
            tell(first / ELEMENTS)
        block = slice(first, first + BLOCK)
        np.multiply(latest[block], FACTOR, out=target[block])
        np.add(target[block], previous[block], out=target[block])


def run(app: Application) -> str:
    app.phase("load")
    oldest, previous, latest = (np.zeros(ELEMENTS) for _ in range(3))
    previous[:] = start_values(0, ELEMENTS)
    latest[:] = 2.0
    oldest[:] = 0.0  # touches every page before the clock of the first record starts
    of_start, of_two = (1.0, 0.0), (0.0, 1.0)  # coefficients of (previous, latest) in start values and in 2.0

    app.phase("solve")
    total = app.amount(STANDARD_STEPS)
    for step in app.steps(total):
        sweep(oldest, previous, latest, lambda part, done=step - 1: app.within(done + part))
        oldest, previous, latest = previous, latest, oldest
        of_start = of_start[1], of_start[0] + FACTOR * of_start[1]
        of_two = of_two[1], of_two[0] + FACTOR * of_two[1]

    app.phase("check")
    if app.spoiled:
        latest[ELEMENTS // 3] *= 1.0001
    worst = 0.0
    for first in range(0, ELEMENTS, 2**20):
        expected = of_start[1] * start_values(first, first + 2**20) + of_two[1] * 2.0
        worst = max(worst, float(np.max(np.abs(latest[first : first + 2**20] / expected - 1))))
    app.require(worst < 1e-12, f"an element is {worst:.1e} off its closed form (allowed 1e-12)")
    return f"{total} sweeps of {ELEMENTS:,} elements, closed form within {worst:.1e}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
