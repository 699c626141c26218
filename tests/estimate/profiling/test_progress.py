"""Progress over time: rates against a brute-force sum, stretches, cuts and phases."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.profiling.progress import Trace


def made(points: list[tuple[float, float]]) -> Trace:
    trace = Trace()
    for t, step in points:
        trace.add(t, step)
    return trace


@st.composite
def courses(draw: st.DrawFn) -> list[tuple[float, float]]:
    gaps = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=2, max_size=30))
    points, t, step = [(0.0, 0.0)], 0.0, 0.0
    for gap, done in gaps:
        t, step = t + gap, step + done
        points.append((t, step))
    return points


def done_by_brute_force(points: list[tuple[float, float]], begin: float, end: float, slices: int = 20_000) -> float:
    """Add up the work of many small slices, each at the speed of the stretch that its middle lies in."""
    width, total = (end - begin) / slices, 0.0
    for k in range(slices):
        t = begin + (k + 0.5) * width
        for (t0, s0), (t1, s1) in itertools.pairwise(points):
            if t0 <= t < t1:
                total += width * (s1 - s0) / (t1 - t0)
    return total


@given(points=courses(), part=st.floats(0.0, 0.4))
def test_a_rate_is_the_work_in_the_window_over_its_length(points: list[tuple[float, float]], part: float) -> None:
    last = points[-1][0]
    begin = part * last
    rate = made(points).rate(begin, last, since=0.0)
    assert rate is not None
    wanted = done_by_brute_force(points, begin, last) / (last - begin)
    assert math.isclose(rate, wanted, rel_tol=0.02, abs_tol=0.02)


@given(points=courses(), shift=st.floats(-1e9, 1e9), factor=st.sampled_from([0.5, 2.0, 8.0]))
def test_a_rate_does_not_depend_on_when_and_scales_with_the_steps(
    points: list[tuple[float, float]], shift: float, factor: float
) -> None:
    end = points[-1][0]
    one = made(points).rate(0.0, end)
    other = made([(t + math.floor(shift), factor * s) for t, s in points]).rate(
        math.floor(shift), end + math.floor(shift)
    )
    assert one is not None
    assert other is not None
    assert math.isclose(other, factor * one, rel_tol=1e-9, abs_tol=1e-12)


def test_a_step_under_way_at_the_switch_belongs_to_no_window() -> None:
    # Slow until the switch at 10, then fast; the step that ends at 10.5 straddles it.
    trace = made([(0, 0), (5, 1), (10.5, 2), (11, 3), (11.5, 4), (12, 5)])
    assert trace.rate(10.1, 12.2, since=10.0) == pytest.approx(2.0)


def test_too_little_in_a_window_is_no_rate() -> None:
    trace = made([(0, 0), (1, 1), (2, 2)])
    assert trace.rate(1.9, 9.0) is None
    assert trace.rate(1.5, 2.5, since=1.0) == pytest.approx(1.0)
    assert Trace().rate(0, 1) is None


def test_no_window_reaches_across_a_cut_or_a_way_back_and_any_across_a_count_that_starts_afresh() -> None:
    trace = made([(0, 0), (1, 10), (2, 20)])
    trace.cut(2.0)
    trace.add(3, 100)
    trace.add(4, 110)
    assert trace.rate(1, 4) is None
    assert trace.rate(3, 4) == pytest.approx(10.0)
    afresh = made([(0, 50), (1, 60), (2, 0), (3, 10)])
    assert afresh.rate(0, 3) == pytest.approx(10.0), "the count goes on"
    assert afresh.rate(2, 3) == pytest.approx(10.0)
    back = made([(0, 50), (1, 60), (2, 40), (3, 50)])
    assert back.rate(0, 3) is None
    assert back.rate(2, 3) == pytest.approx(10.0)


def test_a_window_lies_in_a_phase_or_in_none() -> None:
    trace = Trace()
    assert trace.phase(0, 1) == ""
    trace.enter(5, "load")
    trace.enter(8, "solve")
    assert [trace.phase(1, 4), trace.phase(4, 6), trace.phase(5, 8), trace.phase(7, 9), trace.phase(8, 99)] == [
        "",
        None,
        "load",
        None,
        "solve",
    ]


def test_a_phase_that_is_named_with_every_step_is_the_one_that_it_is_in() -> None:
    trace = Trace()
    for step in range(20):
        trace.enter(0.1 * step, "train" if step < 10 else "test")
        trace.add(0.1 * step, step)
    assert [trace.phase(0.05, 0.85), trace.phase(0.85, 1.05), trace.phase(1.05, 1.85)] == ["train", None, "test"]
    assert len(list(trace.gaps("train"))) == 10
    assert trace.lasting() == {"train": pytest.approx(1.0)}
    trace.cut(1.95)
    trace.enter(2.5, "test")
    assert trace.entered[-1] == (2.5, "test"), "the next run tells where it begins"


def test_the_typical_gap_is_a_median() -> None:
    assert Trace().typical_gap() is None
    assert made([(0, 0), (1, 1), (2, 2), (9, 3)]).typical_gap() == 1


def test_a_step_that_is_told_many_times_is_reached_once() -> None:
    trace = Trace()
    for told in range(100):
        trace.reach(0.1 * told, told // 10)
    assert trace.typical_gap() == pytest.approx(1.0)
    assert trace.rate(5.15, 5.25, 5.1) is None, "the next step is under way: its rate is not 0"
    assert trace.rate(2.5, 6.5) == pytest.approx(1.0)
    trace.cut(10.0)
    trace.reach(10.5, 9)
    assert trace.last == (10.5, 9), "the next run begins where this one ended"


def test_a_trace_stays_small_and_keeps_its_rate_and_its_ends() -> None:
    trace = Trace()
    for k in range(20_001):  # work, a second of nothing, and work in another phase
        if k == 10_001:
            trace.enter(1.1, "next")
        trace.add(k * 1e-5 + (k > 10_000), k)
    assert len(trace) < 300
    assert trace.rate(0.0, 0.1) == pytest.approx(1e5, rel=0.01)
    assert trace.rate(1.1, 1.2) == pytest.approx(1e5, rel=0.02)
    assert max(end - begin for phase in ("", "next") for begin, end, _ in trace.gaps(phase)) < 0.01
    assert trace.last == (pytest.approx(1.2), 20_000)
    for k in range(5):
        trace.cut(2.0 + k * 1e-5)
        trace.add(2.0 + k * 1e-5, 30_000.0)
    assert trace.rate(1.9999, 2.00004) is None


def test_how_long_phases_last_is_known_of_those_that_were_left() -> None:
    trace = Trace()
    assert trace.lasting() == {}
    for t, phase in [(0.0, "load"), (9.0, "work"), (10.0, "wait"), (13.0, "work"), (15.0, "wait"), (16.0, "end")]:
        trace.enter(t, phase)
    assert trace.lasting() == {"load": 9.0, "work": 1.5, "wait": 2.0}
