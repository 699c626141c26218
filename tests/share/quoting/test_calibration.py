"""Promises that hold whatever the predictions are worth."""

import json
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.share.quoting.calibration import Calibration, Predicted

times = st.floats(0, 1e6)


def kept(error: Callable[[int, random.Random], float], count: int = 4000, delay: int = 0) -> tuple[float, float, float]:
    """Parts of promises that were kept, missed early and missed late; predictions say 100 +- 10."""
    rng = random.Random(3)
    learned = Calibration()
    early = late = 0
    waiting: list[tuple[Predicted, float]] = []
    for k in range(count):
        raw = Predicted(0.0, 90.0, 100.0, 110.0)
        promised = learned.promise(raw)
        raw = Predicted(0.0, 90.0, 100.0, 110.0, promised.low, promised.high)
        true = max(0.0, 100.0 + 10.0 * error(k, rng))
        early += true < promised.low
        late += true > promised.high
        waiting.append((raw, true))
        if len(waiting) > delay:
            learned.learn(*waiting.pop(0))
    return 1 - (early + late) / count, early / count, late / count


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        lambda k, rng: rng.gauss(0, 1 / 1.645),  # the predictions are right
        lambda k, rng: rng.gauss(0, 3),  # five times too sure
        lambda k, rng: rng.gauss(0, 0.4),  # a little too wide
        lambda k, rng: rng.lognormvariate(0, 1) - 2,  # skewed and off
        lambda k, rng: rng.gauss(1.0, 1.0),  # always late
        lambda k, rng: rng.gauss(0, 0.5 if k // 500 % 2 else 3),  # weather
    ],
)
@pytest.mark.parametrize("delay", [0, 30])
def test_nine_in_ten_are_kept_in_the_long_run(error: Callable[[int, random.Random], float], delay: int) -> None:
    whole, early, late = kept(error, delay=delay)
    assert 0.87 <= whole <= 0.94
    assert early <= 0.07
    assert late <= 0.07


def test_at_first_the_prediction_stands() -> None:
    found = Calibration().promise(Predicted(5.0, 90.0, 100.0, 120.0))
    assert (found.low, found.mid, found.high) == (90.0, 100.0, 120.0)


def test_a_promise_narrows_where_predictions_are_too_wide() -> None:
    learned = Calibration()
    for k in range(200):
        learned.learn(Predicted(0.0, 50.0, 100.0, 150.0, 50.0, 150.0), 100.0 + (k % 3 - 1))
    found = learned.promise(Predicted(0.0, 50.0, 100.0, 150.0))
    assert 80.0 <= found.low < found.mid < found.high <= 120.0


@given(
    times,
    st.lists(st.tuples(times, times, times, times), max_size=60),
    st.tuples(times, times, times),
)
def test_every_promise_is_in_order_and_not_in_the_past(
    at: float, past: list[tuple[float, float, float, float]], now: tuple[float, float, float]
) -> None:
    learned = Calibration()
    for low, mid, high, true in past:
        low, mid, high = sorted((low, mid, high))
        raw = Predicted(0.0, low, mid, high)
        promised = learned.promise(raw)
        learned.learn(Predicted(0.0, low, mid, high, promised.low, promised.high), true)
    low, mid, high = (at + x for x in sorted(now))
    found = learned.promise(Predicted(at, low, mid, high))
    assert at <= found.low <= found.mid <= found.high < math.inf
    assert found.mid == mid


@given(st.lists(times, max_size=250))
def test_a_snapshot_is_all_of_it(ends: list[float]) -> None:
    learned = Calibration()
    for end in ends:
        learned.learn(Predicted(0.0, 10.0, 100.0, 1000.0, 20.0, 900.0), end)
    other = Calibration.restore(json.loads(json.dumps(learned.snapshot())))
    raw = Predicted(3.0, 10.0, 20.0, 30.0)
    assert other.promise(raw) == learned.promise(raw)
    other.learn(raw, 4.0)
    learned.learn(raw, 4.0)
    assert other.snapshot() == learned.snapshot()
