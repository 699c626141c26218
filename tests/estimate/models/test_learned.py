"""From profiles that are off towards what is really seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.batch import Batch
from tandem.estimate.contention import FELT
from tandem.estimate.corun import App, Capacity, CoRun, Estimator
from tandem.estimate.models import bubble, learned
from tandem.estimate.profile import Curve, PhaseProfile, Profile

NODE = Capacity(64_000)
BOUND = {"stream": 1.0, "cg": 0.8, "fft": 0.5, "sort": 0.3, "lu": 0.05}
PRESSURE = {"stream": 0.9, "cg": 0.6, "fft": 0.5, "sort": 0.3, "lu": 0.05}


def profiled(key: str, misjudged: float = 1.0) -> Profile:
    flat = Curve((0.0, 1.0), (1.0, 1.0), (0.0, 0.0))
    curve = Curve((0.0, 1.0), (1.0, 1.0 + misjudged * BOUND[key]), (0.0, 0.02))
    curves = {kind: curve if kind == "membw_read" else flat for kind in FELT}
    levels = {kind: PRESSURE[key] if kind == "membw_read" else 0.0 for kind in FELT}
    return Profile(key, (key,), "here", 1, 0.0, 0.0, 1, (PhaseProfile("", 1.0, 1.0, 0.0, 1.0, curves, levels),))


def truth(app: str, *beside: str) -> float:
    return 1.0 + BOUND[app] * sum(PRESSURE[key] for key in beside)


def seen(app: str, *beside: str, times: int = 6) -> list[CoRun]:
    return [CoRun(app, tuple(sorted(beside)), 10.0 / truth(app, *beside), 10.0)] * times


TRIPLE = ("cg", "stream", "fft")
ALONE = [CoRun(key, (), 10.0, 10.0) for key in BOUND]
PROFILES = [profiled(key, 0.5 if key == "cg" else 1.0) for key in BOUND]


def mid(model: Estimator, *keys: str) -> float:
    return model.predict(tuple(map(App, keys)), NODE)[0].mid


def test_nothing_seen_is_bubble() -> None:
    for keys in (("cg", "stream"), ("fft", "cg", "lu")):
        sets = tuple(map(App, keys))
        ours, theirs = (model.make((), PROFILES).predict(sets, NODE) for model in (learned, bubble))
        assert [one.mid for one in ours] == [one.mid for one in theirs]


def test_a_pair_that_was_seen_corrects_larger_sets() -> None:
    model = learned.make([*ALONE, *seen("cg", "stream"), *seen("cg", "fft")], PROFILES)
    before = abs(mid(bubble.make((), PROFILES), "cg", "stream", "fft") - truth("cg", "stream", "fft"))
    after = abs(mid(model, "cg", "stream", "fft") - truth("cg", "stream", "fft"))
    assert after < 0.35 * before
    assert mid(model, "cg", "stream") == pytest.approx(truth("cg", "stream"))


@given(st.lists(st.sampled_from(sorted(BOUND)), min_size=3, max_size=6))
def test_the_short_way_for_profiled_sets_says_what_the_general_one_does(keys: list[str]) -> None:
    """Members that are pinned to a core each take the general way, and share nothing either."""
    model = learned.make([*ALONE, *seen("cg", "stream"), *seen("cg", "fft"), *seen("lu", "sort")], PROFILES)
    short = model.predict(tuple(map(App, keys)), NODE)
    general = model.predict(tuple(App(key, cores=(core,)) for core, key in enumerate(keys)), NODE)
    for one, other in zip(short, general, strict=True):
        assert one[:3] == pytest.approx(other[:3], rel=1e-9)
        assert (one.known, one.why) == (other.known, other.why)


def unfelt(pair: tuple[str, str], slowdown: float, times: int) -> list[CoRun]:
    app, beside = pair
    return [CoRun(app, (), 10.0, 10.0), *[CoRun(app, (beside,), 10.0 / slowdown, 10.0)] * times]


@pytest.mark.parametrize("times", [1, 8, 50])
@pytest.mark.parametrize("slowdown", [1.5, 3.0])
def test_a_cost_that_profiles_deny_stays_in_larger_sets(slowdown: float, times: int) -> None:
    flat = [profiled(key, 0.0) for key in ("cg", "fft", "sort")]
    once = unfelt(("cg", "fft"), slowdown, times)
    model = learned.make(once, flat)
    pair, three = (model.predict(tuple(map(App, keys)), NODE)[0] for keys in (("cg", "fft"), ("cg", "fft", "sort")))
    assert slowdown - 0.03 < three.mid <= slowdown
    assert three.high >= pair.high
    assert str(three.why).startswith(f"{three.mid:.2f}x: ")
    both = learned.make([*once, *unfelt(("cg", "sort"), slowdown, times)], flat)
    added = both.predict(tuple(map(App, ("cg", "fft", "sort"))), NODE)[0]
    assert added.mid == pytest.approx(2 * slowdown - 1, abs=0.06)
    assert added.low <= slowdown < 2 * slowdown - 1 < added.high  # they may as well contend for the same


def test_a_difference_within_the_noise_is_shrunk() -> None:
    flat = [profiled(key, 0.0) for key in ("cg", "fft", "sort")]
    assert mid(learned.make(unfelt(("cg", "fft"), 1.1, 8), flat), "cg", "fft", "sort") < 1.05


def test_pairs_that_proved_harmless_leave_no_wide_interval() -> None:
    harmless = [*unfelt(("cg", "stream"), 1.0, 8), *unfelt(("cg", "fft"), 1.0, 8)]
    three = learned.make(harmless, [profiled(key) for key in BOUND]).predict(tuple(map(App, TRIPLE)), NODE)[0]
    assert three.mid < 1.02
    assert three.high < 1.4


companies = st.dictionaries(
    st.tuples(st.sampled_from(sorted(BOUND)), st.sampled_from(sorted(BOUND))),
    st.tuples(st.floats(1.0, 4.0), st.integers(1, 9)),
    min_size=1,
)


@given(
    companies,
    st.lists(st.floats(0.0, 3.0), min_size=len(BOUND), max_size=len(BOUND)),
    st.lists(st.sampled_from(sorted(BOUND)), min_size=3, max_size=6),
    st.booleans(),
)
def test_more_neighbours_never_make_it_faster_than_a_pair_that_was_seen(
    pairs: dict[tuple[str, str], tuple[float, int]], misjudged: list[float], keys: list[str], at_once: bool
) -> None:
    held = [profiled(key, by) for key, by in zip(BOUND, misjudged, strict=True)]
    told = [corun for pair, (slowdown, times) in pairs.items() for corun in unfelt(pair, slowdown, times)]
    model = learned.make(told, held)
    if at_once:
        batch = Batch.of(held, told)
        mid, _, high = (float(part[0, 0]) for part in batch.predict(batch.indices([keys])))
    else:
        mid, _, high = model.predict(tuple(App(key, cores=(core,)) for core, key in enumerate(keys)), NODE)[0][:3]
    for other in keys[1:]:
        if (keys[0], other) in pairs:
            pair = model.predict((App(keys[0]), App(other)), NODE)[0]
            assert high > pair.high - 1e-9
            assert mid > pair.mid - 2 * (pair.high - pair.mid)


def test_what_one_proved_to_be_beside_some_tells_of_others() -> None:
    model = learned.make([*ALONE, *seen("cg", "stream"), *seen("cg", "sort")], PROFILES)
    before = abs(mid(bubble.make((), PROFILES), "cg", "fft") - truth("cg", "fft"))
    assert abs(mid(model, "cg", "fft") - truth("cg", "fft")) < 0.6 * before


def test_a_larger_set_tells_of_its_pairs() -> None:
    model = learned.make([*ALONE, *seen("cg", "stream", "fft"), *seen("cg", "stream", "sort")], PROFILES)
    before = abs(mid(bubble.make((), PROFILES), "cg", "fft", "sort") - truth("cg", "fft", "sort"))
    assert abs(mid(model, "cg", "fft", "sort") - truth("cg", "fft", "sort")) < 0.8 * before


def test_without_profiles_pairs_add_up_and_strangers_are_judged_or_said_to_be_unknown() -> None:
    model = learned.make([*ALONE, *seen("cg", "stream"), *seen("cg", "sort")])
    answer = model.predict((App("cg"), App("stream"), App("sort")), NODE)[0]
    assert answer.mid == pytest.approx(truth("cg", "stream", "sort"))
    assert answer.known
    assert answer.why == "from what was seen: sort 1.24x, stream 1.72x"
    new = model.predict((App("new"), App("newer")), NODE)[0]
    assert new.why == "its slowdown beside newer is not known: assumed 1.0x"
    without_alone = learned.make([CoRun("new", ("newer",), 5.0, 9.0)])  # seen together, but nothing to compare with
    assert "never seen" not in without_alone.predict((App("new"), App("newer")), NODE)[0].why
    known = PROFILES[0].key
    beside, stranger = learned.make((), PROFILES).predict((App(known), App("new")), NODE)
    assert beside.why == "its slowdown beside new is not known, and no profile of new: assumed 1.0x"
    assert stranger.why == f"its slowdown beside {known} is not known, and no profile of new: assumed 1.0x"
    stated = model.predict((App("x", 1000, 9_000), App("y", 1000, 12_000)), Capacity(4000, 16_000))[0]
    assert stated.mid == pytest.approx(21 / 16)


def test_a_number_is_told_once() -> None:
    model, corrected = learned.make((), PROFILES), learned.make([*ALONE, *seen("cg", "stream")], PROFILES)
    pair, three = (App("cg"), App("stream")), (App("cg"), App("stream"), App("fft"))
    stranger = "its slowdown beside new is not known, and no profile of new: assumed 1.0x"
    by_profiles = str(model.predict(pair, NODE)[0].why)
    assert by_profiles.startswith("1.")
    assert str(model.predict((*pair, App("new")), NODE)[0].why) == f"{by_profiles}; {stranger}"
    more = corrected.predict(three, NODE)[0]
    by_profiles = str(model.predict(three, NODE)[0].why)
    assert str(more.why).startswith(f"{more.mid:.2f}x: {by_profiles}; corrected by pairs seen: stream ")


def test_the_noise_of_many_stated_demands_counts_once() -> None:
    node, crowd = Capacity(96_000, 200_000), [App(f"a{k}", 4000, 1_000) for k in range(20)]
    few, many = (learned.make(()).predict(tuple(crowd[:n]), node)[0] for n in (2, 20))
    assert few.mid == 1.0
    assert 1.0 < few.high < 1.1
    assert many == few


def test_made_again_from_what_was_stored_it_answers_the_same() -> None:
    stored = [*ALONE, *seen("cg", "stream"), *seen("fft", "cg", "lu"), *seen("sort", "cg")]
    running = learned.make((), PROFILES)
    for corun in stored:
        running.observe(corun)
    sets = tuple(map(App, ("cg", "fft", "sort")))
    assert learned.make(stored, PROFILES).predict(sets, NODE) == running.predict(sets, NODE)


def test_residuals_of_pairs_set_the_width() -> None:
    """Profiles that are right earn narrower intervals than profiles that are off in every pair."""
    keys = list(BOUND)
    pairs = [corun for a in keys for b in keys if a != b for corun in seen(a, b, times=1)]
    right, wrong = [profiled(key) for key in keys], [profiled(key, 0.3 + 0.7 * (n % 2)) for n, key in enumerate(keys)]
    sets = tuple(map(App, ("cg", "stream", "fft")))
    narrow, wide = (learned.make([*ALONE, *pairs], held).predict(sets, NODE)[0] for held in (right, wrong))
    assert narrow.high - narrow.low < wide.high - wide.low
