"""Observed co-runs as robust statistics: how fast an application goes alone, and how much slower beside whom.

A rate over a stretch says something only against the rate alone, so observations beside others count once the
application has been seen alone, for `LEAST_S` as well as beside them. All figures are medians weighted by the length of
the stretches; intervals come from the median absolute deviation, shrunk towards the noise floor while there are few
observations. Only the last `REMEMBERED` stretches of each setting count, so that a new version of a programme is
learned.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain

from tandem.estimate.corun import CoRun, is_throttled
from tandem.estimate.prior import NOISE

REMEMBERED = 64

LARGEST = 64
"""Runs beside more neighbours than this are not kept."""

FEW = 8
"""What was seen beside more neighbours than this tells of no pair, and is forgotten with time: so large a set hardly
comes again. Until then it tells of larger and smaller ones."""

LATEST = 32
"""Companies of an application that `Observations.latest` tells of; and as many with somebody throttled among them, of
which dozens pass while a crowd is curbed."""

FASTEST = 1e30
"""No rate is higher, or lower than one over it."""

LONGEST_S = 1e10
"""No stretch is longer."""

SLOWEST = 1e6
"""No slowdown is larger: one that seems so is of rates that are not of the same steps."""

LEAST_S = 1.0
"""Seconds, all in all, from which on an application counts as seen alone, or beside the same neighbours.

In less one may have met its own start or theirs, or an end.
"""

_Z = 1.6449  # 95 % quantile of the normal distribution: two-sided 90 %
_PRIOR_COUNT = 4.0  # the noise floor weighs as much as this many observations


@dataclass(frozen=True, slots=True)
class Observed:
    """A slowdown that was seen ``count`` times, with the 90 % interval of the next one; never below 1."""

    count: int
    mid: float
    low: float
    high: float


class Observations:
    """All that was seen, by application and by the sorted keys of its neighbours; () is alone.

    The application key "" is an unknown programme: what is said of it, or of runs beside it, is not kept.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[tuple[str, ...], deque[tuple[float, float]]]] = {}
        self._held: dict[tuple[str, tuple[str, ...]], deque[tuple[float, float]]] = {}  # until they make a second,
        self._held_s: dict[tuple[str, tuple[str, ...]], float] = {}  # with those that are forgotten
        self._figures: dict[tuple[str, tuple[str, ...]], Observed | None] = {}
        self._keys: set[str] = set()
        self._crowded: set[str] = set()
        self._partners: dict[str, set[str]] = {}
        self._sizes: dict[str, set[int]] = {}
        self._any_size: set[int] = set()
        self._latest: dict[str, tuple[dict[tuple[str, ...], None], ...]] = {}  # of each: at full speed, and not
        self.pair_count = 0
        """How many pairs were seen alone together."""
        self.company_count = 0
        """How many applications were seen beside how many different sets of a few neighbours."""

    def add(self, corun: CoRun) -> bool:
        """Keep one observation; False where it says nothing (no progress, no time, unknown programmes)."""
        usable = 1.0 / FASTEST <= corun.rate <= FASTEST and 0.0 < corun.seconds <= LONGEST_S
        if not usable or not corun.app or "" in corun.beside or len(corun.beside) > LARGEST:
            return False
        if len(corun.beside) > FEW and corun.seconds < LEAST_S:
            return False
        beside = tuple(sorted(corun.beside))
        settings = self._seen.setdefault(corun.app, {})
        if beside not in settings:
            key = corun.app, beside
            self._held.setdefault(key, deque(maxlen=REMEMBERED)).append((corun.rate, corun.seconds))
            self._held_s[key] = self._held_s.get(key, 0.0) + corun.seconds
            if self._held_s[key] < LEAST_S - 1e-9:
                return True
            settings[beside] = self._held.pop(key)
            del self._held_s[key]
            if beside:
                if len(beside) <= FEW:
                    self.company_count += 1
                self._sizes.setdefault(corun.app, set()).add(len(beside))
                self._any_size.add(len(beside))
        else:
            settings[beside].append((corun.rate, corun.seconds))
        if len(beside) > 1:
            self._note(corun.app, beside)
        if len(beside) == 1 and beside[0] not in self.partners(corun.app):
            self._partners.setdefault(corun.app, set()).add(beside[0])
            self.pair_count += 1
        if beside:
            if len(beside) <= FEW:
                self._keys.update((corun.app, *beside))
            elif () in settings:
                self._crowded.update(beside)
            self._figures.pop((corun.app, beside), None)
        else:
            for known in settings:
                self._figures.pop((corun.app, known), None)
        return True

    def _note(self, app: str, beside: tuple[str, ...]) -> None:
        """``beside`` is the latest company of ``app``; the earliest of its kind is no longer among them."""
        latest = self._latest.setdefault(app, ({}, {}))[any(map(is_throttled, beside))]
        latest.pop(beside, None)
        latest[beside] = None
        if len(latest) > LATEST:
            earliest = next(iter(latest))
            del latest[earliest]
            if len(earliest) > FEW:
                del self._seen[app][earliest]
                self._figures.pop((app, earliest), None)

    def has_company(self, app: str) -> bool:
        """Whether ``app`` was ever seen beside a few others, or others beside it.

        Or beside many: if it was seen alone as well, or, where it has no rates itself, one of these others was.
        """
        if app in self._keys:
            return True
        return () in self._seen[app] and bool(self._sizes.get(app)) if app in self._seen else app in self._crowded

    def never_alone(self, app: str) -> bool:
        """Whether ``app`` was seen beside a few others, of which nothing follows until it was seen alone."""
        return min(self._sizes.get(app, (FEW + 1,))) <= FEW and () not in self._seen[app]

    def beside_so_many(self, app: str, count: int) -> bool:
        """Whether ``app`` was ever seen beside ``count`` neighbours."""
        return count in self._sizes.get(app, ())

    def of_size(self, members: int) -> bool:
        """Whether anything was ever seen in a set of so many."""
        return members - 1 in self._any_size

    def partners(self, app: str) -> AbstractSet[str]:
        """Applications that ``app`` was seen beside as the only neighbour."""
        return self._partners.get(app, frozenset())

    def latest(self, app: str) -> Iterable[tuple[str, ...]]:
        """The companies of two neighbours or more that ``app`` was seen in last: keys, sorted."""
        return chain.from_iterable(self._latest.get(app, ()))

    def pairs(self) -> dict[tuple[str, str], float]:
        """Slowdown by (application, neighbour) of every pair that was seen alone together."""
        return {
            (app, beside): seen.mid
            for app, partners in self._partners.items()
            for beside in partners
            if (seen := self.slowdown(app, (beside,))) is not None
        }

    def larger_sets(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Slowdown by (application, sorted neighbours) of everyone that was seen beside more than one, but a few."""
        return {(app, beside): seen.mid for app, beside, seen in self.all_company() if 1 < len(beside) <= FEW}

    def all_company(self) -> Iterator[tuple[str, tuple[str, ...], Observed]]:
        """All that was seen in company: (application, its sorted neighbours, figures)."""
        for app, settings in self._seen.items():
            for beside in settings:
                seen = self.slowdown(app, beside) if beside else None
                if seen is not None:
                    yield app, beside, seen

    def alone_rate(self, app: str) -> float | None:
        """Steps per second alone, or None where it was not seen alone."""
        alone = self._seen.get(app, {}).get(())
        return weighted_median(alone) if alone else None

    def slowdown(self, app: str, beside: tuple[str, ...]) -> Observed | None:
        """What was seen of ``app`` beside exactly these neighbours (sorted keys), or None."""
        settings = self._seen.get(app)
        if settings is None or beside not in settings:
            return None
        key = (app, beside)
        if key not in self._figures:
            self._figures[key] = self._figure(app, beside)
        return self._figures[key]

    def _figure(self, app: str, beside: tuple[str, ...]) -> Observed | None:
        alone, seen = self.alone_rate(app), self._seen.get(app, {}).get(beside)
        if alone is None or not seen or not beside:
            return None
        rate = weighted_median(seen)
        if alone > SLOWEST * rate:
            return None
        deviation = 1.4826 * weighted_median((abs(r - rate) / rate, s) for r, s in seen)
        mid, half = max(1.0, alone / rate), _half_width(deviation, len(seen))
        return Observed(len(seen), mid, max(1.0, mid * (1.0 - half)), mid * (1.0 + half))


def weighted_median(weighted: Iterable[tuple[float, float]]) -> float:
    """The value with half of the weight on either side; the mean of two where the weight splits between them.

    Args:
        weighted: (value, weight above 0) pairs, at least one.

    >>> weighted_median([(1.0, 1.0), (2.0, 1.0)]), weighted_median([(1.0, 1.0), (2.0, 3.0)])
    (1.5, 2.0)
    """
    pairs = sorted(weighted)
    half = math.fsum(weight for _, weight in pairs) / 2
    passed = 0.0
    for i, (value, weight) in enumerate(pairs):
        passed += weight
        if passed > half or i == len(pairs) - 1:
            return value
        if passed == half:
            return (value + pairs[i + 1][0]) / 2
    message = "a median needs at least one value"
    raise ValueError(message)


def student_95(freedom: float) -> float:
    """95 % quantile of Student's t, by the first terms of its expansion in 1 / freedom (1 % off at 4, less above).

    Source: Abramowitz and Stegun, 26.7.5.
    """
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)


def _half_width(deviation: float, count: int) -> float:
    """Return the relative half-width of the 90 % interval of one more observation after ``count``."""
    floor = NOISE / _Z
    variance = (_PRIOR_COUNT * floor**2 + count * deviation**2) / (_PRIOR_COUNT + count)
    freedom = _PRIOR_COUNT + count - 1
    return max(NOISE, student_95(freedom) * math.sqrt(variance * (1 + 1 / count)))
