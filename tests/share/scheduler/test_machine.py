"""The state machine by hand: what each event does in each state, and what is refused."""

from dataclasses import replace

import pytest

from tandem.core.errors import DependencyError, ImpossibleDemandError
from tandem.share import events as ev
from tandem.share.model import After, Gpu, Need, Node, Part, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine
from tests.share.told import Told, job

ONE = Node("a", 4000, 100, cores=(0, 1, 2, 3))
TWO = Node("b", 4000, 100, cores=(0, 1, 2, 3))


def held_up(policy: str = "share", *nodes: Node) -> Told:
    """A machine whose engine does not answer."""
    told = Told(policy, *(nodes or (ONE,)))
    told.answers = False
    return told


# ------------------------------------------------------------------------------------------------ ends


def test_a_job_lives_and_ends_once() -> None:
    told = held_up()
    step = told.submit(job(1, 2))
    assert [type(one) for one in step.instructions] == [ev.StartJob]
    assert told.state(1) is State.STARTING
    told.tell(ev.Started(1, 1), at=1.0)
    assert told.state(1) is State.RUNNING
    step = told.tell(ev.Ended(1, 1), at=5.0)
    assert step.instructions == (ev.JobEnded(1, State.DONE, "exit status 0"),)
    step = told.tell(ev.Ended(1, 1), ev.CancelAsked(1), ev.Started(1, 1), at=6.0)
    assert not step.instructions
    assert len(step.ignored) == 3
    assert 1 not in told.machine.jobs


def test_an_end_that_nobody_saw_is_dated_when_it_happened() -> None:
    told = Told("backfill", ONE)
    told.answers = False
    told.submit(job(1, 4, expected=50.0), at=100.0)
    life = told[1]
    told.tell(ev.Started(1, 1, at=101.0), ev.Ended(1, 1, at=111.0), at=500.0)
    assert (life.started_at, life.ended_at, life.ran_s) == (101.0, 111.0, 10.0)
    told.submit(job(2, 4, expected=50.0), at=500.0)
    another = told[2]
    told.tell(ev.Started(2, 1, at=3.0), ev.Ended(2, 1, at=9e9), at=510.0)  # a clock that jumped: not before its start
    assert (another.started_at, another.ended_at) == (500.0, 510.0)


@pytest.mark.parametrize(
    ("event", "state", "word"),
    [
        (ev.Ended(1, 1), State.DONE, "exit status 0"),
        (ev.Ended(1, 1, code=3), State.FAILED, "exit status 3"),
        (ev.Ended(1, 1, signal=9), State.FAILED, "killed by signal 9"),
        (ev.Ended(1, 1, code=127, reason="no such programme"), State.FAILED, "no such programme"),
        (ev.Ended(1, 1, lost=True), State.LOST, "keeper"),
        (ev.NodeLost("a", "it burned"), State.LOST, "it burned"),
    ],
)
def test_how_a_job_ended_is_said(event: ev.Event, state: State, word: str) -> None:
    told = Told("share", ONE)
    told.submit(job(1))
    told.tell(event, at=3.0)
    assert told.ends[1][0] is state
    assert word in told.ends[1][1]
    assert told.machine.ledger.holders(0) == {}


def test_retries_count_what_went_wrong() -> None:
    told = Told("share", ONE)
    told.submit(job(1, retries=2))
    told.end(1, code=1, at=1.0)
    assert told[1].attempt == 2
    told.tell(ev.Ended(1, 1, code=1), at=2.0)
    assert told.state(1) is State.RUNNING, "the first attempt's end, told twice"
    told.end(1, code=1, at=3.0)
    told.end(1, code=1, at=4.0)
    assert told.ends[1][0] is State.FAILED
    assert told.machine.ledger.holders(0) == {}


def test_a_retry_may_succeed() -> None:
    told = Told("share", ONE)
    told.submit(job(1, retries=1))
    told.tell(ev.Ended(1, 1, lost=True), at=1.0)
    told.end(1, at=2.0)
    assert told.ends[1][0] is State.DONE


# --------------------------------------------------------------------------------------- cancellation


def cancelled_in(told: Told, *before: ev.Event) -> Told:
    told.tell(*before, at=1.0)
    told.tell(ev.CancelAsked(1), at=2.0)
    return told


def test_cancel_while_it_waits() -> None:
    told = Told("share", ONE)
    told.submit(job(9, 4))
    told.submit(job(1))
    cancelled_in(told)
    assert told.ends[1] == (State.CANCELLED, "it was cancelled")
    told.end(9)
    assert len(told.machine.pending) == 0


def test_cancel_while_held_and_while_blocked() -> None:
    told = Told("share", ONE)
    told.submit(job(1, held=True))
    cancelled_in(told)
    assert told.ends[1][0] is State.CANCELLED
    told.submit(job(2))
    told.submit(job(3, after=(After(2),)))
    assert told.state(3) is State.BLOCKED
    told.tell(ev.CancelAsked(3))
    assert told.ends[3][0] is State.CANCELLED
    told.end(2)
    assert told.ends[2][0] is State.DONE


@pytest.mark.parametrize(
    "before",
    [
        [],
        [ev.Started(1, 1)],
        [ev.Started(1, 1), ev.NodeJoined(TWO)],
    ],
)
def test_cancel_on_its_nodes_stops_it_first(before: list[ev.Event]) -> None:
    told = held_up()
    told.submit(job(1, checkpoint="SIGUSR1", grace_s=7.0))
    cancelled_in(told, *before)
    stop = told.said[-1]
    assert stop == ev.StopJob(1, 1, "SIGUSR1", 7.0, "it was cancelled")
    assert told.state(1) is State.STOPPING
    assert told.machine.ledger.holders(0), "it holds its cores until it is gone"
    told.tell(ev.CancelAsked(1), at=3.0)
    assert told.said[-1] is stop, "it is stopped once"
    told.tell(ev.Started(1, 1), at=3.5)
    assert told.state(1) is State.STOPPING
    told.tell(ev.Ended(1, 1, signal=15), at=4.0)
    assert told.ends[1][0] is State.CANCELLED
    assert told.machine.ledger.holders(0) == {}


def suspended(*, done: bool = True) -> Told:
    """A harvest job that is being suspended, or is, for a primary one that waits."""
    told = held_up("hybrid")
    told.submit(job(1, 4, harvest=True, expected=100.0))
    told.tell(ev.Started(1, 1), at=1.0)
    told.submit(job(2, 4, expected=10.0), at=10.0)
    assert told.state(1) is State.SUSPENDING
    if done:
        told.tell(ev.SuspendDone(1, 1), at=11.0)
        assert told.state(1) is State.SUSPENDED
    return told


@pytest.mark.parametrize("done", [False, True])
def test_cancel_while_it_is_suspended(done: bool) -> None:
    told = suspended(done=done)
    told.tell(ev.CancelAsked(1), at=12.0)
    assert told.said[-1] == ev.StopJob(1, 1, "", 10.0, "it was cancelled")
    told.tell(ev.SuspendDone(1, 1), at=12.5)
    assert told.state(1) is State.STOPPING
    told.tell(ev.Ended(1, 1, signal=9), at=13.0)
    assert told.ends[1][0] is State.CANCELLED
    assert list(told.machine.ledger.holders(0)) == [2]


@pytest.mark.parametrize("done", [False, True])
def test_it_may_end_while_it_is_suspended(done: bool) -> None:
    """The programme was faster than the suspension, or was killed while it slept."""
    told = suspended(done=done)
    told.tell(ev.Ended(1, 1), at=12.0)
    assert told.ends[1][0] is State.DONE
    told.tell(ev.SuspendDone(1, 1), at=12.5)
    assert "no such attempt" in told.ignored[-1]
    assert list(told.machine.ledger.holders(0)) == [2]


def test_what_it_ran_without_a_scheduler_while_it_was_suspended_counts_once() -> None:
    told = suspended(done=True)  # ran from 1 to 11
    for at in (40.0, 50.0):  # each new scheduler tells it, until it is suspended anew
        told.tell(ev.WentOn(1, 1, 20.0), ev.Started(1, 1), ev.NodeJoined(ONE), at=at)
    assert told.state(1) is State.SUSPENDED
    assert told[1].ran(50.0) == (11.0 - 1.0) + (40.0 - 20.0)
    told.tell(ev.WentOn(1, 1, 60.0, 65.0), ev.Ended(1, 1, at=65.0), at=90.0)
    assert told.ends[1][0] is State.DONE
    assert told[1].ended_at == 65.0
    assert told[1].ran_s == (11.0 - 1.0) + (40.0 - 20.0) + (65.0 - 60.0)


@pytest.mark.parametrize(("asked", "end"), [(False, State.TIMEOUT), (True, State.CANCELLED)])
def test_a_job_that_its_keeper_ended_at_its_limit_has_timed_out(asked: bool, end: State) -> None:
    told = held_up()
    told.submit(job(1, limit=100.0))
    told.tell(ev.Started(1, 1), at=1.0)
    if asked:
        told.tell(ev.CancelAsked(1), at=2.0)
    told.tell(ev.Ended(1, 1, code=0, at=101.5, timed_out=True), at=500.0)
    assert told.ends[1][0] is end
    assert told[1].ended_at == 101.5
    assert told[1].reason == ("it was cancelled" if asked else "its time limit of 100 s is over")


def test_a_job_that_went_on_without_a_scheduler_runs_on_where_its_cores_are_free() -> None:
    told = suspended(done=True)
    told.tell(ev.WentOn(1, 1, 12.0), ev.Started(2, 1), ev.Ended(2, 1), at=13.0)
    assert told.state(1) is State.RESUMING, "it needs no rest: it ran already"
    told.tell(ev.SuspendDone(1, 1), ev.ResumeDone(1, 1), at=13.0)  # the node had stopped it before it asked
    assert told.state(1) is State.RUNNING
    assert told[1].ran(14.0) == (11.0 - 1.0) + (13.0 - 12.0) + (14.0 - 13.0)


def test_a_job_that_went_on_without_a_scheduler_rests_while_another_has_its_cores() -> None:
    told = suspended(done=True)
    told.tell(ev.Started(2, 1), ev.WentOn(1, 1, 12.0), at=13.0)
    assert told.state(1) is State.SUSPENDED
    told.tell(ev.Ended(2, 1), at=14.0)
    assert told.state(1) is State.RESUMING


@pytest.mark.parametrize("done", [False, True])
def test_its_node_may_go_while_it_is_suspended(done: bool) -> None:
    told = suspended(done=done)
    told.tell(ev.NodeLost("a"), at=12.0)
    assert told.ends[1][0] is State.LOST
    told.tell(ev.SuspendDone(1, 1), ev.NodeJoined(ONE), at=13.0)
    assert told.machine.ledger.is_empty(0) or list(told.machine.ledger.holders(0)) == [2]


def test_a_job_whose_cores_were_taken_as_it_was_to_go_on_is_suspended_again() -> None:
    told = resuming()
    told.tell(ev.ForeignUse("a", (1,)), ev.ResumeRefused(1, 1), at=32.0)
    assert told.state(1) is State.SUSPENDED
    assert told.why(1) == "somebody else took its cores as it was to go on"
    assert told.machine.ledger.rows[0][0] == 3000
    told.submit(job(3), at=33.0)
    assert told.state(3) is State.STARTING, "on a core that is free"
    told.tell(ev.Started(3, 1), ev.Ended(3, 1), ev.ForeignUse("a"), at=34.0)
    assert told.state(1) is State.RESUMING
    told.tell(ev.ResumeDone(1, 1), ev.ResumeRefused(1, 1), at=35.0)
    assert told.state(1) is State.RUNNING
    assert told.ignored[-1] == "job 1 is running, not being resumed"
    assert told[1].ran(36.0) == (11.0 - 1.0) + (36.0 - 35.0)


def test_who_else_used_a_node_is_forgotten_where_a_scheduler_tells_of_it_anew() -> None:
    """It has looked at nobody yet, and tells of those that it sees."""
    told = resuming()
    told.tell(ev.ForeignUse("a", (1,)), ev.ResumeRefused(1, 1), at=32.0)
    told.machine = Machine(replace(told.machine.setup, snapshot=told.machine.snapshot()))
    assert told.machine.ledger.foreign_use(0)[0] == {1}
    told.tell(ev.NodeJoined(Node("a", 1000, 100, cores=(0,))), ev.WentOn(1, 1, 33.0), at=34.0)
    assert told.machine.ledger.foreign_use(0)[0] == set()
    assert told.state(1) is State.RESUMING
    told.tell(ev.ForeignUse("a", (2,)), ev.ResumeRefused(1, 1), at=35.0)
    assert told.state(1) is State.SUSPENDED
    told.submit(job(3), at=36.0)
    told.submit(job(4), at=37.0)
    assert told.why(4) == "not enough free cores on any node", "core 2 is not the node's"


@pytest.mark.parametrize("again", [False, True])
def test_a_suspended_job_goes_on_with_what_it_had_where_its_node_is_told_to_have_less(again: bool) -> None:
    told = suspended()
    told.tell(ev.Started(2, 1), ev.NodeJoined(Node("a", 2000, 100, cores=(2, 3))), at=12.0)
    if again:  # by another daemon, which knows what it had from the snapshot
        told.machine = Machine(replace(told.machine.setup, snapshot=told.machine.snapshot()))
        told.tell(ev.NodeJoined(Node("a", 2000, 100, cores=(2, 3))), at=13.0)
    with pytest.raises(ImpossibleDemandError):
        told.submit(job(3, 3), at=14.0)
    told.tell(ev.Ended(2, 1), at=21.0)
    told.tick(at=31.0)
    assert told.state(1) is State.RESUMING
    assert sorted(told[1].placement.shares[0].cores) == [0, 1, 2, 3]  # type: ignore[union-attr]
    told.tell(ev.ResumeDone(1, 1), at=32.0)
    told.submit(job(5), at=33.0)
    assert told.state(5) is State.QUEUED
    told.tell(ev.Ended(1, 1), at=60.0)
    assert told.state(5) is State.STARTING
    assert told.machine.ledger.rows[0][0] == 1000, "of the two cores that it is told to have"


def resuming() -> Told:
    told = suspended()
    told.tell(ev.Started(2, 1), at=11.0)
    told.tell(ev.Ended(2, 1), at=21.0)
    told.tick(at=31.0)
    assert told.state(1) is State.RESUMING
    return told


def test_resumed_time_does_not_count_its_sleep() -> None:
    told = resuming()
    told.tell(ev.ResumeDone(1, 1), at=32.0)
    assert told.state(1) is State.RUNNING
    assert told[1].ran(40.0) == (11.0 - 1.0) + (40.0 - 32.0)
    told.tell(ev.ResumeDone(1, 1), at=41.0)
    assert "not being resumed" in told.ignored[-1]
    assert told[1].ran(41.0) == 19.0


def test_cancel_while_it_is_resumed() -> None:
    told = resuming()
    told.tell(ev.CancelAsked(1), at=31.5)
    told.tell(ev.ResumeDone(1, 1), at=32.0)
    assert told.state(1) is State.STOPPING
    told.tell(ev.Ended(1, 1, signal=15), at=33.0)
    assert told.ends[1][0] is State.CANCELLED
    assert told.machine.ledger.is_empty(0)


def test_it_may_end_while_it_is_resumed() -> None:
    told = resuming()
    told.tell(ev.Ended(1, 1), at=32.0)
    assert told.ends[1][0] is State.DONE
    assert told.machine.ledger.is_empty(0)


# -------------------------------------------------------------------------------------- time limits


def test_a_time_limit_stops_it() -> None:
    told = held_up()
    told.submit(job(1, limit=10.0))
    assert told.machine.next_wake() is None, "the limit counts from the start"
    told.tell(ev.Started(1, 1), at=5.0)
    assert told.machine.next_wake() == 15.0
    told.tick(at=14.9)
    assert told.state(1) is State.RUNNING
    step = told.tick(at=15.0)
    assert [type(one) for one in step.instructions] == [ev.StopJob]
    told.tell(ev.Ended(1, 1, signal=15), at=16.0)
    assert told.ends[1] == (State.TIMEOUT, "its time limit of 10 s is over")


def test_an_end_at_the_very_limit_is_an_end() -> None:
    told = Told("share", ONE)
    told.submit(job(1, limit=10.0))
    told.tell(ev.Ended(1, 1), at=10.0)
    assert told.ends[1][0] is State.DONE
    assert told.machine.next_wake() is None


def test_suspension_does_not_count_towards_the_limit() -> None:
    told = Told("hybrid", ONE)
    told.submit(job(1, 4, harvest=True, limit=30.0))
    told.submit(job(2, 4, expected=50.0), at=10.0)
    assert told.state(1) is State.SUSPENDED
    told.tick(at=35.0)
    assert told.state(1) is State.SUSPENDED
    told.end(2, at=60.0)
    assert told.state(1) is State.RUNNING
    assert told.machine.next_wake() == pytest.approx(80.0)
    told.tick(at=79.0)
    assert told.state(1) is State.RUNNING
    told.tick(at=80.0)
    assert told.ends[1][0] is State.TIMEOUT


def test_each_attempt_has_the_whole_limit() -> None:
    told = Told("share", ONE)
    told.submit(job(1, limit=10.0, retries=1))
    told.end(1, at=8.0, code=1)
    told.tick(at=12.0)
    assert told.state(1) is State.RUNNING
    told.tick(at=18.0)
    assert told.ends[1][0] is State.TIMEOUT, "a time limit is not retried"


def test_a_clock_that_jumps_back_stands_still() -> None:
    told = Told("share", ONE)
    told.submit(job(1, limit=10.0), at=100.0)
    told.tick(at=50.0)
    assert told.machine.now == 100.0
    told.submit(job(2), at=20.0)
    assert told[2].submitted_at == 100.0
    told.tick(at=110.0)
    assert told.ends[1][0] is State.TIMEOUT


# ------------------------------------------------------------------------------------------- nodes


def test_a_gang_that_loses_a_node_is_stopped_on_the_others() -> None:
    told = held_up("share", ONE, TWO)
    told.submit(job(1, 3, nodes=2))
    told.tell(ev.Started(1, 1), at=1.0)
    step = told.tell(ev.NodeLost("a"), at=2.0)
    assert [type(one) for one in step.instructions] == [ev.StopJob]
    assert told.machine.ledger.holders(0) == {}
    assert list(told.machine.ledger.holders(1)) == [1]
    told.tell(ev.NodeJoined(ONE), at=3.0)
    told.tell(ev.Ended(1, 1, signal=15), at=4.0)
    assert told.ends[1][0] is State.LOST
    assert "node a was lost" in told.ends[1][1]


def test_a_gang_that_loses_a_node_may_be_retried() -> None:
    told = Told("share", ONE, TWO)
    told.submit(job(1, 3, nodes=2, retries=1))
    told.tell(ev.NodeLost("a"), at=2.0)
    assert told.state(1) is State.QUEUED
    told.tell(ev.NodeJoined(ONE), at=3.0)
    assert told.state(1) is State.RUNNING
    assert told[1].attempt == 2


def test_a_gang_whose_start_is_refused_after_it_lost_a_node_may_be_retried() -> None:
    told = held_up("share", ONE, TWO)
    told.submit(job(1, 3, nodes=2, retries=1))
    told.tell(ev.NodeLost("a"), at=2.0)
    told.tell(ev.StartRefused(1, 1, "no"), at=3.0)
    assert told.state(1) is State.QUEUED


def test_both_nodes_of_a_gang_may_go() -> None:
    told = held_up("share", ONE, TWO)
    told.submit(job(1, 3, nodes=2))
    told.tell(ev.Started(1, 1), at=1.0)
    told.tell(ev.NodeLost("a"), ev.NodeLost("b"), ev.NodeLost("b"), at=2.0)
    assert told.ends[1][0] is State.LOST
    assert "not there" in told.ignored[-1]
    told.tell(ev.Ended(1, 1, signal=15), at=3.0)
    assert "no such attempt" in told.ignored[-1]


def test_a_cancelled_job_whose_node_goes_is_cancelled() -> None:
    told = held_up()
    told.submit(job(1, retries=3))
    told.tell(ev.CancelAsked(1), ev.NodeLost("a"), at=1.0)
    assert told.ends[1][0] is State.CANCELLED


def test_what_others_use_is_not_given_out() -> None:
    told = Told("share", ONE)
    told.tell(ev.ForeignUse("a", cores=(0, 1, 2)))
    told.submit(job(1, 2))
    assert told.state(1) is State.QUEUED
    assert "not enough free cores" in told.why(1)
    told.tell(ev.ForeignUse("a", cores=(0,)), at=1.0)
    assert told[1].placement is not None
    assert told[1].placement.shares[0].cores == (1, 2)
    told.tell(ev.ForeignUse("a", cores=(1, 2)), at=2.0)
    assert told.state(1) is State.RUNNING, "what a job holds stays with it"
    told.end(1, at=3.0)
    assert told.machine.ledger.free[0, 0] == 2000


def test_a_gpu_on_which_somebody_computes_is_not_given_out() -> None:
    told = Told("share", Node("g", 4000, 0, (Gpu(0), Gpu(1))))
    told.tell(ev.ForeignUse("g", gpus=(0,)))
    told.submit(job(1, gpus=1))
    assert told[1].placement is not None
    assert told[1].placement.shares[0].gpus == (1,)
    told.submit(job(2, gpus=1))
    assert told.state(2) is State.QUEUED
    told.tell(ev.ForeignUse("g"), at=1.0)
    assert told.state(2) is State.RUNNING


# -------------------------------------------------------------------------------------------- starts


def test_a_refused_start_does_not_count() -> None:
    told = held_up()
    told.submit(job(1))
    step = told.tell(ev.StartRefused(1, 1, "core 0 was taken"), at=1.0)
    assert told[1].reason.endswith("; attempt 1 could not be started: core 0 was taken")
    assert step.instructions == (ev.StartJob(1, 2, told[1].placement),)  # type: ignore[arg-type]
    assert told[1].failures == 0
    told.tell(ev.Started(1, 1), at=1.5)
    assert told.state(1) is State.STARTING, "that was the first attempt"


def test_a_start_that_worked_cannot_be_refused() -> None:
    told = held_up()
    told.submit(job(1))
    told.tell(ev.Started(1, 1), ev.StartRefused(1, 1, "late"), at=1.0)
    assert told.state(1) is State.RUNNING
    assert "cannot be refused" in told.ignored[-1]
    assert told.machine.ledger.holders(0)


def test_a_refused_start_of_a_cancelled_job_ends_it() -> None:
    told = held_up()
    told.submit(job(1))
    told.tell(ev.CancelAsked(1), ev.StartRefused(1, 1, "no"), at=1.0)
    assert told.ends[1][0] is State.CANCELLED


def test_a_job_may_end_before_its_start_was_told() -> None:
    told = held_up()
    told.submit(job(1))
    told.tell(ev.Ended(1, 1), ev.Started(1, 1), at=1.0)
    assert told.ends[1][0] is State.DONE


# -------------------------------------------------------------------------------------- dependencies


def test_after_success_and_after_any_end() -> None:
    told = Told("share", ONE)
    told.submit(job(1))
    told.submit(job(2, after=(After(1),)))
    told.submit(job(3, after=(After(1, ok=False),)))
    told.submit(job(4, after=(After(2), After(3, ok=False))))
    assert [told.state(k) for k in (2, 3, 4)] == [State.BLOCKED] * 3
    assert told.why(4) == "it waits for jobs 2, 3 to end"
    told.end(1, code=1, at=5.0)
    assert told.ends[2] == (State.CANCELLED, "job 1, on whose success it depends, did not end well")
    assert told.state(3) is State.RUNNING
    assert told.ends[4][0] is State.CANCELLED
    assert "job 2" in told.ends[4][1]


def test_a_dependency_is_met_by_success_after_a_retry() -> None:
    told = Told("share", ONE)
    told.submit(job(1, retries=1))
    told.submit(job(2, after=(After(1),)))
    told.end(1, code=1)
    assert told.state(2) is State.BLOCKED
    told.end(1)
    assert told.state(2) is State.RUNNING


def test_a_dependency_on_what_has_ended() -> None:
    told = Told("share", ONE)
    told.submit(job(1))
    told.end(1)
    told.tick(at=1.0)
    told.submit(job(2, after=(After(1),)))
    assert told.state(2) is State.RUNNING
    told.end(2, code=1)
    told.submit(job(3, after=(After(2),)))
    assert told.ends[3][0] is State.CANCELLED
    told.submit(job(4, after=(After(2, ok=False),)))
    assert told.state(4) is State.RUNNING


def test_a_job_that_waits_for_itself_is_refused_and_never_waits() -> None:
    told = Told("share", ONE)
    with pytest.raises(DependencyError):
        told.machine.check(job(1, after=(After(1),)))
    told.tell(ev.Submitted(job(1, after=(After(1),))))
    assert told.ends[1][0] is State.CANCELLED
    with pytest.raises(DependencyError, match="job 77"):
        told.machine.check(job(2, after=(After(77),)))
    told.machine.check(job(2, after=(After(3, ok=False),)), batch=[job(3)])


def test_a_long_chain_falls_at_once() -> None:
    told = Told("share", ONE)
    told.submit(job(1))
    told.tell(*(ev.Submitted(job(k, after=(After(k - 1),))) for k in range(2, 3000)))
    told.end(1, code=1)
    assert len(told.ends) == 2999
    assert {state for state, _ in told.ends.values()} == {State.FAILED, State.CANCELLED}


def test_a_held_job_whose_dependency_fails_ends() -> None:
    told = Told("share", ONE)
    told.submit(job(1))
    told.submit(job(2, after=(After(1),), held=True))
    told.submit(job(3, after=(After(1, ok=False),), held=True))
    told.end(1, code=1)
    assert told.ends[2][0] is State.CANCELLED
    assert told.state(3) is State.HELD
    told.tell(ev.ReleaseAsked(3))
    assert told.state(3) is State.RUNNING


def test_hold_and_release() -> None:
    told = Told("share", ONE)
    told.submit(job(1, 4))
    told.submit(job(2))
    told.submit(job(3, after=(After(1),)))
    told.tell(ev.HoldAsked(2), ev.HoldAsked(3), ev.HoldAsked(1))
    assert [told.state(k) for k in (1, 2, 3)] == [State.RUNNING, State.HELD, State.HELD]
    assert "cannot be held" in told.ignored[-1]
    assert "tandem release" in told.why(2)
    told.end(1)
    assert told.state(3) is State.HELD
    told.tell(ev.ReleaseAsked(2), ev.ReleaseAsked(3), ev.ReleaseAsked(3))
    assert told.running() == {2, 3}
    assert "not held" in told.ignored[-1]


def test_elements_of_an_array_are_jobs_of_their_own() -> None:
    told = Told("share", ONE)
    for k in range(6):
        told.submit(job(10 + k, array=(10, k)))
    assert told.running() == {10, 11, 12, 13}
    told.end(11, code=1)
    assert told.ends[11][0] is State.FAILED
    assert told.running() == {10, 12, 13, 14}


def test_priorities_go_first() -> None:
    told = Told("share", ONE)
    told.submit(job(1, 4))
    for k, priority in ((2, 0), (3, 5), (4, 0), (5, 9)):
        told.submit(job(k, 4, priority=priority))
    for k in (1, 5, 3, 2):
        told.end(k)
    assert told.decisions(ev.Start) == [1, 5, 3, 2, 4]


def test_a_second_submission_of_an_id_is_ignored() -> None:
    told = Told("share", ONE)
    told.submit(job(1))
    told.tell(ev.Submitted(job(1, 2)))
    assert "already" in told.ignored[-1]
    told.end(1)
    told.tick(at=1.0)
    told.tell(ev.Submitted(job(1)))
    assert "already" in told.ignored[-1]
    assert told.machine.next_id == 2


# ----------------------------------------------------------------------------------- refused at once


@pytest.mark.parametrize(
    ("need", "count", "words"),
    [
        (Need(5000), 1, "5 cores on one node; allowed: at most 4 cores on a node"),
        (Need(1000, 101), 1, "at most 100 MiB of memory on a node"),
        (Need(1000, gpus=3), 1, "3 whole GPUs on one node; allowed: at most 2 whole GPUs on a node"),
        (Need(1000, gpus=1, gpu_type="h100"), 1, "GPU types here: a100"),
        (Need(1000, gpus=1, gpu_mem_mib=90_000), 1, "at most 80000 MiB of GPU memory"),
        (Need(1000, labels=frozenset({"ssd"})), 1, "labels here: big"),
        (Need(1000, membw_mbs=600), 2, "each of 2 nodes; allowed: 1 node at a time can give that"),
        (Need(4000), 4, "each of 4 nodes; allowed: 3 nodes at a time"),
        (Need(4000, 100, gpus=2), 1, "no single node has all of it together"),
    ],
)
def test_a_demand_that_can_never_be_met_names_the_resource(need: Need, count: int, words: str) -> None:
    told = Told(
        "share",
        Node("a", 4000, 100, membw_mbs=500, labels=frozenset({"big"})),
        Node("b", 4000, 100),
        Node("g", 4000, 50, (Gpu(0, "a100", 80_000), Gpu(1, "a100", 80_000)), membw_mbs=500),
    )
    demand = job(1, nodes=count)
    with pytest.raises(ImpossibleDemandError) as refusal:
        told.machine.check(type(demand)(1, (Part(need, count),)))
    assert words in str(refusal.value)


def test_half_a_core_is_refused_where_cores_are_pinned() -> None:
    told = Told("share", ONE)
    with pytest.raises(ImpossibleDemandError, match="whole cores"):
        told.machine.check(job(1, 0.5))


def test_parts_that_never_fit_together_are_refused() -> None:
    told = Told("share", ONE)
    gang = job(1)
    with pytest.raises(ImpossibleDemandError, match="not all of them at once"):
        told.machine.check(type(gang)(1, (Part(Need(3000)), Part(Need(2000)))))
    told.machine.check(type(gang)(1, (Part(Need(2000)), Part(Need(2000)))))


def test_nothing_can_run_before_a_node_has_joined() -> None:
    with pytest.raises(ImpossibleDemandError, match="no node has joined"):
        Machine(Setup("share", "none")).check(job(1))


# --------------------------------------------------------------------------------------- in words


def test_why_in_every_state() -> None:
    told = held_up("backfill", ONE, TWO)
    told.submit(job(1, 4, nodes=2, limit=100.0))
    assert told.why(1) == "it is first in the queue and fits"
    told.tell(ev.Started(1, 1))
    told.submit(job(2, 4, nodes=2, limit=50.0), at=1.0)
    told.submit(job(3, 1, mem=100, limit=50.0), at=2.0)
    assert told.why(2) == "not enough free cores on any node"
    assert told.why(3) == "job 2 is first in the queue; not enough free cores on any node"
    told.tell(ev.NodeLost("b"), at=3.0)
    told.tell(ev.Ended(1, 1, signal=9), at=4.0)
    assert told.state(3) is State.STARTING
    assert told.why(2) == "not enough free cores on any node"
    told.tell(ev.Started(3, 1), ev.Ended(3, 1), at=5.0)
    assert told.why(2) == "it needs 2 nodes at once, and 1 can give its share now"
    told.tell(ev.NodeLost("a"), at=6.0)
    assert told.why(2) == "no node that could take it is up"
    told.tell(ev.NodeJoined(ONE), ev.NodeJoined(TWO), at=7.0)
    told.tell(ev.Started(2, 1), ev.CancelAsked(2), at=8.0)
    assert told.why(2) == "it was cancelled"


def test_why_names_the_memory_that_is_missing() -> None:
    told = Told("share", ONE)
    told.submit(job(1, 1, mem=80))
    told.submit(job(2, 1, mem=30))
    assert told.why(2) == "not enough free memory on any node"


def test_why_does_not_count_nodes_that_could_never_take_it() -> None:
    told = Told("share", Node("a", 8000, 0), Node("g", 4000, 0, (Gpu(0, "h"),)))
    told.submit(job(1, gpus=1))
    told.submit(job(2, gpus=1))
    assert told.why(2) == "not enough free GPUs on any node"


def test_a_reservation_is_told_while_it_holds() -> None:
    told = Told("backfill", ONE)
    told.submit(job(1, 3, limit=100.0), at=1000.0)
    told.submit(job(2, 4, limit=10.0), at=1001.0)
    told.submit(job(3, 1, limit=10.0), at=1002.0)
    assert told.state(3) is State.RUNNING
    assert "it is promised a by" in told.why(2)
    told.submit(job(4, 4, limit=10.0, priority=1), at=1003.0)
    assert "promised" not in told.why(2)
    assert told.why(2).startswith("job 4 is first in the queue")


def test_the_policy_is_asked_when_it_wanted_to_though_something_else_comes_just_then() -> None:
    told = Told("hybrid", Node("g", 16_000, 100, (Gpu(0), Gpu(1))))
    told.submit(job(1, 10, expected=5000.0))
    told.submit(job(2, 4, expected=10.0))
    wake = told.machine.next_wake()
    assert wake is not None
    told.tell(ev.Measured(1, 1.0, 1.0, (), None, throttled=True), at=wake)
    assert told.running() == {1, 2}
