"""Notice that an application is no longer what was profiled: a new version, another input."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.estimate.profile import Profile

OBSERVATIONS = 5
"""As many of the newest rates alone have to agree."""

LEAST = 0.15
"""A smaller departure is none: a virtual machine's cores change their speed by as much."""


def drifted(profile: Profile, rates: Sequence[float], phase: str = "") -> str | None:
    """Whether an application has drifted from its profile, in words that say what to do, or None.

    Args:
        profile: what was measured once.
        rates: steps per second alone as observed since, newest last.
        phase: the phase they were observed in; one that was not profiled says nothing, except where only one was.

    Returns:
        A sentence once the last five rates all lie on the same side of the profile's rate, each by more than the
        noise of one window and their median by more than three times that and 15 %.
    """
    found = next((one for one in profile.phases if one.phase == phase), None)
    if found is None and len(profile.phases) == 1:
        found = profile.phases[0]
    latest = rates[-OBSERVATIONS:]
    if found is None or len(latest) < OBSERVATIONS or found.rate <= 0:
        return None
    off = [rate / found.rate - 1.0 for rate in latest]
    beyond = all(one > found.noise for one in off) or all(one < -found.noise for one in off)
    median = statistics.median(off)
    if not beyond or abs(median) <= max(LEAST, 3 * found.noise):
        return None
    how = "faster" if median > 0 else "slower"
    return (
        f"{profile.key} goes {abs(median):.0%} {how} alone than when it was profiled (revision {profile.revision}): "
        f"a new version or another input; profile it again: tandem profile again {profile.key}"
    )
