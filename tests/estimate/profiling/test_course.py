"""How fast a programme that pauses goes over all the time: against what its schedule says in closed form."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.profile import Pauses
from tandem.estimate.profiling.course import course, lived, own_seconds, paused
from tandem.estimate.profiling.progress import Trace
from tandem.estimate.profiling.windows import LEAST_HAD, Stage


def schedule(work_s: float, pause_s: float, until_s: float, step_s: float = 0.02, slow_from: float = 1e9) -> Trace:
    """Steps of a known length for so long, then nothing for so long, again and again; slower by half from some time."""
    trace, t, step, works_until = Trace(), 0.0, 0, work_s
    while t < until_s:
        trace.add(t, step)
        t, step = t + step_s * (2.0 if t >= slow_from else 1.0), step + 1
        if pause_s and t >= works_until:
            t += pause_s
            works_until = t + work_s
    return trace


@given(work_s=st.floats(1.0, 4.0), pause_s=st.floats(0.5, 4.0), until_s=st.floats(12.0, 60.0))
def test_a_part_is_that_of_whole_cycles_wherever_it_was_looked_at_last(
    work_s: float, pause_s: float, until_s: float
) -> None:
    found = course(schedule(work_s, pause_s, until_s), "", [], 0.1)
    assert found is not None
    assert found.part == pytest.approx(pause_s / (work_s + pause_s), rel=0.05)
    assert found.rate == pytest.approx(50.0)
    assert found.longest_s == pytest.approx(pause_s, abs=0.05)


def test_a_pause_that_does_not_come_again_is_a_part_of_all_the_time() -> None:
    trace = schedule(0.02, 2.0, 2.0)  # the first step takes 2 s: something is compiled
    for k in range(1, 1000):
        trace.add(2.02 + 0.02 * k, 1 + k)
    found = course(trace, "", [], 0.1)
    assert found is not None
    assert found.part == pytest.approx(2.0 / 22.0, rel=0.01)
    assert found.seen == 1


def test_time_beside_others_counts_as_much_less_as_they_slow_it_and_time_that_it_was_stopped_not_at_all() -> None:
    trace = schedule(3.0, 0.0, 20.0, slow_from=10.0)
    for t in range(30, 40):
        trace.add(t, trace.last[1] + 50 if trace.last and t > 30 else 750)
    found = course(trace, "", [(0.0, 1.0), (10.0, 0.5), (20.0, 0.0), (30.0, 1.0)], 2.0)
    assert found is not None
    assert (found.part, found.rate) == (0.0, pytest.approx(50.0, rel=0.01))


def test_what_lies_between_runs_or_in_another_phase_is_no_pause() -> None:
    trace = Trace()
    trace.enter(0.0, "train")
    for t, step in [(1, 10), (2, 20), (3, 30)]:
        trace.add(t, step)
    trace.enter(3.5, "save")
    trace.enter(8.0, "train")
    trace.add(8.5, 30)
    trace.add(9.5, 40)
    trace.cut(10.0)
    trace.add(15.0, 0)
    trace.add(16.0, 10)
    found = course(trace, "train", [], 2.0)
    assert found is not None
    assert (found.part, found.rate, found.longest_s) == (0.0, 10.0, 1.0)
    assert course(trace, "save", [], 2.0) is None


def test_windows_pass_over_pauses_and_all_the_time_does_not() -> None:
    trace = schedule(3.0, 2.0, 30.0)
    assert paused([], trace, "", 0.1, 50.0, 0.01, 6.0) == (
        Pauses(pytest.approx(0.4, abs=0.01), pytest.approx(2.0, abs=0.05), 3),
        0.01,
    )


def test_what_others_take_of_its_cores_is_no_pause_but_noise() -> None:
    trace = schedule(3.0, 2.0, 60.0, slow_from=20.0)
    found = paused([], trace, "", 0.1, 50.0, 0.01, 20.0)
    assert found is not None
    assert found[0].part == pytest.approx(0.4, abs=0.01)
    assert found[1] == pytest.approx(0.5, abs=0.01), "its steps took twice as long there as in windows"


def test_steps_of_uneven_length_are_no_pauses() -> None:
    rng, trace, t = random.Random(0), Trace(), 0.0
    for step in range(1000):
        trace.add(t, step)
        t += 0.03 * rng.lognormvariate(-0.06, 0.35)
    assert paused([], trace, "", 0.1, 1000 / t, 0.05, 5.0) is None


def test_time_in_which_others_had_its_cores_is_no_pause() -> None:
    trace, stage = schedule(1.0, 0.0, 10.0), Stage([], window_s=0.1)
    alone = frozenset({"ck"})
    stage.switches += [(0.0, alone), (12.0, frozenset()), (12.1, alone | {"cache@1"})]
    stage.kept["ck"] = [(0.0, 0.0), (10.0, 0.0), (12.0, 2.0), (13.0, 2.1)]
    begun = trace.last
    assert begun is not None
    for k in range(1, 50):
        trace.add(12.02 + 0.02 * k, begun[1] + k)
    assert paused([(0.0, 1.0)], trace, "", 0.1, 50.0, 0.01, 0.0) is not None
    assert paused(lived(stage, "ck", 1), trace, "", 0.1, 50.0, 0.01, 0.0) is None
    own_s = own_seconds(lived(stage, "ck", 1))
    assert own_s(12.0) - own_s(10.0) == pytest.approx(2.0 * LEAST_HAD)
    assert own_s(12.1) == own_s(12.0), "it stood still while others started"
    assert own_s(13.0) - own_s(12.1) == pytest.approx(0.9 * 0.9)
    assert own_s(10.0) - own_s(0.0) == pytest.approx(10.0)
