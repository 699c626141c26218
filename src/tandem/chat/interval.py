"""A mean with its 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over rows.

    Attributes:
        mean: The mean.
        low: Where its 95 % interval begins.
        high: Where it ends.
        rows: How many it is a mean of.
    """

    mean: float
    low: float
    high: float
    rows: int


def of_mean(values: Sequence[float]) -> Interval:
    """Return a mean with the bootstrap interval of its rows (percentiles, drawn by a fixed seed).

    Source: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. Of shares alone (all values 0, 1 or,
    for a tie, 1/2) the interval is Wilson's (1927), a tie as half a win: it stays honest where all values are alike,
    and resampling has none. The more ties there are the wider it is than need be, since ties vary less.
    """
    x_N = np.asarray(values, dtype=float)
    if len(x_N) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    mean = float(x_N.mean())
    if np.isin(x_N, (0.0, 0.5, 1.0)).all():
        low, high = _wilson(mean, len(x_N))
        low, high = min(low, mean), max(high, mean)  # rounding
    else:
        draws_RN = np.random.default_rng(0).integers(0, len(x_N), size=(RESAMPLES, len(x_N)))
        low, high = (float(q) for q in np.quantile(x_N[draws_RN].mean(axis=1), (0.025, 0.975)))
    return Interval(mean, low, high, len(x_N))


T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Two-sided 95 % quantiles of Student's t, by degrees of freedom from 1 on; beyond them the last is taken."""


def of_runs(values: Sequence[float]) -> Interval:
    """Return the mean of a few runs with the interval of Student's t, which a few allow; of one run there is none.

    Source: Student, The Probable Error of a Mean, Biometrika 6, 1908.
    """
    x_N = np.asarray(values, dtype=float)
    mean = float(x_N.mean())
    if len(x_N) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    half = T95[min(len(x_N) - 2, len(T95) - 1)] * float(x_N.std(ddof=1)) / len(x_N) ** 0.5
    return Interval(mean, mean - half, mean + half, len(x_N))


def _wilson(share: float, n: int) -> tuple[float, float]:
    z = 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
