"""What a profile may be believed: which causes it names for certain, and whether it is worth another try.

A cause is named for certain only where it exceeds all that could feign it:

- *slowed by* a kind: the slowdown beside its bubble at full level, less 1, is above 5 %, above the half-width of its
  90 % interval, and above the noise of a window alone (`PhaseProfile.noise`), both widened for the number of kinds that
  were tried (`of_many`), while nobody else had the cores. One that exceeds 5 % and its own interval only, or was
  measured while others had the cores, is told as a perhaps.
- *presses on* a kind: the level is above 0.15 and above the half-width of its 90 % interval, widened so, too. One of
  `HARDEST` is told as "at least" that.

A profile is *noisy* where a window alone scatters by more than `NOISY`, and *disturbed* where others had its cores
(`Profile.disturbed`): either way causes drown, and it had better be made again. It is of an *older calibration* where
the machine's bubbles have been calibrated since: its levels are in units of its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from tandem.estimate.profile import HARDEST, IN_WORDS
from tandem.estimate.profiling.commands import profile_again

if TYPE_CHECKING:
    from tandem.estimate.bubbles import Calibration
    from tandem.estimate.profile import Curve, Pauses, PhaseProfile, Profile

FELT = 0.05
PRESSES = 0.15
NOISY = 0.2
"""Relative half-width of a window's 90 % interval alone from which a slowdown of a fifth cannot be told from chance."""

FEWEST_PAUSES = 3
"""With fewer pauses than this it is uncertain what part of the time they take."""

Certainty = Literal["sure", "perhaps", "no"]


@cache
def of_many(tried: int) -> float:
    """How much wider 90 % intervals are, of which so many together miss no more often than one does.

    Bonferroni's correction of normal errors: with as many kinds as there are, one seems to be felt by chance.

    >>> [round(of_many(tried), 2) for tried in (1, 2, 7)]
    [1.0, 1.19, 1.49]
    """
    normal = NormalDist()
    return normal.inv_cdf(1.0 - 0.05 / max(1, tried)) / normal.inv_cdf(0.95)


def felt(profile: Profile, phase: PhaseProfile, kind: str) -> Certainty:
    """Whether one of a profile's phases is slowed by a kind of bubble; "no" for one that was not tried."""
    curve = phase.sensitivity.get(kind)
    if curve is None or not _beyond_itself(curve):
        return "no"
    doubt = max(phase.noise, curve.halves[-1]) * of_many(len(phase.sensitivity))
    return "sure" if curve.slowdowns[-1] - 1.0 > doubt and not profile.disturbed else "perhaps"


def presses(phase: PhaseProfile, kind: str) -> bool:
    """Whether a phase presses on what a kind of bubble presses on."""
    half = phase.pressure_half.get(kind, 0.0) * of_many(len(phase.pressure))
    return phase.pressure.get(kind, 0.0) > max(PRESSES, half)


def believed(profile: Profile) -> Profile:
    """A profile without pressures of kinds that nothing was felt to press on, as older versions wrote them."""
    unfelt = profile.unfelt
    if not any(kind in unfelt for phase in profile.phases for kind in phase.pressure):
        return profile

    def without(phase: PhaseProfile) -> PhaseProfile:
        pressure, half = (
            {kind: one for kind, one in levels.items() if kind not in unfelt}
            for levels in (phase.pressure, phase.pressure_half)
        )
        return replace(phase, pressure=pressure, pressure_half=half)

    left_out = {**profile.left_out, "unfelt": tuple(kind for kind in IN_WORDS if kind in unfelt)}
    return replace(profile, phases=tuple(map(without, profile.phases)), left_out=left_out)


def level(pressure: float) -> str:
    """A pressure in words.

    >>> level(0.5), level(7.3)
    ('0.50', 'at least 4')
    """
    return f"{pressure:.2f}" if pressure < HARDEST else f"at least {HARDEST:g}"


def older(profile: Profile, calibration: Calibration | None) -> str:
    """That a profile was made with an older calibration than the one that is kept, and what to do; "" where it was not.

    Profiles that do not know the moment of theirs are told by what their reporters felt.
    """
    if calibration is None or not profile.reporter_excess:
        return ""
    if profile.calibrated:
        same = profile.calibrated == calibration.made
    else:
        now = calibration.reporter_excess
        same = all(excess == now.get(kind, excess) for kind, excess in profile.reporter_excess.items())
    if same:
        return ""
    return (
        f"{profile.key}: the machine's bubbles have been calibrated since it was profiled, and its levels are in units "
        f"of the older calibration; {profile_again(profile.key)} measures it in those of the new one"
    )


def causes(profile: Profile) -> dict[str, dict[str, list[str]]]:
    """Phase -> "sure", "perhaps": kinds that slow it; "tried": kinds that were tried; "presses": what it presses on."""
    return {
        phase.phase: {
            "sure": [kind for kind in phase.sensitivity if felt(profile, phase, kind) == "sure"],
            "perhaps": [kind for kind in phase.sensitivity if felt(profile, phase, kind) == "perhaps"],
            "tried": list(phase.sensitivity),
            "presses": [kind for kind in phase.pressure if presses(phase, kind)],
        }
        for phase in profile.phases
    }


def noise(profile: Profile) -> float:
    """The noise of its noisiest phase."""
    return max(phase.noise for phase in profile.phases)


def warning(profile: Profile) -> str:
    """What is wrong with a profile, and what to do, in one line; "" where nothing is."""
    again = f"{profile_again(profile.key)} when the machine is quiet"
    if profile.disturbed:
        return (
            f"{profile.key}: others had its cores for {profile.waited:.0%} of the time that it was to be alone, and "
            f"its intervals are so much wider; {again}"
        )
    if noise(profile) > NOISY:
        return (
            f"{profile.key}: its rate alone scatters by {noise(profile):.0%} between windows, and what slows it less "
            f"is not named for certain; {again}"
        )
    seldom = [phase.pauses for phase in profile.phases if phase.pauses and phase.pauses.seen < FEWEST_PAUSES]
    if seldom:
        return (
            f"{profile.key}: {stands(seldom[0])}, by only {seldom[0].seen} of its pauses, so that its rate alone is "
            f"uncertain; {profile_again(profile.key)} with more time (--most)"
        )
    return ""


def stands(pauses: Pauses) -> str:
    """Pauses in words.

    >>> from tandem.estimate.profile import Pauses
    >>> stands(Pauses(0.4, 2.0, 3))
    'it stands still 40% of the time, for up to 2 s'
    """
    return f"it stands still {pauses.part:.0%} of the time, for up to {pauses.longest_s:.2g} s"


def mark(profile: Profile) -> str:
    """The same in a word or two, for a table."""
    return "disturbed" if profile.disturbed else "noisy" if noise(profile) > NOISY else ""


def _beyond_itself(curve: Curve) -> bool:
    return curve.slowdowns[-1] - 1.0 > max(FELT, curve.halves[-1])
