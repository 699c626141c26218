"""Quantiles of the last values of a stream, and of log ratios towards a prior while there are few."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque


class Quantiles:
    """The last ``size`` values, kept sorted as well."""

    def __init__(self, size: int, values: list[float] | None = None) -> None:
        self.size = size
        self.recent: deque[float] = deque(values or [], maxlen=size)
        self._sorted = sorted(self.recent)
        self._known: dict[float, float] = {}
        self._factors: dict[float, tuple[float, float, float]] = {}

    def __len__(self) -> int:
        return len(self.recent)

    def add(self, value: float) -> None:
        """Remember a value, and forget the oldest beyond ``size``."""
        if len(self.recent) == self.size:
            del self._sorted[bisect_left(self._sorted, self.recent[0])]
        self._known.clear()
        self._factors.clear()
        self.recent.append(value)
        insort(self._sorted, value)

    def at(self, q: float) -> float:
        """Linear-interpolated quantile, ``0 <= q <= 1``; there must be a value."""
        found = self._known.get(q)
        if found is None:
            found = self._known[q] = self._interpolated(q)
        return found

    def factors(self, prior: float) -> tuple[float, float, float]:
        """Of log ratios: 5 %, median and 95 % of the ratios, shrunk towards ``prior`` while there are few."""
        found = self._factors.get(prior)
        if found is None:
            low, high = self.spread(prior)
            trust = len(self) / (len(self) + 8)
            mid = trust * self.at(0.5) if trust else 0.0
            found = self._factors[prior] = (math.exp(min(low, mid)), math.exp(mid), math.exp(max(high, mid)))
        return found

    def spread(self, prior: float) -> tuple[float, float]:
        """5 % and 95 % of log residuals, shrunk towards the prior while there are few."""
        if not len(self):
            return -prior, prior
        trust = len(self) / (len(self) + 8)
        return (
            min(0.0, trust * self.at(0.05) - (1 - trust) * prior),
            max(0.0, trust * self.at(0.95) + (1 - trust) * prior),
        )

    def _interpolated(self, q: float) -> float:
        place = q * (len(self._sorted) - 1)
        low = math.floor(place)
        high = min(low + 1, len(self._sorted) - 1)
        return self._sorted[low] + (place - low) * (self._sorted[high] - self._sorted[low])
