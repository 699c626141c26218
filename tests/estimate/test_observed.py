import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tandem.estimate import estimators
from tandem.estimate.corun import App, Capacity, CoRun
from tandem.estimate.observed import (
    FEW,
    LARGEST,
    LATEST,
    LEAST_S,
    REMEMBERED,
    Observations,
    student_95,
    weighted_median,
)
from tandem.estimate.prior import NOISE


def seen(*coruns: CoRun) -> Observations:
    observations = Observations()
    for corun in coruns:
        observations.add(corun)
    return observations


@pytest.mark.parametrize(
    ("pairs", "median"),
    [
        ([(3.0, 1.0)], 3.0),
        ([(1.0, 1.0), (9.0, 1.0)], 5.0),
        ([(9.0, 1.0), (1.0, 1.0), (2.0, 1.0)], 2.0),
        ([(1.0, 5.0), (9.0, 1.0), (10.0, 1.0)], 1.0),
        ([(1.0, 2.0), (4.0, 1.0), (6.0, 1.0)], 2.5),
    ],
)
def test_weighted_median_by_hand(pairs: list[tuple[float, float]], median: float) -> None:
    assert weighted_median(pairs) == median


def test_weighted_median_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        weighted_median([])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4)), min_size=1, max_size=20))
def test_weights_are_repetitions(pairs: list[tuple[int, int]]) -> None:
    repeated = sorted(value for value, weight in pairs for _ in range(weight))
    middle = len(repeated) // 2
    expected = repeated[middle] if len(repeated) % 2 else (repeated[middle - 1] + repeated[middle]) / 2
    assert weighted_median([(float(v), float(w)) for v, w in pairs]) == expected


@pytest.mark.parametrize("freedom", [4, 5, 8, 20, 100])
def test_student_quantile_against_scipy(freedom: int) -> None:
    assert student_95(freedom) == pytest.approx(stats.t.ppf(0.95, freedom), rel=0.01)


def test_slowdown_is_alone_over_beside() -> None:
    known = seen(CoRun("cg", (), 10.0, 5.0), *(CoRun("cg", ("fft",), r, 5.0) for r in (7.0, 7.1, 6.9)))
    found = known.slowdown("cg", ("fft",))
    assert found is not None
    assert found.count == 3
    assert found.mid == pytest.approx(10 / 7)
    assert found.low < 10 / 7.1 < 10 / 6.9 < found.high


def test_without_a_rate_alone_a_rate_beside_says_nothing_until_there_is_one() -> None:
    known = seen(CoRun("cg", ("fft",), 5.0, 5.0))
    assert known.slowdown("cg", ("fft",)) is None
    known.add(CoRun("cg", (), 10.0, 5.0))
    found = known.slowdown("cg", ("fft",))
    assert found is not None
    assert found.mid == 2.0


def test_moments_say_something_once_they_make_a_second() -> None:
    moment = CoRun("a", ("b",), 5.0, 0.4)
    alone = CoRun("a", (), 10.0, 60.0)
    for model in ("learned", "worst_pair"):
        few, enough = (estimators.make(model, [alone, *[moment] * count]) for count in (2, 3))
        assert not few.predict((App("a"), App("b")), Capacity(8000))[0].known
        assert enough.predict((App("a"), App("b")), Capacity(8000))[0].mid == pytest.approx(2.0)
        assert not few.knows(App("a"))
        assert not few.knows(App("b"))
        assert enough.knows(App("b"))
    assert seen(alone, *[moment] * 2).slowdown("a", ("b",)) is None
    blinks = seen(alone, *[CoRun("a", ("b",), 5.0, 0.01)] * 100)
    assert (blinks.has_company("b"), blinks.company_count) == (True, 1)


def test_moments_that_come_first_change_nothing_of_what_is_learnt_later() -> None:
    """Pairs that were not seen are judged by what was, whether or not that began with a moment."""
    apps = [App(name) for name in "abcd"]
    slowed = {one.key: 1.0 + 0.2 * k for k, one in enumerate(apps)}
    alone = [CoRun(one.key, (), 10.0, 600.0) for one in apps]
    pairs = [(a.key, b.key) for a in apps for b in apps if a != b and (a.key, b.key) != ("a", "c")]
    long = [CoRun(a, (b,), 10.0 / (slowed[a] * slowed[b]), 60.0) for a, b in pairs for _ in range(20)]
    moments = [CoRun(a, (b,), 5.0, 0.5) for a, b in pairs]
    for model in ("learned", "additive"):
        plain, late = (estimators.make(model, [*alone, *first, *long]) for first in ([], moments))
        expected = plain.predict((App("a"), App("c")), Capacity(8000))[0]
        assert late.predict((App("a"), App("c")), Capacity(8000))[0].mid == pytest.approx(expected.mid, rel=0.01)


def test_interval_narrows_with_the_count_down_to_the_noise_and_widens_with_the_spread() -> None:
    alone = CoRun("cg", (), 10.0, 5.0)

    def width(rates: list[float]) -> float:
        found = seen(alone, *(CoRun("cg", ("fft",), r, 5.0) for r in rates)).slowdown("cg", ("fft",))
        assert found is not None
        return (found.high - found.low) / found.mid

    assert width([5.0]) > width([5.0] * 3) >= width([5.0] * 30)
    assert width([5.0] * 30) == pytest.approx(2 * NOISE)
    assert width([4.0, 5.0, 6.0] * 5) > 2 * width([5.0] * 15)


def test_faster_beside_others_than_alone_is_taken_as_alone() -> None:
    found = seen(CoRun("cg", (), 10.0, 5.0), CoRun("cg", ("fft",), 11.0, 5.0)).slowdown("cg", ("fft",))
    assert found is not None
    assert found.mid == found.low == 1.0


@pytest.mark.parametrize(
    "corun",
    [
        CoRun("cg", ("fft",), 0.0, 5.0),
        CoRun("cg", ("fft",), float("nan"), 5.0),
        CoRun("cg", ("fft",), float("inf"), 5.0),
        CoRun("cg", ("fft",), -5.0, 5.0),
        CoRun("cg", ("fft",), 5.0, 0.0),
        CoRun("cg", ("fft",), 5.0, float("nan")),
        CoRun("cg", ("fft",), 5.0, 1e308),
        CoRun("", ("fft",), 5.0, 5.0),
        CoRun("cg", ("", "fft"), 5.0, 5.0),
    ],
)
def test_observations_that_say_nothing_are_not_kept(corun: CoRun) -> None:
    observations = Observations()
    assert not observations.add(corun)
    assert not observations.has_company("cg")
    assert not observations.has_company("fft")


def test_never_alone_is_who_was_seen_beside_others_only() -> None:
    seen = Observations()
    seen.add(CoRun("a", ("b",), 5.0, 2.0))
    assert [seen.never_alone(key) for key in ("a", "b", "c")] == [True, False, False]
    seen.add(CoRun("a", (), 5.0, 0.5))
    assert seen.never_alone("a"), "moments do not count"
    seen.add(CoRun("a", (), 5.0, 0.5))
    assert not seen.never_alone("a")


def test_seen_alone_is_no_company() -> None:
    assert not seen(CoRun("cg", (), 10.0, 5.0)).has_company("cg")
    both = seen(CoRun("cg", ("fft",), 10.0, 5.0))
    assert both.has_company("cg")
    assert both.has_company("fft")


def test_old_stretches_are_forgotten() -> None:
    observations = seen(*(CoRun("cg", (), 10.0, 5.0) for _ in range(REMEMBERED)))
    for _ in range(REMEMBERED):
        observations.add(CoRun("cg", (), 20.0, 5.0))
    assert observations.alone_rate("cg") == 20.0


@pytest.mark.parametrize("rate", [1e-300, 1e-29, 1e-7])
def test_a_slowdown_that_nobody_can_have_measured_is_not_believed(rate: float) -> None:
    found = seen(CoRun("a", (), 1.0, 60.0), CoRun("a", ("b",), rate, 1.0))
    assert found.slowdown("a", ("b",)) is None
    assert found.pairs() == {}
    for _ in range(3):
        found.add(CoRun("a", ("b",), 0.5, 60.0))
    told = found.slowdown("a", ("b",))
    assert told is not None
    assert told.mid == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["learned", "additive", "worst_pair", "proportional"])
def test_no_model_tells_of_one(name: str) -> None:
    coruns = (CoRun("a", (), 1.0, 60.0), CoRun("a", ("b",), 1e-9, 1.0))
    (told, _) = estimators.make(name, coruns).predict((App("a"), App("b")), Capacity(4000))
    assert told.high < 10.0
    assert not told.known


def test_moments_alone_are_no_rate_until_they_make_a_second() -> None:
    found = seen(CoRun("a", (), 44.0, 0.2), CoRun("a", ("b",), 110.0, 9.0))
    assert found.alone_rate("a") is None
    assert found.slowdown("a", ("b",)) is None
    found.add(CoRun("a", (), 180.0, 0.8))
    assert found.alone_rate("a") == 180.0
    assert found.slowdown("a", ("b",)).mid == pytest.approx(180 / 110)  # type: ignore[union-attr]
    assert (found.company_count, found.of_size(1)) == (1, False)


def test_large_companies_are_forgotten_with_time_and_small_ones_are_not() -> None:
    found = seen(CoRun("a", (), 10.0, 60.0))
    kinds = [tuple(f"b{k:03}" for k in range(n, n + FEW + 1)) for n in range(3 * LATEST)]
    for beside in kinds:
        found.add(CoRun("a", ("c", "d", f"only{beside[0]}"), 8.0, 60.0))
        found.add(CoRun("a", beside, 5.0, 60.0))
    kept = [found.slowdown("a", beside) is not None for beside in kinds]
    assert kept == [False] * (len(kinds) - LATEST // 2) + [True] * (LATEST // 2)
    assert all(found.slowdown("a", ("c", "d", f"only{beside[0]}")) for beside in kinds)
    assert len([*found.latest("a")]) == LATEST
    assert not any(len(beside) > FEW for _, beside in found.larger_sets()), "they tell of no pair"
    found.add(CoRun("a", kinds[0], 4.0, 60.0))
    again = found.slowdown("a", kinds[0])
    assert again is not None
    assert (again.count, again.mid) == (1, 2.5)


def test_what_passes_while_a_crowd_is_curbed_takes_nobody_elses_place() -> None:
    crowd = ("b",) * (FEW + 1)
    found = seen(CoRun("a", (), 10.0, 60.0), CoRun("a", crowd, 4.0, 60.0))
    stages = [(*crowd[n:], *("b@0.5",) * n, "c" * m) for m in range(1, 6) for n in range(1, len(crowd))]
    assert len(stages) > LATEST
    for beside in stages:
        found.add(CoRun("a", beside, 5.0, 60.0))
    assert found.slowdown("a", crowd) is not None
    assert [found.slowdown("a", tuple(sorted(beside))) is not None for beside in stages] == [
        n >= len(stages) - LATEST for n in range(len(stages))
    ]


def test_the_largest_companies_and_moments_beside_many_are_not_kept() -> None:
    found = seen(CoRun("a", (), 10.0, 60.0))
    assert not found.add(CoRun("a", ("b",) * (LARGEST + 1), 5.0, 60.0))
    assert not found.add(CoRun("a", ("b",) * (FEW + 1), 5.0, LEAST_S / 2))
    assert found.add(CoRun("a", ("b",) * LARGEST, 5.0, 60.0))


def test_of_one_that_was_seen_in_crowds_only_nothing_is_known_until_it_was_seen_alone() -> None:
    found = seen(CoRun("a", ("b",) * (FEW + 1), 5.0, 60.0))
    assert not any(found.has_company(key) or found.never_alone(key) for key in "ab")
    found.add(CoRun("a", (), 10.0, 60.0))
    assert found.has_company("a")
    assert not found.never_alone("a")
    few = seen(CoRun("a", ("b",) * FEW, 5.0, 60.0))
    assert few.has_company("a")
    assert few.has_company("b")
    assert few.never_alone("a")


def test_one_without_rates_is_known_by_what_it_did_to_a_crowd() -> None:
    """As of a job that is throttled: only its neighbours' rates are kept."""
    beside = ("hog@0.25", *("b",) * FEW)
    assert not seen(CoRun("a", beside, 5.0, 60.0)).has_company("hog@0.25")
    assert seen(CoRun("a", (), 5.0, 60.0), CoRun("a", beside, 5.0, 60.0)).has_company("hog@0.25")
