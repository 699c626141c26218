"""Profiles that were made with different calibrations of a machine's bubbles, brought to the same units.

A pressure is a reporter's slowdown, told as a part of what the strongest bubble did to it in a calibration. Two
calibrations of a noisy machine differ (by half and more where bubbles hardly slow their reporters), and so would the
same pressure. Each profile keeps what its reporters felt (`Profile.reporter_excess`), which gives the slowdown back.

Limits: curves stay as they are. Their last point is the strongest bubble, whatever the calibration said of it; the
levels between are those of the older dial, which claims to be as straight as the newer one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tandem.estimate.profile import HARDEST

if TYPE_CHECKING:
    from tandem.estimate.profile import PhaseProfile, Profile


def rescaled(profile: Profile, newer: Profile) -> Profile:
    """A profile with its pressures in the units of another one's calibration; the very same where that is no newer.

    Kinds that either calibration did not feel, or does not know, stay as they are.
    """
    if profile.calibrated >= newer.calibrated:
        return profile
    unfelt = profile.unfelt | newer.unfelt
    factors = {
        kind: excess / newer.reporter_excess[kind]
        for kind, excess in profile.reporter_excess.items()
        if kind not in unfelt and newer.reporter_excess.get(kind, 0.0) > 0.0
    }

    def scaled(phase: PhaseProfile) -> PhaseProfile:
        pressure, half = (
            {kind: min(HARDEST, one * factors.get(kind, 1.0)) for kind, one in levels.items()}
            for levels in (phase.pressure, phase.pressure_half)
        )
        return replace(phase, pressure=pressure, pressure_half=half)

    return replace(profile, phases=tuple(map(scaled, profile.phases)))
