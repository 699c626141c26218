"""The simulator's own part, with times worked out by hand: how fast jobs go, and what the machine is told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.share import events as ev
from tandem.share.model import Gpu, Job, Node, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.metrics import Outcome
from tandem.share.simulate.simulator import Day, Simulator
from tandem.share.simulate.truth import Bandwidth, Pairwise, Truth
from tandem.share.workloads.workload import Arrival, Workload
from tests.share.told import job

NODE = Node("a", 4000, 100)
OTHER = Node("b", 4000, 100)


def simulate(
    policy: str,
    nodes: tuple[Node, ...],
    *jobs: tuple[float, Job, float],
    truth: Truth | None = None,
    extra: list[tuple[float, ev.Event]] | None = None,
    options: dict[str, float] | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> Day:
    """Run (arrival, job, work) and keep the log."""
    workload = Workload(nodes, tuple(Arrival(*one) for one in jobs))
    setup = Setup(policy, "none", options or {})
    return Simulator(workload, setup, truth, noise=noise, seed=seed, keep_log=True).run(extra or [])


def by_id(day: Day) -> dict[int, Outcome]:
    """Outcomes by job."""
    return {outcome.job.id: outcome for outcome in day.outcomes}


def told(day: Day, kind: type) -> list[tuple[float, ev.Event]]:
    """When the machine was told events of a kind."""
    return [(now, event) for now, events, _ in day.log for event in events if isinstance(event, kind)]


def test_jobs_take_as_long_as_they_take() -> None:
    found = by_id(simulate("share", (NODE,), (0.0, job(1, 4), 10.0), (3.0, job(2, 2), 5.0), (3.5, job(3, 2), 1.0)))
    assert [(found[k].submitted, found[k].started, found[k].ended) for k in (1, 2, 3)] == [
        (0.0, 0.0, 10.0),
        (3.0, 10.0, 15.0),
        (3.5, 10.0, 11.0),
    ]
    assert found[2].intervals == ((10.0, 15.0, 2000, 0),)
    assert found[2].slowdown == 1.0


def test_neighbours_slow_each_other_while_they_are_together() -> None:
    """Beside b, a goes at half speed and b at full: a does 5 of 20 alone, 5 in the 10 beside b, the last 10 alone."""
    day = simulate(
        "share",
        (NODE,),
        (0.0, job(1, 1, app="a"), 20.0),
        (5.0, job(2, 1, app="b"), 10.0),
        truth=Pairwise({("a", "b"): 2.0}),
    )
    found = by_id(day)
    assert found[2].ended == 15.0
    assert found[1].ended == 25.0
    assert found[1].slowdown == pytest.approx(1.25)
    measured = [
        (now, e.job, e.rate, e.seconds, e.beside) for now, e in told(day, ev.Measured) if isinstance(e, ev.Measured)
    ]
    assert measured == [
        (5.0, 1, 1.0, 5.0, ()),
        (15.0, 1, 0.5, 10.0, ("b",)),
        (15.0, 2, 1.0, 10.0, ("a",)),
        (25.0, 1, 1.0, 10.0, ()),
    ]


def test_what_is_measured_comes_before_the_end() -> None:
    """A job's records are read before its exit: otherwise what ran undisturbed would never be measured."""
    day = simulate("share", (NODE,), (0.0, job(1, app="a"), 9.0), truth=Pairwise({("x", "y"): 2.0}))
    events = [event for _, events, _ in day.log for event in events]
    kinds = [type(event) for event in events]
    assert kinds.index(ev.Measured) < kinds.index(ev.Ended)
    assert not [words for _, _, step in day.log for words in step.ignored]


def test_a_gang_goes_as_fast_as_its_slowest_node() -> None:
    day = simulate(
        "share",
        (NODE, OTHER),
        (0.0, job(1, 3, app="b"), 30.0),  # on a
        (0.0, job(2, 1, nodes=2, app="a"), 20.0),  # on a and b
        (0.0, job(3, 1, app="c"), 30.0),  # on b
        truth=Pairwise({("a", "b"): 2.0, ("a", "c"): 1.5}),
    )
    found = by_id(day)
    assert found[1].ended == found[3].ended == 30.0
    assert found[2].ended == 35.0  # half speed until 30, then 5 alone
    last = next(e for _, e in told(day, ev.Measured) if isinstance(e, ev.Measured) and e.job == 2)
    assert last.beside == ("b", "c"), "each neighbour once"


def test_bandwidth_is_shared() -> None:
    node = Node("a", 4000, 0, membw_mbs=100)
    fits = [(0.0, job(k, 1, membw=50, app="s"), 10.0) for k in (1, 2)]
    assert {outcome.ended for outcome in simulate("share", (node,), *fits, truth=Bandwidth()).outcomes} == {10.0}
    undeclared = Bandwidth(1.0)
    day = simulate("share", (node,), *((0.0, job(k, 1, app="s"), 10.0) for k in (1, 2)), truth=undeclared)
    assert {outcome.ended for outcome in day.outcomes} == {10.0}, "who asks for nothing waits for nothing"
    over = [(0.0, job(k, 1, membw=80, app="s"), 10.0) for k in (1, 2)]
    assert [outcome.ended for outcome in simulate("share", (node,), *over, truth=Bandwidth()).outcomes] == [10.0, 20.0]


def test_suspension_stops_the_work() -> None:
    found = by_id(
        simulate(
            "hybrid", (NODE,), (0.0, job(1, 4, harvest=True, expected=50.0), 20.0), (5.0, job(2, 4, expected=5.0), 8.0)
        )
    )
    assert (found[2].started, found[2].ended) == (5.0, 13.0)
    assert found[1].ended == 28.0
    assert [one[:2] for one in found[1].intervals] == [(0.0, 5.0), (13.0, 28.0)]
    assert found[1].slowdown == 1.0, "waiting is not being slowed by neighbours"


def test_a_throttle_slows_what_is_throttled() -> None:
    """Told from outside that the primary suffers, the machine throttles the harvest job to a half."""
    suffers = [(10.0, ev.Measured(1, 10.0, 5.0)), (20.0, ev.Measured(1, 8.0, 5.0, ("h",)))]
    jobs = (
        (0.0, job(1, 1, app="p", expected=100.0), 100.0),
        (0.0, job(2, 1, app="h", harvest=True, expected=60.0), 60.0),
    )
    for truth in (None, Pairwise({("x", "y"): 2.0})):
        day = simulate("hybrid", (NODE,), *jobs, truth=truth, extra=suffers)
        found = by_id(day)
        assert found[1].ended == 100.0
        # 20 at full speed, then at half speed: 40 of 60 are left, 80 more seconds.
        assert found[2].ended == 100.0
        if truth is not None:
            measured = [e for _, e in told(day, ev.Measured) if isinstance(e, ev.Measured) and e.job == 1]
            assert measured[-1].beside == ("h@0.5",), "another neighbour than the one that is not throttled"


def test_a_requeued_job_goes_on_from_its_checkpoint() -> None:
    node = Node("g", 4000, 0, (Gpu(0),))
    for checkpoint, end in (("SIGUSR1", 60.0), ("", None)):
        day = simulate(
            "las",
            (node,),
            (0.0, job(1, 1, gpus=1, checkpoint=checkpoint), 50.0),
            (30.0, job(2, 1, gpus=1), 10.0),
            options={"las_step_s": 20.0},
        )
        found = by_id(day)
        if end is None:
            assert [one[:2] for one in found[1].intervals] == [(0.0, 50.0)], "it is left alone"
        else:
            assert found[2].started == 30.0
            assert [one[:2] for one in found[1].intervals] == [(0.0, 30.0), (40.0, 60.0)]
            assert found[1].ended == end


def test_what_was_measured_is_told_before_a_job_that_is_stopped_ends() -> None:
    """So the machine knows how much of it is saved."""
    node = Node("g", 4000, 0, (Gpu(0),))
    day = simulate(
        "las",
        (node,),
        (0.0, job(1, 1, gpus=1, checkpoint="SIGUSR1", app="a"), 50.0),
        (30.0, job(2, 1, gpus=1), 10.0),
        options={"las_step_s": 20.0},
        truth=Pairwise({("x", "y"): 2.0}),
    )
    (batch,) = [events for _, events, _ in day.log if ev.Ended(1, 1, signal=15, saved=True) in events]
    assert batch[0] == ev.Measured(1, 1.0, 30.0, (), 0.6)


def test_a_lost_node_loses_the_work_and_a_retry_begins_anew() -> None:
    extra: list[tuple[float, ev.Event]] = [(6.0, ev.NodeLost("a")), (8.0, ev.NodeJoined(NODE))]
    day = simulate(
        "share",
        (NODE,),
        (0.0, job(1, 2, app="a", retries=1), 10.0),
        (0.0, job(2, 2, app="b"), 100.0),
        extra=extra,
        truth=Pairwise({("a", "b"): 2.0}),
    )
    found = by_id(day)
    assert (found[2].state, found[2].ended) == (State.LOST, 6.0)
    assert found[1].state is State.DONE
    assert found[1].ended == 18.0, "alone now: nobody's ghost slows it"
    assert [one[:2] for one in found[1].intervals] == [(0.0, 6.0), (8.0, 18.0)]


def test_a_gang_that_loses_a_node_leaves_the_other() -> None:
    day = simulate(
        "share",
        (NODE, OTHER),
        (0.0, job(1, 4, nodes=2), 10.0),
        (1.0, job(2, 4), 5.0),
        extra=[(4.0, ev.NodeLost("a"))],
    )
    found = by_id(day)
    assert found[1].state is State.LOST
    assert (found[2].started, found[2].ended) == (4.0, 9.0)


def test_cancellation_and_time_limits() -> None:
    day = simulate(
        "share",
        (NODE,),
        (0.0, job(1, 4, limit=7.0), 10.0),
        (0.0, job(2, 4), 10.0),
        (0.0, job(3, 4), 10.0),
        extra=[(3.0, ev.CancelAsked(3)), (9.0, ev.CancelAsked(2))],
    )
    found = by_id(day)
    assert (found[1].state, found[1].ended) == (State.TIMEOUT, 7.0)
    assert (found[2].state, found[2].started, found[2].ended) == (State.CANCELLED, 7.0, 9.0)
    assert (found[3].state, found[3].started) == (State.CANCELLED, None)


def test_a_job_that_never_starts_does_not_hang_the_day() -> None:
    found = by_id(simulate("share", (NODE,), (0.0, job(1, 8), 10.0), (0.0, job(2, 1), 10.0)))
    assert found[1].state is State.QUEUED
    assert found[1].started is None
    assert found[2].state is State.DONE


def test_nothing_at_all() -> None:
    day = simulate("hybrid", (NODE,))
    assert day.outcomes == []
    assert day.steps == 1


def test_work_of_no_length() -> None:
    assert by_id(simulate("backfill", (NODE,), (1.0, job(1, limit=1.0), 0.0)))[1].ended == 1.0


def test_equal_seeds_give_equal_days() -> None:
    jobs = [
        (float(k), job(k, 1 + k % 3, app=f"a{k % 3}", membw=40, harvest=k % 2 == 0, expected=9.0), 9.0)
        for k in range(1, 40)
    ]
    node = Node("a", 8000, 0, membw_mbs=100)
    days = [simulate("hybrid", (node,), *jobs, truth=Bandwidth(), noise=0.05, seed=seed) for seed in (1, 1, 2)]
    assert days[0].log == days[1].log
    assert days[0].outcomes == days[1].outcomes
    assert days[0].quotes == days[1].quotes
    assert days[0].log != days[2].log, "the noise is drawn from the seed"


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(1, 4), st.floats(0.1, 30), st.sampled_from("abc")), max_size=15)
)
def test_work_is_conserved(jobs: list[tuple[float, int, float, str]]) -> None:
    """Under any interference a job has done exactly its work when it ends, and is never faster than alone."""
    made = [
        (at, job(k, cores, app=app), work)
        for k, (at, cores, work, app) in enumerate(sorted(jobs, key=lambda one: one[0]), 1)
    ]
    table = {("a", "b"): 1.7, ("b", "a"): 1.1, ("a", "a"): 1.3, ("c", "a"): 2.5}
    day = simulate("share", (NODE, OTHER), *made, truth=Pairwise(table))
    for outcome in day.outcomes:
        assert outcome.state is State.DONE
        assert outcome.started is not None
        assert outcome.ended - outcome.started == pytest.approx(outcome.slowdown * outcome.work_s)
        assert outcome.slowdown >= 1.0
    done: dict[int, float] = {}
    for _, event in told(day, ev.Measured):
        assert isinstance(event, ev.Measured)
        done[event.job] = done.get(event.job, 0.0) + event.rate * event.seconds
    for outcome in day.outcomes:
        assert done.get(outcome.job.id, 0.0) <= outcome.work_s * (1 + 1e-9) + 1e-9
