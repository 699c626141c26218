"""Notice that an application is no longer what was profiled: a new version, another input.

A rate is held against the profile of the phase that it was observed in. One of a time in which the phase changed, or
none was announced, is some mean of the phases' rates: it lies between the slowest and the fastest one's, and tells of
drift only where it does not.
So does a time in which a programme that pauses may have worked without one. Where the programme also has phases without
steps, such a mean is as low as they are long, and tells of drift only above the fastest.
Limits: a phase that was not profiled tells nothing; without announced phases, drift within the range of several
profiled ones passes unnoticed.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from tandem.estimate.profiling.commands import profile_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.estimate.profile import PhaseProfile, Profile

OBSERVATIONS = 5
"""As many of the newest rates alone have to agree."""

LEAST = 0.15
"""A smaller departure is none: a virtual machine's cores change their speed by as much."""


def comparable(profile: Profile, phase: str | None) -> tuple[PhaseProfile, ...]:
    """The phases of a profile that a time in ``phase`` (None: it changed meanwhile) may have been spent in.

    One for a phase that was profiled, none for another; all where none was announced, or several.
    """
    own = tuple(one for one in profile.phases if one.phase == phase)
    return own or (() if phase else profile.phases)


def mixes(profile: Profile, phase: str | None) -> bool:
    """Whether a time in ``phase`` may have been spent in several phases, those without steps among them."""
    return all(one.phase != phase for one in profile.phases) and (len(profile.phases) > 1 or bool(profile.stepless))


def drifted(
    profile: Profile,
    rates: Sequence[float],
    phase: str | None = "",
    *,
    upper: Sequence[float] | None = None,
    vouched: bool = True,
) -> str | None:
    """Whether an application has drifted from its profile, in words that say what to do, or None.

    Args:
        profile: what was measured once.
        rates: steps per second alone as observed since, newest last.
        phase: the phase they were observed in; "" where none was announced, None where it changed meanwhile.
        upper: what the rates may have been at most on a machine as fast as when it was profiled, where that is not
            known for certain (``rates`` are then the least); what departs least counts.
        vouched: whether it is known how fast the machine goes; where not, it may be the cause.

    Returns:
        A sentence once the last five rates all lie on the same side of the profile's rates, each by more than the
        noise of one window and their median by more than three times that and 15 %.
    """
    found = comparable(profile, phase)
    latest = rates[-OBSERVATIONS:]
    if not found or len(latest) < OBSERVATIONS or min(one.rate for one in found) <= 0:
        return None
    mixed = mixes(profile, phase)
    slowest = 0.0 if mixed and profile.stepless else min(one.rate for one in found)
    fastest = max(one.working_rate for one in found)  # pauses may lie between what was observed
    noise = max(one.noise for one in found)

    def departure(rate: float) -> float:
        return rate / min(max(rate, slowest), fastest) - 1.0

    ends = zip(latest, latest if upper is None else upper[-OBSERVATIONS:], strict=True)
    off = [min(max(0.0, departure(low)), departure(high)) for low, high in ends]
    beyond = all(one > noise for one in off) or all(one < -noise for one in off)
    median = statistics.median(off)
    if not beyond or abs(median) <= max(LEAST, 3 * noise):
        return None
    how = "faster" if median > 0 else "slower"
    least = "at least " if mixed else ""  # against the phase that comes nearest
    where = f" in {found[0].phase}" if found[0].phase and len(profile.phases) > 1 and len(found) == 1 else ""
    cause = (
        "a new version or another input"
        if vouched
        else "a new version, another input or a machine that goes so itself, of which too few other profiled "
        "applications tell"
    )
    return (
        f"{profile.key} goes {least}{abs(median):.0%} {how} alone{where} than when it was profiled (revision "
        f"{profile.revision}): {cause}; profile it again: {profile_again(profile.key)}"
    )
