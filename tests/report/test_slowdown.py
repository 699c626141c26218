"""The slowdown map and the predictions hold what was observed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.report.slowdown import PairSlowdown, Prediction, prediction_fact, prediction_picture, slowdown_map

apps = st.sampled_from(["cg", "fft", "lu", "zip"])
pairs_of = st.dictionaries(st.tuples(apps, apps), st.floats(1, 5), min_size=1)
predictions_of = st.lists(
    st.builds(Prediction, st.text(max_size=5), st.floats(0.5, 5), st.floats(0.5, 5)), min_size=1, max_size=20
)


@settings(max_examples=25)  # a figure takes some milliseconds
@given(pairs_of)
def test_every_pair_is_in_its_cell_and_no_other(observed: dict[tuple[str, str], float]) -> None:
    pairs = [PairSlowdown(app, beside, ratio, 3) for (app, beside), ratio in observed.items()]
    (trace,) = slowdown_map(pairs).plot.data
    names = sorted({name for pair in observed for name in pair})
    cells = {
        (names[i], names[j]): z for i, row in enumerate(trace.z) for j, z in enumerate(row) if z is not None and z == z
    }
    assert cells == observed


def test_pointing_at_a_cell_tells_interval_and_observations() -> None:
    (trace,) = slowdown_map([PairSlowdown("cg", "fft", 1.5, 1, 1.4, 1.6), PairSlowdown("fft", "cg", 1.1, 7)]).plot.data
    assert trace.customdata[0][1] == "<b>cg</b> beside <b>fft</b><br>1.50x (1.40 to 1.60), 1 observation"
    assert trace.customdata[1][0] == "<b>fft</b> beside <b>cg</b><br>1.10x, 7 observations"
    assert trace.customdata[0][0] == ""
    assert trace.text[0][1] == "1.50"


def test_large_maps_are_not_numbered() -> None:
    (trace,) = slowdown_map([PairSlowdown(f"app {i:02}", "app 00", 1.2, 1) for i in range(30)]).plot.data
    assert {text for row in trace.text for text in row} == {""}


def test_a_pair_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="given twice"):
        slowdown_map([PairSlowdown("cg", "fft", 1.5, 1)] * 2)


@settings(max_examples=25)
@given(predictions_of)
def test_every_prediction_is_one_point_on_its_side_of_the_band(predictions: list[Prediction]) -> None:
    figure = prediction_picture(predictions)
    inside, outside = figure.plot.data
    drawn = [*zip(inside.y, inside.x, strict=True), *zip(outside.y, outside.x, strict=True)]
    assert sorted(drawn) == sorted((p.predicted, p.actual) for p in predictions)
    assert all(0.899 <= y / x <= 1.101 for y, x in zip(inside.y, inside.x, strict=True))
    assert all(not 0.901 <= y / x <= 1.099 for y, x in zip(outside.y, outside.x, strict=True))
    low, high = figure.plot.layout.xaxis.range
    assert all(low <= p.actual <= high and low <= p.predicted <= high for p in predictions)
    assert len(figure.plot.layout.annotations) <= 4
    assert prediction_fact(predictions).value == len(inside.x) / len(predictions)


def test_the_edge_of_the_band_belongs_to_it() -> None:
    assert Prediction("", 1.1, 1.0).within_band
    assert Prediction("", 1.8, 2.0).within_band
    assert not Prediction("", 1.11, 1.0).within_band


@pytest.mark.parametrize(
    ("errors", "note"), [([1.0, 1.2, 1.5], "of 3; median error 20.0 %"), ([1.0, 1.2], "of 2; median error 10.0 %")]
)
def test_the_fact_tells_the_median_error(errors: list[float], note: str) -> None:
    assert prediction_fact([Prediction("", e, 1.0) for e in errors]).note == note


def test_nothing_observed_is_said() -> None:
    assert "No two applications" in slowdown_map([]).plot.layout.annotations[0].text
    assert "Nothing was predicted" in prediction_picture([]).plot.layout.annotations[0].text
    assert prediction_fact([]).value is None
