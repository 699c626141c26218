"""Gravity between all pairs of 320 bodies, by leapfrog: bound by arithmetic, in blocks that fit the L2 cache.

The bodies start as a Plummer sphere at rest on average. The energy, added up pair by pair in another way,
has to stay, and so has the momentum.

Run: `python nbody.py --scale 1`. Limits: one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from application import Application, launch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float64]

BODIES = 320
ROWS = 16
SOFTENING = 0.1
TIME_STEP = 1e-3
STANDARD_STEPS = 4000


def plummer() -> tuple[Vectors, Vectors]:
    """Return positions and velocities, (3, bodies), of a sphere of total mass 1 about in balance."""
    rng = np.random.default_rng(1911)
    radius = 1 / np.sqrt(rng.uniform(0.05, 0.95, BODIES) ** (-2 / 3) - 1)
    way = rng.standard_normal((3, BODIES))
    position = radius * way / np.linalg.norm(way, axis=0)
    velocity = rng.standard_normal((3, BODIES)) * np.sqrt(1 / (6 * np.sqrt(1 + radius**2)))
    return position - position.mean(1, keepdims=True), velocity - velocity.mean(1, keepdims=True)


class Gravity:
    """Accelerations by pairs, in blocks of ROWS bodies against all, with the arrays allocated once."""

    def __init__(self) -> None:
        self._away = np.empty((3, ROWS, BODIES))
        self._strength = np.empty((ROWS, BODIES))
        self._scratch = np.empty((ROWS, BODIES))

    def accelerate(self, position: Vectors, out: Vectors) -> None:
        """Set `out` to the acceleration of every body."""
        strength, scratch = self._strength, self._scratch
        for first in range(0, BODIES, ROWS):
            rows = slice(first, first + ROWS)
            strength.fill(SOFTENING**2)
            for away, along in zip(self._away, position, strict=True):
                np.subtract(along, along[rows, None], out=away)
                strength += np.multiply(away, away, out=scratch)
            np.sqrt(strength, out=scratch)
            strength *= scratch
            np.divide(1 / BODIES, strength, out=strength)
            for away, along in zip(self._away, out, strict=True):
                np.multiply(away, strength, out=scratch)
                np.sum(scratch, axis=1, out=along[rows])


def energy(position: Vectors, velocity: Vectors) -> float:
    """Return the total energy, pair by pair."""
    first, second = np.triu_indices(BODIES, k=1)
    distance = np.sqrt(((position[:, first] - position[:, second]) ** 2).sum(0) + SOFTENING**2)
    return float((velocity**2).sum() / (2 * BODIES) - (1 / distance).sum() / BODIES**2)


def run(app: Application) -> str:
    app.phase("load")
    position, velocity = plummer()
    acceleration = np.empty_like(position)
    gravity = Gravity()
    gravity.accelerate(position, acceleration)
    before = energy(position, velocity)

    app.phase("solve")
    total = app.amount(STANDARD_STEPS)
    for _ in app.steps(total):
        velocity += acceleration * (TIME_STEP / 2)
        position += velocity * TIME_STEP
        gravity.accelerate(position, acceleration)
        velocity += acceleration * (TIME_STEP / 2)

    app.phase("check")
    if app.spoiled:
        velocity[0] *= 1.01
    drift = abs(energy(position, velocity) / before - 1)
    app.require(drift < 1e-4, f"the energy drifted by {drift:.1e} of its value (allowed 1e-4)")
    momentum = float(np.linalg.norm(velocity.mean(1)))
    app.require(momentum < 1e-11, f"the momentum, 0 at first, is {momentum:.1e} (allowed 1e-11)")
    return f"{total} time steps of {BODIES} bodies, energy {before:.6f}, drift {drift:.1e}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
