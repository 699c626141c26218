"""Following what was decided, without whoever decided it, leads to the same state."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.share import events as ev
from tandem.share.codec import from_json, to_json
from tandem.share.model import Node, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine
from tandem.share.scheduler.recorded import follow
from tests.share.told import Told, job
from tests.share.unruly import Unruly, crowded, days, live

OPTIONS = {"las_step_s": 20.0, "quotes": 0}


def state(machine: Machine) -> dict[int, Any]:
    """Where every job is and what it has, and what is free."""
    machine.ledger.audit()
    lives: dict[int, Any] = {
        life.id: (
            life.state,
            life.attempt,
            life.numbers,
            life.throttle,
            life.ran_s,
            life.placement if life.numbers else 0,
        )
        for life in machine.jobs.values()
    }
    return lives | {0: machine.ledger.free.tolist()}


def follows(setup: Setup, steps: list[Any]) -> Machine:
    """A machine that decides, after it was compared with one that follows."""
    decided = Machine(setup)
    stored = []
    for now, events, _ in steps:
        step = decided.step(now, events)
        stored.append((now, events, [from_json(json.loads(json.dumps(to_json(one)))) for one in step.decisions]))
    followed = follow(setup, stored)
    assert state(followed) == state(decided)
    return decided


def test_what_a_policy_before_curbed_goes_on_once() -> None:
    told = Told("hybrid", Node("a", 4000, 100), options=OPTIONS)
    told.submit(job(1, 2, harvest=True))
    told.submit(job(2, 2, harvest=True))
    told.submit(job(3, 4, expected=5.0), at=1.0)
    assert told.running() == {3}
    told[2].throttle = 0.5
    events = [[ev.Ended(3, 1)], [ev.ResumeDone(1, 1)], [ev.ResumeDone(2, 1)]]
    over = follows(Setup("backfill", "none", OPTIONS, told.machine.snapshot()), [(9.0, some, None) for some in events])
    assert {life.state for life in over.jobs.values()} == {State.RUNNING}
    assert over.jobs[2].throttle == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "then"), [("hybrid", "backfill"), ("las", "hybrid"), ("backfill", "las")])
@given(day=crowded() | days(), part=st.floats(0, 1))
@settings(max_examples=40)
def test_a_day_is_followed_to_the_same_state(name: str, then: str, day: Unruly, part: float) -> None:
    setup = Setup(name, "proportional", OPTIONS)
    steps = live(setup, day).steps
    at = int(part * len(steps))
    decided = follows(setup, steps[:at])
    follows(Setup(then, "proportional", OPTIONS, decided.snapshot()), steps[at:])
