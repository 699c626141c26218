"""What is learned of durations and rates."""

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.share.model import Interval
from tandem.share.state.history import PRIOR_S, RUNS, VARIANTS, History
from tandem.share.state.quantiles import Quantiles
from tests.share.told import job


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 20), st.floats(0, 1))
def test_quantiles_of_the_last_values(values: list[float], size: int, q: float) -> None:
    kept = Quantiles(size)
    for value in values:
        kept.add(value)
        kept.at(0.5)  # what was asked before must not be remembered wrongly
    last = sorted(values[-size:])
    place = q * (len(last) - 1)
    low = last[math.floor(place)]
    high = last[math.ceil(place)]
    assert kept.at(q) == pytest.approx(low + (place - math.floor(place)) * (high - low), abs=1e-6)
    assert kept.at(0.0) == last[0]
    assert kept.at(1.0) == last[-1]
    assert len(kept) == len(last)


def test_nothing_is_known_at_first() -> None:
    history = History()
    found, why = history.expect(job(1))
    assert found == Interval(*PRIOR_S)
    assert "nothing" in why


def test_the_users_word_then_how_wrong_users_are() -> None:
    history = History()
    found, why = history.expect(job(1, expected=100.0, limit=1000.0))
    assert found.mid == 100.0
    assert found.low < 100.0 < found.high
    assert why == "its expected duration"
    for k in range(200):
        history.ended(job(k, expected=100.0), 150.0)
    found, _ = history.expect(job(1, expected=10.0))
    assert found.mid == pytest.approx(15.0, rel=0.05)


def test_a_user_is_corrected_by_that_users_first_runs_alone() -> None:
    """Repeats of one command are one error, and few errors only widen: who was right once more is not promised less."""
    history = History()
    for k in range(40):
        history.ended(job(k, app="true", variant="x", expected=1.0, uid=1), 0.2)
    other = job(99, app="sleep", variant="30", expected=30.0, uid=1)
    found, why = history.expect(other)
    assert (found.mid, why) == (30.0, "its expected duration")
    assert found.low < 20.0
    assert found.high > 30.0 * math.exp(0.4)
    for k in range(60):
        history.ended(job(100 + k, app=f"app{k}", variant="x", expected=1.0, uid=1), 0.2)
    found, why = history.expect(other)
    assert found.mid == pytest.approx(6.0, rel=0.3)
    assert found.high >= 30.0, "this programme may be the one whose user is right"
    assert why.startswith("its expected duration, times 0.2")
    assert why.endswith("as this user's other programmes took that part of theirs")
    theirs, _ = history.expect(replace(other, uid=2))
    assert theirs == History().expect(other)[0]


def test_a_limit_is_an_upper_end() -> None:
    history = History()
    found, why = history.expect(job(1, limit=100.0))
    assert found.high == 100.0
    assert why == "its time limit"
    for k in range(200):
        history.ended(job(k, limit=100.0), 20.0)
    found, _ = history.expect(job(1, limit=50.0))
    assert found.mid == pytest.approx(10.0, rel=0.1)
    found, _ = history.expect(job(1, limit=5.0, expected=100.0))
    assert found.high <= 5.0


def test_the_median_of_its_own_runs() -> None:
    history = History()
    for seconds in (10.0, 11.0, 12.0, 13.0, 500.0):
        history.ended(job(1, app="cg"), seconds)
    found, why = history.expect(job(2, app="cg", expected=3.0))
    assert found.mid == 12.0
    assert why == "5 earlier runs of cg"
    assert history.expect(job(2, app="fft"))[0] == Interval(*PRIOR_S)


def test_runs_with_the_same_arguments_count_first() -> None:
    """`train.py --epochs 1` says little of `train.py --epochs 100`."""
    history = History()
    for _ in range(3):
        history.ended(job(1, app="train", variant="short"), 10.0)
        history.ended(job(1, app="train", variant="long"), 1000.0)
    short, why = history.expect(job(2, app="train", variant="short", expected=3.0))
    assert (short.mid, why) == (10.0, "3 earlier runs of train")
    assert short.high < 20.0
    long, _ = history.expect(job(2, app="train", variant="long"))
    assert (long.mid, long.low > 500.0) == (1000.0, True)
    new, why = history.expect(job(2, app="train", variant="new", limit=5000.0))
    assert why == "6 earlier runs of train with other arguments"
    assert new.high > 50 * new.low
    told, why = history.expect(job(2, app="train", variant="new", expected=60.0))
    assert (told.mid, why) == (60.0, "its expected duration")


def test_a_name_says_that_its_runs_are_alike() -> None:
    history = History()
    history.ended(job(1, app="train", variant="short"), 10.0)
    history.ended(job(1, app="train"), 12.0)
    found, why = history.expect(job(2, app="train", expected=3.0))
    assert (found.mid, why) == (11.0, "2 earlier runs of train")


def test_arguments_that_never_mattered_come_to_a_narrow_interval() -> None:
    history = History()
    for seed in range(40):
        history.ended(job(1, app="sweep", variant=f"seed {seed}"), 100.0 + seed % 5)
        history.ended(job(1, app="train", variant=f"epochs {seed}"), 10.0 * (1 + seed))
    sweep, _ = history.expect(job(2, app="sweep", variant="seed 40"))
    train, _ = history.expect(job(2, app="train", variant="epochs 40"))
    assert sweep.high / sweep.low < 3
    assert train.high / train.low > 2 * sweep.high / sweep.low


def test_new_arguments_are_covered_too() -> None:
    """Applications of which each set of arguments has a duration of its own: 90 % of first runs lie in the interval."""
    rng = random.Random(11)
    history = History()
    kept = asked = 0
    for k in range(900):
        app, spread = f"app{k % 6}", (0.1, 1.0)[k % 2]
        one = job(k, app=app, variant=str(k))
        seconds = 100.0 * rng.lognormvariate(0.0, spread)
        if k > 100:
            found, _ = history.expect(one)
            asked += 1
            kept += found.low <= seconds <= found.high
        history.ended(one, seconds)
    assert 0.85 <= kept / asked <= 0.97


def test_arguments_that_ran_longest_ago_are_forgotten() -> None:
    history = History()
    for k in range(VARIANTS + 1):
        history.ended(job(1, app="a", variant="kept"), 5.0)
        history.ended(job(1, app="a", variant=str(k)), 50.0)
    assert history.expect(job(2, app="a", variant="kept"))[0].mid == 5.0
    assert "other arguments" in history.expect(job(2, app="a", variant="0"))[1]
    assert len(history.snapshot()["variants"]) == VARIANTS


def test_the_interval_covers_what_it_says() -> None:
    """Lognormal runs of an application: 90 % of the next ones lie in the interval."""
    rng = random.Random(7)
    history = History()
    kept = asked = 0
    for k in range(900):
        app = f"app{k % 6}"
        seconds = 100.0 * (1 + k % 6) * rng.lognormvariate(0.0, 0.3)
        if k > 100:
            found, _ = history.expect(job(k, app=app))
            asked += 1
            kept += found.low <= seconds <= found.high
        history.ended(job(k, app=app), seconds)
    assert 0.85 <= kept / asked <= 0.95


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.floats(1e-3, 1e6)), max_size=60),
    st.sampled_from(["", "a", "c"]),
    st.none() | st.floats(1e-3, 1e6),
    st.none() | st.floats(1e-3, 1e6),
)
def test_every_interval_is_in_order_and_within_the_limit(
    runs: list[tuple[str, float]], app: str, expected: float | None, limit: float | None
) -> None:
    history = History()
    for app_run, seconds in runs:
        history.ended(job(1, app=app_run, expected=expected, limit=limit), seconds)
    found, why = history.expect(job(2, app=app, expected=expected, limit=limit))
    assert 0 <= found.low <= found.mid <= found.high < math.inf
    assert limit is None or found.high <= limit
    assert why


def test_only_the_last_runs_count() -> None:
    history = History()
    for _ in range(RUNS):
        history.ended(job(1, app="a"), 10.0)
    for _ in range(RUNS):
        history.ended(job(1, app="a"), 20.0)
    assert history.expect(job(2, app="a"))[0].mid == 20.0


def test_nonsense_is_not_learned() -> None:
    history = History()
    history.ended(job(1, app="a"), 0.0)
    history.observe_rate(job(1), 1.0)
    history.observe_rate(job(1, app="a"), 0.0)
    assert history.alone_rate(job(1, app="a")) is None
    assert history.expect(job(2, app="a"))[0] == Interval(*PRIOR_S)


def test_solo_rates_and_their_noise() -> None:
    history = History()
    for rate in (9.0, 10.0, 11.0):
        history.observe_rate(job(1, app="a"), rate)
    assert history.alone_rate(job(1, app="a")) == 10.0
    assert history.alone_noise(job(1, app="a")) == pytest.approx((10.9 - 9.1) / 20.0)
    assert history.alone_noise(job(1, app="new")) == 0.08
    for _ in range(30):
        history.observe_rate(job(1, app="b"), 5.0)
    assert history.alone_noise(job(1, app="b")) == 0.04


def test_moments_alone_are_one_rate_once_they_make_a_second() -> None:
    history, one = History(), job(1, app="a")
    history.observe_rate(one, 40.0, 0.2)
    history.observe_rate(one, 180.0, 0.7)
    assert history.alone_rate(one) is None
    history = History.restore(json.loads(json.dumps(history.snapshot())))
    history.observe_rate(one, 120.0, 0.1)
    assert history.alone_rate(one) == pytest.approx(40 * 0.2 + 180 * 0.7 + 120 * 0.1)
    history.observe_rate(one, 500.0, 0.9)  # counting begins anew
    assert history.alone_noise(one) == 0.08
    for number in range(VARIANTS + 1):
        history.observe_rate(job(2, app="b", variant=f"{number}"), 1.0, 0.5)
    assert len(history.snapshot()["moments"]) == VARIANTS


def test_a_step_of_other_arguments_is_another_step() -> None:
    history = History()
    small, large = job(1, app="solve", variant="small"), job(2, app="solve", variant="large")
    assert history.reference_rate(small, 90.0) == 90.0  # the first that was measured, beside others as it may be
    assert history.reference_rate(large, 1.8) is None
    history.observe_rate(large, 2.0)
    assert history.reference_rate(large, 1.8) is None  # nobody knows what that is in steps of the first
    assert history.alone_rate(small) is None
    assert not history.takes_over(small)
    history.observe_rate(small, 100.0)
    assert not history.takes_over(large)  # the first did run alone
    assert history.alone_rate(small) == 100.0
    assert history.alone_rate(large) == 2.0
    assert history.reference_rate(large, 1.8) == pytest.approx(90.0)  # slowed by the same tenth


def test_arguments_that_ran_alone_take_over_from_those_that_never_did() -> None:
    history = History()
    small, large = job(1, app="solve", variant="small"), job(2, app="solve", variant="large")
    assert history.reference_rate(small, 90.0) == 90.0
    assert not history.takes_over(large)
    history.observe_rate(large, 2.0)
    assert history.takes_over(large)
    assert history.reference_rate(large, 1.8) == 1.8
    assert History.restore(history.snapshot()).reference_rate(large, 1.8) == 1.8
    assert history.reference_rate(small, 90.0) is None
    assert not history.takes_over(large)


def test_rates_of_jobs_that_are_gone_are_compared_by_what_is_known_now() -> None:
    history = History()
    small, large = job(1, app="solve", variant="small"), job(2, app="solve", variant="large")
    assert history.in_reference_steps("solve", "small", 90.0) is None
    history.observe_rate(large, 2.0)  # asking has made nothing the reference
    assert history.in_reference_steps("solve", "large", 1.8) == 1.8
    assert history.in_reference_steps("solve", "small", 90.0) is None
    history.observe_rate(small, 100.0)
    assert history.in_reference_steps("solve", "small", 90.0) == pytest.approx(1.8)
    assert history.reference_rate(small, 90.0) == pytest.approx(1.8)


def test_a_snapshot_without_arguments_is_read() -> None:
    state = History().snapshot() | {"alone": {"a": [3.0]}, "runs": {"a": [7.0]}}
    for key in ("variants", "others", "all_others", "reference"):
        del state[key]
    history = History.restore(state)
    assert history.alone_rate(job(1, app="a")) == 3.0
    assert history.expect(job(1, app="a"))[0].mid == 7.0


VARIANT = st.sampled_from(["", "x", "y"])


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), VARIANT, st.floats(0.1, 1e4)), max_size=80))
def test_a_snapshot_is_all_of_it(runs: list[tuple[str, str, float]]) -> None:
    history = History()
    for app, variant, seconds in runs:
        history.ended(job(1, app=app, variant=variant, expected=50.0, limit=1e5), seconds)
        history.observe_rate(job(1, app=app, variant=variant), seconds)
    other = History.restore(json.loads(json.dumps(history.snapshot())))
    for one in (job(2, app="a"), job(2, app="c", expected=5.0), job(2, limit=70.0), job(2, app="a", variant="x")):
        assert other.expect(one) == history.expect(one)
    for one in (job(2, app="a"), job(2, app="a", variant="x"), job(2, app="b", variant="y")):
        assert other.alone_rate(one) == history.alone_rate(one)
        assert other.reference_rate(one, 3.0) == history.reference_rate(one, 3.0)
    assert other.expect(job(2, app="b", variant="new")) == history.expect(job(2, app="b", variant="new"))
    history.ended(job(3, app="a", expected=1.0), 3.0)
    other.ended(job(3, app="a", expected=1.0), 3.0)
    assert other.snapshot() == history.snapshot()


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), VARIANT, st.floats(1, 1e4), st.booleans()), max_size=30))
def test_what_was_asked_before_changes_no_answer(ends: list[tuple[str, str, float, bool]]) -> None:
    history = History()
    for k, (app, variant, seconds, expected) in enumerate(ends):
        one = replace(job(k + 1, expected=100.0 if expected else None, limit=1e5), app=app, variant=variant)
        history.ended(one, seconds)
        assert history.expect(one) == History.restore(history.snapshot()).expect(one)
