"""Step curves keep their area when they are thinned."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.report.utilisation import MAX_POINTS, Panel, Steps, thinned, utilisation

curves = st.lists(
    st.tuples(st.integers(0, 20).map(lambda n: n / 4), st.integers(0, 100).map(float)), min_size=1, max_size=80
).map(lambda pairs: Steps([sum(gap for gap, _ in pairs[: i + 1]) for i in range(len(pairs))], [v for _, v in pairs]))


def _area(steps: Steps) -> float:
    """The integral, summed plainly."""
    return math.fsum((steps.times_s[i + 1] - steps.times_s[i]) * steps.values[i] for i in range(len(steps.times_s) - 1))


@given(curves, st.integers(2, 30))
def test_thinning_keeps_area_ends_and_bounds(steps: Steps, most: int) -> None:
    thin = thinned(steps, most)
    assert len(thin) <= max(most, 1)
    assert math.isclose(_area(thin), _area(steps), rel_tol=1e-9, abs_tol=1e-6)
    assert thin.times_s[-1] == steps.times_s[-1]
    assert thin.values[-1] == steps.values[-1]
    assert min(thin.values) >= min(steps.values) - 1e-6
    assert max(thin.values) <= max(steps.values) + 1e-6


@given(curves)
def test_area_and_mean_equal_a_plain_sum(steps: Steps) -> None:
    span_s = steps.times_s[-1] - steps.times_s[0]
    assert math.isclose(steps.area, _area(steps), rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(steps.mean, _area(steps) / span_s if span_s else steps.values[-1], rel_tol=1e-9, abs_tol=1e-9)


def test_short_curves_stay_as_they_are() -> None:
    steps = Steps([0.0, 1.0], [0.5, 0.0])
    assert thinned(steps) is steps


def test_the_picture_is_thinned_and_tells_the_true_peak() -> None:
    values = [1.0] * 10_000
    values[7_000] = 37.0
    figure = utilisation([Panel("Jobs waiting", Steps([float(i) for i in range(10_000)], values), "queue")])
    (trace,) = figure.plot.data
    assert len(trace.x) <= MAX_POINTS
    assert max(trace.y) < 37
    assert "peak 37 at 1h57m" in figure.plot.layout.annotations[1].text


def test_panels_stand_under_each_other_on_one_time_axis() -> None:
    panels = [
        Panel("CPU", Steps([0.0, 60.0, 120.0], [1.0, 0.5, 0.0])),
        Panel("GPU", Steps([0.0, 120.0], [0.25, 0.0]), "gpu"),
        Panel("nothing", Steps([], [])),
        Panel("one point", Steps([0.0], [1.0]), "queue"),
    ]
    plot = utilisation(panels).plot
    assert [(trace.xaxis, trace.yaxis) for trace in plot.data] == [(None, "y"), (None, "y2"), (None, "y3")]
    assert list(plot.data[0].x) == [0, 60, 120]
    assert list(plot.data[0].y) == [1.0, 0.5, 0.0]
    domains = [plot.layout.yaxis.domain, plot.layout.yaxis2.domain, plot.layout.yaxis3.domain]
    assert domains[0][0] > domains[1][1] > domains[1][0] > domains[2][1] > domains[2][0] >= 0
    assert [a.text for a in plot.layout.annotations][:2] == ["<b>CPU</b>", "mean 75 %"]


def test_no_record_is_said() -> None:
    assert utilisation([]).plot.layout.annotations[0].text == "Nothing was recorded."


@pytest.mark.parametrize(
    ("times_s", "values"),
    [([0.0, 1.0], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([0.0, math.nan], [1.0, 1.0]), ([0.0], [math.inf])],
)
def test_what_is_no_step_curve_is_refused(times_s: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match="times"):
        Steps(times_s, values)
