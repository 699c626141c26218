"""Phases without steps: what part of the time they take, against a schedule in closed form, and for real."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.machine import discover
from tandem.estimate.bubbles import Calibration, Response
from tandem.estimate.profile import PhaseProfile, Profile, Stepless
from tandem.estimate.profiling import picture, store
from tandem.estimate.profiling.measure import Terms, measure
from tandem.estimate.profiling.progress import Trace
from tandem.estimate.profiling.stepless import stepless, with_steps
from tests.estimate.disturbance import holds

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMME = """
import time
from tandem.core.records import Recorder
recorder, step = Recorder.from_env(), 0
while True:
    recorder.phase("train")
    until = time.time() + 0.8
    while time.time() < until:
        for _ in range(50_000): pass
        step += 1
        recorder.record(step=step)
    recorder.phase("save")
    time.sleep(0.8)
"""


def cycles(work_s: float, save_s: float, until_s: float, load_s: float = 0.0, told: int = 1) -> Trace:
    """Steps for so long, then a phase without any, again and again; with a start, each is a run of its own.

    Phases are named when they begin, and until they were told so often.
    """
    trace, t, step = Trace(), 0.0, 0
    while t < until_s:
        for k in range(told if load_s else 0):
            trace.enter(t + k * load_s / told, "load")
        t += load_s
        trace.enter(t, "train")
        for k in range(100):
            if k < told:
                trace.enter(t + k * work_s / 100, "train")
            trace.add(t + k * work_s / 100, step + k)
        t, step = t + work_s, step + 100
        for k in range(told):
            trace.enter(t + k * save_s / told, "save")
        t += save_s
        if load_s:
            trace.cut(t)
    return trace


ALONE = [(0.0, 1.0)]


@given(work_s=st.floats(0.5, 4.0), save_s=st.floats(0.2, 4.0), since=st.floats(0.0, 20.0))
def test_a_share_is_that_of_whole_cycles_wherever_it_was_looked_at_first(
    work_s: float, save_s: float, since: float
) -> None:
    shares, seen = stepless(ALONE, cycles(work_s, save_s, 60.0), ["train"], since)
    assert shares == {"save": pytest.approx(save_s / (work_s + save_s), rel=1e-6)}
    assert seen >= 2


def test_what_is_seen_once_only_is_a_part_of_all_the_time() -> None:
    shares, seen = stepless(ALONE, cycles(6.0, 2.0, 12.0), ["train"])
    assert (shares, seen) == ({"save": pytest.approx(0.25)}, 1)
    trace = Trace()
    trace.enter(-1.0, "train")
    trace.enter(3.0, "save")
    trace.add(4.0, 1.0)
    assert stepless(ALONE, trace, ["train"]) == ({"save": pytest.approx(0.25)}, 0)


def test_time_that_it_was_stopped_does_not_count() -> None:
    shares, _ = stepless([(0.0, 1.0), (10.5, 0.0), (19.5, 1.0)], cycles(10.0, 10.0, 60.0), ["train"])
    assert shares == {"save": pytest.approx(11.0 / 31.0)}


def test_the_start_of_a_run_and_a_phase_with_steps_are_none() -> None:
    trace = cycles(2.0, 1.0, 40.0, load_s=3.0)
    assert stepless([(3.5, 1.0)], trace, ["train"])[0] == {"save": pytest.approx(1 / 3)}
    assert stepless([(3.5, 1.0)], trace, [])[0].keys() == {"save"}
    assert stepless([], Trace(), [], math.inf) == ({}, 0)


@pytest.mark.parametrize("load_s", [0.0, 3.0])
def test_phases_that_are_named_again_and_again_are_the_same(load_s: float) -> None:
    once, often = (stepless([(3.5, 1.0)], cycles(2.0, 1.0, 40.0, load_s, told), ["train"]) for told in (1, 100))
    assert once == often


def stepping(lasting: list[tuple[str, float]], until_s: float) -> Trace:
    """Ten steps a second in phases that last so long, again and again."""
    trace, t, step = Trace(), 0.0, 0
    while t < until_s:
        for phase, seconds in lasting:
            trace.enter(t, phase)
            for k in range(round(10 * seconds)):
                trace.add(t + k / 10, step + k)
            t, step = t + seconds, step + round(10 * seconds)
    return trace


@given(a_s=st.floats(0.5, 6.0), b_s=st.floats(0.5, 6.0), begin=st.floats(0.0, 20.0))
def test_phases_with_steps_take_the_time_that_was_announced_wherever_it_was_looked_at_first(
    a_s: float, b_s: float, begin: float
) -> None:
    found = with_steps({phase: [(begin, 1.0)] for phase in "ab"}, stepping([("a", a_s), ("b", b_s)], 60.0))
    assert found == pytest.approx({"a": a_s / (a_s + b_s), "b": b_s / (a_s + b_s)}, rel=1e-6)


def test_time_beside_others_counts_by_how_much_they_slow_each_phase() -> None:
    trace = stepping(
        [("a", 2.0), ("b", 1.0), ("a", 4.0), ("b", 1.0), ("check", 1.0)], 20.0
    )  # beside others from 3 to 8
    stretches = {"a": [(0.0, 1.0), (3.0, 0.5), (8.0, 1.0)], "b": [(0.0, 1.0)]}
    assert with_steps(stretches, trace) == pytest.approx({"a": 12 / 17, "b": 5 / 17})  # until 21, when "a" began last
    assert with_steps({"a": stretches["a"], "c": stretches["b"]}, trace) == {}, "one was never announced"
    assert with_steps({"": [(0.0, 1.0)]}, trace) == with_steps({"": []}, Trace()) == {}


def test_they_are_kept_and_said(tmp_path: Path) -> None:
    phase = PhaseProfile("train", 0.5, 99.8, 0.02, 1.0)
    profile = Profile("cg", ("cg",), "here", 1, 1e9, 20.0, 1, (phase,), stepless={"save": Stepless(0.5, 0.02)})
    kept = store.save(tmp_path, profile)
    assert store.revisions(tmp_path, "here", "cg") == [kept]
    assert kept.stepless == profile.stepless
    told = store.as_json(profile)
    del told["stepless"]
    assert store.from_json(told) == replace(profile, stepless={})
    assert "share is 2" in store.senseless(replace(profile, stepless={"save": Stepless(2.0, 0.0)}))
    assert "50% of the time in save, without a step: 0.02 cores busy meanwhile" in picture.sentences(profile)


@pytest.mark.slow
def test_one_that_saves_half_of_the_time_is_busy_for_the_other_half(tmp_path: Path) -> None:
    here = discover()
    cores = tuple(core.index for core in here.cores)
    known = Calibration(here.fingerprint, cores, {"cpu": Response((0.0, 1.0), (1.0, 2.0), 0.02)}, {}, 5e8, 1.0)
    terms = Terms(key="one", cores=cores[:1], beside=(), most_s=25.0, folder=tmp_path)
    argv = (sys.executable, "-c", PROGRAMME)
    holds(lambda: measure(argv, terms, known), lambda found: found.waited, half_of_the_time)


def half_of_the_time(found: Profile) -> None:
    (phase,) = found.phases
    assert phase.phase == "train"
    assert phase.share == pytest.approx(0.5, abs=0.05)
    assert found.stepless["save"].share == pytest.approx(1.0 - phase.share, abs=0.001)
    assert found.stepless["save"].cpu_use < 0.3 * phase.cpu_use
