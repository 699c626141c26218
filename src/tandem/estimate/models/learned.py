"""Profiles first, then whatever was really seen: starts as `bubble` and refines itself with every co-run.

For each member, the best of what there is:

1. The very same set was seen, with cores of its own: the observed slowdown.
2. Otherwise what profiles say of the whole set (`tandem.estimate.contention`), plus for each neighbour a correction:
   what the pair was seen to cost less what profiles say that it costs, each trusted by its own precision; or, where
   the pair was never seen, what both proved to be relative to expectation beside others (a factorisation,
   `tandem.estimate.inferred`, whose entries are expected to be what profiles say).
3. Without a profile, the largest companies that were seen add up (`tandem.estimate.covering`), then pairs, seen or
   inferred; and where a pair is not known at all, stated demands over capacity
   (`tandem.estimate.demand`) are believed.
4. Where nothing is known, 1 with the class prior as the upper end; ``why`` says so.

Larger sets that were seen tell of their pairs as well: each pair not seen itself gets its expected part of the excess.

Everything follows from the observations, in their order, so an estimator that is made from the stored ones after a
restart answers as if it had never stopped.

Intervals come from the residuals of the pairs seen, each judged without itself (`tandem.estimate.refined`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tandem.estimate import contention, sharing
from tandem.estimate.answering import Answering, Felt, Members
from tandem.estimate.corun import Words
from tandem.estimate.covering import cover
from tandem.estimate.demand import Load
from tandem.estimate.observed import FEW
from tandem.estimate.pairwise import COMBINING, missing_words, seen_before
from tandem.estimate.pressed import Pressed
from tandem.estimate.prior import NOISE, UNKNOWN_EXCESS
from tandem.estimate.refined import Corrections, Refined, judged_half

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tandem.estimate.corun import App, CoRun, Estimator
    from tandem.estimate.profile import Profile

USES_PAIRS = True
USES_PROFILES = True

_DEMAND = 0.5
"""Relative half-width of an excess that rests on stated demands alone."""


_NOBODY = "nobody runs on another core meanwhile"


def make(coruns: Iterable[CoRun], profiles: Iterable[Profile] = ()) -> Estimator:
    """Return the estimator that holds ``profiles``, with everything in ``coruns`` learned."""
    held = tuple(profiles)
    refined = Refined(contention.vectors(held))
    refined.seen.observe_all(coruns)

    def rule(members: Members) -> Callable[[int], Felt]:
        pressed = Pressed(members, refined.vectors)
        felt = _refined if members.weights is not None or pressed.unprofiled else _corrected
        if not refined.seen.observations.of_size(len(members.apps)):
            return lambda i: felt(refined, members, pressed, i)
        if len(members.apps) > FEW + 1:  # a crowd was seen once, perhaps; who has a profile is better judged by that
            return lambda i: (
                (seen_before(refined.seen, members, i) if pressed.vectors[i] is None else None)
                or felt(refined, members, pressed, i)
            )
        return lambda i: seen_before(refined.seen, members, i) or felt(refined, members, pressed, i)

    return Answering(rule, sharing.needs(held), profiled=refined.vectors, by_demand=True, seen=refined.seen)


def _corrected(refined: Refined, members: Members, pressed: Pressed, i: int) -> Felt:
    """`_refined` where all have profiles and cores of their own, which is what a scheduler asks for most."""
    by_profile, apps = pressed.on(i), members.apps
    assert by_profile is not None
    corrections = refined.corrections(apps[i].key)
    excess, variance, seen = 0.0, 0.0, 0
    doubt, least, most = 0.0, 0.0, 0.0
    for j, other in enumerate(apps):
        if j != i:
            correction = corrections[other.key]
            excess += correction.excess
            variance += correction.variance
            if correction.seen:
                seen += 1
                doubt += correction.doubt
                if correction.least > least:
                    least = correction.least
                if correction.most > most:
                    most = correction.most
    others = len(apps) - 1
    excess += by_profile.excess
    if excess < least:
        excess = least
    variance += by_profile.variance * refined.left(seen, others) * refined.scale**2
    if doubt:
        variance += doubt * (seen - 1) / seen
    below = math.sqrt(variance)
    above = math.sqrt(variance + by_profile.ignorance) if by_profile.ignorance else below
    if above < most - excess:
        above = most - excess
    why = Words(_corrected_words, pressed, i, corrections)
    return Felt(excess, below, above, seen == others, why)


def _corrected_words(pressed: Pressed, i: int, corrections: Corrections) -> str:
    """Made from what is kept anyway: answers that nobody reads hold little memory."""
    by_profile = pressed.on(i)
    assert by_profile is not None
    there = [corrections[app.key] for app in pressed.beside(i)]
    excess = max(by_profile.excess + sum(one.excess for one in there), *(one.least for one in there))
    return _words(excess, pressed, i, [one.seen for one in there if one.seen], None)


def _refined(refined: Refined, members: Members, pressed: Pressed, i: int) -> Felt:
    weights = members.weights[i] if members.weights is not None else (1.0,) * len(members.apps)
    if members.weights is not None and not any(weights):  # all are on its core
        return Felt(0.0, 0.0, 0.0, True, _NOBODY)
    app = members.apps[i]
    by_profile = pressed.on(i)
    if by_profile is None and members.weights is None:
        return _by_company(refined, members, pressed, i)
    excess, variance, ignorance = 0.0, 0.0, 0.0  # of what is felt; of its half-width; upwards only
    corrections = refined.corrections(app.key)
    doubt, least, most = 0.0, 0.0, 0.0  # in squares; excess of the worst pair seen; highest upper end of one
    seen: list[str] = []  # corrections by pairs that were seen, in words
    strangers: list[tuple[App, float]] = []
    there = 0  # how many ever run beside it
    for j, weight in enumerate(weights):
        if j == i or weight == 0.0:
            continue
        there += 1
        other = members.apps[j]
        correction = corrections[other.key]
        if correction.seen or (by_profile is not None and pressed.vectors[j] is not None):
            excess += weight * correction.excess
            if correction.seen:
                seen.append(correction.seen)
                variance += weight * weight * correction.variance
                doubt += weight * weight * correction.doubt
                least, most = max(least, weight * correction.least), max(most, weight * correction.most)
        else:
            strangers.append((other, weight))
    strange: Felt | None = None
    if by_profile is not None:
        if pressed.unprofiled < len(members.apps) - 1:
            left = refined.left(len(seen), max(1, there))
            variance += by_profile.variance * left * refined.scale**2 + doubt * (1.0 - 1.0 / max(1, len(seen)))
        excess = max(least, by_profile.excess + excess)
        ignorance = by_profile.ignorance
    elif len(seen) > 1:  # they share cores
        variance += (COMBINING * excess) ** 2
    if strangers:
        strange = _strange(refined, members, app, strangers, _unprofiled(members, pressed))
        excess += strange.excess
        variance += strange.below**2
        ignorance += strange.above**2 - strange.below**2
    why = Words(_words, excess, pressed, i, seen, strange)
    below = math.sqrt(variance)
    above = max(math.sqrt(variance + ignorance) if ignorance else below, most - excess)
    return Felt(excess, below, above, len(seen) == there, why, strange is not None and strange.untried)


def _by_company(refined: Refined, members: Members, pressed: Pressed, i: int) -> Felt:
    """What one without a profile feels, by what was seen of companies of its neighbours."""
    app, others = members.apps[i], members.others(i)
    found = cover(refined.seen.companies(app.key), [other.key for other, _ in others])
    strangers = found.strangers(others)
    excess = found.excess
    spread = (COMBINING * excess) ** 2 if len(others) - len(strangers) > 1 else 0.0
    below, above = found.below + spread, found.above + spread
    strange: Felt | None = None
    if strangers:
        lacking = _unprofiled(members, pressed)
        strange = _strange(refined, members, app, strangers, lacking, suspected=found.least > 0.0)
        excess = max(found.least, excess + strange.excess)
        below, above = below + strange.below**2, above + strange.above**2
    why = Words(_words, excess, pressed, i, found.words(), strange)
    up = min(math.sqrt(above), max(0.0, found.most - excess))
    return Felt(excess, math.sqrt(below), up, not strangers, why, strange is not None and strange.untried)


def _words(excess: float, pressed: Pressed, i: int, seen: Sequence[str], strange: Felt | None) -> str:
    words, profiled = [], pressed.vectors[i] is not None
    if profiled and pressed.unprofiled < len(pressed.vectors) - 1:
        words.append(pressed.words(i))
    if seen:
        words.append(f"{'corrected by pairs' if profiled else 'from what was'} seen: {', '.join(seen)}")
    if strange is not None:
        words.append(str(strange.why))
    if not words:
        words.append(_NOBODY)
    total = f"{1 + excess:.2f}x"
    said = "; ".join(words)
    return said if len(words) == 1 or said.startswith(f"{total} ") else f"{total}: {said}"


def _unprofiled(members: Members, pressed: Pressed) -> frozenset[str]:
    """Who lacks a profile, where others of the set have one."""
    lack = [app.key for app, vector in zip(members.apps, pressed.vectors, strict=True) if vector is None]
    return frozenset(lack if len(lack) < len(members.apps) else ())


def _strange(
    refined: Refined,
    members: Members,
    app: App,
    others: list[tuple[App, float]],
    unprofiled: frozenset[str],
    *,
    suspected: bool = False,
) -> Felt:
    """What is felt of neighbours whose cost to ``app`` was never seen, where it or they have no profile."""
    excess = below = above = 0.0
    stating, judged, unknown = [], [], set()
    for other, weight in others:
        if _states(app) and _states(other):
            stating.append(replace(other, membw_mbs=int(weight * other.membw_mbs), nic_mbs=int(weight * other.nic_mbs)))
        elif (guess := refined.seen.judged(app.key, other.key)) is not None:
            excess += weight * (guess - 1.0)
            half = (weight * refined.judged_scale * judged_half(guess)) ** 2
            below, above = below + half, above + half
            judged.append(f"{other.key} {guess:.2f}x")
        else:
            above += (weight * UNKNOWN_EXCESS) ** 2
            unknown.add(other.key)
    words = []
    never_alone = refined.seen.never_alone(app.key)
    if stating:
        whole = Load((app, *stating), members.capacity).stretch(app)
        excess += whole.factor - 1.0
        half = (_DEMAND * (whole.factor - 1.0)) ** 2 + NOISE**2  # once: that a node can give it all is one claim
        below, above = below + half, above + half
        words.append(f"{whole.factor:.2f}x {whole.why}" if whole.why else "within the node's bandwidth")
    if judged:
        words.append(f"judged by what both did beside others: {', '.join(judged)}")
    if unknown:
        lack = unprofiled & {app.key, *unknown}
        words.append(missing_words(unknown, lack, never_alone=never_alone, suspected=suspected))
    untried = bool(unknown) and not never_alone
    return Felt(excess, math.sqrt(below), math.sqrt(above), False, "; ".join(words), untried)


def _states(app: App) -> bool:
    return app.membw_mbs > 0 or app.nic_mbs > 0
