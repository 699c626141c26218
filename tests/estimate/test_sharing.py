"""Shares of cores: worked by hand, and against a time-slicing kernel played slice by slice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate import estimators
from tandem.estimate.corun import App, Capacity
from tandem.estimate.meeting import fairly
from tandem.estimate.prior import UNKNOWN_EXCESS
from tandem.estimate.profile import Curve, PhaseProfile, Profile, Stepless
from tandem.estimate.sharing import CpuNeed, Sharing, needs, share

if TYPE_CHECKING:
    from random import Random

NODE = Capacity(2000)


def pinned(*cores: int, key: str = "a", cpu_milli: int = 1000) -> App:
    return App(key, cpu_milli, cores=cores)


def shared(*members: App, **known: float) -> Sharing:
    found = share(members, NODE, {key: CpuNeed(use) for key, use in known.items()})
    assert found is not None
    return found


def test_cores_of_ones_own_are_not_shared() -> None:
    assert share((App("a"), App("b")), NODE, {}) is None
    assert share((), NODE, {}) is None


def test_two_on_one_core_take_turns_and_a_third_beside_them_meets_each_half_of_the_time() -> None:
    found = shared(pinned(0), pinned(0), pinned(1))
    assert found.stretch == (2.0, 2.0, 1.0)
    assert found.weights == ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.0))
    assert found.why == ("2.00x by sharing a core", "2.00x by sharing a core", "")


def test_what_taking_turns_costs_is_as_uncertain_as_the_curve_that_it_comes_from() -> None:
    curve = Curve((0.0, 1.0), (1.0, 2.4), (0.0, 0.2))
    profile = Profile("a", (), "here", 1, 0.0, 0.0, 1, (PhaseProfile("", 1.0, 1.0, 0.0, 1.0, {"cpu": curve}),))
    found = share((pinned(0), pinned(0)), NODE, needs([profile]))
    assert found is not None
    assert found.stretch == pytest.approx((2.4, 2.4))
    assert found.half == pytest.approx((0.2, 0.2))
    answer = estimators.make("bubble", (), (profile,)).predict((pinned(0), pinned(0)), NODE)[0]
    assert answer.high - answer.mid > 0.2


def test_phases_without_steps_leave_the_core_to_the_other_as_often_as_they_meet_by_chance() -> None:
    curve = Curve((0.0, 1.0), (1.0, 2.0), (0.0, 0.0))
    train = PhaseProfile("train", 0.5, 100.0, 0.0, 1.0, {"cpu": curve})
    profile = Profile("a", (), "here", 1, 0.0, 0.0, 1, (train,), stepless={"save": Stepless(0.5, 0.0)})
    need = needs([profile])["a"]
    assert (need.use, need.turns, need.unmeasured) == (0.5, 1.0, 0.0)
    hardly = needs([replace(profile, stepless={"save": Stepless(0.5, 0.01)})])
    nearly = share((pinned(0), pinned(0)), NODE, hardly)
    assert nearly is not None
    assert not any("not measured" in str(words) for words in nearly.why)
    found = share((pinned(0), pinned(0)), NODE, {"a": need})
    assert found is not None
    assert found.stretch == pytest.approx((1.25, 1.25))
    assert found.least == (1.0, 1.0)
    assert found.unmeasured == pytest.approx((0.25, 0.25))  # 2 s of work and 1 s of waiting at once: 6 s for 4
    answer = estimators.make("bubble", (), (profile,)).predict((pinned(0), pinned(0)), NODE)[0]
    assert (answer.low, answer.mid, answer.high) == pytest.approx((1.0, 1.25, 1.5), abs=0.005)
    assert "1.25x as it meets the others on the core by chance (1.00x to 1.50x)" in str(answer.why)
    crowd = share((App("a", 1000),) * 3, NODE, {"a": need})  # 1.5 of 2 cores, or 3 for an eighth of the time
    assert crowd is not None
    assert crowd.stretch == pytest.approx((1.07,) * 3, abs=0.01)
    assert crowd.least == (1.0,) * 3
    assert "on the cores by chance (1.00x to 1.25x)" in str(crowd.why[0])


BUSY = st.floats(0.05, 1.0)


@given(st.lists(st.tuples(BUSY, BUSY, st.floats(0.02, 0.9)), min_size=2, max_size=2))
def test_nobody_is_told_less_than_what_all_at_their_least_busy_would_cost(
    levels: list[tuple[float, float, float]],
) -> None:
    """Of two that may be busy all the time, at two levels each."""
    held = [
        Profile(
            f"k{i}", (), "here", 1, 0.0, 0.0, 1, (PhaseProfile("train", 1.0 - part, 10.0, 0.0, train),),
            stepless={"check": Stepless(part, check)},
        )
        for i, (train, check, part) in enumerate(levels)
    ]  # fmt: skip
    members = [pinned(0, key=one.key) for one in held]
    found = share(members, NODE, needs(held))
    assert found is not None
    calm = [min(train, check) for train, check, _ in levels]
    for least, mine, got in zip(found.least or found.stretch, calm, fairly(1.0, calm), strict=True):
        assert least >= mine / got - 1e-6


def test_a_short_peak_leaves_no_room_below_what_it_needs_elsewhere() -> None:
    train = PhaseProfile("train", 0.94, 10.0, 0.0, 0.97)
    profile = Profile("a", (), "here", 1, 0.0, 0.0, 1, (train,), stepless={"check": Stepless(0.06, 1.0)})
    found = share((pinned(0), pinned(0)), NODE, needs([profile]))
    assert found is not None
    assert found.least == pytest.approx((0.94 * 1.94 + 0.06 * 2.0,) * 2)


def test_what_taking_turns_costs_may_be_more_where_it_was_not_measured() -> None:
    def profile(key: str, use: float, noise: float, **sensitivity: Curve) -> Profile:
        return Profile(key, (), "here", 1, 0.0, 0.0, 1, (PhaseProfile("", 1.0, 6.0, noise, use, sensitivity),))

    measured = Curve((0.0, 1.0), (1.0, 2.0), (0.0, 0.02))
    held = (profile("waits", 0.29, 0.4), profile("works", 1.0, 0.02, cpu=measured))
    waits, works, again = (pinned(0, key=key) for key in ("waits", "works", "works"))
    found = share((waits, works, again), NODE, needs(held))
    assert found is not None
    assert found.unmeasured == pytest.approx((UNKNOWN_EXCESS, 0.0, 0.0))
    for name in ("additive", "bubble", "learned", "proportional", "worst_pair"):
        answer = estimators.make(name, (), held).predict((waits, works, again), NODE)[0]
        assert (answer.mid, answer.low) == (1.0, 1.0)
        assert answer.high == pytest.approx(1.0 + UNKNOWN_EXCESS)
        assert "what taking turns costs it was not measured" in answer.why
    assert share((waits, pinned(1, key="works")), NODE, needs(held)) is None, "each has a core of its own"


def test_phases_of_which_it_was_not_measured_are_named() -> None:
    train = PhaseProfile("train", 0.6, 10.0, 0.0, 1.0, {"cpu": Curve((0.0, 1.0), (1.0, 2.0), (0.0, 0.02))})
    save, check = PhaseProfile("save", 0.2, 1.0, 0.0, 1.0), Stepless(0.2, 0.2)

    def why(*phases: PhaseProfile, **stepless: Stepless) -> str:
        held = Profile("a", (), "here", 1, 0.0, 0.0, 1, phases, stepless=stepless)
        found = share((pinned(0), pinned(0)), NODE, needs([held]))
        assert found is not None
        return str(found.why[0])

    assert why(train, save) == "2.00x by sharing a core, what taking turns costs it was not measured in save"
    both = why(train, save, check=check)
    assert both.endswith(
        "on the core by chance (1.68x to 1.80x), what taking turns costs it was not measured in save, check"
    )
    assert why(save) == "2.00x by sharing a core, what taking turns costs it was not measured"
    assert why(train) == "2.00x by sharing a core"


@given(st.lists(st.sampled_from(["profiled", "noisy", "stranger"]), min_size=2, max_size=5), st.floats(0.02, 1.0))
def test_whoever_shares_a_core_is_never_told_an_interval_without_width(keys: list[str], use: float) -> None:
    curve = Curve((0.0, 1.0), (1.0, 1.1), (0.0, 0.02))
    phases = {"profiled": {"cpu": curve}, "noisy": {}}
    held = tuple(
        Profile(key, (), "here", 1, 0.0, 0.0, 1, (PhaseProfile("", 1.0, 6.0, 0.4, use, sensitivity),))
        for key, sensitivity in phases.items()
    )
    for answer in estimators.make("learned", (), held).predict(tuple(pinned(0, key=key) for key in keys), NODE):
        assert answer.low <= answer.mid < answer.high


def test_one_that_mostly_waits_leaves_the_core_to_the_other() -> None:
    found = shared(pinned(0, key="waits"), pinned(0, key="works"), waits=0.25, works=1.0)
    assert found.stretch == (1.0, pytest.approx(1 / 0.75))


def test_what_is_left_of_a_core_beside_a_wide_member() -> None:
    found = shared(pinned(0, 1, key="wide", cpu_milli=2000), pinned(1))
    assert found.stretch == (pytest.approx(2 / 1.5), 2.0)
    assert found.weights[1][0] == pytest.approx(0.75 * 0.5)
    assert found.weights[0][1] == pytest.approx(0.5 * 0.5)


def test_a_crowded_node_is_shared_as_a_whole() -> None:
    found = shared(App("a"), App("b"), App("c"))
    assert found.stretch == pytest.approx((1.5, 1.5, 1.5))
    assert found.why[0] == "1.50x by cores: 3 of 2 cores"
    # Beside a that runs is one other core, on which b or c runs.
    assert found.weights[0] == pytest.approx((0.0, 0.5, 0.5))


def test_those_that_wait_do_not_crowd_a_node() -> None:
    calm = {key: CpuNeed(0.5) for key in "abc"}
    assert share((App("a"), App("b"), App("c")), NODE, calm) is None


def test_turns_are_what_the_cpu_curve_holds_beyond_the_fair_share() -> None:
    def profile(use: float, at_full: float) -> Profile:
        curve = Curve((0.0, 1.0), (1.0, at_full), (0.0, 0.0))
        return Profile("a", (), "here", 1, 0.0, 0.0, 1, (PhaseProfile("", 1.0, 1.0, 0.0, use, {"cpu": curve}),))

    need = needs([profile(1.0, 2.2)])["a"]
    assert (need.use, need.turns) == (1.0, pytest.approx(1.1))
    assert needs([profile(1.0, 1.8)])["a"].turns == 1.0
    assert needs([profile(0.4, 1.2)])["a"].turns == pytest.approx(1.2)
    found = share((pinned(0), pinned(0)), NODE, needs([profile(1.0, 2.2)]))
    assert found is not None
    assert found.stretch == pytest.approx((2.2, 2.2))


@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=8), st.floats(0.1, 4.0))
def test_max_min_shares(asked: list[float], capacity: float) -> None:
    shares = fairly(capacity, asked)
    assert sum(shares) == pytest.approx(min(capacity, sum(asked)))
    level = max(shares)
    for got, wanted in zip(shares, asked, strict=True):
        assert got <= wanted
        assert got == pytest.approx(wanted) or got == pytest.approx(level)


@given(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5))
def test_shares_of_a_core_are_those_of_a_kernel_that_gives_each_slice_to_who_had_least(uses: list[float]) -> None:
    keys = [f"k{i}" for i in range(len(uses))]
    members = [pinned(0, key=key) for key in keys]
    found = share(members, NODE, {key: CpuNeed(use) for key, use in zip(keys, uses, strict=True)})
    if len(uses) == 1:
        assert found is None, "it has the core to itself"
        return
    assert found is not None
    slices, ran = 4000, [0] * len(uses)
    for now in range(slices):
        wanting = [i for i, use in enumerate(uses) if ran[i] < use * (now + 1)]
        if wanting:
            ran[min(wanting, key=ran.__getitem__)] += 1
    for use, had, stretch in zip(uses, ran, found.stretch, strict=True):
        assert had / slices == pytest.approx(use / stretch, abs=0.01)


sets = st.lists(
    st.builds(
        App,
        key=st.sampled_from("abc"),
        cpu_milli=st.sampled_from([500, 1000, 3000]),
        cores=st.sampled_from([(), (0,), (1,), (0, 1)]),
    ),
    min_size=1,
    max_size=5,
)


@given(sets)
def test_stretches_and_weights_are_within_reason(members: list[App]) -> None:
    found = share(members, NODE, {"a": CpuNeed(0.3, 1.2), "b": CpuNeed(1.8)})
    if found is None:
        return
    assert all(1.0 <= factor < 20.0 for factor in found.stretch)
    for i, row in enumerate(found.weights):
        assert row[i] == 0.0
        assert all(0.0 <= weight <= 1.0 for weight in row)


def test_members_without_a_profile_may_mostly_wait() -> None:
    found = shared(pinned(0), pinned(0, key="works"), works=1.0)
    assert found.stretch == (2.0, 2.0)
    assert found.least == pytest.approx((1.0, 1 / 0.75))
    assert shared(pinned(0), pinned(0), a=1.0).least == ()
    assert shared(App("a"), App("b"), App("c")).least == (1.0, 1.0, 1.0)


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_each_core_has_a_company_of_its_own(keys: list[str], random: Random) -> None:
    known = {
        "a": CpuNeed(0.5, 1.2, 0.1, peak=1.0, peak_part=0.3),
        "b": CpuNeed(0.8, unmeasured=0.5),
        "c": CpuNeed(0.3, peak=0.9, peak_part=0.2),
    }
    members = [pinned(random.randrange(2), key=key) for key in keys]
    found = share(members, NODE, known)
    for core in (0, 1):
        there = [i for i, app in enumerate(members) if app.cores == (core,)]
        alone = share([members[i] for i in there], NODE, known)
        for k, i in enumerate(there):
            if alone is None or found is None:
                assert found is None or (found.stretch[i], found.why[i]) == (1.0, "")
                continue
            assert found.stretch[i] == alone.stretch[k]
            assert (found.half[i], found.unmeasured[i]) == (alone.half[k], alone.unmeasured[k])
            assert (found.least or found.stretch)[i] == (alone.least or alone.stretch)[k]
            assert found.why[i] == alone.why[k]


def test_one_without_a_profile_asks_for_all_that_it_states_beside_those_that_wait() -> None:
    members = [App("stranger", 2000, cores=(0, 1)), *[App(key, cores=(0,)) for key in "ab"]]
    waiting = dict.fromkeys("ab", CpuNeed(0.5, peak=1.0, peak_part=0.1))
    found = share(members, NODE, waiting)
    steady = share(members, NODE, {**waiting, "stranger": CpuNeed(2.0, unmeasured=1.0)})
    assert found is not None
    assert steady is not None
    assert (found.stretch, found.unmeasured) == (steady.stretch, steady.unmeasured)


@given(sets)
def test_the_least_stretch_is_never_more_than_the_stretch(members: list[App]) -> None:
    found = share(members, NODE, {"a": CpuNeed(0.3, 1.2)})
    if found is None or not found.least:
        return
    assert all(1.0 <= least <= factor for least, factor in zip(found.least, found.stretch, strict=True))


@pytest.mark.parametrize("name", ["additive", "bubble", "learned", "proportional", "worst_pair"])
def test_an_interval_is_wider_without_profiles(name: str) -> None:
    phase = PhaseProfile("", 1.0, 10.0, 0.02, 1.0)
    held = tuple(Profile(key, (), "here", 1, 0.0, 0.0, 1, (phase,)) for key in "ab")
    members = (pinned(0, key="a"), pinned(0, key="b"))
    profiled = estimators.make(name, (), held).predict(members, NODE)
    unknown = estimators.make(name, (), ()).predict(members, NODE)
    for with_one, without in zip(profiled, unknown, strict=True):
        assert without.high - without.low > with_one.high - with_one.low
        assert "nobody runs beside it" not in without.why


def test_one_that_asks_for_no_core_costs_nobody_a_core() -> None:
    members = (App("a", 0), App("b", 2000), App("c", 2200))
    found = share(members, Capacity(4000), {})
    assert found is not None
    assert all(1.0 <= stretch < 1.3 for stretch in found.stretch)
