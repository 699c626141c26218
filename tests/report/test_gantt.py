"""The Gantt picture carries every stretch, once, where and as long as it was."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.report import palette
from tandem.report.bars import Bar, blocks, width_px, writings
from tandem.report.chart import time_unit
from tandem.report.frame import USUAL_PX, levels_of
from tandem.report.gantt import Mark, gantt, gantts

LANES = ("core 0", "core 1", "core 2", "core 3")

bars_of = st.builds(
    lambda lane, start, length, job, state, kind: Bar(lane, start, start + length, f"job {job}", kind, state),
    st.sampled_from(LANES),
    st.integers(0, 50).map(float),
    st.integers(0, 30).map(float),
    st.integers(0, 4),
    st.sampled_from(["ran", "throttled", "suspended"]),
    st.sampled_from(["primary", "harvest", "gpu", "foreign"]),
)


def _lane_seconds(bars: Sequence[Bar]) -> float:
    return sum(bar.end_s - bar.start_s for bar in bars)


@given(st.lists(bars_of, max_size=12, unique=True))
def test_joining_keeps_every_lane_second(bars: list[Bar]) -> None:
    joined = blocks(bars, LANES)
    covered = [(lane, block.bar) for block in joined for lane in LANES[block.top : block.top + block.height]]
    stretches = [(lane, bar.start_s, bar.end_s, bar.label, bar.state, bar.kind) for lane, bar in covered]
    assert sorted(stretches) == sorted((b.lane, b.start_s, b.end_s, b.label, b.state, b.kind) for b in bars)


@settings(max_examples=15)  # a figure takes some milliseconds
@given(st.dictionaries(st.sampled_from(["exclusive", "share", "hybrid"]), st.lists(bars_of, max_size=8, unique=True)))
def test_the_picture_holds_the_lane_seconds_of_each_policy(days: dict[str, list[Bar]]) -> None:
    plot = gantts(days, LANES).plot
    ends = [bar.end_s for bars in days.values() for bar in bars]
    unit_s = time_unit(max(ends, default=0.0) or 1.0).seconds
    assert len(plot.data) == len(days)
    for trace, bars in zip(plot.data, days.values(), strict=False):
        drawn = sum(x * unit_s * round(width + 0.12) for x, width in zip(trace.x, trace.width, strict=True))
        assert math.isclose(drawn, _lane_seconds(bars), abs_tol=1e-6)


def test_a_job_on_neighbouring_cores_is_one_block_named_once() -> None:
    plot = gantt([Bar(lane, 2, 9, "cg #1") for lane in ("core 0", "core 1", "core 3")], LANES).plot
    (trace,) = plot.data
    assert [(y, round(w + 0.12)) for y, w in zip(trace.y, trace.width, strict=True)] == [(0.5, 2), (3, 1)]
    assert list(trace.text) == ["cg #1", "cg #1"]
    assert list(trace.base) == [2, 2]
    assert list(trace.x) == [7, 7]


def test_broken_throttled_and_suspended_are_drawn_and_keyed() -> None:
    bars = [
        Bar("core 0", 0, 30, "cg", "primary", broken=True),
        Bar("core 1", 0, 10, "fft", "harvest", "throttled"),
        Bar("core 1", 10, 30, "fft", "harvest", "suspended"),
    ]
    figure = gantt(bars)
    (trace,) = figure.plot.data
    order = [text.split("<")[1] for text in trace.customdata]
    assert order == ["b>fft", "b>fft", "b>cg"]  # the broken one is drawn last, on top
    assert list(trace.marker.line.color)[2] == palette.BAD
    assert list(trace.marker.pattern.shape) == ["", "/", ""]
    assert list(trace.text) == ["fft", "", "cg ▲"]
    assert {key.label for key in figure.key} == {"cg", "fft", "throttled", "suspended", "bound broken ▲"}


def test_the_same_application_has_one_shade_under_every_policy() -> None:
    day = [Bar("core 0", 0, 5, "cg #1", app="cg"), Bar("core 0", 5, 9, "lu #2", app="lu")]
    first, second = gantts({"a": day, "b": list(reversed(day))}).plot.data
    assert sorted(zip(first.base, first.marker.color, strict=True)) == sorted(
        zip(second.base, second.marker.color, strict=True)
    )
    assert len(set(first.marker.color)) == 2


def test_policies_share_the_time_axis_and_are_headed() -> None:
    plot = gantts({"exclusive": [Bar("core 0", 0, 100, "a")], "hybrid": [Bar("core 0", 0, 80, "a")]}).plot
    assert {trace.xaxis for trace in plot.data} == {None}
    assert [trace.yaxis for trace in plot.data] == ["y", "y2"]
    assert plot.layout.yaxis.domain[0] > plot.layout.yaxis2.domain[1]
    texts = [annotation.text for annotation in plot.layout.annotations]
    assert {"<b>exclusive</b>", "<b>hybrid</b>", "<b>1m40s</b>", "<b>1m20s</b>"} <= set(texts)


def test_what_is_written_fits() -> None:
    joined = blocks(
        [Bar("core 0", 0, 10, "transformer #11", short="#11"), Bar("core 0", 20, 21, "zip", broken=True)], LANES
    )
    wide, narrow, tiny = (list(writings(joined, px).values()) for px in (50.0, 4.0, 1.0))
    assert wide == ["transformer #11", "zip ▲"]
    assert narrow == ["#11", ""]
    assert tiny == ["", ""]
    assert width_px("transformer #11") > 40


@given(st.lists(st.floats(0, 100), max_size=12))
def test_names_of_moments_do_not_run_into_each_other(times_s: list[float]) -> None:
    marks = [Mark(t, "node lost") for t in sorted(times_s)]
    levels = levels_of(marks, 100.0)
    apart_px = width_px("node lost")
    for i, (a, level) in enumerate(zip(marks, levels, strict=True)):
        for b, other in zip(marks[i + 1 :], levels[i + 1 :], strict=True):
            assert level != other or abs(a.at_s - b.at_s) / 100 * USUAL_PX > apart_px


def test_now_and_marks_are_lines_with_names() -> None:
    plot = gantt([Bar("core 0", 0, 10, "a")], now_s=4.0, marks=[Mark(2.0, "node lost")]).plot
    assert sorted(s.x0 for s in plot.layout.shapes if s.type == "line") == [2.0, 4.0]
    assert {"now", "node lost"} <= {a.text for a in plot.layout.annotations}


@pytest.mark.parametrize("lanes", [(), ("core 0",)])
def test_no_job_is_said(lanes: tuple[str, ...]) -> None:
    texts = [a.text.lower().rstrip(".") for a in gantt([], lanes).plot.layout.annotations]
    assert "no job ran" in texts
    assert gantts({}, lanes).plot.layout.annotations[0].text == "No job ran."


def test_a_bar_without_length_is_drawn() -> None:
    (trace,) = gantt([Bar("core 0", 0, 0, "a")]).plot.data
    assert list(trace.x) == [0]


@pytest.mark.parametrize(("start_s", "end_s"), [(2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_impossible_times_are_refused(start_s: float, end_s: float) -> None:
    with pytest.raises(ValueError, match="bar 'cg' on 'core 0' runs from"):
        Bar("core 0", start_s, end_s, "cg")


def test_lanes_are_in_natural_order_and_given_ones_come_first() -> None:
    bars = [Bar(f"core {i}", 0, 1, "a") for i in (10, 9, 2)] + [Bar("gpu 0", 0, 1, "a")]
    assert list(gantt(bars, ["gpu 0"]).plot.layout.yaxis.ticktext) == ["gpu 0", "core 2", "core 9", "core 10"]
