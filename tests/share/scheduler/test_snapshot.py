"""A machine that is made from a snapshot is the machine it was taken of."""

import json
from dataclasses import replace

import pytest

from tandem.core import plug
from tandem.core.errors import StoreError
from tandem.share import events as ev
from tandem.share.model import After, Gpu, Node, State
from tandem.share.scheduler.cluster import CORUNS, Setup
from tandem.share.scheduler.machine import Machine, Step
from tests.share.told import Told, job

NODES = (Node("a", 4000, 100, cores=(0, 1, 2, 3)), Node("b", 4000, 100, (Gpu(0), Gpu(1))))


def reborn(told: Told, **changed: str) -> Machine:
    """A new machine from the snapshot's text."""
    text = json.dumps(told.machine.snapshot(), allow_nan=False)
    machine = Machine(replace(told.machine.setup, snapshot=json.loads(text), **changed))
    machine.ledger.audit()
    return machine


def both(told: Told, *events: ev.Event, at: float) -> Step:
    """The same step on the machine and on one made of its snapshot: equal answers."""
    other = reborn(told)
    step = told.machine.step(at, events)
    assert other.step(at, events) == step
    assert json.dumps(other.snapshot(), sort_keys=True) == json.dumps(told.machine.snapshot(), sort_keys=True)
    assert other.next_wake() == told.machine.next_wake()
    assert other.ledger.free.tolist() == told.machine.ledger.free.tolist()
    for number, life in told.machine.jobs.items():
        if not life.ended:
            assert other.why(number) == told.machine.why(number)
    return step


def test_an_empty_machine() -> None:
    assert both(Told("hybrid"), ev.Tick(), at=1.0) == Step()


def test_an_unknown_format_is_said() -> None:
    told = Told("hybrid", *NODES)
    state = told.machine.snapshot()
    assert state["format"] == 1
    Machine(replace(told.machine.setup, snapshot={key: value for key, value in state.items() if key != "format"}))
    for unknown in (2, "x", None):
        with pytest.raises(StoreError, match=r"a snapshot of format .*; allowed: format 1; .*nothing was overwritten"):
            Machine(replace(told.machine.setup, snapshot=state | {"format": unknown}))


def test_every_state_goes_through() -> None:
    told = Told("hybrid", *NODES)
    told.submit(job(1, 4, harvest=True, mem=10, limit=500.0, app="h"))
    told.submit(job(2, 3, gpus=1, limit=300.0, app="t"), at=1.0)
    told.submit(job(3, held=True), at=2.0)
    told.submit(job(4, after=(After(2), After(1, ok=False))), at=3.0)
    told.answers = False
    told.submit(job(5, 4, expected=10.0), at=4.0)
    told.submit(job(6, 2, gpus=2), at=5.0)
    states = [told.state(k) for k in range(1, 7)]
    assert states == [State.SUSPENDING, State.RUNNING, State.HELD, State.BLOCKED, State.QUEUED, State.QUEUED]
    both(told, ev.SuspendDone(1, 1), at=6.0)
    assert told.state(5) is State.STARTING
    both(told, ev.Started(5, 1), at=7.0)
    both(told, ev.Ended(5, 1), at=17.0)
    assert told.state(1) is State.RESUMING
    both(told, ev.CancelAsked(1), at=18.0)
    assert told.state(1) is State.STOPPING
    both(told, ev.ResumeDone(1, 1), ev.Measured(2, 3.0, 5.0, ("h",), 0.5), at=19.0)
    both(told, ev.Ended(1, 1, signal=15), ev.HoldAsked(6), at=20.0)
    both(told, ev.ForeignUse("a", (0,)), ev.ReleaseAsked(3), ev.Ended(2, 1), at=21.0)
    both(told, ev.NodeLost("b"), at=22.0)
    both(told, ev.NodeJoined(NODES[1]), ev.ReleaseAsked(6), at=23.0)


def test_what_a_hold_took_back_goes_through() -> None:
    told = Told("share", *NODES, options={"quotes": 2})
    told.tell(*(ev.Submitted(job(k, 4)) for k in range(1, 6)), at=1.0)
    both(told, ev.HoldAsked(4), at=2.0)
    step = both(told, ev.ReleaseAsked(4), at=3.0)
    assert [quote.job for quote in step.quotes] == [4]


def test_a_quote_that_an_older_version_left_to_a_held_job_is_taken_back() -> None:
    told = Told("share", *NODES)
    told.tell(*(ev.Submitted(job(k, 4, nodes=2, after=(After(k - 1),) if k == 3 else ())) for k in (1, 2, 3)), at=1.0)
    told.tell(ev.HoldAsked(2), at=2.0)
    state = told.machine.snapshot()
    for row in state["jobs"]:
        row["counted"] = True
        del row["quoted"]
    older = Machine(replace(told.machine.setup, snapshot=state))
    assert [older.jobs[k].counted for k in (1, 2, 3)] == [True, False, False]
    step = older.step(3.0, [ev.ReleaseAsked(2)])
    assert [quote.job for quote in step.quotes if quote.moment == "submit"] == [2, 3]


def test_timers_go_through() -> None:
    told = Told("hybrid", *NODES)
    told.submit(job(1, 4, harvest=True))
    told.submit(job(2, 4), at=1.0)
    told.submit(job(3, 1, limit=50.0), at=2.0)
    wake = reborn(told).next_wake()
    assert wake is not None
    assert wake == told.machine.next_wake()
    both(told, ev.Tick(), at=wake)


def test_a_gang_that_lost_a_node_which_came_back() -> None:
    """It holds nothing there any more, though its placement still names it."""
    told = Told("share", *NODES)
    told.submit(job(1, 3, nodes=2))
    told.answers = False
    told.tell(ev.NodeLost("a"), at=1.0)
    both(told, ev.Tick(), at=1.5)
    told.tell(ev.NodeJoined(NODES[0]), at=2.0)
    assert told.state(1) is State.STOPPING
    both(told, ev.Submitted(job(2, 4)), at=3.0)
    assert told.state(2) is State.STARTING
    both(told, ev.Ended(1, 1), at=4.0)


def test_a_node_that_is_down_stays_down() -> None:
    told = Told("share", *NODES)
    told.tell(ev.NodeLost("a"))
    both(told, ev.Submitted(job(1, 1)), at=1.0)
    assert told.machine.jobs[1].placement is not None
    assert told.machine.jobs[1].placement.shares[0].node == "b"


def test_how_jobs_ended_is_remembered() -> None:
    told = Told("share", *NODES)
    for k, code in ((1, 0), (2, 1)):
        told.submit(job(k))
        told.end(k, code=code)
    other = reborn(told)
    other.step(1.0, [ev.Submitted(job(3, after=(After(1),))), ev.Submitted(job(4, after=(After(2),)))])
    assert other.jobs[3].state is State.STARTING
    assert other.ended[4] is State.CANCELLED
    assert other.next_id == 5
    assert "already" in other.step(2.0, [ev.Submitted(job(1))]).ignored[0]


def test_the_order_of_neighbours_is_kept() -> None:
    """Words name neighbours in the order in which they came, which is not that of their numbers."""
    told = Told("hybrid", NODES[0], estimator="proportional")
    for k, app in ((3, "c"), (1, "a"), (2, "b")):
        told.submit(job(k, app=app, membw=10))
    step = both(told, ev.Submitted(job(9, app="z", membw=10)), at=1.0)
    (start,) = [one for one in step.decisions if isinstance(one, ev.Start)]
    assert "beside c, a, b" in start.reason


def test_another_policy_takes_over_with_its_own_order() -> None:
    told = Told("hybrid", NODES[0])
    told.submit(job(1, 4, limit=1000.0))
    told.submit(job(2, 4, expected=500.0), at=1.0)
    told.submit(job(3, 4, expected=5.0), at=2.0)
    assert told.machine.view.head() is told[3], "hybrid lets the short one go first"
    other = reborn(told, policy="exclusive")
    head = other.view.head()
    assert head is not None
    assert head.id == 2, "first come first served"
    other.step(3.0, [ev.Ended(1, 1)])
    assert other.jobs[2].state is State.STARTING
    las = reborn(told, policy="las")
    assert las.step(3.0, []).decisions == ()
    assert las.next_wake() == pytest.approx(900.0, abs=1.0)


def test_another_policy_decides_at_once() -> None:
    told = Told("exclusive", NODES[0])
    told.submit(job(1, 1))
    told.submit(job(2, 1), at=1.0)
    assert told.state(2) is State.QUEUED
    other = reborn(told, policy="share")
    other.step(2.0, [ev.Ended(1, 1)])
    other.step(2.0, [ev.Submitted(job(3, 1))])
    assert {life.state for life in other.jobs.values()} == {State.STARTING}


def taken_over(told: Told, policy: str) -> Told:
    """Another policy goes on with what was told."""
    told.machine = reborn(told, policy=policy)
    told.tell(ev.Tick())
    return told


@pytest.mark.parametrize("policy", plug.names("share.policies"))
@pytest.mark.parametrize("throttle", [1.0, 0.25])
@pytest.mark.parametrize(("before", "harvest"), [("hybrid", True), ("las", False)])
def test_what_a_policy_before_suspended_goes_on_under_any(
    policy: str, throttle: float, before: str, harvest: bool
) -> None:
    told = Told(before, NODES[0], options={"las_step_s": 1.0})
    told.submit(job(1, 3, harvest=harvest, expected=1000.0))
    told[1].throttle = throttle
    told.submit(job(2, 4, expected=5.0), at=10.0)
    taken_over(told, policy)
    if policy != "las":  # it goes by service, not by who has begun
        told.submit(job(3, 4, expected=9000.0, harvest=True), at=11.0)
    assert (told.state(1), told.running()) == (State.SUSPENDED, {2}), "its cores are not free"
    told.end(2, at=16.0)
    assert told.running() == {1}, "it goes on, before one that has not begun"
    assert policy == before or told[1].throttle == 1.0
    (resumed,) = [one for one in told.decided if isinstance(one, ev.Resume)]
    assert resumed.reason in ("its cores are free again", "its turn has come again")


@pytest.mark.parametrize("policy", plug.names("share.policies"))
def test_a_throttle_of_a_policy_before_is_lifted_under_any(policy: str) -> None:
    told = Told("hybrid", NODES[0])
    told.submit(job(1, 3, harvest=True))
    told[1].throttle = 0.1
    taken_over(told, "las" if policy == "hybrid" else policy)
    assert told[1].throttle == 1.0
    assert told.said[-1] == ev.ThrottleJob(1, 1, 1.0)
    assert told[1].reason == "the policy that throttled it no longer decides"


def left_suspended(policy: str, **more: float) -> Told:
    """A job of 3 cores of 4, suspended for one of 2 by a policy before; what ``policy`` may start is up to it."""
    told = Told("hybrid", NODES[0])
    told.submit(job(1, 3, harvest=True, expected=1000.0))
    told.submit(job(2, 2, **more), at=10.0)
    assert (told.state(1), told.running()) == (State.SUSPENDED, {2})
    return taken_over(told, policy)


@pytest.mark.parametrize("policy", ["share", "backfill"])
def test_cores_are_kept_for_what_a_policy_before_suspended(policy: str) -> None:
    told = left_suspended(policy)
    (kept,) = [one for one in told.decided if isinstance(one, ev.Reserve)]
    assert (kept.job, kept.nodes) == (1, ("a",))
    assert kept.reason == "it was suspended, and the cores it lacks are kept for it"
    told.submit(job(3), at=20.0)
    assert told.state(3) is State.RUNNING, "it leaves enough, once job 2 has ended"
    for small in (4, 5):
        step = both(told, ev.Submitted(job(small)), at=20.0 + small)
        assert not [one for one in step.decisions if not isinstance(one, ev.Reserve)]
    assert told.why(5).endswith("the free cores of a are kept for job 1, which was suspended")
    told.end(2, at=100.0)
    assert told.running() == {1, 3}
    assert told[1].reserved is None
    told.end(3, at=110.0)
    assert told.running() == {1, 4}


def test_a_reservation_of_a_policy_before_is_no_longer_told() -> None:
    told = taken_over(left_suspended("share"), "hybrid")
    assert told[1].reserved is None


@pytest.mark.parametrize("policy", ["share", "backfill"])
def test_no_cores_are_kept_behind_a_job_that_outlasts_every_estimate(policy: str) -> None:
    told = left_suspended(policy, expected=5.0)
    told.submit(job(3, 2), at=11.0)
    assert told.running() == {2}
    while told.running() == {2}:
        wake = told.machine.next_wake()
        assert wake is not None
        assert wake <= 10.0 + 2 * told[2].expected.high
        told.tick(wake)
    assert told.running() == {2, 3}
    lapsed = [one for one in told.decided if isinstance(one, ev.Reserve)][-1]
    assert lapsed.reason == "its cores are not kept for it any more: nobody knows when they come free"
    assert told[1].reserved is None
    told.end(2, at=100.0)
    told.submit(job(4, 2), at=101.0)
    assert told.running() == {3}, "the next one is expected to end, so cores are kept again"
    told.end(3, at=102.0)
    assert told.running() == {1}


def test_cores_are_kept_for_the_oldest_that_a_policy_before_suspended() -> None:
    told = Told("hybrid", NODES[0])
    told.submit(job(1, 3, harvest=True))
    told.submit(job(2, 1, harvest=True))
    told.submit(job(3, 4, expected=5.0, limit=50.0), at=1.0)
    told.submit(job(4, 2, limit=50.0), at=1.0)
    told.end(3, at=2.0)
    assert told.running() == {4}
    taken_over(told, "share")
    assert told.decisions(ev.Reserve) == [1]
    told.tick(at=30.0)
    assert told.running() == {4, 2}, "it leaves the older one enough"


def test_what_was_learned_goes_through() -> None:
    told = Told("hybrid", NODES[0], estimator="proportional")
    told.submit(job(1, app="a"))
    told.measure(1, 10.0, at=10.0)
    told.measure(1, 5.0, "b", at=20.0)
    told.end(1, at=30.0)
    other = reborn(told)
    assert other.history.snapshot() == told.machine.history.snapshot()
    assert list(other.coruns) == list(told.machine.coruns)
    assert other.view.contended == told.machine.view.contended
    assert isinstance(other.setup, Setup)


def test_what_was_learned_long_ago_goes_through_however_much_was_measured_since() -> None:
    told = Told("hybrid", NODES[0], estimator="proportional")
    told.submit(job(1, app="train", bound=1.2))
    told.measure(1, 10.0, at=10.0)
    told.measure(1, 5.0, "hog", at=20.0)
    told.end(1, at=30.0)
    told.submit(job(2, app="render"), at=40.0)
    for k in range(2 * CORUNS):
        told.measure(2, 10.0, *("other",) * (k % 2), at=50.0 + k)
    assert CORUNS / 100 < len(told.machine.coruns) <= 1.25 * CORUNS
    told.end(2, at=99_000.0)
    told.submit(job(3, app="train", bound=1.2), at=99_001.0)
    step = both(told, ev.Submitted(job(4, app="hog", harvest=True)), at=99_002.0)
    assert not any(isinstance(one, ev.Start) for one in step.decisions), "it is remembered by name"


def test_marks_as_older_snapshots_have_them_are_read_over() -> None:
    """Of who rests, and who stood still in vain: they count for moments, and are made again."""
    told = Told("hybrid", NODES[0])
    told.submit(job(1, harvest=True))
    state = told.machine.snapshot()
    for row in state["jobs"]:
        row |= {"in_vain_for": [1, 2], "rests_from": [1]}
        row.pop("in_vain")
        row.pop("slowed")
    life = Machine(replace(told.machine.setup, snapshot=json.loads(json.dumps(state)))).jobs[1]
    assert (life.in_vain_for, life.rests_from) == ({}, {})
