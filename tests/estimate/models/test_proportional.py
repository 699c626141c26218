import math
from collections.abc import Callable

import pytest

from tandem.estimate import answering
from tandem.estimate.corun import App, Capacity, CoRun, Estimator, Slowdown
from tandem.estimate.models import learned, proportional
from tandem.estimate.prior import NOISE, UNKNOWN_EXCESS

NODE = Capacity(4000, 16_000)
CG, STREAM, MC = App("cg", 1000, 9_000), App("stream", 1000, 12_000), App("mc")


def seen(app: str, beside: tuple[str, ...], *rates: float) -> list[CoRun]:
    return [CoRun(app, beside, rate, 5.0) for rate in rates]


def first(coruns: list[CoRun], *members: App) -> Slowdown:
    return proportional.make(coruns).predict(members, NODE)[0]


def test_demand_over_capacity_where_nothing_was_seen() -> None:
    answer = first([], CG, STREAM)
    assert answer.mid == pytest.approx(21 / 16)
    assert answer.why == "1.31x by memory bandwidth: 21 of 16 GB/s"
    assert not answer.known
    assert answer.low < 1.2 < 1.4 < answer.high


def test_within_the_bandwidth_it_says_so() -> None:
    answer = first([], App("a", 1000, 2_000), App("b", 1000, 3_000))
    assert answer.mid == 1.0
    assert answer.why == "1.00x within the node's bandwidth"


def test_the_very_same_neighbours_beat_the_formula() -> None:
    answer = first([*seen("cg", (), 10.0), *seen("cg", ("stream",), *[7.0] * 6)], CG, STREAM)
    assert answer.mid == pytest.approx(10 / 7)
    assert answer.known
    assert answer.why == "seen 6 times beside stream: 1.43x (1.37-1.49)"


def test_nothing_known_is_said_and_wide() -> None:
    answer = first([], App("new"), App("cg"))
    assert answer.why == "its slowdown beside cg is not known: assumed 1.0x"
    assert (answer.mid, answer.low, answer.high) == (1.0, 1.0, pytest.approx(1.0 + UNKNOWN_EXCESS))
    assert not answer.known


def test_pairs_add_their_excess_in_a_larger_set() -> None:
    coruns = [*seen("mc", (), 10.0), *seen("mc", ("a",), 8.0), *seen("mc", ("b",), 5.0)]
    answer = first(coruns, MC, App("a"), App("b"))
    assert answer.mid == pytest.approx(1 + 0.25 + 1.0)
    assert answer.known
    assert answer.why == "2.25x from what was seen: a 1.25x, b 2.00x"
    assert answer.high - answer.low > 0.6 * 1.25


def test_saturation_that_no_pair_shows_is_added_to_what_pairs_showed() -> None:
    # Two at a time fit into 16 GB/s (seen: 1.0x); all three ask for 24.
    thirds = [App(key, 1000, 8_000) for key in "abc"]
    coruns = [*seen("a", (), 10.0), *seen("a", ("b",), 10.0), *seen("a", ("c",), 10.0)]
    assert first(coruns, *thirds).mid == pytest.approx(1.5)


def test_a_demand_that_pairs_showed_to_be_exaggerated_counts_for_less() -> None:
    thirds = [App(key, 1000, 12_000) for key in "abc"]
    coruns = [*seen("a", (), 10.0), *seen("a", ("b",), 10.0), *seen("a", ("c",), 10.0)]
    by_formula = 36 / 16
    assert first([], *thirds).mid == pytest.approx(by_formula)
    assert first(coruns, *thirds).mid == pytest.approx(by_formula - 2 * (24 / 16 - 1))


def test_the_larger_set_itself_beats_its_pairs() -> None:
    coruns = [*seen("mc", (), 10.0), *seen("mc", ("a",), 5.0), *seen("mc", ("a", "b"), 8.0)]
    assert first(coruns, MC, App("b"), App("a")).mid == pytest.approx(1.25)


def test_twins_are_neighbours_of_each_other() -> None:
    coruns = [*seen("cg", (), 10.0), *seen("cg", ("cg",), 8.0)]
    answers = proportional.make(coruns).predict((MC, CG, CG), NODE)
    assert answers[1] == answers[2]
    assert [a.mid for a in proportional.make(coruns).predict((CG, CG), NODE)] == [1.25, 1.25]


def test_unnamed_programmes_are_never_mistaken_for_each_other() -> None:
    coruns = [*seen("", (), 10.0), *seen("", ("cg",), 5.0), *seen("cg", (), 10.0), *seen("cg", ("",), 5.0)]
    answer = first(coruns, App("cg"), App(""))
    assert answer.mid == 1.0
    assert answer.why == "its slowdown beside an unnamed programme is not known: assumed 1.0x"


def test_knows_what_states_a_bandwidth_or_was_seen_in_company() -> None:
    model = proportional.make([*seen("cg", (), 10.0), *seen("mc", ("fft",), 5.0)])
    known = {key: model.knows(App(key)) for key in ("cg", "mc", "fft", "")}
    assert known == {"cg": False, "mc": True, "fft": True, "": False}
    assert model.knows(App("", 1000, 0, 5))


def test_answers_are_kept_until_an_observation_of_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    model = proportional.make(seen("cg", (), 10.0))
    model.observe(CoRun("other", ("cg",), 5.0, 5.0))  # a new pair tells something of every pair
    before = model.predict((CG, STREAM), NODE)
    assert model.predict((CG, STREAM), NODE) is before
    model.observe(CoRun("other", ("cg",), 5.0, 5.0))
    assert model.predict((CG, STREAM), NODE) is before
    model.observe(CoRun("cg", ("stream",), 5.0, 5.0))
    assert model.predict((CG, STREAM), NODE)[0].mid == 2.0
    monkeypatch.setattr(answering, "_CACHED", 1)
    fresh = proportional.make([*seen("cg", (), 10.0), CoRun("cg", ("stream",), 5.0, 5.0)])
    assert model.predict((CG, MC), NODE) == fresh.predict((CG, MC), NODE)


def test_a_pair_that_was_never_seen_is_judged_by_what_both_did_beside_others() -> None:
    loud, calm, victim = App("loud"), App("calm"), App("victim")
    alone = [corun for key in ("loud", "calm", "victim", "other") for corun in seen(key, (), 10.0)]
    told = [
        *seen("other", ("loud",), 6.0),
        *seen("other", ("calm",), 10.0),
        *seen("victim", ("other",), 7.0),
        *seen("loud", ("other",), 7.0),
        *seen("calm", ("other",), 10.0),
    ]
    model = proportional.make(alone + told)
    beside_loud, beside_calm = (model.predict((victim, app), NODE)[0] for app in (loud, calm))
    assert beside_loud.mid > 1.3
    assert beside_calm.mid < 1.15
    assert not beside_loud.known
    assert "judged by what both did beside others" in beside_loud.why


def test_pairs_that_agree_with_what_is_stated_add_up_to_nothing() -> None:
    """Each pair is within the noise of no slowdown, and none was measured below 1: their sum would be 1.14."""
    quiet = [App(f"q{k}", 1000, 100) for k in range(7)]
    seen = [CoRun("train", (), 1.0, 10.0), *(CoRun("train", (one.key,), 0.98, 10.0) for one in quiet)]
    answer = proportional.make(seen).predict((App("train", 1000, 100), *quiet), Capacity(16_000, 10_000))[0]
    assert answer.mid == 1.0
    assert answer.known
    assert answer.high < 1.1  # nor does the noise of each add to the others'


@pytest.mark.parametrize("seen_too", [False, True])
def test_on_a_node_of_many_cores_the_noise_of_what_is_stated_counts_once(*, seen_too: bool) -> None:
    node, crowd = Capacity(96_000, 200_000), [App(f"a{k}", 4000, 1_000) for k in range(20)]
    known = [*seen("a0", (), 1.0), *seen("a0", ("a7",), 0.5), *seen("a7", (), 1.0)] if seen_too else []
    few, many = (proportional.make(known).predict(tuple(crowd[:n]), node)[0] for n in (2, 20))
    assert few.mid == 1.0
    assert 1.0 < few.high < 1.1
    if seen_too:  # the one bad neighbour is in the larger set only
        assert many.mid == pytest.approx(2.0)
    else:
        assert many == few


def test_a_revision_changes_with_what_was_told_of_a_member_only() -> None:
    model = proportional.make([CoRun("a", (), 1.0, 10.0), CoRun("c", (), 1.0, 10.0)])
    before = model.revision(("a", "b"))
    model.observe(CoRun("c", (), 1.0, 10.0))
    assert model.revision(("a", "b")) == before
    model.observe(CoRun("a", (), 1.0, 10.0))
    assert model.revision(("a", "b")) != before
    before = model.revision(("a", "b"))
    model.observe(CoRun("c", ("d",), 0.5, 10.0))
    assert model.revision(("a", "b")) != before, "a new pair tells something of every pair"


FIT, LARGE = App("fit", 2000), Capacity(64_000, 100_000)


def beside_fits(count: int, slowdown: float, times: int = 8) -> list[CoRun]:
    return [CoRun("fit", ("fit",) * count, 1.0 / slowdown, 60.0)] * times


@pytest.mark.parametrize("make", [proportional.make, learned.make])
def test_a_set_grows_from_what_was_seen_of_a_part_of_it(make: Callable[[list[CoRun]], Estimator]) -> None:
    """By what a pair costs, give or take its noise, thirty may cost anything."""

    def most(*coruns: CoRun) -> Slowdown:
        return make([CoRun("fit", (), 1.0, 60.0), *beside_fits(1, 1.0), *coruns]).predict((FIT,) * 30, LARGE)[0]

    by_pairs, by_four, by_sixteen = most(), most(*beside_fits(4, 1.0)), most(*beside_fits(16, 1.0))
    assert by_pairs.mid == by_four.mid == by_sixteen.mid == 1.0
    assert by_pairs.high - 1.0 == pytest.approx(math.sqrt(29) * NOISE)
    assert by_four.high - 1.0 == pytest.approx(math.sqrt(7 + 1) * NOISE)
    assert by_sixteen.high - 1.0 == pytest.approx(math.sqrt(1 + 13) * NOISE)
    assert most(*beside_fits(29, 1.3)).mid == pytest.approx(1.3)


@pytest.mark.parametrize("make", [proportional.make, learned.make])
def test_after_a_set_proved_too_large_one_less_is_not_the_next_try(make: Callable[[list[CoRun]], Estimator]) -> None:
    """As of 5 GB/s each: twenty have what they need, thirty take 1.5 times as long."""
    coruns = [CoRun("fit", (), 1.0, 60.0), *beside_fits(1, 1.0), *beside_fits(19, 1.0), *beside_fits(29, 1.5)]
    model = make(coruns)
    believed = [model.predict((FIT,) * n, LARGE)[0].mid for n in range(20, 31)]
    truth = [max(1.0, n * 5 / 100) for n in range(20, 31)]
    assert believed == pytest.approx(truth)


@pytest.mark.parametrize("make", [proportional.make, learned.make])
def test_of_many_strangers_a_crowd_tells(make: Callable[[list[CoRun]], Estimator]) -> None:
    crowd = [App(f"fit{k}", 2000) for k in range(30)]
    coruns = [
        *(CoRun(one.key, (), 1.0, 60.0) for one in crowd),
        *(CoRun(one.key, tuple(o.key for o in crowd if o is not one), 1 / 1.5, 60.0) for one in crowd),
    ]
    alone = [corun for corun in coruns if not corun.beside]
    assert make(alone).predict(tuple(crowd[:21]), LARGE)[0].mid == 1.0
    some = make(coruns).predict(tuple(crowd[:21]), LARGE)[0]
    assert some.mid == pytest.approx(1 + 0.5 * 20 / 29)
    assert some.untried


def test_of_a_crowd_whose_demands_are_stated_these_tell() -> None:
    """What was seen of them may have been of other sizes."""
    stating = App("fit", 2000, 1000)
    once = [CoRun("fit", (), 1.0, 60.0), *beside_fits(20, 1.3)]
    assert proportional.make(once).predict((stating,) * 21, LARGE)[0].mid == 1.0
    assert proportional.make(once).predict((FIT,) * 21, LARGE)[0].mid == pytest.approx(1.3)
