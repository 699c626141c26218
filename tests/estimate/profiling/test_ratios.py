"""Paired ratios: exact where they can be, robust against jumps, intervals that cover."""

import math
import random
import statistics
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.profiling.ratios import interval, noise_of, paired, scatter_of

rates = st.floats(1.0, 100.0)


@given(start=rates, slope=st.floats(-0.4, 0.4), slow=st.floats(1.0, 8.0), count=st.integers(1, 12))
def test_a_machine_that_drifts_evenly_changes_no_ratio(start: float, slope: float, slow: float, count: int) -> None:
    def speed(t: float) -> float:
        return start * (1 + slope * t / (2 * count + 1))

    alone = [(2.0 * k, speed(2.0 * k)) for k in range(count + 1)]
    beside = [(2.0 * k + 1, speed(2.0 * k + 1) / slow) for k in range(count)]
    found = paired(alone, beside)
    assert found
    assert all(math.isclose(one, slow, rel_tol=1e-9) for one in found)


@given(st.lists(rates, min_size=1, max_size=8), st.lists(rates, min_size=1, max_size=8))
def test_ratios_are_what_a_plain_search_for_the_neighbours_gives(alone: list[float], beside: list[float]) -> None:
    solo = [(2.0 * k, rate) for k, rate in enumerate(alone)]
    together = [(2.0 * k + 1, rate) for k, rate in enumerate(beside)]
    every = []
    for t, rate in together:
        before = [r for at, r in solo if at < t][-1:]
        after = [r for at, r in solo if at > t][:1]
        around = before + after
        every.append((statistics.mean(around) / rate, abs(around[-1] - around[0]) / statistics.mean(around)))
    found = paired(solo, together)
    assert len(found) >= len(together) / 2
    expected = [ratio for ratio, _ in every]
    assert all(any(math.isclose(one, other) for other in expected) for one in found)
    worst_kept = sorted(apart for _, apart in every)[: len(found)]
    assert math.isclose(
        sum(found), sum(r for r, apart in every if apart <= max([0.08, *worst_kept[-1:]]) + 1e-12), rel_tol=1e-9
    )


@given(st.floats(0.01, 100.0), st.floats(0.0, 0.3))
def test_scatter_of_normal_rates_is_the_half_width_that_holds_nine_tenths(mean: float, spread: float) -> None:
    rates = [mean * (1.0 + spread * NormalDist().inv_cdf((k + 0.5) / 400)) for k in range(400)]
    stated = scatter_of(rates)
    assert stated == pytest.approx(1.6449 * spread, rel=0.02, abs=1e-9)
    assert scatter_of([0.0, 0.0, mean]) == math.inf


def test_windows_across_a_jump_are_left_out() -> None:
    alone = [(0.0, 10.0), (2.0, 10.0), (4.0, 14.0), (6.0, 14.0)]
    beside = [(1.0, 5.0), (3.0, 5.0), (5.0, 7.0)]
    assert paired(alone, beside) == [2.0, 2.0]


def test_nothing_alone_gives_nothing_and_no_progress_gives_infinity() -> None:
    assert paired([], [(0.0, 1.0)]) == []
    assert paired([(0.0, 1.0)], [(1.0, 0.0)]) == [math.inf]
    assert interval([math.inf, math.inf]).half == math.inf


@pytest.mark.parametrize("count", [3, 5, 9, 17])
def test_nine_in_ten_intervals_cover_the_truth(count: int) -> None:
    rng = random.Random(count)
    covered = 0
    for _ in range(2000):
        one = interval([1.3 * rng.lognormvariate(0, 0.04) for _ in range(count)])
        covered += abs(one.mid - 1.3) <= one.half
    assert 0.86 <= covered / 2000 <= 0.97


def test_an_outlier_moves_the_interval_little() -> None:
    calm = interval([1.1, 1.11, 1.09, 1.1, 1.12])
    spoilt = interval([1.1, 1.11, 1.09, 1.1, 9.0])
    assert spoilt.mid == calm.mid
    assert spoilt.half < 2 * calm.half


def test_noise_is_the_scatter_about_the_drift() -> None:
    rng = random.Random(1)
    windows = [(float(k), (100 + k) * (1 + rng.gauss(0, 0.03))) for k in range(400)]
    found = noise_of(windows)
    assert found == pytest.approx(1.645 * 0.03, rel=0.2)
    assert noise_of([(float(k), 100.0 + k) for k in range(50)]) == pytest.approx(0.0, abs=1e-9)
    assert noise_of(windows[:3]) is None
