"""Which co-runs are worth keeping when they become too many: the latest of each company, of all equally many.

What went on for hours says after some minutes what it says in all, while what was seen once, a week ago, may be all
that is known of a pair. So those companies give first of which most is known; none gives all while another has more.
"""

from collections import Counter
from collections.abc import Iterable

from tandem.estimate.corun import CoRun
from tandem.estimate.observed import REMEMBERED


def latest_of_each(coruns: Iterable[CoRun], limit: int) -> list[CoRun]:
    """At most ``limit`` of ``coruns``, in their order: the last n of each application in each company, n as fits.

    No more than an estimator would look at; where there are more companies than ``limit``, those that were seen last.

    >>> seen = [CoRun("cg", ("fft",), 1.0, 3.0), *[CoRun("cg", (), 2.0, 3.0)] * 9]
    >>> [one.beside for one in latest_of_each(seen, 4)]
    [('fft',), (), (), ()]
    """
    ordered = list(coruns)
    sizes = Counter(Counter(map(_company, ordered)).values())
    each = max(1, next((n for n in range(REMEMBERED, 0, -1) if _fits(sizes, n, limit)), 0))
    found: list[CoRun] = []
    kept: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for one in reversed(ordered):
        company = _company(one)
        if kept[company] < each and len(found) < limit:
            kept[company] += 1
            found.append(one)
    return found[::-1]


def _company(corun: CoRun) -> tuple[str, tuple[str, ...]]:
    return corun.app, tuple(sorted(corun.beside))


def _fits(sizes: Counter[int], each: int, limit: int) -> bool:
    """Whether so many of each company are not too many, given how many companies were seen how often."""
    return sum(min(size, each) * companies for size, companies in sizes.items()) <= limit
