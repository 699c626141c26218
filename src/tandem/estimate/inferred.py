"""Pairs that were never seen, from what both applications did beside others.

The excess of a slowdown over 1 is taken to be a product: how sensitive the one is, times how much pressure the other
exerts. Both are fitted to the pairs that were seen by alternating least squares (a matrix of rank one, as in the
factorisation of Bubble-Up's sensitivity and pressure; Mars et al., MICRO 2011), each drawn towards the average
application by a ridge, so that one observation does not make an extreme.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping

RIDGE = 0.1
"""Weight of the average application, in observations of average size."""

ROUNDS = 12

Pairs = Mapping[tuple[str, str], float]
"""(application, neighbour) -> slowdown of the application, at least 1."""


class Inferred:
    """Sensitivity and pressure of every application in ``pairs``, relative to the average (1.0)."""

    def __init__(self, pairs: Pairs) -> None:
        excesses = {pair: max(0.0, slowdown - 1.0) for pair, slowdown in pairs.items()}
        self._mean = statistics.fmean(excesses.values()) if excesses else 0.0
        self.sensitivity: dict[str, float] = {}
        self.pressure: dict[str, float] = {}
        if self._mean > 0:
            self._fit({pair: excess / self._mean for pair, excess in excesses.items()})

    def slowdown(self, app: str, beside: str) -> float | None:
        """Slowdown of ``app`` beside ``beside``, at least 1; None where neither was ever seen in that role."""
        if app not in self.sensitivity and beside not in self.pressure:
            return None
        return 1.0 + self._mean * self.sensitivity.get(app, 1.0) * self.pressure.get(beside, 1.0)

    def _fit(self, relative: Mapping[tuple[str, str], float]) -> None:
        rows: dict[str, list[tuple[str, float]]] = defaultdict(list)
        columns: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for (app, beside), excess in sorted(relative.items()):
            rows[app].append((beside, excess))
            columns[beside].append((app, excess))
        self.sensitivity = dict.fromkeys(rows, 1.0)
        self.pressure = dict.fromkeys(columns, 1.0)
        for _ in range(ROUNDS):
            for app, seen in rows.items():
                self.sensitivity[app] = _ridge([(self.pressure[beside], excess) for beside, excess in seen])
            for beside, caused in columns.items():
                self.pressure[beside] = _ridge([(self.sensitivity[app], excess) for app, excess in caused])


def _ridge(points: list[tuple[float, float]]) -> float:
    """Slope through the origin of (x, y), drawn towards 1."""
    return (sum(x * y for x, y in points) + RIDGE) / (sum(x * x for x, _ in points) + RIDGE)
