"""Claimed against observed probabilities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.report.calibration import Calibration, calibration_picture, wilson


@pytest.mark.parametrize(
    ("held", "asked", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_published_values(held: int, asked: int, low: float, high: float) -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson(held, asked, 1.959964) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1


def test_the_picture_holds_the_shares_in_order_and_leaves_out_the_unasked() -> None:
    plot = calibration_picture([Calibration(0.9, 45, 50), Calibration(0.5, 20, 50), Calibration(0.7, 0, 0)]).plot
    (trace,) = plot.data
    assert list(trace.x) == [0.5, 0.9]
    assert list(trace.y) == [0.4, 0.9]
    assert trace.y[0] + trace.error_y.array[0] == pytest.approx(wilson(20, 50)[1])
    assert trace.y[0] - trace.error_y.arrayminus[0] == pytest.approx(wilson(20, 50)[0])


def test_nothing_asked_is_said() -> None:
    assert "put to the test" in calibration_picture([Calibration(0.9, 0, 0)]).plot.layout.annotations[0].text


@pytest.mark.parametrize(("held", "asked"), [(2, 1), (-1, 1)])
def test_impossible_counts_are_refused(held: int, asked: int) -> None:
    with pytest.raises(ValueError, match="cannot have held"):
        Calibration(0.9, held, asked)
