"""Profiles in the scheduler: they arrive as events, change what is believed, survive, replay, and go on drift."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.profile import Curve, PhaseProfile, Profile, Stepless
from tandem.estimate.profiling.drift import drifted
from tandem.share import events as ev
from tandem.share.codec import from_json, to_json
from tandem.share.model import Node, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.drift import Drift
from tandem.share.scheduler.machine import Machine
from tandem.share.simulate.replay import replay, setup_entry, step_entry
from tests.share.told import Told, job

NODE = Node("a", 4000, 100)


def profile(key: str, *, feels: float = 0.0, presses: float = 0.0, rate: float = 10.0, revision: int = 1) -> Profile:
    """An application that a bubble of full pressure slows by ``feels``, and that presses with ``presses``."""
    kinds = ("cache", "membw_read", "membw_write")
    curve = Curve((0.0, 0.5, 1.0), (1.0, 1.0 + feels / 2, 1.0 + feels), (0.0, 0.005, 0.005))
    phase = PhaseProfile(
        "", 1.0, rate, 0.02, 1.0, dict.fromkeys(kinds, curve), dict.fromkeys(kinds, presses), dict.fromkeys(kinds, 0.01)
    )
    return Profile(key, (key,), "here", 1, 0.0, 20.0, revision, (phase,))


LOUD, TENDER, CALM = profile("loud", feels=0.8, presses=1.0), profile("tender", feels=0.8, presses=0.1), profile("calm")


@pytest.mark.parametrize("estimator", ["bubble", "learned"])
def test_a_bound_is_protected_from_one_that_was_never_seen_beside_it(estimator: str) -> None:
    told = Told("hybrid", NODE, estimator=estimator)
    told.tell(*map(ev.Profiled, (LOUD, TENDER, CALM)))
    told.submit(job(1, 1, app="tender"))
    told.submit(job(2, 1, app="loud", harvest=True))
    told.submit(job(3, 1, app="calm", harvest=True))
    assert told.state(2) is State.QUEUED, "its profile says that it would slow the first"
    assert told.state(3) is State.RUNNING
    assert "bound" in told.why(2)


def test_without_profiles_the_same_jobs_run_together() -> None:
    told = Told("hybrid", NODE, estimator="bubble")
    told.submit(job(1, 1, app="tender"))
    told.submit(job(2, 1, app="loud", harvest=True))
    assert told.running() == {1, 2}


def test_profiles_go_through_a_snapshot_and_a_stored_day_replays() -> None:
    setup = Setup("hybrid", "learned", {})
    machine, entries = Machine(setup), [setup_entry(setup)]
    steps: list[list[ev.Event]] = [
        [ev.NodeJoined(NODE), ev.Profiled(LOUD), ev.Profiled(TENDER)],
        [ev.Submitted(job(1, 1, app="tender"))],
        [ev.Started(1, 1), ev.Submitted(job(2, 1, app="loud", harvest=True))],
        [ev.Profiled(profile("loud", revision=2)), ev.Tick()],
    ]
    for now, events in enumerate(steps):
        entries.append(step_entry(float(now), events, machine.step(float(now), events)))
    assert machine.jobs[2].state is State.STARTING, "its newer profile says that it is harmless"
    assert not replay(json.loads(json.dumps(entries))).differences
    other = Machine(Setup("hybrid", "learned", {}, json.loads(json.dumps(machine.snapshot()))))
    assert other.profiles == machine.profiles
    assert other.profiles["loud"].revision == 2


def test_a_profile_is_stored_as_it_is() -> None:
    assert from_json(json.loads(json.dumps(to_json(LOUD)))) == LOUD


def test_another_version_of_an_application_is_noticed_and_its_profile_dropped() -> None:
    told = Told("hybrid", NODE, estimator="learned")
    told.tell(*map(ev.Profiled, (LOUD, TENDER, CALM)))
    told.submit(job(1, 1, app="tender"))
    for k in range(5):
        assert not told.machine.drift.words
        told.measure(1, 6.0, at=10.0 + k)
    assert told.machine.drift.since == {"tender": 14.0}
    assert "profile it again" in told.machine.drift.words["tender"]
    assert {one.beside for one in told.machine.coruns if one.app == "tender"} == {()}
    told.submit(job(2, 1, app="loud", harvest=True))
    assert told.state(2) is State.RUNNING, "nothing is known of it any more"
    told.tell(ev.Profiled(profile("tender", feels=0.8, rate=6.0, revision=2)))
    assert not told.machine.drift.words


def test_another_version_is_noticed_in_phases_that_take_turns() -> None:
    slow, fast = (
        replace(TENDER.phases[0], phase=phase, rate=rate) for phase, rate in (("load", 10.0), ("solve", 500.0))
    )
    told = Told("hybrid", NODE, estimator="learned")
    told.tell(ev.Profiled(replace(TENDER, phases=(slow, fast))))
    told.submit(job(1, 1, app="tender"))
    for k in range(5):
        assert not told.machine.drift.words
        turns = (("load", 3.0), ("solve", 170.0))  # a third of each; all together within the profile's range
        event = ev.Measured(1, 80.0, 3.0, phase=None, phases=turns)
        assert from_json(json.loads(json.dumps(to_json(event)))) == event
        told.tell(event, at=10.0 + k)
    assert "slower alone in load" in told.machine.drift.words["tender"]


def test_moments_show_another_version_once_they_make_five_seconds() -> None:
    told = Told("hybrid", NODE, estimator="learned")
    told.tell(ev.Profiled(TENDER))
    told.submit(job(1, 1, app="tender"))
    for k in range(20):
        assert not told.machine.drift.words
        told.tell(ev.Measured(1, 2.0, 0.25), at=10.0 + k)
    assert "slower alone" in told.machine.drift.words["tender"]


def test_what_was_seen_of_others_beside_the_old_version_is_set_aside_too() -> None:
    told = Told("hybrid", NODE, estimator="learned")
    told.tell(*map(ev.Profiled, (TENDER, CALM)))
    told.submit(job(1, 1, app="tender"))
    told.submit(job(2, 1, app="calm"))
    told.measure(2, 4.0, "tender", at=9.0)
    told.measure(2, 4.0, "tender@0.5", at=9.5)
    told.measure(2, 10.0, at=9.7)
    for k in range(5):
        told.measure(1, 6.0, at=10.0 + k)
    assert [one.beside for one in told.machine.coruns if one.app == "calm"] == [()]


def test_a_machine_that_is_slow_for_everybody_is_no_drift() -> None:
    profiles = {one.key: one for one in (LOUD, TENDER, CALM)}
    drift = Drift()
    drift.observe("loud", 5.0, profiles)
    drift.observe("calm", 5.0, profiles)
    assert not any(drift.observe("tender", 5.0, profiles) for _ in range(8))
    assert any(drift.observe("tender", 10.0, profiles) for _ in range(8)), "twice as fast as the others are today"


def test_one_other_application_raises_doubt_but_no_drift() -> None:
    profiles = {one.key: one for one in (LOUD, TENDER, CALM)}
    drift = Drift()
    drift.observe("calm", 15.0, profiles)
    assert not any(drift.observe("tender", 15.0, profiles) for _ in range(8)), "the other one is as fast today"
    assert not any(drift.observe("tender", 10.0, profiles) for _ in range(8)), "as fast as it was profiled"
    assert any(drift.observe("tender", 6.0, profiles) for _ in range(8)), "slower than either makes it"
    assert "40% slower" in drift.words["tender"], "by the one that says less"
    assert "a machine that goes so itself" in drift.words["tender"]


def test_what_others_did_long_ago_does_not_tell_of_the_machine_today() -> None:
    profiles = {one.key: one for one in (LOUD, TENDER, CALM)}
    drift = Drift()
    drift.observe("calm", 10.0, profiles, now=0.0)
    drift.observe("loud", 10.0, profiles, now=0.0)
    known = restarted(drift)
    assert any(known.observe("tender", 15.0, profiles, now=10.0 + k) for k in range(8))
    assert "a machine" not in known.words["tender"]
    later = restarted(drift)
    assert any(later.observe("tender", 15.0, profiles, now=3600.0 + k) for k in range(8))
    assert "a machine that goes so itself" in later.words["tender"]


def test_nobody_vouches_for_the_machine_where_the_others_have_drifted() -> None:
    profiles = {one.key: one for one in (LOUD, TENDER, CALM)}
    drift = Drift()
    assert any(drift.observe("calm", 3.0, profiles) for _ in range(8))
    assert any(drift.observe("tender", 15.0, profiles) for _ in range(8))
    assert "a machine that goes so itself" in drift.words["tender"]


def restarted(drift: Drift) -> Drift:
    """The same after a restart."""
    return Drift.restore(json.loads(json.dumps(drift.snapshot())))


def in_two_phases(key: str) -> Profile:
    """Loads at 100 steps/s for a fifth of the time, and solves at 10."""
    one = profile(key)
    load, solve = (replace(one.phases[0], phase=name, rate=rate) for name, rate in (("load", 100.0), ("solve", 10.0)))
    return replace(one, phases=(replace(load, share=0.2), replace(solve, share=0.8)))


@pytest.mark.parametrize("phase", ["", "solve", None])
def test_an_application_of_several_phases_tells_of_the_machine_only_what_it_can(phase: str | None) -> None:
    profiles = {"m1": in_two_phases("m1"), "m2": in_two_phases("m2"), "fine": profile("fine")}
    drift = Drift()
    drift.observe("m1", 10.0, profiles, phase=phase)
    drift.observe("m2", 10.0, profiles, phase=phase)
    assert not any(drift.observe("fine", 10.0, profiles) for _ in range(8))
    assert not any(drift.observe("m1", 10.0, profiles, phase=phase) for _ in range(8))


def test_one_with_a_phase_without_steps_tells_of_the_machine_in_the_others_only() -> None:
    saving = {name: replace(profile(name), stepless={"save": Stepless(0.5, 0.0)}) for name in ("s1", "s2")}
    saving = {name: replace(one, phases=(replace(one.phases[0], phase="work"),)) for name, one in saving.items()}
    profiles = {**saving, "fine": profile("fine")}
    drift = Drift()
    for name in saving:
        assert not any(drift.observe(name, 5.0, profiles, phase=None) for _ in range(8)), "half of it may be saving"
    assert not any(drift.observe("fine", 10.0, profiles) for _ in range(8)), "the machine is as fast as it was"
    assert any(drift.observe("s1", 5.0, profiles, phase="work") for _ in range(8))


def test_one_phase_of_an_application_drifts() -> None:
    told = Told("hybrid", NODE, estimator="learned")
    told.tell(ev.Profiled(in_two_phases("mixed")))
    told.submit(job(1, 1, app="mixed"))
    for k in range(5):
        assert not told.machine.drift.words
        for phase, rate in (("load", 100.0), (None, 60.0), ("solve", 20.0)):
            told.tell(ev.Measured(1, rate, 3.0, phase=phase), at=10.0 + k)
    assert "goes 100% faster alone in solve than" in told.machine.drift.words["mixed"]
    assert json.loads(json.dumps(told.machine.snapshot()))["drift"]["words"] == told.machine.drift.words


def test_what_older_versions_remembered_of_rates_is_taken_over() -> None:
    old = {"words": {}, "since": {}, "rates": {"tender": [6.0] * 4}, "paces": {"loud": 1.0, "calm": 1.0}}
    assert Drift.restore(old).observe("tender", 6.0, {"tender": TENDER})


@given(st.lists(st.floats(5.0, 20.0), min_size=5, max_size=5), st.floats(0.5, 2.0))
def test_no_pace_between_the_two_that_are_possible_says_less(rates: list[float], pace: float) -> None:
    """What is said where the pace is not known holds whichever of the possible ones it is."""
    lower, upper = ([rate / end for rate in rates] for end in (max(1.0, pace), min(1.0, pace)))
    if drifted(TENDER, lower, upper=upper) is not None:
        for share in (0.0, 0.5, 1.0):
            between = [low + share * (high - low) for low, high in zip(lower, upper, strict=True)]
            assert drifted(TENDER, between) is not None
    elif pace == 1.0:
        assert drifted(TENDER, rates) is None


@given(st.lists(st.floats(9.85, 10.15), max_size=30))
def test_noise_is_no_drift(rates: list[float]) -> None:
    drift, profiles = Drift(), {"tender": TENDER}
    assert not any(drift.observe("tender", rate, profiles) for rate in rates)
    assert Drift.restore(json.loads(json.dumps(drift.snapshot()))) == drift
