"""How much slower, from windows that alternate: each one beside others against those alone before and after it.

A machine whose speed drifts (a virtual machine's neighbours, its clock) changes both windows of a pair alike, so the
ratio of neighbouring windows holds where a ratio of means does not. Intervals are those of a median, from the median
absolute deviation, drawn towards the noise floor while there are few pairs (as in `tandem.estimate.observed`).
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tandem.estimate.observed import student_95
from tandem.estimate.prior import NOISE

if TYPE_CHECKING:
    from collections.abc import Sequence

_Z = 1.6449  # 95 % quantile of the normal distribution: two-sided 90 %
_PRIOR_COUNT = 2.0  # the noise floor weighs as much as this many pairs
_MEDIAN_COST = 1.2533  # the median's standard error over the mean's, for normal values
_AGREE = 2 * NOISE  # windows alone before and after that differ by more lie on either side of a jump
_MAD_EFFICIENCY = 0.37  # of the deviation: as certain as the usual one of so much fewer values
_FEWEST_SPREAD = 3  # of fewer values the deviation says nothing
_SMALL_SAMPLES = {3: 1.495, 4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, the half-width of its 90 % interval, and of how many values."""

    mid: float
    half: float
    count: int


def paired(alone: Sequence[tuple[float, float]], beside: Sequence[tuple[float, float]]) -> list[float]:
    """How many times slower each window beside others was.

    On a virtual machine the speed of a core jumps by a quarter, for seconds at a time, when the host's other tenants
    come and go. A window whose neighbours alone disagree lies across such a jump and is left out, as long as half
    of the windows stay.

    Args:
        alone: (time, rate above 0) of the windows alone, by time.
        beside: the same of those beside others; a rate of 0 gives infinity.

    Returns:
        By time, the rate alone at each one's time (between the windows before and after on a straight line, or the
        nearest one's where it is first or last) over its rate; nothing where there is no window alone.

    >>> paired([(0.0, 10.0), (2.0, 9.0)], [(1.0, 4.75)])
    [2.0]
    """
    if not alone:
        return []
    found = [(*_expected(alone, t), rate) for t, rate in beside]
    allowed = max(_AGREE, statistics.median(apart for _, apart, _ in found)) if found else _AGREE
    return [expected / rate if rate > 0 else math.inf for expected, apart, rate in found if apart <= allowed]


def _expected(alone: Sequence[tuple[float, float]], t: float) -> tuple[float, float]:
    """The rate alone at ``t``, and by how much the windows before and after differ, relative to it."""
    i = bisect_left(alone, t, key=lambda window: window[0])
    if i == 0 or i == len(alone):
        return alone[min(i, len(alone) - 1)][1], 0.0
    (t0, r0), (t1, r1) = alone[i - 1 : i + 1]
    rate = r0 + (r1 - r0) * (t - t0) / (t1 - t0) if t1 > t0 else (r0 + r1) / 2
    return rate, abs(r1 - r0) / rate


def interval(ratios: Sequence[float], noise: float = NOISE) -> Interval:
    """The median of some ratios with its 90 % interval.

    Args:
        ratios: at least one, above 0.
        noise: relative half-width of one window's 90 % interval, as far as it is known beforehand.
    """
    count = len(ratios)
    mid = statistics.median(ratios)
    if not math.isfinite(mid):
        return Interval(mid, math.inf, count)
    deviation = _deviation([r / mid - 1.0 for r in ratios]) if count >= _FEWEST_SPREAD else 0.0
    floor = noise / _Z
    counted = count if count >= _FEWEST_SPREAD else 0
    variance = (_PRIOR_COUNT * floor**2 + counted * deviation**2) / (_PRIOR_COUNT + counted)
    t = student_95(_PRIOR_COUNT + _MAD_EFFICIENCY * (count - 1))
    cost = _MEDIAN_COST if count >= _FEWEST_SPREAD else 1.0
    return Interval(mid, mid * t * cost * math.sqrt(variance / count), count)


def reaching(found: Interval, expected: float) -> Interval:
    """What too few windows tell: any of them may have been a burst, so that what was expected without them may hold.

    >>> reaching(Interval(1.5, 0.25, 1), 1.0)
    Interval(mid=1.5, half=0.5, count=1)
    """
    return replace(found, half=max(found.half, abs(found.mid - expected)))


def _deviation(off: Sequence[float]) -> float:
    """Standard deviation by the median absolute deviation, unbiased for normal values in small samples too.

    Source of the factors: Croux and Rousseeuw, Time-efficient algorithms for two highly robust estimators of scale,
    COMPSTAT 1992.
    """
    count = len(off)
    factor = _SMALL_SAMPLES.get(count, count / (count - 0.8))
    return 1.4826 * factor * statistics.median(map(abs, off))


def scatter_of(rates: Sequence[float]) -> float:
    """Relative half-width of the 90 % interval of one of several rates about their median; infinite where that is 0.

    What drifts or jumps counts in full, unlike in `noise_of`. Up to half of the rates may lie anywhere: medians bear
    that too.

    >>> scatter_of([10.0, 10.0, 10.0, 10.0, 0.0]), scatter_of([0.0, 0.0, 10.0])
    (0.0, inf)
    """
    middle = statistics.median(rates)
    return _Z * _deviation([rate / middle - 1.0 for rate in rates]) if middle > 0 else math.inf


def noise_of(alone: Sequence[tuple[float, float]]) -> float | None:
    """Relative half-width of the 90 % interval of one window alone, against its neighbours; None below four windows.

    Each inner window is compared with what its neighbours say of its time, so that slow drift is no noise. Such a
    difference of three values has a variance 1.5 times that of one value.
    """
    off = [
        abs(ratio - 1)
        for i in range(1, len(alone) - 1)
        for ratio in paired([alone[i - 1], alone[i + 1]], [alone[i]])
        if math.isfinite(ratio)
    ]
    if len(off) < 2:
        return None
    return _Z * 1.4826 * statistics.median(off) / math.sqrt(1.5)


def noise_known(alone: Sequence[tuple[float, float]], otherwise: float) -> float:
    """The same as far as it is known: a few windows that happen to be alike do not make a machine quiet.

    Args:
        alone: (time, rate above 0) of the windows alone, by time.
        otherwise: what is believed where those are fewer than four; the noise floor at least.

    Returns:
        `noise_of`, drawn towards the noise floor while there are few.
    """
    found = noise_of(alone)
    if found is None:
        return max(otherwise, NOISE)
    counted = _MAD_EFFICIENCY * (len(alone) - 2)
    return math.sqrt((_PRIOR_COUNT * NOISE**2 + counted * found**2) / (_PRIOR_COUNT + counted))
