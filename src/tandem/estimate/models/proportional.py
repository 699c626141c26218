"""Demand over capacity, corrected by the co-runs that were observed.

For each member of a set, the best of what there is:

1. The very same neighbours were seen: the observed slowdown and its interval.
2. Otherwise demand over capacity for the whole set (`tandem.estimate.demand`), plus, for each neighbour beside which
   the application was seen alone in a pair, what the pair really cost less what demand over capacity says it costs.
   With no pair seen this is demand over capacity; with all pairs seen, and no saturation that only the whole set
   causes, it is 1 + sum(s - 1): additive in the excess. On a public set of co-runs of 15 CPU applications, predicting
   from pairs alone, additive had a mean absolute error of 12.6 % for three (19.9 % for four) applications, the worst
   pair 16.4 % (34.8 %), the product 24.6 % (44.8 %): so additive, with an interval for that error. A pair that agrees
   with stated demands within its own interval corrects nothing: a slowdown is never below 1, so the noise of many
   harmless pairs would add up. Stated demands are one claim, that the node can give what they ask for together, so
   that the noise of what was never measured counts once, however many neighbours state theirs.
3. Neighbours of which demands tell nothing are put together of the largest companies that were seen, not of pairs
   alone (`tandem.estimate.covering`): the noise of many harmless pairs adds up, that of few large companies hardly.
4. A pair that was never seen is judged by what both did beside others (`tandem.estimate.inferred`).
5. Where nothing is known, 1 with the class prior as the upper end; ``why`` says so.

Limits: an application's rate alone is one number, whatever its cores; an observation is not carried over to another
programme with similar demands. Of profiles it uses the cores that applications keep busy, nothing else.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tandem.estimate import sharing
from tandem.estimate.answering import Answering, Felt, Members
from tandem.estimate.covering import cover
from tandem.estimate.demand import Load, Stretch
from tandem.estimate.observed import FEW
from tandem.estimate.pairs import SeenPairs
from tandem.estimate.pairwise import COMBINING, INFERRED, missing_words, seen_before
from tandem.estimate.prior import NOISE, UNKNOWN_EXCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tandem.estimate.corun import App, CoRun, Estimator
    from tandem.estimate.covering import Covered
    from tandem.estimate.observed import Observed
    from tandem.estimate.profile import Profile

USES_PAIRS = True
USES_PROFILES = False

_DEMAND = 0.5
"""Relative half-width, on the excess over 1, of a slowdown that rests, for some neighbour, on stated demands alone: a
judgement, not a measurement. Demands are what users say, and programmes do not wait for bandwidth all the time."""

_WITHIN = "within the node's bandwidth"


def make(coruns: Iterable[CoRun], profiles: Iterable[Profile] = ()) -> Estimator:
    """Return the estimator with everything in ``coruns`` learned."""
    seen = SeenPairs()
    seen.observe_all(coruns)
    return Answering(lambda members: _rule(seen, members), sharing.needs(profiles), by_demand=True, seen=seen)


def _rule(seen: SeenPairs, members: Members) -> Callable[[int], Felt]:
    apps = members.apps
    load = Load(apps, members.capacity)
    stating = {app.key for app in apps} if all(_states(app) for app in apps) else None
    unhurried = _by_demand(_NONE, len(apps) - 1) if load.fits else None
    crowd = stating is not None and len(apps) > FEW + 1  # as one it was seen once, perhaps, and with other sizes

    def of_member(i: int) -> Felt:
        found = None if crowd else seen_before(seen, members, i)
        if found is not None:
            return found
        app = apps[i]
        if members.weights is None:
            if stating is not None and stating.isdisjoint(seen.of(app.key)):
                return unhurried or _by_demand(load.stretch(app), len(apps) - 1)
            return _combined(seen, members, i, load, all_state=stating is not None)
        return _combined(seen, members, i, _running(members, i), all_state=stating is not None)

    return of_member


def _running(members: Members, i: int) -> Load:
    """The load while member ``i`` runs: of those that share cores, each counts for the time it runs beside it."""
    there = [members.apps[i]]
    for app, weight in members.others(i):
        there.append(replace(app, membw_mbs=int(weight * app.membw_mbs), nic_mbs=int(weight * app.nic_mbs)))
    return Load(there, members.capacity)


def _combined(seen: SeenPairs, members: Members, i: int, load: Load, *, all_state: bool) -> Felt:
    """Demand over capacity for the whole set, all that was seen of it put in its place."""
    app = members.apps[i]
    whole = load.stretch(app)
    seen_pairs = seen.of(app.key)
    excess = whole.factor - 1.0
    others = members.others(i)
    near = [one for one in others if one[0].key in seen_pairs] if all_state else others
    below = above = 0.0  # squared half-widths
    stated = NOISE if len(near) < len(others) else 0.0
    pairs: dict[str, Observed] = {}
    inferred: dict[str, float] = {}
    unknown: set[str] = set()
    companies, rest = (None, near) if all_state else _by_company(seen, members, app, near)
    least, most = 0.0, math.inf
    if companies is not None:
        excess, below, above = excess + companies.excess, companies.below, companies.above
        least = companies.least
        most = companies.most if len(others) == companies.count else math.inf
    for other, weight in rest:
        states = all_state or _both_state(app, other)
        if (found := seen_pairs.get(other.key)) is not None:
            by_demand = 1.0 if load.fits else load.of_pair(app, other)
            if states and found.low <= by_demand <= found.high:  # both say the same, and one is measured
                stated = max(stated, weight * (found.high - found.mid))
            else:
                excess += weight * (found.mid - by_demand)
                below += (weight * (found.mid - found.low)) ** 2
                above += (weight * (found.high - found.mid)) ** 2
            pairs[other.key] = found
        elif states:
            stated = NOISE
        elif (guess := seen.judged(app.key, other.key)) is not None:
            excess += weight * (guess - 1.0)
            below += (weight * (INFERRED * (guess - 1.0) + NOISE)) ** 2
            above += (weight * (INFERRED * (guess - 1.0) + 2 * NOISE)) ** 2
            inferred[other.key] = guess
        else:
            above += (weight * UNKNOWN_EXCESS) ** 2
            unknown.add(other.key)
    excess = max(least, excess)
    all_seen = len(near) == len(others) and all(other.key in pairs for other, _ in rest)
    spread = ((COMBINING if all_seen else _DEMAND) * excess) ** 2 + stated**2
    never_alone = seen.never_alone(app.key)
    told = companies.words() if companies is not None else []
    told += [f"{key} {found.mid:.2f}x" for key, found in sorted(pairs.items())]
    missing = missing_words(unknown, never_alone=never_alone, suspected=least > 0.0) if unknown else ""
    words = _combined_words(1.0 + excess, whole.why, told, inferred, missing)
    untried = bool(unknown) and not never_alone
    up = min(math.sqrt(above + spread), max(0.0, most - excess))
    return Felt(excess, math.sqrt(below + spread), up, all_seen, words, untried)


_NONE = Stretch(1.0)


def _by_company(
    seen: SeenPairs, members: Members, app: App, near: list[tuple[App, float]]
) -> tuple[Covered | None, list[tuple[App, float]]]:
    """What companies say of neighbours of which demands tell nothing; and who is in none."""
    known = seen.companies(app.key) if members.weights is None else ()
    if not known:
        return None, near
    silent = [one for one in near if not _both_state(app, one[0])]
    found = cover(known, [other.key for other, _ in silent])
    return found, [one for one in near if _both_state(app, one[0])] + found.strangers(silent)


def _states(app: App) -> bool:
    return app.membw_mbs > 0 or app.nic_mbs > 0


def _both_state(app: App, other: App) -> bool:
    return _states(app) and _states(other)


def _by_demand(whole: Stretch, others: int) -> Felt:
    """Of one that was seen beside none of its ``others``, where all state what they take."""
    excess = whole.factor - 1.0
    half = math.hypot(NOISE if others else 0.0, _DEMAND * excess)
    return Felt(excess, half, half, False, f"{whole.factor:.2f}x {whole.why or _WITHIN}")


def _combined_words(
    mid: float,
    cause: str,
    told: list[str],
    inferred: dict[str, float],
    missing: str,
) -> str:
    words = []
    if cause:
        words.append(cause)
    if told:
        words.append(f"from what was seen: {', '.join(told)}")
    if inferred:
        guesses = ", ".join(f"{key} {guess:.2f}x" for key, guess in sorted(inferred.items()))
        words.append(f"judged by what both did beside others: {guesses}")
    if missing:
        words.append(missing)
    if not words:
        words.append(_WITHIN)
    return missing if words == [missing] else f"{mid:.2f}x {'; '.join(words)}"
