"""Isotonic regression: the ascending sequence nearest to a noisy one.

Pool adjacent violators (Ayer, Brunk, Ewing, Reid, Silverman, Annals of Mathematical Statistics 26, 1955), unweighted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def ascending(values: Sequence[float]) -> list[float]:
    """Return the non-decreasing sequence with the least sum of squared differences from ``values``.

    >>> ascending([1.0, 3.0, 2.0, 4.0])
    [1.0, 2.5, 2.5, 4.0]
    """
    pools: list[tuple[float, int]] = []  # (mean, how many)
    for value in values:
        mean, size = value, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    return [mean for mean, size in pools for _ in range(size)]
