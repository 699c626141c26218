"""Quotes against what came."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.report.formats import plot_text
from tandem.report.quotes import Quote, coverage, coverage_fact, quotes_picture

QUOTES = [
    Quote("kept", 10, 12, 15, 15.0),
    Quote("late", 10, 12, 15, 15.1, "its neighbour overran"),
    Quote("early", 10, 12, 15, 9.9),
    Quote("open", 10, 12, 15),
]

quotes = st.builds(
    lambda job, low, width, actual: Quote(job, low, low + width / 2, low + width, actual),
    st.text(max_size=6),
    st.integers(0, 1000).map(float),
    st.integers(0, 100).map(float),
    st.none() | st.integers(0, 1200).map(float),
)


def test_the_ends_of_the_interval_belong_to_it() -> None:
    assert [quote.outcome for quote in QUOTES] == ["kept", "late", "early", "open"]
    assert coverage(QUOTES) == pytest.approx(1 / 3)


def test_coverage_counts_only_what_has_ended() -> None:
    assert coverage([QUOTES[3]]) is None
    fact = coverage_fact([QUOTES[3]])
    assert (fact.value, fact.note) == (None, "no job has ended")


@pytest.mark.parametrize(("kept", "late", "tone"), [(9, 1, ""), (13, 3, ""), (40, 40, "bad"), (20, 0, "")])
def test_the_fact_is_bad_only_beyond_chance(kept: int, late: int, tone: str) -> None:
    fact = coverage_fact([QUOTES[0]] * kept + [QUOTES[1]] * late)
    assert fact.value == pytest.approx(kept / (kept + late))
    assert fact.note == f"{kept} of {kept + late}; 90 % were promised"
    assert fact.tone == tone


@settings(max_examples=25)  # a figure takes some milliseconds
@given(st.lists(quotes, min_size=1, max_size=60))
def test_every_job_has_one_interval_and_one_point(given_quotes: list[Quote]) -> None:
    plot = quotes_picture(given_quotes).plot
    points = [trace for trace in plot.data if trace.mode == "markers"]
    intervals = [trace for trace in plot.data if trace.mode == "lines"]
    rows = sorted(y for trace in points for y in trace.y)
    assert rows == list(range(len(given_quotes)))
    assert sorted(y for trace in intervals for y in trace.y[::3]) == rows
    labelled = len(given_quotes) <= 48
    assert len(plot.layout.yaxis.ticktext) == (len(given_quotes) if labelled else 0)


def test_intervals_and_finishes_are_where_they_were() -> None:
    figure = quotes_picture([QUOTES[1]])
    interval, point = figure.plot.data
    assert list(interval.x) == [10, 15, None]
    assert list(point.x) == [15.1]
    assert "late" in point.customdata[0]
    assert "its neighbour overran" in point.customdata[0]
    assert [key.label for key in figure.key] == ["quoted interval", "late (1)"]


def test_long_names_are_cut() -> None:
    figure = quotes_picture([Quote("x" * 99, 1, 2, 3)])
    assert list(figure.plot.layout.yaxis.ticktext) == [plot_text("x" * 99, 30)]


def test_no_quote_is_said() -> None:
    assert quotes_picture([]).plot.layout.annotations[0].text == "No job was quoted."


@pytest.mark.parametrize("interval", [(3.0, 2.0, 4.0), (1.0, 5.0, 4.0), (1.0, math.nan, 4.0), (1.0, 2.0, math.inf)])
def test_what_is_no_interval_is_refused(interval: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="no ordered interval"):
        Quote("cg", *interval)
