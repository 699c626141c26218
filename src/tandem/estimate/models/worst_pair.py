"""What one loses beside several is what it loses beside the worst of them.

From pairs alone, as `tandem.estimate.models.additive`. Right where all want the same saturated resource from one that
is soon at its worst; too low wherever demands add up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.estimate import pairwise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tandem.estimate.corun import CoRun, Estimator
    from tandem.estimate.profile import Profile

USES_PAIRS = True
USES_PROFILES = False


def make(coruns: Iterable[CoRun], profiles: Iterable[Profile] = ()) -> Estimator:
    """Return the estimator with everything in ``coruns`` learned."""
    return pairwise.make(coruns, profiles, combine=max, words="the worst pair")
