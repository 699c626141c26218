"""Every file in `tandem.estimate.models` passes these."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tandem.core import plug
from tandem.estimate import estimators
from tandem.estimate.corun import App, Capacity, CoRun
from tandem.estimate.profile import KINDS, Curve, PhaseProfile, Profile

MODELS = plug.names("estimate.models")
KEYS = ("cg", "fft", "sort", "")

apps = st.builds(
    App,
    key=st.sampled_from(KEYS),
    cpu_milli=st.sampled_from([1000, 2000, 4000]),
    membw_mbs=st.sampled_from([0, 3_000, 9_000, 20_000]),
    nic_mbs=st.sampled_from([0, 100, 900]),
    cores=st.sampled_from([(), (), (), (0,), (1,), (0, 1)]),
)
unpinned = apps.map(lambda app: replace(app, cores=()))
sets = st.lists(apps, min_size=1, max_size=4).map(tuple)
capacities = st.builds(
    Capacity,
    cpu_milli=st.sampled_from([4000, 16_000]),
    membw_mbs=st.sampled_from([None, 8_000, 16_000]),
    nic_mbs=st.sampled_from([None, 1_000]),
)
coruns = st.lists(
    st.builds(
        CoRun,
        app=st.sampled_from(KEYS),
        beside=st.lists(st.sampled_from(KEYS), max_size=2).map(lambda keys: tuple(sorted(keys))),
        rate=st.sampled_from([0.0, 1.0, 4.0, 5.0, 9.5, 10.0, 12.0]),
        seconds=st.sampled_from([0.0, 1.0, 7.0, 60.0]),
    ),
    max_size=12,
)


LOUD_AND_SENSITIVE = [CoRun("sort", (), 4.0, 1.0), CoRun("sort", ("fft",), 1.0, 1.0)]


@st.composite
def phases(draw: st.DrawFn, phase: str, share: float) -> PhaseProfile:
    measured = draw(st.lists(st.sampled_from(KINDS), unique=True))
    slowdowns = st.lists(st.floats(0.9, 4.0), min_size=3, max_size=3)
    curves = {
        kind: Curve((0.0, 0.4, 0.7, 1.0), (1.0, *draw(slowdowns)), (0.0, 0.02, 0.02, draw(st.floats(0.0, 0.3))))
        for kind in measured
    }
    pressure = {kind: draw(st.floats(0.0, 1.6)) for kind in draw(st.lists(st.sampled_from(KINDS), unique=True))}
    halves = dict.fromkeys(pressure, 0.05)
    return PhaseProfile(phase, share, 10.0, 0.02, draw(st.floats(0.05, 2.0)), curves, pressure, halves)


def profile_of(key: str) -> st.SearchStrategy[Profile]:
    one = st.tuples(phases("", 1.0))
    two = st.tuples(phases("read", 0.3), phases("work", 0.7))
    return (one | two).map(lambda measured: Profile(key, (key,), "here", 1, 0.0, 20.0, 1, measured))


profiles = st.lists(st.sampled_from(KEYS[:3]), unique=True).flatmap(
    lambda keys: st.tuples(*(profile_of(key) for key in keys))
)


def test_there_are_models() -> None:
    assert {"none", "proportional", "additive", "worst_pair", "bubble", "learned"} <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
@given(seen=coruns, held=profiles, members=sets, capacity=capacities)
def test_nobody_is_predicted_to_go_faster_than_alone(
    name: str, seen: list[CoRun], held: tuple[Profile, ...], members: tuple[App, ...], capacity: Capacity
) -> None:
    answers = estimators.make(name, tuple(seen), held).predict(members, capacity)
    assert len(answers) == len(members)
    for answer in answers:
        assert 1.0 <= answer.low <= answer.mid <= answer.high < float("inf")
        assert answer.why


@pytest.mark.parametrize("name", MODELS)
@given(seen=coruns, held=profiles, members=sets, capacity=capacities)
def test_reordering_the_set_reorders_the_answer_and_changes_nothing_else(
    name: str, seen: list[CoRun], held: tuple[Profile, ...], members: tuple[App, ...], capacity: Capacity
) -> None:
    forward = estimators.make(name, tuple(seen), held).predict(members, capacity)
    for order in itertools.permutations(range(len(members))):
        model = estimators.make(name, tuple(seen), held)
        shuffled = model.predict(tuple(members[i] for i in order), capacity)
        assert shuffled == tuple(forward[i] for i in order)


@pytest.mark.parametrize("name", MODELS)
@given(seen=coruns, held=profiles, members=sets, capacity=capacities)
def test_learning_at_once_or_one_by_one_between_questions_is_the_same(
    name: str, seen: list[CoRun], held: tuple[Profile, ...], members: tuple[App, ...], capacity: Capacity
) -> None:
    at_once = estimators.make(name, tuple(seen), held)
    one_by_one = estimators.make(name, (), held)
    for corun in seen:
        one_by_one.predict(members, capacity)  # must not be answered from memory afterwards
        one_by_one.observe(corun)
    assert one_by_one.predict(members, capacity) == at_once.predict(members, capacity)
    assert [one_by_one.knows(app) for app in members] == [at_once.knows(app) for app in members]


@pytest.mark.parametrize("name", MODELS)
@given(seen=coruns, held=profiles, app=unpinned, other=unpinned, capacity=capacities)
@example(LOUD_AND_SENSITIVE, (), App("cg"), App("fft"), Capacity(4000))
@example(LOUD_AND_SENSITIVE, (), App("cg"), App("sort"), Capacity(4000))
def test_what_is_not_known_neither_changes_nor_is_changed(
    name: str, seen: list[CoRun], held: tuple[Profile, ...], app: App, other: App, capacity: Capacity
) -> None:
    model = estimators.make(name, tuple(seen), held)
    if not model.knows(app) and app.cpu_milli + other.cpu_milli <= capacity.cpu_milli:
        assert [answer.mid for answer in model.predict((app, other), capacity)] == [1.0, 1.0]


@pytest.mark.parametrize("name", [name for name in MODELS if estimators.load(name).USES_PAIRS])
@given(
    alone=st.floats(1.0, 100.0),
    rates=st.lists(st.floats(0.2, 1.1), min_size=1, max_size=9),
    demand=st.sampled_from([0, 20_000]),
    held=profiles,
)
def test_models_that_learn_pairs_stay_within_what_was_measured(
    name: str, alone: float, rates: list[float], demand: int, held: tuple[Profile, ...]
) -> None:
    seen = [CoRun("cg", (), alone, 10.0), *(CoRun("cg", ("fft",), alone * r, 10.0) for r in rates)]
    model = estimators.make(name, tuple(seen), held)
    answer = model.predict((App("cg", 1000, demand), App("fft", 1000, demand)), Capacity(4000, 16_000))[0]
    slowdowns = [1 / r for r in rates]
    assert max(1.0, min(slowdowns)) - 1e-9 <= answer.mid <= max(1.0, *slowdowns) + 1e-9
    assert answer.known


@pytest.mark.parametrize("name", MODELS)
def test_a_hundred_unknown_are_not_all_named(name: str) -> None:
    held = (Profile("cg", ("cg",), "here", 1, 0.0, 20.0, 1, (PhaseProfile("", 1.0, 10.0, 0.02, 1.0),)),)
    members = (App("cg"), *(App(f"a{k}") for k in range(50)))
    model = estimators.make(name, (), held)
    for answer in model.predict(members, Capacity(64_000)):
        assert len(answer.why) < 200
    if name not in ("none", "proportional"):
        assert "a0, a1, a10 and 47 others" in model.predict(members, Capacity(64_000))[0].why
