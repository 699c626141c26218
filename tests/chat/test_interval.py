"""Intervals of means over rows: Wilson's for shares, ties among them, and the bootstrap's."""

import numpy as np
import pytest

from tandem.chat.evaluation import Replies, win_rate
from tandem.chat.interval import of_mean
from tandem.report.calibration import wilson


@pytest.mark.parametrize("rows", [1, 10, 256])
def test_ties_alone_leave_the_win_rate_open(rows: int) -> None:
    same = Replies([], [], [0.25] * rows)
    found = win_rate(same, same)
    assert (found.mean, found.rows) == (0.5, rows)
    held = wilson(rows // 2, rows) if rows > 1 else (0.0546, 0.9454)  # half of one: (1 -+ z / sqrt(1 + z^2)) / 2
    assert (found.low, found.high) == pytest.approx(held, abs=2e-4)


@pytest.mark.parametrize("tied", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("won", [0.1, 0.5, 0.98])
def test_the_interval_of_a_win_rate_holds_it_95_times_in_100(tied: float, won: float) -> None:
    rng = np.random.default_rng(0)
    true = tied / 2 + (1 - tied) * won
    chances = (tied, (1 - tied) * won, (1 - tied) * (1 - won))
    drawn = rng.choice((0.5, 1.0, 0.0), size=(400, 60), p=chances)
    held = sum(one.low <= true <= one.high for one in map(of_mean, drawn))
    assert held >= 0.93 * 400


def test_other_scores_are_resampled() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    found = of_mean(values.tolist())
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert found.mean == pytest.approx(values.mean())
