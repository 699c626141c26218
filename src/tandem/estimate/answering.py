"""What all models have in common: sets in order, shares of cores, intervals from their parts, remembered answers.

A model is a *rule*: what each member of a set feels of the others, cores aside. Here that becomes slowdowns: the
stretch for want of CPU time (`tandem.estimate.sharing`) times 1 + what is felt. So every model has the same CPU term,
and they differ in contention alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from tandem.estimate.corun import App, Capacity, CoRun, Slowdown, Words
from tandem.estimate.sharing import SHARE_SPREAD, CpuNeed, Sharing, by_ends, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tandem.estimate.pairs import SeenPairs

_CACHED = 1 << 16
_NAMED = 3

_ALONE = Slowdown(1.0, 1.0, 1.0, True, "alone on the node")

_ORDER = attrgetter("key", "cpu_milli", "membw_mbs", "nic_mbs", "cores")

_MID, _LOW, _HIGH, _UNTRIED = attrgetter("mid"), attrgetter("low"), attrgetter("high"), attrgetter("untried")


@dataclass(slots=True)
class Felt:
    """What one member feels of the others.

    Attributes:
        excess: slowdown less 1, at least 0.
        below, above: half-widths of its 90 % interval.
        known: whether it rests on an observation of this very set, or of all its pairs.
        why: on what, in words; made when they are read, or there already.
        untried: whether nothing but a try can tell what some neighbour costs.
    """

    excess: float
    below: float
    above: float
    known: bool
    why: str | Words
    untried: bool = False


@dataclass(slots=True)
class Members:
    """One set, as rules see it.

    Attributes:
        apps: in a fixed order, so that the order in which a set is named changes nothing, not even a rounding.
        capacity: the node.
        weights: ``weights[i][j]`` is how much of the time j runs beside i (see `tandem.estimate.sharing`); None
            where each has cores of its own.
    """

    apps: Sequence[App]
    capacity: Capacity
    weights: tuple[tuple[float, ...], ...] | None = None

    def weight(self, i: int, j: int) -> float:
        """How much of the time member ``j`` runs beside member ``i``."""
        return 1.0 if self.weights is None else self.weights[i][j]

    def others(self, i: int) -> list[tuple[App, float]]:
        """Those that ever run beside member ``i``, and how much of the time."""
        if self.weights is None:
            return [(app, 1.0) for j, app in enumerate(self.apps) if j != i]
        return [(app, weight) for app, weight in zip(self.apps, self.weights[i], strict=True) if weight > 0.0]

    def beside(self, i: int) -> tuple[str, ...]:
        """The keys of the others, sorted."""
        return tuple([app.key for j, app in enumerate(self.apps) if j != i])


class _Kept:
    """A remembered answer and the revision that it holds for; none at first."""

    __slots__ = ("answers", "revision")

    def __init__(self) -> None:
        self.revision: tuple[int, int] | None = None
        self.answers: tuple[Slowdown, ...] = ()


class Answering:
    """An `Estimator` made of a rule.

    Args:
        rule: of a set, what its i-th member feels.
        known: shares of cores by application, from profiles.
        profiled: applications that the rule knows from profiles.
        seen: what was observed, for a rule that learns from it.
    """

    def __init__(
        self,
        rule: Callable[[Members], Callable[[int], Felt]],
        known: Mapping[str, CpuNeed],
        *,
        profiled: Iterable[str] = (),
        by_demand: bool = False,
        seen: SeenPairs | None = None,
    ) -> None:
        self._rule = rule
        self._known = known
        self._contradicted = any(need.ends for need in known.values())
        self._profiled = frozenset(profiled)
        self._by_demand = by_demand
        self._seen = seen
        self._cache: dict[tuple[tuple[App, ...], Capacity], _Kept] = {}

    def observe(self, corun: CoRun) -> None:
        """See `Estimator.observe`."""
        if self._seen is not None:
            fits = self._seen.fits
            self._seen.observe(corun)
            if fits != self._seen.fits:
                self._cache.clear()

    def predict(self, apps: tuple[App, ...], capacity: Capacity) -> tuple[Slowdown, ...]:
        """See `Estimator.predict`."""
        revision = self._seen.revision([app.key for app in apps]) if self._seen is not None else _NEVER
        kept = self._cache.setdefault((apps, capacity), _Kept())  # a look-up costs a hash of every member: one only
        if kept.revision != revision:
            kept.answers = self.answer(apps, capacity)
            kept.revision = revision
            if len(self._cache) > _CACHED:
                self._cache.clear()
        return kept.answers

    def knows(self, app: App) -> bool:
        """See `Estimator.knows`."""
        if app.key in self._profiled or app.cores:
            return True
        if self._by_demand and (app.membw_mbs > 0 or app.nic_mbs > 0):
            return True
        return self._seen is not None and self._seen.has_company(app.key)

    def revision(self, keys: Iterable[str]) -> tuple[int, int]:
        """See `Estimator.revision`."""
        return self._seen.revision(keys) if self._seen is not None else _NEVER

    def answer(self, apps: tuple[App, ...], capacity: Capacity) -> tuple[Slowdown, ...]:
        """The same as `predict`, worked out afresh."""
        if len(apps) < 2:
            return (_ALONE,) * len(apps)
        keys = [app.key for app in apps]
        unlike = len(set(keys)) == len(keys)
        order = sorted(range(len(apps)), key=(keys if unlike else [_ORDER(app) for app in apps]).__getitem__)
        ordered = [apps[position] for position in order]
        ends = [*by_ends(ordered, capacity, self._known)] if self._contradicted else []
        if ends:
            twice = [key for key in keys if (need := self._known.get(key)) and need.ends]
            played = [self._played(ordered, capacity, known, unlike=unlike) for known in ends]
            found = [_middle(of_one, twice) for of_one in zip(*played, strict=True)]
        else:
            found = self._played(ordered, capacity, self._known, unlike=unlike)
        answers = [_ALONE] * len(apps)
        for position, one in zip(order, found, strict=True):
            answers[position] = one
        return tuple(answers)

    def _played(
        self, ordered: Sequence[App], capacity: Capacity, known: Mapping[str, CpuNeed], *, unlike: bool
    ) -> list[Slowdown]:
        sharing = share(ordered, capacity, known)
        feel = self._rule(Members(ordered, capacity, sharing.weights if sharing else None))
        found: list[Slowdown] = []
        for i, app in enumerate(ordered):
            if i and not unlike and app == ordered[i - 1]:  # twins fare alike
                found.append(found[-1])
                continue
            felt = feel(i)
            found.append(_slowdown(felt) if sharing is None else _stretched(felt, sharing, i))
        return found


def named(keys: Iterable[str]) -> str:
    """Who is meant, in order, and no more than a few of them by name.

    >>> named(["d", "", "a"]), named(f"a{k}" for k in range(50))
    ('a, an unnamed programme, d', 'a0, a1, a10 and 47 others')
    """
    names = sorted({key or "an unnamed programme" for key in keys})
    more = len(names) - _NAMED
    if more <= 0:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {more} other{'s' if more > 1 else ''}"


_NEVER = (0, 0)


def _middle(answers: Sequence[Slowdown], twice: Sequence[str]) -> Slowdown:
    """The middle of what one's slowdown may be, with an interval that reaches to the ends of all.

    Args:
        answers: by one or the other of the profiles that contradict each other.
        twice: the applications whose profiles those are.
    """
    least, most = min(answers, key=_MID), max(answers, key=_MID)
    mid = (least.mid + most.mid) / 2
    words = most.words
    if f"{least.mid:.2f}" != f"{most.mid:.2f}":
        by = (
            "{:.2f}x in the middle of {:.2f}x and {:.2f}x, by profiles of {} that contradict each other; the latter: {}"
        )
        words = Words(by.format, mid, least.mid, most.mid, named(twice), words)
    untried = any(map(_UNTRIED, answers))
    return Slowdown(mid, min(map(_LOW, answers)), max(map(_HIGH, answers)), most.known, words, untried)


def _slowdown(felt: Felt) -> Slowdown:
    mid = 1.0 + felt.excess
    low = mid - felt.below
    return Slowdown(mid, low if low > 1.0 else 1.0, mid + felt.above, felt.known, felt.why, felt.untried)


def _stretched(felt: Felt, sharing: Sharing, i: int) -> Slowdown:
    stretch, words = sharing.stretch[i], sharing.why[i]
    mid = stretch * (1.0 + felt.excess)
    longer = 1.0 + felt.excess
    spread = SHARE_SPREAD * (1.0 - 1.0 / stretch) * mid
    half = sharing.half[i] * longer if sharing.half else 0.0
    up = sharing.unmeasured[i] * longer if sharing.unmeasured else 0.0
    down = (stretch - sharing.least[i]) * longer if sharing.least else 0.0
    low = mid - math.hypot(stretch * felt.below, spread, half, down)
    high = mid + math.hypot(stretch * felt.above, spread, half, up)
    why = Words("{}; {}".format, words, felt.why) if words else felt.why
    return Slowdown(mid, low if low > 1.0 else 1.0, high, felt.known, why, felt.untried)
