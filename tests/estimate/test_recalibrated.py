"""Profiles of two calibrations: what is felt of a neighbour does not depend on which one it was profiled with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate import contention
from tandem.estimate.profile import HARDEST, Curve, PhaseProfile, Profile
from tandem.estimate.recalibrated import rescaled

STRAIGHT = Curve((0.0, 1.0), (1.0, 1.5), (0.0, 0.0))
KIND = "membw_read"


def measured(slowdown: float, excess: float, calibrated: float, key: str = "stream") -> Profile:
    """An application that slows the reporter so much, profiled where the strongest bubble did by ``excess``."""
    phase = PhaseProfile(
        "", 1.0, 1.0, 0.0, 1.0, {KIND: STRAIGHT}, {KIND: (slowdown - 1.0) / excess}, {KIND: 0.01 / excess}
    )
    return Profile(key, (key,), "here", 1, 0.0, 0.0, 1, (phase,), reporter_excess={KIND: excess}, calibrated=calibrated)


@given(st.floats(1.0, 1.5), st.floats(0.2, 2.0), st.floats(0.2, 2.0))
def test_a_pressure_is_the_same_slowdown_of_the_reporter_in_any_units(slowdown: float, old: float, new: float) -> None:
    one, other = measured(slowdown, old, 1.0), measured(slowdown, new, 2.0)
    (found,), (wanted,) = rescaled(one, other).phases, other.phases
    assert found.pressure[KIND] == pytest.approx(min(HARDEST, wanted.pressure[KIND]))
    assert found.pressure_half[KIND] == pytest.approx(wanted.pressure_half[KIND])
    assert found.sensitivity == one.phases[0].sensitivity
    assert rescaled(other, one) is other, "the newer one has the units that count"
    assert rescaled(one, replace(other, calibrated=1.0)) is one


def test_a_kind_that_either_did_not_feel_or_does_not_know_stays_as_it_is() -> None:
    one = measured(1.1, 0.2, 1.0)
    for newer in (
        replace(one, calibrated=2.0, reporter_excess={KIND: 0.4}, left_out={"unfelt": (KIND,)}),
        replace(one, calibrated=2.0, reporter_excess={KIND: 0.03}),
        replace(one, calibrated=2.0, reporter_excess={"cache": 0.4}),
    ):
        assert rescaled(one, newer).phases == one.phases


def test_estimates_take_profiles_of_two_calibrations_in_the_units_of_the_newer() -> None:
    at = contention.FELT.index(KIND)
    older, newer = measured(1.1, 0.2, 1.0, "old"), measured(1.1, 0.4, 2.0, "new")
    found = contention.vectors([older, newer])
    assert found["old"].pressure[at] == pytest.approx(found["new"].pressure[at])
    assert contention.vectors([older])["old"] == contention.vector(older)
    assert contention.vectors([]) == {}
