"""A set is put together of the largest companies in which the application was seen.

What a pair cost says little of twenty such neighbours; what ten of them cost together says much. So neighbours are
taken away by whole companies that were seen, the largest first and each as often as it is there, down to pairs. Their
excesses add up; the squares of their half-widths do too. A set grows, in this way, from what was seen of a part of it:
while parts prove harmless the interval of the whole is that of few parts.

A company that holds them all is a bound on the other side, as more neighbours make nothing faster (where it was faster
than a part, the part counts). And what many share is free until it is used up, so that the last ones cost most: where
the larger one has only more of one application, or nothing else is known of some, the excess is at least what lies
between the largest part and the whole on a straight line. Without this a set would be tried again with one neighbour
less each time that it proved to be too large, and of many that nobody ever saw two by two nothing would be learnt.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tandem.estimate.observed import Observed


class Company(NamedTuple):
    """Neighbours beside which an application was seen: how many of each key, how many in all, its slowdown then."""

    counts: Counter[str]
    size: int
    seen: Observed

    @classmethod
    def of(cls, beside: Sequence[str], seen: Observed) -> Company:
        """The company of the keys ``beside``."""
        return cls(Counter(beside), len(beside), seen)

    def words(self) -> str:
        """Who they are, and what they cost.

        >>> from tandem.estimate.observed import Observed
        >>> Company.of(["cg", "fft", "cg"], Observed(1, 1.2, 1.1, 1.3)).words()
        '2 cg + fft 1.20x'
        """
        who = (key if count == 1 else f"{count} {key}" for key, count in sorted(self.counts.items()))
        return f"{' + '.join(who)} {self.seen.mid:.2f}x"


@dataclass(slots=True)
class Covered:
    """What companies say of neighbours.

    Attributes:
        count: how many there are.
        excess: slowdown less 1.
        below, above: squares of the half-widths of its 90 % interval, but for how far adding up may be off.
        least: the excess is at least this, those that are in no part included.
        most: its upper end, less 1, is not above this.
        parts: companies that it is made of, in the order in which they were taken.
        whole: a company that holds them all and decided, too.
        left: how many of each key are in no part.
    """

    count: int
    excess: float
    below: float
    above: float
    least: float
    most: float
    parts: list[Company]
    whole: Company | None
    left: Counter[str]

    def words(self) -> list[str]:
        """Which parts there are, by what was seen of them, and what holds them all."""
        said = [part.words() for part in self.parts]
        return [*said, f"all of them within {self.whole.words()}"] if self.whole else said


def cover(companies: Sequence[Company], neighbours: Iterable[str]) -> Covered:
    """Judge ``neighbours`` by what was seen of companies of them.

    Args:
        companies: of one application, in the order in which they are tried: the largest first.
        neighbours: keys; the same may be there several times.
    """
    there = Counter(neighbours)
    count, left = there.total(), there.copy()
    missing, found = count, Covered(count, 0.0, 0.0, 0.0, 0.0, math.inf, [], None, left)
    whole: Company | None = None
    for company in companies:
        if company.size > count:
            if there.keys() <= company.counts.keys() and there <= company.counts:
                whole = company if whole is None or company.seen.mid <= whole.seen.mid else whole
        elif company.size <= missing and company.counts.keys() <= there.keys():
            times = min(left[key] // number for key, number in company.counts.items())
            if times:
                seen = company.seen
                found.parts.append(company)
                found.excess += times * (seen.mid - 1.0)
                found.below += times * (seen.mid - seen.low) ** 2
                found.above += times * (seen.high - seen.mid) ** 2
                left.subtract({key: times * number for key, number in company.counts.items()})
                missing -= times * company.size
    if whole is not None:
        _bound(found, whole, missing)
    return found


def _bound(found: Covered, whole: Company, missing: int) -> None:
    """Use that ``whole`` holds all neighbours, of whom ``missing`` are in no part."""
    seen = whole.seen
    worst = max((part.seen for part in found.parts), key=lambda one: one.mid, default=seen)
    size, low, mid, high = 0, 0.0, 0.0, 0.0
    more = whole.counts
    if found.parts:
        part = found.parts[0]
        size, low, mid, high = part.size, part.seen.low - 1.0, part.seen.mid - 1.0, part.seen.high - 1.0
        more = more - part.counts
    way = (found.count - size) / (whole.size - size)
    between = mid + way * (seen.mid - 1.0 - mid)
    if missing:
        found.least, found.whole = between, whole
    elif len(more) == 1 and between > found.excess:
        found.excess, found.whole = between, whole
        found.below = ((1 - way) * (mid - low) + way * (seen.mid - seen.low)) ** 2
        found.above = ((1 - way) * (high - mid) + way * (seen.high - seen.mid)) ** 2
    elif seen.mid - 1.0 < found.excess:
        found.excess, found.whole = max(seen.mid - 1.0, worst.mid - 1.0), whole
    found.most = max(seen.high, worst.high) - 1.0
