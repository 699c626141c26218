"""Larger sets from their pairs, by one rule: the sum of what each costs, or the worst.

The very same set, where it was seen with cores of its own, beats the rule.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tandem.estimate import sharing
from tandem.estimate.answering import Answering, Felt, Members, named
from tandem.estimate.pairs import SeenPairs
from tandem.estimate.prior import NOISE, UNKNOWN_EXCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from tandem.estimate.corun import CoRun, Estimator
    from tandem.estimate.observed import Observed
    from tandem.estimate.profile import Profile

COMBINING = 0.6
"""Relative half-width of the excess for combining pairs into a larger set. 12.6 % mean error (see
`tandem.estimate.models.proportional`) is a 90 % half-width of 26 % of the slowdown if errors are normal; at that set's
median pair (1.41) three applications slow by 1.82, and 26 % of that is 0.58 of the excess."""

INFERRED = 0.5
"""The same for a pair that was never seen, judged by what both did beside others."""


def make(
    coruns: Iterable[CoRun],
    profiles: Iterable[Profile],
    *,
    combine: Callable[[Sequence[float]], float],
    words: str,
) -> Estimator:
    """An estimator that puts the excesses of pairs together by ``combine``."""
    seen = SeenPairs()
    seen.observe_all(coruns)

    def rule(members: Members) -> Callable[[int], Felt]:
        return lambda i: seen_before(seen, members, i) or _combined(seen, members, i, combine, words)

    return Answering(rule, sharing.needs(profiles), seen=seen)


def seen_before(seen: SeenPairs, members: Members, i: int) -> Felt | None:
    """What was observed of this very set, where all had cores of their own then and now."""
    if members.weights is not None or not seen.observations.beside_so_many(members.apps[i].key, len(members.apps) - 1):
        return None
    beside = members.beside(i)
    found = seen.exact(members.apps[i].key, beside)
    return None if found is None else exactly(found, beside)


def exactly(found: Observed, beside: Sequence[str]) -> Felt:
    """An observation as an answer."""
    times = "once" if found.count == 1 else f"{found.count} times"
    why = f"seen {times} beside {' + '.join(beside)}: {found.mid:.2f}x ({found.low:.2f}-{found.high:.2f})"
    return Felt(found.mid - 1.0, found.mid - found.low, found.high - found.mid, True, why)


def _combined(
    seen: SeenPairs, members: Members, i: int, combine: Callable[[Sequence[float]], float], words: str
) -> Felt:
    app = members.apps[i]
    pairs = seen.of(app.key)
    excesses, said, unknown = [0.0], [], set()
    below = above = 0.0  # squared half-widths
    all_seen = True
    for other, weight in members.others(i):
        if (found := pairs.get(other.key)) is not None:
            excesses.append(weight * (found.mid - 1.0))
            below += (weight * (found.mid - found.low)) ** 2
            above += (weight * (found.high - found.mid)) ** 2
            said.append(f"{other.key} {found.mid:.2f}x")
            continue
        all_seen = False
        guess = seen.judged(app.key, other.key)
        if guess is None:
            above += (weight * UNKNOWN_EXCESS) ** 2
            unknown.add(other.key)
        else:
            excesses.append(weight * (guess - 1.0))
            half = weight * (INFERRED * (guess - 1.0) + NOISE)
            below, above = below + half * half, above + half * half
            said.append(f"{other.key} {guess:.2f}x (judged by what both did beside others)")
    excess = combine(excesses)
    spread = (COMBINING * excess) ** 2
    why = (
        f"{1 + excess:.2f}x by {words}: {', '.join(said)}"
        if said
        else ("" if unknown else "nobody runs on another core meanwhile")
    )
    never_alone = seen.never_alone(app.key)
    if unknown:
        missing = missing_words(unknown, never_alone=never_alone)
        why = f"{why}; {missing}" if why else missing
    untried = bool(unknown) and not never_alone
    return Felt(excess, math.sqrt(below + spread), math.sqrt(above + spread), all_seen, why, untried)


def missing_words(
    unknown: Iterable[str], lack: Collection[str] = (), *, never_alone: bool = False, suspected: bool = False
) -> str:
    """What is said where an application's slowdown beside ``unknown`` is not known.

    Args:
        lack: applications that have no profile, where one would tell.
        never_alone: whether it was measured beside others only.
        suspected: whether something else tells that they cost it something.
    """
    cause = ", as it never ran alone" if never_alone else ""
    profile = f", and no profile of {named(lack)}" if lack else ""
    assumed = "" if suspected else f": assumed {1.0:.1f}x"
    return f"its slowdown beside {named(unknown)} is not known{cause}{profile}{assumed}"
