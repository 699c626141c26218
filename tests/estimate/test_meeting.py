"""Members that work and wait in turns: against one core played event by event, and what holds for any of them."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate import estimators
from tandem.estimate.corun import App, Capacity
from tandem.estimate.meeting import by_chance, fairly, level_beside
from tandem.estimate.profile import Curve, Pauses, PhaseProfile, Profile, Stepless
from tandem.estimate.sharing import Sharing, needs, share

CURVE = Curve((0.0, 1.0), (1.0, 2.0), (0.0, 0.0))
HALF = ((1.0, 1.0), (1.0, 0.0))  # phases: (seconds alone, cores kept busy)
STEADY = ((1.0, 1.0),)
WAITS = ((1.0, 0.3),)  # for less than a slice, again and again
NARROW = ((1.0, 0.6),)
VALIDATES = ((1.0, 0.1), (1.0, 1.0))
SELDOM = ((0.4, 1.0), (1.6, 0.0))
ALMOST = ((1.5, 0.9), (0.5, 0.0))

Cycle = tuple[tuple[float, float], ...]


def played(
    cycles: list[Cycle], capacity: float, until_s: float, seed: int = 0, late: tuple[float, ...] = ()
) -> list[float]:
    """Stretches of programmes whose phases take a random time about the given one alone; cores are shared fairly.

    With ``late`` they take the given time, and each is so much late at first, in parts of its first phase.
    """
    draw = Random(seed)
    at = [0 if late else draw.randrange(len(cycle)) for cycle in cycles]
    spread = 0.0 if late else 0.8
    left = [cycle[k][0] * draw.uniform(1.0 - spread, 1.0 + spread) for cycle, k in zip(cycles, at, strict=True)]
    left = [rest * (1.0 + more) for rest, more in zip(left, late or [0.0] * len(left), strict=True)]
    done, now = [0.0] * len(cycles), 0.0
    while now < until_s:
        asked = [cycle[k][1] for cycle, k in zip(cycles, at, strict=True)]
        rates = [got / one if one else 1.0 for got, one in zip(fairly(capacity, asked), asked, strict=True)]
        step = min(rest / rate for rest, rate in zip(left, rates, strict=True))
        now += step
        for i, rate in enumerate(rates):
            done[i] += step * rate
            left[i] -= step * rate
            if left[i] < 1e-9:
                at[i] = (at[i] + 1) % len(cycles[i])
                left[i] = cycles[i][at[i]][0] * draw.uniform(1.0 - spread, 1.0 + spread)
    return [now / one for one in done]


def profile(key: str, cycle: Cycle, *, announced: bool = True) -> Profile:
    """The first phase has steps; what follows tells of none, or is a pause where that is not ``announced``."""
    total = sum(seconds for seconds, _ in cycle)
    (seconds, cores), rest = cycle[0], cycle[1:]
    if announced or not rest:
        phase = PhaseProfile("", seconds / total, 1.0, 0.0, cores, {"cpu": CURVE if cores == 1.0 else FREE})
        silent = {f"silent {k}": Stepless(one_s / total, busy) for k, (one_s, busy) in enumerate(rest)}
        return Profile(key, (), "here", 1, 0.0, 0.0, 1, (phase,), stepless=silent)
    part = seconds / total
    phase = PhaseProfile("", 1.0, 1.0, 0.0, cores * part, {"cpu": CURVE}, pauses=Pauses(1.0 - part, 1.0, 9))
    return Profile(key, (), "here", 1, 0.0, 0.0, 1, (phase,))


FREE = Curve((0.0, 1.0), (1.0, 1.0), (0.0, 0.0))


def on_one_core(profiles: list[Profile]) -> Sharing:
    found = share([App(one.key, 1000, cores=(0,)) for one in profiles], Capacity(2000), needs(profiles))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "cycles",
    [
        [HALF, HALF],
        [HALF, STEADY],
        [HALF] * 3,
        [HALF] * 4 + [STEADY],
        [HALF] * 5,
        [HALF] * 6,
        [SELDOM, HALF, STEADY, STEADY],
        [SELDOM] * 3 + [HALF] * 2,
        [VALIDATES, VALIDATES],
        [VALIDATES, STEADY],
        [VALIDATES, HALF, SELDOM],
        [WAITS, HALF, STEADY],
        [ALMOST, HALF, SELDOM],
        [ALMOST, STEADY],
        [ALMOST, NARROW],
        [NARROW, HALF, SELDOM],
    ],
)
def test_they_meet_as_often_as_programmes_of_which_each_goes_its_own_way(cycles: list[Cycle]) -> None:
    found = on_one_core([profile(str(i), cycle) for i, cycle in enumerate(cycles)])
    seen = played(cycles, 1.0, 4000.0)
    assert found.stretch == pytest.approx(seen, rel=0.1)
    assert found.least
    for low, mid, up in zip(found.least, found.stretch, found.unmeasured, strict=True):
        assert low <= mid <= mid + up


NEARLY = ((0.07, 1.0), (0.93, 0.98))
SAVES = ((0.95, 0.96), (0.05, 0.0))
LULLS = ((0.7, 1.0), (0.3, 0.9))


@pytest.mark.parametrize(
    ("cycles", "within"),
    [
        ([NEARLY, SAVES], 0.03),
        ([NEARLY, ((0.38, 0.95), (0.02, 0.0))], 0.03),
        ([NEARLY, ALMOST], 0.03),
        ([LULLS, SAVES], 0.03),
        ([LULLS, LULLS], 0.03),
        ([LULLS, ((1.2, 1.0), (0.8, 0.5))], 0.1),
        ([NEARLY, SAVES, SAVES], 0.15),
        ([NEARLY, SAVES, ((1.9, 0.6), (0.1, 0.0))], 0.15),
        ([LULLS, NEARLY, SAVES], 0.15),
    ],
)
def test_whenever_they_begin_the_interval_holds_it_and_it_is_close_to_the_least_for_one_always_busy(
    cycles: list[Cycle], within: float
) -> None:
    found = on_one_core([profile(str(i), cycle) for i, cycle in enumerate(cycles)])
    lates = [(0.0, *late) for late in product([k / 8 for k in range(8)], repeat=len(cycles) - 1)]
    seen = [*zip(*(played(cycles, 1.0, 200.0, late=late) for late in lates), strict=True)]
    for of_one, low, mid, up in zip(seen, found.least, found.stretch, found.unmeasured, strict=True):
        assert low <= min(of_one) * 1.01
        assert max(of_one) <= (mid + up) * 1.01
    assert found.least[0] >= min(seen[0]) * (1.0 - within)


@pytest.mark.parametrize(("many", "cores"), [(3, 2), (4, 2), (5, 2), (6, 2), (6, 4)])
def test_those_that_crowd_a_node_meet_as_often_too(many: int, cores: int) -> None:
    found = share([App("a", 1000)] * many, Capacity(1000 * cores), needs([profile("a", HALF)]))
    assert found is not None
    seen = played([HALF] * many, float(cores), 4000.0)
    assert found.stretch == pytest.approx([sum(seen) / many] * many, rel=0.03)


@pytest.mark.parametrize("others", [[HALF], [STEADY], [HALF, SELDOM, STEADY]])
def test_pauses_are_as_good_as_phases_without_steps_that_were_announced(others: list[Cycle]) -> None:
    beside = [profile(str(i), cycle) for i, cycle in enumerate(others)]
    told = on_one_core([profile("a", HALF), *beside])
    pausing = on_one_core([profile("a", HALF, announced=False), *beside])
    assert pausing.stretch == pytest.approx(told.stretch)
    assert pausing.unmeasured == pytest.approx(told.unmeasured)


@pytest.mark.parametrize("cycle", [((4.0, 1.0), (4.0, 0.2)), ((3.0, 0.3), (1.0, 1.0))])
def test_phases_with_steps_meet_others_as_those_without_do(cycle: Cycle) -> None:
    total = sum(seconds for seconds, _ in cycle)
    phases = tuple(
        PhaseProfile(str(k), seconds / total, 1.0, 0.0, cores, {"cpu": CURVE if cores == 1.0 else FREE})
        for k, (seconds, cores) in enumerate(cycle)
    )
    stepping = Profile("a", (), "here", 1, 0.0, 0.0, 1, phases)
    found = on_one_core([stepping, profile("b", STEADY)])
    for low, seen, mid, up in zip(
        found.least, played([cycle, STEADY], 1.0, 4000.0), found.stretch, found.unmeasured, strict=True
    ):
        assert low <= seen <= mid + up
    assert found.stretch == pytest.approx(on_one_core([profile("a", cycle), profile("b", STEADY)]).stretch)
    assert "by chance" in str(found.why[0])


def test_a_peak_that_takes_no_time_is_none() -> None:
    (steady,) = profile("a", NARROW).phases
    alike = Profile("a", (), "here", 1, 0.0, 0.0, 1, (steady,), stepless={"never": Stepless(0.0, 1.0)})
    assert needs([alike])["a"].peak == 0.0
    near = Profile("a", (), "here", 1, 0.0, 0.0, 1, (steady,), stepless={"as busy": Stepless(0.5, 0.604)})
    assert needs([near])["a"].peak == 0.0


def test_two_are_exact_and_the_reason_is_said() -> None:
    found = on_one_core([profile("a", HALF), profile("b", STEADY)])
    assert found.stretch == pytest.approx((1.5, 1.5))
    assert found.why[0] == "1.50x as it meets the others on the core by chance (1.00x to 1.50x)"
    assert found.why[1] == "1.50x as it meets the others on the core by chance (1.50x to 2.00x)"
    assert by_chance(1.0, [0.2, 0.6], [1.0, 1.0]) == pytest.approx([0.2 / 1.12, 0.6 / 1.12])


def test_neighbours_on_its_core_are_none_that_it_hardly_feels() -> None:
    profiles = (profile("a", HALF), profile("b", STEADY), profile("c", STEADY))
    here, there = (App(key, cores=(0,)) for key in "ab"), App("c", cores=(1,))
    two = tuple(here)
    met = "1.50x as it meets the others on the core by chance (1.00x to 1.50x); "
    for name in ("bubble", "learned"):
        model = estimators.make(name, (), profiles)
        assert str(model.predict(two, Capacity(2000))[0].why) == f"{met}nobody runs on another core meanwhile"
        assert (
            str(model.predict((*two, there), Capacity(2000))[0].why)
            == f"{met}profiles: hardly feels those on other cores"
        )


def test_five_meet_no_less_than_four() -> None:
    four, five = (on_one_core([profile(str(i), HALF) for i in range(many)]).stretch[0] for many in (4, 5))
    assert four == pytest.approx(2.1, abs=0.05)
    assert five == pytest.approx(2.5, abs=0.05)


members = st.lists(
    st.tuples(st.floats(0.01, 1.0), st.floats(0.05, 1.0)).map(lambda one: (one[0] * one[1], one[1])),
    min_size=1,
    max_size=7,
)


@given(members, st.sampled_from([1.0, 2.0, 3.0]))
def test_nobody_gets_more_than_it_asks_for_nor_all_more_than_there_is(
    them: list[tuple[float, float]], capacity: float
) -> None:
    asked, at_work = map(list, zip(*them, strict=True))
    got = by_chance(capacity, asked, at_work)
    assert sum(got) <= capacity * (1.0 + 1e-9)
    assert all(0.0 < one <= most + 1e-12 for one, most in zip(got, asked, strict=True))


@given(members.flatmap(lambda them: st.tuples(st.just(them), st.permutations(range(len(them))))))
def test_the_order_in_which_they_are_named_changes_nothing(
    named: tuple[list[tuple[float, float]], list[int]],
) -> None:
    them, order = named
    got = by_chance(1.0, *map(list, zip(*them, strict=True)))
    turned = by_chance(1.0, *map(list, zip(*(them[i] for i in order), strict=True)))
    assert turned == pytest.approx([got[i] for i in order], rel=1e-9)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), st.floats(0.01, 1.0))
def test_one_more_makes_nobody_faster(asked: list[float], more: float) -> None:
    before = by_chance(1.0, asked, [1.0] * len(asked))
    after = by_chance(1.0, [*asked, more], [1.0] * (len(asked) + 1))
    assert all(less <= had + 1e-3 for less, had in zip(after, before, strict=False))


@given(st.lists(st.floats(0.001, 1.5), min_size=1, max_size=6), st.floats(0.1, 4.0))
def test_one_that_takes_all_it_can_gets_the_max_min_share_of_one_that_asks_for_everything(
    asked: list[float], capacity: float
) -> None:
    for i, level in enumerate(level_beside(capacity, asked, fairly(capacity, asked))):
        assert level == pytest.approx(fairly(capacity, [*asked[:i], 100.0, *asked[i + 1 :]])[i], rel=1e-12)
