"""Pressure looked up on curves: closed forms, and curves against their own definition."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate import contention
from tandem.estimate.contention import (
    EXPONENT,
    FELT,
    FLOOR,
    GAIN,
    SPREAD,
    Vector,
    believe,
    feel,
    hinges_of,
    of_pair,
    rising,
    trust,
)
from tandem.estimate.prior import UNKNOWN_EXCESS
from tandem.estimate.profile import LEAST_EXCESS, Curve, PhaseProfile, Profile, Stepless

STRAIGHT = Curve((0.0, 1.0), (1.0, 1.5), (0.0, 0.0))
NOISY = Curve((0.0, 1.0), (1.0, 1.5), (0.0, 0.1))
BENT = Curve((0.0, 0.5, 1.0), (1.0, 1.1, 1.7), (0.0, 0.0, 0.0))


def profile(*phases: PhaseProfile, bubble_cores: int = 1) -> Profile:
    return Profile("a", (), "here", 1, 0.0, 0.0, 1, phases, bubble_cores=bubble_cores)


def vector(
    curves: dict[str, Curve] | None = None, pressure: dict[str, float] | None = None, half: float = 0.0
) -> Vector:
    curves, pressure = curves or {}, pressure or {}
    every = {kind: curves.get(kind, Curve((0.0, 1.0), (1.0, 1.0), (0.0, 0.0))) for kind in FELT}
    levels = {kind: pressure.get(kind, 0.0) for kind in FELT}
    halves = dict.fromkeys(pressure, half)
    return contention.vector(profile(PhaseProfile("", 1.0, 1.0, 0.0, 1.0, every, levels, halves)))


def test_one_kind_is_a_curve_looked_up() -> None:
    felt = of_pair(vector({"cache": BENT}), vector(pressure={"cache": 0.75}))
    assert felt.excess == pytest.approx(GAIN * 0.4)
    assert FELT[felt.kind] == "cache"
    assert felt.variance == pytest.approx((SPREAD * felt.excess) ** 2 + FLOOR**2)


def test_beyond_the_strongest_bubble_the_last_segment_goes_on() -> None:
    load = [0.0] * (2 * len(FELT))
    load[FELT.index("membw_read")] = 2.0
    assert feel(vector({"membw_read": BENT}), load).excess == pytest.approx(GAIN * (0.7 + 1.2))
    assert vector(pressure={"membw_read": 2.0}).pressure[FELT.index("membw_read")] == contention.MOST


def test_kinds_combine_by_their_exponent() -> None:
    felt = of_pair(vector({"cache": STRAIGHT, "net": STRAIGHT}), vector(pressure={"cache": 0.8, "net": 0.6}))
    assert felt.excess == pytest.approx(GAIN * (0.4**EXPONENT + 0.3**EXPONENT) ** (1 / EXPONENT))


def test_the_interval_holds_the_curve_s_and_the_pressure_s_own() -> None:
    felt = of_pair(vector({"cache": NOISY}), vector(pressure={"cache": 0.5}, half=0.2))
    believed = trust(0.5, 0.1) * 0.5  # the slope
    assert felt.excess == pytest.approx(GAIN * believed * 0.5 * trust(0.5, 0.2))
    measured = GAIN**2 * ((0.1 * 0.5 * trust(0.5, 0.2)) ** 2 + (believed * 0.2) ** 2)
    assert felt.variance == pytest.approx(measured + (SPREAD * felt.excess) ** 2 + FLOOR**2)


def test_several_neighbours_are_as_uncertain_as_independent_ones_and_more_beyond_what_was_measured() -> None:
    one, calm = vector({"cache": STRAIGHT}), vector(pressure={})
    nothing = feel(one, [3 * load for load in calm.load])
    assert (nothing.excess, nothing.variance) == (0.0, pytest.approx(3 * FLOOR**2))
    twice = feel(one, [2 * load for load in vector(pressure={"cache": 0.8}).load])
    assert twice.excess == pytest.approx(GAIN * 0.5 * 1.6)
    assert twice.variance == pytest.approx(GAIN**2 * (0.5 * 0.6) ** 2 + (SPREAD * twice.excess) ** 2 + 2 * FLOOR**2)


def test_an_effect_within_its_noise_counts_for_little() -> None:
    assert trust(0.02, 0.1) < 0.1
    assert trust(0.5, 0.1) > 0.98
    assert trust(-0.1, 0.1) == 0.0
    assert trust(0.3, 0.3 * 1.6449) == pytest.approx(0.5)


def test_phases_count_by_the_time_they_take() -> None:
    reads = PhaseProfile("read", 0.25, 1.0, 0.0, 1.0, {"cache": BENT}, {"cache": 1.0})
    works = PhaseProfile("work", 0.75, 1.0, 0.0, 1.0, {"cache": STRAIGHT}, {"cache": 0.2})
    mean = contention.vector(profile(reads, works))
    assert mean.pressure[0] == pytest.approx(0.4)
    for level in (0.3, 0.7, 1.2):
        felt = feel(mean, [level, *[0.0] * (2 * len(FELT) - 1), 1.0])
        assert felt.excess == pytest.approx(GAIN * (0.25 * BENT.at(level) + 0.75 * STRAIGHT.at(level) - 1), abs=1e-6)


def test_kinds_that_were_not_measured_widen_upwards() -> None:
    numb = contention.vector(profile(PhaseProfile("", 1.0, 1.0, 0.0, 1.0, {"cache": STRAIGHT}, {})))
    pressed = [0.0] * len(FELT)
    pressed[FELT.index("net")] = 0.5
    assert contention.ignorance(numb, pressed, [0.0] * len(FELT)) == pytest.approx((0.5 * UNKNOWN_EXCESS) ** 2)
    unsaid = [0.0] * len(FELT)
    unsaid[FELT.index("cache")] = 1.0
    assert contention.ignorance(numb, [0.0] * len(FELT), unsaid) == pytest.approx(0.5**2)


def test_a_kind_that_the_calibration_did_not_feel_widens_nothing_and_one_that_was_not_measured_does() -> None:
    only = PhaseProfile("", 1.0, 1.0, 0.0, 1.0, {"net": STRAIGHT, "cache": STRAIGHT}, {})
    at = FELT.index("net")
    known = replace(profile(only), left_out={"unfelt": ("net",)})
    old = replace(profile(only), reporter_excess={"net": LEAST_EXCESS, "cache": 0.2})
    for one in (known, old):
        found = contention.vector(one)
        assert [k for k, silent in enumerate(found.silent) if not silent] == [at]
        unsaid = [float(silent) for silent in found.silent]
        assert contention.ignorance(found, [0.0] * len(FELT), unsaid) == pytest.approx(0.5**2), "the cache's alone"


def test_what_cannot_be_told_from_the_noise_of_a_disturbed_profile_widens_as_far_as_that_goes() -> None:
    flat = Curve((0.0, 1.0), (1.0, 0.98), (0.0, 0.3))
    feels, presses = dict.fromkeys(FELT, flat), dict.fromkeys(FELT, 0.0)
    phase = PhaseProfile("", 1.0, 1.0, 0.3, 1.0, feels, presses, {"cache": 0.4, "net": 1.7})
    quiet, busy = (contention.vector(replace(profile(phase), waited=waited)) for waited in (0.0, 0.5))
    assert quiet.whole
    assert busy.silent == tuple({"cache": 0.4, "net": 1.0}.get(kind, 0.0) for kind in FELT)
    assert busy.numb == pytest.approx((0.3 / UNKNOWN_EXCESS,) * len(FELT))
    full = [1.0] + [0.0] * (len(FELT) - 1)
    assert contention.ignorance(busy, full, [0.0] * len(FELT)) == pytest.approx(0.3**2)
    assert contention.ignorance(busy, [0.0] * len(FELT), full) == pytest.approx(0.3**2), "the upper end of its curve"


def test_a_kind_whose_calibration_was_disturbed_is_not_measured_though_nothing_was_felt() -> None:
    only = PhaseProfile("", 1.0, 1.0, 0.0, 1.0, dict.fromkeys(FELT, STRAIGHT), dict.fromkeys(FELT[1:], 0.0))
    found = contention.vector(replace(profile(only), left_out={"uncalibrated": FELT[:1]}))
    assert found.silent == (1.0, *[0.0] * (len(FELT) - 1))


def test_what_was_kept_of_an_unfelt_kind_is_not_believed() -> None:
    """As older versions wrote it: the slowdown of a reporter over a noise of next to nothing."""
    absurd = PhaseProfile("", 1.0, 1.0, 0.0, 1.0, {}, {"net": 128.0}, {"net": 1.0})
    found = contention.vector(replace(profile(absurd), reporter_excess={"net": LEAST_EXCESS}))
    assert not any(found.pressure)
    assert not any(found.pressure_variance)
    assert contention.vector(profile(absurd)).pressure[FELT.index("net")] <= contention.MOST


def test_a_pressure_is_sure_where_it_exceeds_its_own_half_width() -> None:
    levels, halves = {"cache": 0.5, "net": 0.5, "fs_read": 0.0}, {"cache": 0.49, "net": 0.5, "fs_read": 0.0}
    found = contention.vector(profile(PhaseProfile("", 1.0, 1.0, 0.0, 1.0, {}, levels, halves)))
    assert [kind for kind, sure in zip(FELT, found.sure, strict=True) if sure] == ["cache"]


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    levels = (
        0.0,
        *sorted(draw(st.sets(st.integers(1, 20), min_size=1, max_size=6).map(lambda s: {x / 20 for x in s}))),
    )
    slowdowns = (1.0, *draw(st.lists(st.floats(0.8, 5.0), min_size=len(levels) - 1, max_size=len(levels) - 1)))
    return Curve(levels, slowdowns, (0.0,) * len(levels))


@given(curves(), st.floats(0.0, 2.0))
def test_hinges_are_the_risen_curve(curve: Curve, level: float) -> None:
    risen = (1.0, *(1.0 + one for one in rising([max(0.0, slowdown - 1.0) for slowdown in curve.slowdowns[1:]])))
    excess = sum(change * max(0.0, level - start) for start, change in hinges_of(curve))
    assert excess == pytest.approx(Curve(curve.levels, risen, curve.halves).at(level) - 1.0, abs=1e-9)


@given(st.lists(st.integers(0, 4).map(float), min_size=1, max_size=5))
def test_the_closest_rise_by_trying_all_on_a_fine_grid(values: list[float]) -> None:
    found = rising(values)
    assert all(a <= b for a, b in itertools.pairwise(found))
    error = sum((a - b) ** 2 for a, b in zip(found, values, strict=True))
    others = itertools.combinations_with_replacement([half / 2 for half in range(9)], len(values))
    assert error <= min(sum((a - b) ** 2 for a, b in zip(one, values, strict=True)) for one in others) + 1e-9


@given(curves(), st.lists(st.floats(0.0, 1.5), min_size=1, max_size=4), st.floats(0.0, 1.5))
def test_more_pressure_never_helps(curve: Curve, levels: list[float], more: float) -> None:
    one = vector({"cache": curve})

    def excess(pressures: list[float]) -> float:
        load = [0.0] * (2 * len(FELT) + 1)
        load[FELT.index("cache")] = sum(pressures)
        return feel(one, load).excess

    assert 0.0 <= excess(levels) <= excess([*levels, more]) + 1e-9


@given(st.floats(0.0, 2.0), st.floats(0.01, 1.0), st.floats(0.02, 1.0))
def test_a_measured_excess_is_drawn_to_nothing_as_far_as_the_reporter_says(
    excess: float, half: float, most: float
) -> None:
    """The posterior of a normal effect by brute force: prior times likelihood, summed over a fine grid."""
    sigma = half / 1.6449
    reach = 8 * min(sigma, most)
    centre = excess * most**2 / (most**2 + sigma**2)
    grid = [centre + reach * (k / 2000 - 1) for k in range(4001)]
    weights = [
        math.exp(-((x / most) ** 2) / 2 - (((excess - x) / sigma) ** 2) / 2 + _log(excess, sigma, most)) for x in grid
    ]
    total = sum(weights)
    mean = sum(w * x for w, x in zip(weights, grid, strict=True)) / total
    spread = math.sqrt(sum(w * (x - mean) ** 2 for w, x in zip(weights, grid, strict=True)) / total)
    found = believe(Curve((0.0, 1.0), (1.0, 1.0 + excess), (0.0, half)), most)
    assert found.slowdowns[1] - 1.0 == pytest.approx(mean, rel=1e-3, abs=1e-6)
    assert found.halves[1] == pytest.approx(1.6449 * spread, rel=1e-3)


def _log(excess: float, sigma: float, most: float) -> float:
    """Minus the logarithm of the largest weight, so that none underflows."""
    return excess**2 / (most**2 + sigma**2) / 2


def test_without_noise_a_curve_is_believed_as_it_is_and_below_one_nothing_is_made_of_it() -> None:
    assert believe(BENT, 0.1) == BENT
    assert believe(STRAIGHT, None) == STRAIGHT
    faster = believe(Curve((0.0, 1.0), (1.0, 0.9), (0.0, 0.2)), 0.1)
    assert 0.9 < faster.slowdowns[1] < 1.0


def test_one_core_presses_no_harder_than_its_part_of_a_bubble_of_several() -> None:
    pressed = PhaseProfile("", 1.0, 1.0, 0.0, 1.0, {}, {"membw_read": 5.0}, {"membw_read": 0.0})
    at = FELT.index("membw_read")
    assert contention.vector(profile(pressed)).pressure[at] == contention.MOST
    assert contention.vector(profile(pressed, bubble_cores=4)).pressure[at] == pytest.approx(contention.MOST / 4)


def test_time_without_steps_is_not_known_in_any_kind() -> None:
    flat = Curve((0.0, 1.0), (1.0, 1.0), (0.01, 0.01))
    phase = PhaseProfile("work", 1.0, 1.0, 0.01, 1.0, dict.fromkeys(FELT, flat), dict.fromkeys(FELT, 0.3))
    half = contention.vector(replace(profile(phase), stepless={"save": Stepless(0.5, 1.0)}))
    blank = contention.vector(profile(phase, PhaseProfile("save", 1.0, 1.0, 0.01, 1.0)))
    assert half.numb == half.silent == blank.numb == blank.silent == (0.5,) * len(FELT)
    assert (half.unseen, blank.unseen) == (("save",), ())
    assert not any(contention.vector(profile(phase)).numb)
    assert contention.ignorance(half, (1.0, *(0.0,) * (len(FELT) - 1)), (0.0,) * len(FELT)) == pytest.approx(
        (UNKNOWN_EXCESS / 2) ** 2
    )
