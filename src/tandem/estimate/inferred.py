"""Pairs that were never seen, from what both applications did beside others.

The excess of a slowdown over 1 is taken to be a product: what was expected of the pair, times how sensitive the one
proved to be, times how much pressure the other proved to exert, each relative to expectation. Where nothing is known
of two applications but what was seen, every pair is expected to be the average one, and this is a matrix of rank one
(the factorisation of Bubble-Up's sensitivity and pressure, Mars et al., MICRO 2011; completing such a matrix from few
entries is what Paragon does for placement, Delimitrou and Kozyrakis, ASPLOS 2013). Where profiles say what to expect,
the factors correct them. Both are fitted by alternating least squares, each drawn towards 1 by a ridge, so that one
observation does not make an extreme.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping

RIDGE = 0.1
"""Weight of the factor 1, in observations of average size."""

ROUNDS = 12

Pairs = Mapping[tuple[str, str], float]
"""(application, neighbour) -> slowdown of the application, at least 1."""


class Inferred:
    """Sensitivity and pressure of every application in ``pairs``, relative to what was expected (1.0).

    Args:
        pairs: slowdowns that were seen.
        expected: excess over 1 that profiles predict, for those pairs that they cover; others are expected to be
            like the average pair.
        weights: of pairs that are worth less than one observation.
    """

    def __init__(self, pairs: Pairs, expected: Pairs | None = None, weights: Pairs | None = None) -> None:
        excesses = {pair: max(0.0, slowdown - 1.0) for pair, slowdown in pairs.items()}
        self._mean = statistics.fmean(excesses.values()) if excesses else 0.0
        self.sensitivity: dict[str, float] = {}
        self.pressure: dict[str, float] = {}
        if self._mean > 0:
            self._fit(excesses, expected or {}, weights or {})

    def slowdown(self, app: str, beside: str) -> float | None:
        """Slowdown of ``app`` beside ``beside``, at least 1; None where neither was ever seen in that role."""
        if app not in self.sensitivity and beside not in self.pressure:
            return None
        return 1.0 + self._mean * self.factor(app, beside)

    def factor(self, app: str, beside: str) -> float:
        """What an expected excess of ``app`` beside ``beside`` is to be multiplied by; 1 where nothing was seen."""
        return self.sensitivity.get(app, 1.0) * self.pressure.get(beside, 1.0)

    def _fit(self, excesses: Pairs, expected: Pairs, weights: Pairs) -> None:
        rows: dict[str, list[tuple[str, float, float, float]]] = defaultdict(list)
        columns: dict[str, list[tuple[str, float, float, float]]] = defaultdict(list)
        for pair, excess in sorted(excesses.items()):
            app, beside = pair
            prior, seen, weight = expected.get(pair, self._mean) / self._mean, excess / self._mean, weights.get(pair, 1)
            rows[app].append((beside, prior, seen, weight))
            columns[beside].append((app, prior, seen, weight))
        self.sensitivity = dict.fromkeys(rows, 1.0)
        self.pressure = dict.fromkeys(columns, 1.0)
        for _ in range(ROUNDS):
            for app, found in rows.items():
                self.sensitivity[app] = _ridge([(self.pressure[b] * prior, y, w) for b, prior, y, w in found])
            for beside, found in columns.items():
                self.pressure[beside] = _ridge([(self.sensitivity[a] * prior, y, w) for a, prior, y, w in found])


def _ridge(points: list[tuple[float, float, float]]) -> float:
    """Slope through the origin of (x, y, weight), drawn towards 1."""
    above = sum(weight * x * y for x, y, weight in points) + RIDGE
    return above / (sum(weight * x * x for x, _, weight in points) + RIDGE)
