"""From profiles alone: what a set does to a member, though no two of it ever ran together.

How pressures and sensitivities combine is in `tandem.estimate.contention`. Neighbours without a profile are assumed to
cost nothing, with the class prior as the upper end of the interval, and ``why`` says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tandem.estimate import contention, sharing
from tandem.estimate.answering import Answering, Felt, Members, named
from tandem.estimate.corun import Words
from tandem.estimate.pressed import Pressed
from tandem.estimate.prior import UNKNOWN_EXCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tandem.estimate.corun import CoRun, Estimator
    from tandem.estimate.profile import Profile

USES_PAIRS = False
USES_PROFILES = True
_ASSUMED = "assumed 1.0x"


def make(coruns: Iterable[CoRun], profiles: Iterable[Profile] = ()) -> Estimator:
    """Return the estimator that holds ``profiles``; it has no use for ``coruns``."""
    del coruns
    held = tuple(profiles)
    known = contention.vectors(held)

    def rule(members: Members) -> Callable[[int], Felt]:
        pressed = Pressed(members, known)
        return lambda i: _felt(members, pressed, i)

    return Answering(rule, sharing.needs(held), profiled=known)


def _felt(members: Members, pressed: Pressed, i: int) -> Felt:
    felt = pressed.on(i)
    if felt is None:
        above = UNKNOWN_EXCESS * math.sqrt(sum([weight * weight for _, weight in members.others(i)]))
        return Felt(
            0.0, 0.0, above, False, f"{members.apps[i].key or 'an unnamed programme'} has no profile: {_ASSUMED}"
        )
    below = math.sqrt(felt.variance)
    if pressed.unprofiled == 0 and felt.ignorance == 0.0:
        return Felt(felt.excess, below, below, False, Words(pressed.words, i))
    above = felt.variance + felt.ignorance
    strange = [j for j, vector in enumerate(pressed.vectors) if vector is None]
    above += sum((UNKNOWN_EXCESS * members.weight(i, j)) ** 2 for j in strange)
    return Felt(felt.excess, below, math.sqrt(above), False, Words(_words, members, pressed, i, strange))


def _words(members: Members, pressed: Pressed, i: int, strange: Sequence[int]) -> str:
    words = pressed.words(i)
    return f"no profile of {named(members.apps[j].key for j in strange)}: {_ASSUMED}; {words}" if strange else words
