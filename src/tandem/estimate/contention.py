"""What one feels of others, from profiles: pressures looked up on sensitivity curves.

For each kind of resource, the pressures of those that run on other cores add up, each weighted by how much of the time
it runs; the sum is looked up on the sensitivity curve of the one that feels them (Bubble-Up, Mars et al., MICRO 2011,
for one neighbour; pressures of several add as in Bubble-Flux, Yang et al., ISCA 2013). Beyond the strongest bubble the
last segment of the curve goes on: twice the demand for a saturated bandwidth takes twice as long. Nothing was measured
there, so what is felt of it is taken to be as uncertain as it is large.

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
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from tandem.estimate.prior import NOISE, UNKNOWN_EXCESS
from tandem.estimate.profile import KINDS, Curve
from tandem.estimate.recalibrated import rescaled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tandem.estimate.profile import PhaseProfile, Profile

FELT = tuple(kind for kind in KINDS if kind != "cpu")
"""Kinds that are felt across cores, in the order of vectors. Taking turns on one core is another matter."""

KINDS_FELT = len(FELT)

WORDS = {
    "cache": "last-level cache",
    "membw_read": "memory reads",
    "membw_write": "memory writes",
    "fs_read": "file reads",
    "fs_write": "file writes",
    "net": "network",
}

GAIN = 1.0
EXPONENT = 8.0

SPREAD = 0.35
"""Half-width of the model's own 90 % error, relative to the excess."""

FLOOR = NOISE
"""The same for each neighbour where nothing is felt. Errors of several neighbours are taken to be independent."""

MOST = 1.0
"""No application is believed to press harder than the strongest bubble does from as many cores, which takes all that a
core can: a reading beyond it says that the reporter hardly feels more there. Several together do go beyond."""

DOUBT = 1.0
"""How many times its variance a measured effect has to exceed, in squares, to be believed by half (`trust`)."""

TIE = 1e-9
"""Taken from every pressure: one that lies on a bend of a curve is below it, in whatever order it was summed."""

_Z = 1.6449  # 95 % quantile of the normal distribution: two-sided 90 %

Hinges = tuple[tuple[float, float], ...]
"""(level, change of slope), ascending."""


Piece = tuple[float, float, float]
"""Of a curve: where a straight piece begins, excess there, slope."""

Pieces = tuple[int, tuple[float, ...], tuple[Piece, ...], float]
"""A curve made to be looked up: its kind; where its pieces begin; the pieces, after a flat one; `Vector.curve_half`."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A profile as models use it: the mean over its phases with steps, each by the part of the run time that it takes.

    Nothing is known of how phases without steps press and feel. Where profiles contradict each other
    (`Profile.between`), as little is known as by the one that knows less.

    All tuples run over `FELT`.

    Attributes:
        pressure: dial levels, noise taken off (`trust`) and at most `MOST`; 0 where it was not measured.
        pressure_variance: squares of the half-widths of their 90 % intervals, which are `MOST` at most.
        curves: excess by pressure.
        curve_half: half-width of the excess at full pressure; at another one in proportion, beyond it too.
        at_full: upper end of the excess at full pressure, at most what an unknown neighbour is believed to cause.
        numb: part of the time in which the sensitivity to a kind was not measured; less in a disturbed profile, of
            kinds that cannot be told from its noise, as that allows.
        silent: the same of pressures. A kind that the calibration did not feel is not silent: the strongest bubble
            slows nobody there, and an application is believed to press no harder.
        sure: kinds of which the pressure exceeds the half-width of its interval.
        unseen: names of the phases of which no window tells anything; part of `numb` and `silent`.
        partly_numb, partly_silent: whether a kind was not measured, or not for certain, in phases with steps either.
        felt: the curves that rise at all.
        load: pressures, their variances, and 1 neighbour, one after the other.
        said: pressures in words.
        whole: whether all kinds were measured.
    """

    pressure: tuple[float, ...]
    pressure_variance: tuple[float, ...]
    curves: tuple[Hinges, ...]
    curve_half: tuple[float, ...]
    at_full: tuple[float, ...]
    numb: tuple[float, ...]
    silent: tuple[float, ...]
    sure: tuple[bool, ...]
    unseen: tuple[str, ...]
    partly_numb: bool
    partly_silent: bool
    felt: tuple[Pieces, ...] = field(init=False)
    load: tuple[float, ...] = field(init=False)
    said: tuple[str, ...] = field(init=False)
    whole: bool = field(init=False)

    def __post_init__(self) -> None:
        """Make ready what is asked for again and again."""
        felt = [(k, *_looked_up(curve), self.curve_half[k]) for k, curve in enumerate(self.curves) if curve]
        object.__setattr__(self, "felt", tuple(felt))
        object.__setattr__(self, "load", (*self.pressure, *self.pressure_variance, 1.0))
        object.__setattr__(self, "said", tuple(f"{pressure:.2f}" for pressure in self.pressure))
        object.__setattr__(self, "whole", not any(self.numb) and not any(self.silent))


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
    """Vectors by application key, all in the units of the newest calibration that any of the profiles was made with."""
    known = list(profiles)
    if not known:
        return {}
    newest = max(known, key=attrgetter("calibrated"))
    return {profile.key: vector(rescaled(profile, newest)) for profile in known}


def vector(profile: Profile) -> Vector:
    """One profile as models use it."""
    one = _measured(profile)
    if not profile.between:
        return one
    all_ways = [one, *map(_measured, profile.between)]
    return replace(
        one,
        numb=tuple(map(max, *[way.numb for way in all_ways])),
        silent=tuple(map(max, *[way.silent for way in all_ways])),
        unseen=tuple(dict.fromkeys([name for way in all_ways for name in way.unseen])),
        partly_numb=any(way.partly_numb for way in all_ways),
        partly_silent=any(way.partly_silent for way in all_ways),
    )


def _measured(profile: Profile) -> Vector:
    total = sum(phase.share for phase in profile.phases)
    blank = sum(one.share for one in profile.stepless.values())  # part of the time of which no window tells anything
    shares = [(phase, phase.share / total) for phase in profile.phases]
    most = MOST * profile.cpus / profile.bubble_cores
    unfelt = profile.unfelt
    told = [(kind, [(phase, share) for phase, share in shares if kind not in unfelt]) for kind in FELT]
    believed = {kind: _believed(shares, kind, profile.reporter_excess.get(kind)) for kind in FELT}
    curves = tuple(_mean_hinges(believed[kind]) for kind in FELT)
    halves = tuple(math.sqrt(sum((share * max(curve.halves)) ** 2 for curve, share in believed[kind])) for kind in FELT)
    numb = [sum(share * _numb(phase, kind, profile.disturbed) for phase, share in shares) for kind in FELT]
    silent = [sum(share * _silent(phase, kind, profile.disturbed) for phase, share in of) for kind, of in told]
    return Vector(
        pressure=tuple(sum(share * _pressure(phase, kind, most) for phase, share in of) for kind, of in told),
        pressure_variance=tuple(
            sum(share * min(most, phase.pressure_half.get(kind, 0.0)) for phase, share in of) ** 2 for kind, of in told
        ),
        curves=curves,
        curve_half=halves,
        at_full=tuple(min(UNKNOWN_EXCESS, _at(one, 1.0) + half) for one, half in zip(curves, halves, strict=True)),
        numb=tuple(blank + (1 - blank) * part for part in numb),
        silent=tuple(blank + (1 - blank) * part if of else 0.0 for part, (_, of) in zip(silent, told, strict=True)),
        sure=tuple(
            sum(share * (phase.pressure.get(kind, 0.0) - phase.pressure_half.get(kind, 0.0)) for phase, share in of) > 0
            for kind, of in told
        ),
        unseen=tuple(name for name, one in profile.stepless.items() if one.share > 0.0),
        partly_numb=any(numb),
        partly_silent=any(silent),
    )


def feel(one: Vector, load: Sequence[float]) -> Contended:
    """What ``one`` feels under a load; of kinds that were not measured nothing is said here.

    Args:
        load: sum of `Vector.load` of the others, pressures weighted, the rest by the squares of the weights.
    """
    total = variance = worst = 0.0
    kind = -1
    exponent = EXPONENT
    for k, starts, pieces, half in one.felt:
        level = load[k] - TIE
        start, height, slope = pieces[bisect_left(starts, level)]
        if slope == 0.0 == height:
            continue
        excess = height + slope * (level - start)
        total += excess**exponent
        half *= level
        if level > 1.0:
            beyond = slope * (level - 1.0)
            variance += beyond * beyond
        variance += half * half + slope * slope * load[k + KINDS_FELT]
        if excess > worst:
            worst, kind = excess, k
    excess = GAIN * total ** (1.0 / EXPONENT)
    floor = FLOOR * FLOOR * load[-1]
    return Contended(excess, GAIN * GAIN * variance + (SPREAD * excess) ** 2 + floor, 0.0, kind)


def felt_kinds(one: Vector, load: Sequence[float]) -> list[tuple[float, int]]:
    """What ``one`` feels of each kind under a load (see `feel`): excess and index in `FELT`, the largest first."""
    levels = [(k, load[k] - TIE, starts, pieces) for k, starts, pieces, _ in one.felt]
    found = [
        (height + slope * (level - start), k)
        for k, level, starts, pieces in levels
        for start, height, slope in [pieces[bisect_left(starts, level)]]
    ]
    return sorted(found, key=lambda one: (-one[0], one[1]))


def of_pair(one: Vector, other: Vector) -> Contended:
    """What ``one`` feels of a single neighbour that runs all the time."""
    return feel(one, other.load)


def ignorance(one: Vector, pressed: Sequence[float], unsaid: Sequence[float]) -> float:
    """Square of how far the excess may be higher for kinds that were not measured.

    Args:
        pressed: weighted sum of pressures, over `FELT`.
        unsaid: weighted number of neighbours whose pressure was not measured, over `FELT`.
    """
    squares = 0.0
    for k, level in enumerate(pressed):
        squares += (UNKNOWN_EXCESS * one.numb[k] * min(1.0, level)) ** 2
        squares += (one.at_full[k] * min(1.0, unsaid[k])) ** 2
    return squares


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


def trust(value: float, half: float) -> float:
    """How much of a measured effect to believe: all where it stands far above its noise, little where it does not.

    Effects are at least 0, so noise alone makes some of each of many kinds, and they would add up. The best linear
    estimate of an effect that usually is as large as this one is value * value^2 / (value^2 + variance), which is
    what a `DOUBT` of 1 gives.

    >>> trust(0.5, 0.0), round(trust(0.1, 0.1645), 3)
    (1.0, 0.5)
    """
    return value * value / (value * value + DOUBT * (half / _Z) ** 2) if value > 0.0 else 0.0


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


def _at(hinges: Hinges, level: float) -> float:
    return sum(change * max(0.0, level - start) for start, change in hinges)


def _looked_up(hinges: Hinges) -> tuple[tuple[float, ...], tuple[Piece, ...]]:
    starts = tuple(start for start, _ in hinges)
    slopes = itertools.accumulate(change for _, change in hinges)
    rising = [(start, _at(hinges, start), slope) for start, slope in zip(starts, slopes, strict=True)]
    return starts, ((0.0, 0.0, 0.0), *rising)


def _pressure(phase: PhaseProfile, kind: str, most: float) -> float:
    level = max(0.0, phase.pressure.get(kind, 0.0))
    return min(most, level) * trust(level, phase.pressure_half.get(kind, 0.0))


def _silent(phase: PhaseProfile, kind: str, disturbed: bool) -> float:
    """How much of a dial a pressure may be above what is told of it, beyond its variance: see `Vector.silent`."""
    if kind not in phase.pressure:
        return 1.0
    half = phase.pressure_half.get(kind, 0.0)
    return min(1.0, half) if disturbed and phase.pressure[kind] <= half else 0.0


def _numb(phase: PhaseProfile, kind: str, disturbed: bool) -> float:
    """The same of a slowdown at full pressure, in parts of what an unknown neighbour may cause: see `Vector.numb`."""
    curve = phase.sensitivity.get(kind)
    if curve is None:
        return 1.0
    half = max(curve.halves)
    return min(1.0, half / UNKNOWN_EXCESS) if disturbed and curve.slowdowns[-1] - 1.0 <= half else 0.0


def _believed(shares: list[tuple[PhaseProfile, float]], kind: str, most: float | None) -> list[tuple[Curve, float]]:
    """The curves of the phases in which the kind was measured, as `believe` takes them, with the phases' shares."""
    return [(believe(phase.sensitivity[kind], most), share) for phase, share in shares if kind in phase.sensitivity]


def believe(curve: Curve, most: float | None) -> Curve:
    """A measured curve with its noise taken off.

    Args:
        curve: as it was measured.
        most: excess of the kind's reporter at level 1. A reporter is the most sensitive programme there is, so
            applications' excesses are taken to scatter about 0 with that as their standard deviation, and each
            measured one is drawn to 0 as the normal distribution says: by most^2 / (most^2 + variance). None: not
            known; then `trust` tells by the last point.

    What another profile contradicts is no noise: it widens what is believed as it is.
    """
    if most is None:
        weight = trust(curve.slowdowns[-1] - 1.0, curve.halves[-1])
        drawn = tuple(1.0 + weight * (one - 1.0) for one in curve.slowdowns)
        return Curve(curve.levels, drawn, _with_apart(curve, curve.halves))
    weights = [
        (most * level) ** 2 / ((most * level) ** 2 + (half / _Z) ** 2) if level > 0.0 and most > 0.0 else 1.0
        for level, half in zip(curve.levels, curve.halves, strict=True)
    ]
    return Curve(
        curve.levels,
        tuple(1.0 + weight * (one - 1.0) for weight, one in zip(weights, curve.slowdowns, strict=True)),
        _with_apart(curve, [half * math.sqrt(weight) for weight, half in zip(weights, curve.halves, strict=True)]),
    )


def _with_apart(curve: Curve, halves: Sequence[float]) -> tuple[float, ...]:
    if not curve.apart:
        return tuple(halves)
    return tuple(half + abs(apart) for half, apart in zip(halves, curve.apart, strict=True))


def _mean_hinges(believed: list[tuple[Curve, float]]) -> Hinges:
    changes: dict[float, float] = {}
    for curve, share in believed:
        for level, change in hinges_of(curve):
            changes[level] = changes.get(level, 0.0) + share * change
    return tuple((level, change) for level, change in sorted(changes.items()) if change)
