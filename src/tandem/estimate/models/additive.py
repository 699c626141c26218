"""What one loses beside several is the sum of what it loses beside each: 1 + sum(s - 1) over the pairs.

From pairs alone; one that was never seen is judged by what both did beside others (`tandem.estimate.inferred`), and
where nothing is known it is assumed to cost nothing. Of profiles it uses the cores that applications keep busy.

Limits: bandwidth that two do not fill but three do is not foreseen, and what a cache can lose only once is lost twice.
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
    return pairwise.make(coruns, profiles, combine=sum, words="the sum of pairs")
