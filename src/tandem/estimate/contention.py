"""What one feels of others, from profiles: pressures looked up on sensitivity curves.

For each kind of resource, the pressures of those that run on other cores add up, each weighted by how much of the time
it runs; the sum is looked up on the sensitivity curve of the one that feels them (Bubble-Up, Mars et al., MICRO 2011,
for one neighbour; pressures of several add as in Bubble-Flux, Yang et al., ISCA 2013). Beyond the strongest bubble the
last segment of the curve goes on: twice the demand for a saturated bandwidth takes twice as long.

Kinds overlap (a bubble that reads memory fast also empties the cache), so their excesses do not simply add:

    excess = GAIN * (sum over kinds of excess_k ** EXPONENT) ** (1 / EXPONENT)

EXPONENT 1 adds kinds up, a large one takes the worst. `GAIN`, `EXPONENT` and the model's own error were fitted on
pairs of applications that were measured (docs/reference/estimators.md).

Curves are kept as *hinges*, excess(x) = sum of slope_l * max(0, x - level_l): exact for a piecewise linear curve, and
the same form for one set and for a hundred thousand (`tandem.estimate.batch`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.estimate.prior import NOISE, UNKNOWN_EXCESS
from tandem.estimate.profile import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tandem.estimate.profile import Curve, PhaseProfile, Profile

FELT = tuple(kind for kind in KINDS if kind != "cpu")
"""Kinds that are felt across cores, in the order of vectors. Taking turns on one core is another matter."""

WORDS = {
    "cache": "last-level cache",
    "membw_read": "memory reads",
    "membw_write": "memory writes",
    "fs_read": "file reads",
    "fs_write": "file writes",
    "net": "network",
}

GAIN = 1.0
EXPONENT = 2.0

SPREAD = 0.35
"""Half-width of the model's own 90 % error, relative to the excess."""

FLOOR = NOISE
"""The same where nothing is felt."""

Hinges = tuple[tuple[float, float], ...]
"""(level, change of slope), ascending."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A profile as models use it: the mean over its phases, each by the part of the run time that it takes.

    All tuples run over `FELT`.

    Attributes:
        pressure: dial levels; 0 where it was not measured.
        pressure_half: half-widths of their 90 % intervals.
        curves: excess by pressure.
        curve_half: half-width of the excess at full pressure; in between in proportion.
        at_full: excess at full pressure, at most what an unknown neighbour is believed to cause.
        numb: kinds whose sensitivity was not measured, as 1 (else 0).
        silent: kinds whose pressure was not measured, as 1 (else 0).
    """

    pressure: tuple[float, ...]
    pressure_half: tuple[float, ...]
    curves: tuple[Hinges, ...]
    curve_half: tuple[float, ...]
    at_full: tuple[float, ...]
    numb: tuple[int, ...]
    silent: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether all kinds were measured."""
        return not any(self.numb) and not any(self.silent)


@dataclass(slots=True)
class Contended:
    """What profiles say that one feels.

    Attributes:
        excess: slowdown less 1.
        variance: square of its 90 % half-width, the model's own error included.
        ignorance: the same, upwards, for kinds that were not measured.
        kind: index in `FELT` of what costs most; -1 where nothing does.
    """

    excess: float
    variance: float
    ignorance: float
    kind: int


def vectors(profiles: Iterable[Profile]) -> dict[str, Vector]:
    """Vectors by application key."""
    return {profile.key: vector(profile) for profile in profiles}


def vector(profile: Profile) -> Vector:
    """One profile as models use it."""
    total = sum(phase.share for phase in profile.phases)
    shares = [(phase, phase.share / total) for phase in profile.phases]
    curves = tuple(_mean_hinges(shares, kind) for kind in FELT)
    return Vector(
        pressure=tuple(_mean([(phase.pressure, share) for phase, share in shares], kind) for kind in FELT),
        pressure_half=tuple(_mean([(phase.pressure_half, share) for phase, share in shares], kind) for kind in FELT),
        curves=curves,
        curve_half=tuple(_half(shares, kind) for kind in FELT),
        at_full=tuple(min(UNKNOWN_EXCESS, climb(hinges, 1.0)[0]) for hinges in curves),
        numb=tuple(int(any(kind not in phase.sensitivity for phase, _ in shares)) for kind in FELT),
        silent=tuple(int(any(kind not in phase.pressure for phase, _ in shares)) for kind in FELT),
    )


def climb(hinges: Hinges, level: float) -> tuple[float, float]:
    """Excess and slope of a curve at ``level``.

    >>> climb(((0.0, 0.4), (0.5, 0.4)), 0.75)
    (0.4, 0.8)
    """
    excess = slope = 0.0
    for start, change in hinges:
        if level <= start:
            break
        excess += change * (level - start)
        slope += change
    return excess, slope


def feel(
    one: Vector, pressed: Sequence[float], pressed_variance: Sequence[float], unsaid: Sequence[float]
) -> Contended:
    """What ``one`` feels under pressure.

    Args:
        pressed: sum of weighted pressures, over `FELT`.
        pressed_variance: squares of its 90 % half-widths.
        unsaid: weighted number of neighbours whose pressure of that kind was not measured.
    """
    total = variance = ignorance = worst = 0.0
    kind = -1
    for k, level in enumerate(pressed):
        hinges = one.curves[k]
        if level > 0.0 and hinges:
            excess, slope = climb(hinges, level)
            if excess > 0.0:
                total += excess**EXPONENT
                half = one.curve_half[k] * (level if level < 1.0 else 1.0)
                variance += half * half + slope * slope * pressed_variance[k]
                if excess > worst:
                    worst, kind = excess, k
        if one.numb[k] and level > 0.0:
            ignorance += (UNKNOWN_EXCESS * min(1.0, level)) ** 2
        if unsaid[k]:
            ignorance += (one.at_full[k] * min(1.0, unsaid[k])) ** 2
    excess = GAIN * total ** (1.0 / EXPONENT)
    variance = GAIN * GAIN * variance + (SPREAD * excess) ** 2 + FLOOR * FLOOR
    return Contended(excess, variance, ignorance, kind)


def of_pair(one: Vector, other: Vector) -> Contended:
    """What ``one`` feels of a single neighbour that runs all the time."""
    return feel(one, other.pressure, [half * half for half in other.pressure_half], other.silent)


def hinges_of(curve: Curve) -> Hinges:
    """A measured curve, made to rise (noise makes it fall in places) and never below 1.

    >>> hinges_of(Curve((0.0, 0.5, 1.0), (1.0, 1.2, 1.6), (0.0, 0.0, 0.0)))
    ((0.0, 0.4), (0.5, 0.4))
    """
    risen = rising([max(0.0, slowdown - 1.0) for slowdown in curve.slowdowns[1:]])
    points = [(0.0, 0.0), *zip(curve.levels[1:], risen, strict=True)]
    hinges, before = [], 0.0
    for (a, low), (b, high) in itertools.pairwise(points):
        slope = (high - low) / (b - a)
        if abs(slope - before) > 1e-12:
            hinges.append((a, round(slope - before, 12)))
        before = slope
    return tuple(hinges)


def rising(values: Sequence[float]) -> list[float]:
    """The closest sequence that never falls, in least squares: pool adjacent violators (Ayer et al., 1955).

    >>> rising([0.1, 0.3, 0.2, 0.5])
    [0.1, 0.25, 0.25, 0.5]
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]


def _mean(measured: list[tuple[Mapping[str, float], float]], kind: str) -> float:
    return sum(share * max(0.0, values.get(kind, 0.0)) for values, share in measured)


def _mean_hinges(shares: list[tuple[PhaseProfile, float]], kind: str) -> Hinges:
    changes: dict[float, float] = {}
    for phase, share in shares:
        if (curve := phase.sensitivity.get(kind)) is not None:
            for level, change in hinges_of(curve):
                changes[level] = changes.get(level, 0.0) + share * change
    return tuple(sorted(changes.items()))


def _half(shares: list[tuple[PhaseProfile, float]], kind: str) -> float:
    curves = [(phase.sensitivity[kind], share) for phase, share in shares if kind in phase.sensitivity]
    return math.sqrt(sum((share * max(curve.halves)) ** 2 for curve, share in curves))
