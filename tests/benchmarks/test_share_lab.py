"""When a bound counts as broken over repeats of the lab day."""

from __future__ import annotations

import math
import statistics

import pytest

from benchmarks import share_lab

BOUND, FLOOR = 1.15, 0.1
T95_OF_5 = 2.776


def repeats(*slowdowns: float) -> list[share_lab.Repeat]:
    """Days of one policy with one primary job."""
    return [
        [{"policy": "share", "jobs": [{"name": "solver", "bound": BOUND, "slowdown": slowdown, "run_s": 1.0}]}]
        for slowdown in slowdowns
    ]


@pytest.mark.parametrize(
    ("slowdowns", "broken"),
    [
        ((1.40, 1.42, 1.38, 1.41, 1.39), True),
        ((1.20, 1.21, 1.19, 1.20, 1.20), False),  # surely beyond the bound, but by less than the noise of a run
        ((2.60, 1.00, 1.05, 1.00, 1.10), False),  # beyond the noise, but one bad day of five
        ((1.10, 1.12, 1.08, 1.11, 1.09), False),
    ],
)
def test_a_bound_is_broken_beyond_the_interval_of_the_mean_and_beyond_the_noise(
    slowdowns: tuple[float, ...], broken: bool
) -> None:
    mean = statistics.fmean(slowdowns)
    half = T95_OF_5 * statistics.stdev(slowdowns) / math.sqrt(len(slowdowns))
    assert (mean - half > BOUND and mean > BOUND * (1 + FLOOR)) is broken
    assert share_lab.breaches(repeats(*slowdowns), "share", FLOOR) == (["solver"] if broken else [])


def test_makespans_are_compared_within_the_repeats_that_ran_both() -> None:
    def day(policy: str, makespan_s: float) -> dict[str, object]:
        return {"policy": policy, "makespan_s": makespan_s, "jobs": []}

    first = [day("exclusive", 80.0), day("backfill", 40.0), day("hybrid_none", 80.0), day("hybrid", 40.0)]
    second = [day("exclusive", 90.0), day("backfill", 60.0), day("hybrid", 30.0)]
    found = share_lab.figures([first, second, second])
    assert found["lab_speedup_vs_backfill"] == 2.0
    assert found["lab_speedup_vs_exclusive"] == 3.0
    assert found["lab_speedup_vs_backfill_none"] == 0.5
    assert found["lab_speedup_vs_exclusive_none"] == 1.0
