"""Price of a European call by Monte Carlo: bound by arithmetic, in blocks that stay in the L2 cache.

A step draws the same number of end prices of a geometric Brownian motion, each with its antithetic twin.
The mean has to lie within 5 standard errors of the formula of Black and Scholes, and the mean end price
within 5 of the forward.

Run: `python montecarlo.py --scale 1`. Limits: one thread.
"""

from __future__ import annotations

import math

import numpy as np
from application import Application, launch

SPOT, STRIKE, RATE, VOLATILITY, YEARS = 100.0, 105.0, 0.03, 0.25, 1.5
PAIRS_PER_BLOCK = 8 * 2**10
BLOCKS_PER_STEP = 64
STANDARD_STEPS = 500


def black_scholes() -> float:
    """Return the price of the call in closed form."""
    spread = VOLATILITY * math.sqrt(YEARS)
    upper = (math.log(SPOT / STRIKE) + (RATE + VOLATILITY**2 / 2) * YEARS) / spread

    def normal(at: float) -> float:
        return 0.5 * math.erfc(-at / math.sqrt(2))

    return SPOT * normal(upper) - STRIKE * math.exp(-RATE * YEARS) * normal(upper - spread)


class Moments:
    """Sum and sum of squares of independent values, for a mean and its standard error."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        """Take in some more values."""
        self.count += values.size
        self.sum += float(values.sum())
        self.squares += float(values @ values)

    @property
    def mean(self) -> float:
        return self.sum / self.count

    @property
    def error(self) -> float:
        return math.sqrt((self.squares / self.count - self.mean**2) / self.count)


def run(app: Application) -> str:
    app.phase("load")
    rng = np.random.default_rng(1973)
    normals, up, down = (np.empty(PAIRS_PER_BLOCK) for _ in range(3))
    drift, spread = (RATE - VOLATILITY**2 / 2) * YEARS, VOLATILITY * math.sqrt(YEARS)
    prices, ends = Moments(), Moments()

    app.phase("solve")
    total = app.amount(STANDARD_STEPS)
    for _ in app.steps(total):
        for _ in range(BLOCKS_PER_STEP):
            rng.standard_normal(out=normals)
            for sign, end in ((spread, up), (-spread, down)):
                np.multiply(normals, sign, out=end)
                end += drift + math.log(SPOT)
                np.exp(end, out=end)
            ends.add(np.multiply(np.add(up, down, out=normals), 0.5, out=normals))
            for end in (up, down):
                end -= STRIKE
                np.maximum(end, 0, out=end)
            up += down
            up *= 0.5 * math.exp(-RATE * YEARS)
            prices.add(up)
        app.note(price=prices.mean, error=prices.error)

    app.phase("check")
    price = prices.mean + (10 * prices.error if app.spoiled else 0)
    exact, forward = black_scholes(), SPOT * math.exp(RATE * YEARS)
    off = abs(price - exact) / prices.error
    app.require(off < 5, f"the price {price:.5f} is {off:.1f} standard errors from {exact:.5f} (allowed 5)")
    off = abs(ends.mean - forward) / ends.error
    app.require(off < 5, f"the mean end {ends.mean:.5f} is {off:.1f} errors from {forward:.5f} (allowed 5)")
    return f"{2 * prices.count:,} paths, price {price:.5f} +- {prices.error:.5f}, closed form {exact:.5f}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
