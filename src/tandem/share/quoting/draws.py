"""Draws behind quotes: a fixed table, so that the same queue gives the same quotes, and how they become intervals."""

from __future__ import annotations

import math
import statistics

import numpy as np

from tandem.share.state.history import PRIOR_S

Z90 = 1.6449
"""Standard normal quantile at 95 %."""

PLAYS = 16
"""Rehearsals for a quote, each with other run times."""


def _even(seed: int, rows: int) -> np.ndarray:
    """Rows of 64 standard normal draws, each 16 of which cover the distribution evenly."""
    levels = np.array([statistics.NormalDist().inv_cdf((k + 0.5) / PLAYS) for k in range(PLAYS)])
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(levels, (rows, 64 // PLAYS, 1)), axis=2).reshape(rows, 64)


COMMON = _even(20_260_103, 1)[0]
PESSIMISM = np.clip(_even(20_260_104, 1)[0] / Z90, -1.0, 1.0)
JITTER = np.random.default_rng(20_260_102).random((6, 64))
DRAWS = _even(20_260_101, 1024)


def lognormal(low: float, mid: float, high: float, z: np.ndarray) -> np.ndarray:
    """Two-sided: through 5 %, median and 95 %, at standard normal ``z``."""
    draws: np.ndarray = mid * np.exp(np.where(z < 0, math.log(mid / low) / Z90, math.log(high / mid) / Z90) * z)
    return draws


STRANGERS_S = lognormal(*PRIOR_S, DRAWS[0])
"""For how long others still hold what they hold: nothing is known of it, as of a job without any history."""


def quantiles(draws: np.ndarray) -> tuple[float, float, float]:
    """5 %, median and 95 %, linearly interpolated (as `numpy.quantile`, which is slow on so few)."""
    ordered = np.sort(draws).tolist()

    def at(q: float) -> float:
        place = q * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))

    return at(0.05), at(0.5), at(0.95)


def longer(seconds: np.ndarray, ran: float) -> np.ndarray:
    """What is left of run times drawn for a job that has run for ``ran`` already."""
    over = seconds[seconds > ran]
    if len(over) < 4:  # it takes longer than anybody thought
        return 0.2 * (ran + seconds)
    return np.resize(over, len(seconds)) - ran
