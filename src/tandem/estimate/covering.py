"""A set is put together of the largest companies in which the application was seen.

What a pair cost says little of twenty such neighbours; what ten of them cost together says much. So neighbours are
taken away by whole companies that were seen, the largest first and each as often as it is there, down to pairs. Their
excesses add up; the squares of their half-widths do too. A set grows, in this way, from what was seen of a part of it:
while parts prove harmless the interval of the whole is that of few parts.

A company that holds them all is a bound on the other side, as more neighbours make nothing faster (where it was faster
than a part, the part counts). And what many share is free until it is used up, so that the last ones cost most. So a
crowd that was slowed, one of more than a few, tells of large parts of itself:

- Where it has only more of one application than their largest part, the excess is at least what lies between the two on
  a straight line. Without this a set would be tried again with one neighbour less each time that it proved too large.
- Where a set is more than half of it, and holds more than half of those in no part, these are suspected: each costs its
  share of what the known parts do not explain. Half of them may be tried again, and of a few neighbours any set that
  nobody saw: one trial tells more than suspicion.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tandem.estimate.observed import FEW

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from tandem.estimate.corun import App
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

    def words(self, named: Container[str] | None = None) -> str:
        """Who they are, and what they cost.

        Args:
            named: whom to call by name; the others, who may be another user's, are only counted. None for all.

        >>> from tandem.estimate.observed import Observed
        >>> company = Company.of(["cg", "fft", "cg"], Observed(1, 1.2, 1.1, 1.3))
        >>> company.words(), company.words({"cg"})
        ('2 cg + fft 1.20x', '2 cg + 1 other 1.20x')
        """
        told = sorted((key, count) for key, count in self.counts.items() if named is None or key in named)
        who = [key if count == 1 else f"{count} {key}" for key, count in told]
        others = self.size - sum(count for _, count in told)
        who += [f"{others} other{'s' if others > 1 else ''}"] if others else []
        return f"{' + '.join(who)} {self.seen.mid:.2f}x"


@dataclass(slots=True)
class Covered:
    """What companies say of neighbours.

    Attributes:
        there: how many of each key there are.
        excess: slowdown less 1.
        below, above: squares of the half-widths of its 90 % interval, but for how far adding up may be off.
        least: the excess is at least this, those that are in no part included.
        most: its upper end, less 1, is not above this.
        parts: companies that it is made of, in the order in which they were taken.
        whole: a company that holds them all and decided, too.
        left: how many of each key are in no part.
    """

    there: Counter[str]
    excess: float
    below: float
    above: float
    least: float
    most: float
    parts: list[Company]
    whole: Company | None
    left: Counter[str]

    @property
    def count(self) -> int:
        """How many there are."""
        return self.there.total()

    def strangers(self, neighbours: Iterable[tuple[App, float]]) -> list[tuple[App, float]]:
        """Those of the neighbours, each with how much of the time it is there, that are in no part."""
        left, found = self.left.copy(), []
        for one in neighbours:
            if left[one[0].key] > 0:
                left[one[0].key] -= 1
                found.append(one)
        return found

    def words(self) -> list[str]:
        """Which parts there are, by what was seen of them, and what holds them all."""
        said = [part.words() for part in self.parts]
        return [*said, f"all of them among {self.whole.words(self.there)}"] if self.whole else said


def cover(companies: Sequence[Company], neighbours: Iterable[str]) -> Covered:
    """Judge ``neighbours`` by what was seen of companies of them.

    Args:
        companies: of one application, in the order in which they are tried: the largest first.
        neighbours: keys; the same may be there several times.
    """
    there = Counter(neighbours)
    count = there.total()
    larger = [one for one in companies if one.size > count and there.keys() <= one.counts.keys()]
    whole = min((one for one in reversed(larger) if there <= one.counts), key=lambda one: one.seen.mid, default=None)
    parts, left = _take(companies, there)
    found = Covered(there, 0.0, 0.0, 0.0, 0.0, math.inf, [part for part, _ in parts], None, left)
    for part, times in parts:
        seen = part.seen
        found.excess += times * (seen.mid - 1.0)
        found.below += times * (seen.mid - seen.low) ** 2
        found.above += times * (seen.high - seen.mid) ** 2
    if whole is not None:
        crowd = whole.size > FEW
        if not (crowd and _on_a_line(found, whole)):
            if crowd and left.total():
                _suspect(found, whole, companies)
            elif not left.total():
                _bound(found, whole)
        found.most = max(one.seen.high for one in (whole, *found.parts)) - 1.0
    return found


def _take(companies: Iterable[Company], there: Counter[str]) -> tuple[list[tuple[Company, int]], Counter[str]]:
    """Which companies are among them, and how often, in the order in which they are tried; and who is in none."""
    left, missing, parts = there.copy(), there.total(), []
    for company in companies:
        if company.size <= missing and company.counts.keys() <= there.keys():
            times = min(left[key] // number for key, number in company.counts.items())
            if times:
                parts.append((company, times))
                left.subtract({key: times * number for key, number in company.counts.items()})
                missing -= times * company.size
    return parts, left


def _suspect(found: Covered, whole: Company, companies: Sequence[Company]) -> None:
    """Those in no part are among those who cost what the parts of ``whole`` do not explain."""
    parts, strangers = _take([one for one in companies if one.size < whole.size], whole.counts)
    unexplained = whole.seen.mid - 1.0 - sum(times * (part.seen.mid - 1.0) for part, times in parts)
    missing, of = found.left.total(), strangers.total()
    if unexplained > 0.0 and 2 * found.count > whole.size and 2 * missing > of:
        found.least, found.whole = found.excess + unexplained * min(1.0, missing / max(1, of)), whole


def _on_a_line(found: Covered, whole: Company) -> bool:
    """Whether ``whole`` has only more of one kind than their largest part, and costs so much that this decides."""
    if not found.parts or len(whole.counts - found.parts[0].counts) != 1:
        return False
    part, seen = found.parts[0], whole.seen
    way = (found.count - part.size) / (whole.size - part.size)
    between = part.seen.mid + way * (seen.mid - part.seen.mid) - 1.0
    if between <= found.excess:
        return False
    found.excess, found.whole = between, whole
    found.below = ((1 - way) * (part.seen.mid - part.seen.low) + way * (seen.mid - seen.low)) ** 2
    found.above = ((1 - way) * (part.seen.high - part.seen.mid) + way * (seen.high - seen.mid)) ** 2
    found.left.clear()
    return True


def _bound(found: Covered, whole: Company) -> None:
    """Nothing costs more than a whole that holds it, if that cost no less than a part."""
    most = max(one.seen.mid for one in (whole, *found.parts)) - 1.0
    if most < found.excess:
        found.excess, found.whole = most, whole
