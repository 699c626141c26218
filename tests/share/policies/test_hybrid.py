"""`hybrid` by hand and in whole days: order, patience, bounds."""

import pytest
from hypothesis import given, settings

from tandem.estimate.corun import App, Capacity
from tandem.share import events as ev
from tandem.share.model import JobClass, Node, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.simulator import Simulator
from tandem.share.simulate.truth import Pairwise
from tandem.share.workloads.workload import Arrival, Workload
from tests.share.knowing import NODE, OTHER, TWO_CORES, Table, knowing
from tests.share.told import Told, job
from tests.share.unruly import Live, Unruly, crowded


def test_a_start_says_what_it_had_waited_for() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="stream", expected=100.0))
    told.submit(job(2, 1, app="train", expected=10.0), at=1.0)
    told.end(1, at=41.0)
    bound = "a bound would break beside those that run now"
    assert told[2].reason == f"nobody is beside it; it had waited 40s, and was refused a place meanwhile: {bound}"
    told.submit(job(3, 1, app="train", expected=10.0), at=42.0)
    assert "waited" not in told[3].reason


def test_a_primary_job_goes_before_the_harvest_jobs_that_came_earlier() -> None:
    """However short they are, and however long the one that runs still takes."""
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, harvest=True, expected=1e5))
    told.submit(job(2, 2, harvest=True, expected=1.0), at=1.0)
    told.submit(job(3, 2, expected=10.0), at=1.5)
    assert told.running() == {3}
    assert told.state(1) is State.SUSPENDED
    told.end(3, at=20.0)
    assert told.running() == {1}, "who had begun goes on before others begin"


def test_but_not_before_those_of_a_higher_priority() -> None:
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, harvest=True, expected=1e5))
    told.submit(job(2, 2, harvest=True, expected=1.0, priority=1), at=1.0)
    told.submit(job(3, 2, expected=10.0), at=1.5)
    told.tick(at=100.0)
    assert told.running() == {1}
    told.end(1, at=200.0)
    assert told.running() == {2}


def test_neither_class_nor_priority_is_weighed_against_what_neighbours_cost() -> None:
    """The harvest job and the one of a lower priority would cost nothing."""
    told = knowing(Told("hybrid", TWO_CORES), ("train", "stream", 1.05), ("stream", "train", 1.05))
    told.submit(job(1, 1, app="stream", expected=100.0))
    told.submit(job(2, 1, expected=30.0), at=0.5)
    told.submit(job(3, 1, app="train", expected=20.0, priority=1), at=1.0)
    told.submit(job(4, 1, expected=20.0), at=1.0)
    told.submit(job(5, 1, harvest=True, expected=20.0), at=1.0)
    told.end(2, at=30.0)
    assert told.running() == {1, 3}


def test_order_among_primary_jobs_stays_as_it_is() -> None:
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, expected=100.0))
    told.submit(job(2, 2, expected=10.0), at=1.0)
    told.submit(job(3, 2, expected=1.0), at=2.0)
    told.end(1, at=50.0)
    assert told.running() == {3}, "the shorter one, though the other is due as well"


def test_short_jobs_pass_long_ones_but_not_for_ever() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, expected=100.0))
    told.submit(job(2, 4, expected=50.0), at=1.0)
    told.submit(job(3, 4, expected=10.0), at=2.0)
    told.submit(job(4, 4, expected=10.0), at=180.0)
    for k in (1, 3, 2):
        told.end(k, at=200.0 + k)
    assert told.decisions(ev.Start) == [1, 3, 2, 4], "4 weights of 40 s for each are less than 178 s of waiting"


def test_a_primary_that_nobody_suits_is_not_passed_over_for_ever() -> None:
    """Beside the stream it would be too slow, and the stream never ends: after its patience its node falls quiet."""
    arrivals = [Arrival(7.0 * k, job(k + 2, 1, app="stream", expected=20.0, bound=9.0), 20.0) for k in range(100)]
    arrivals.insert(2, Arrival(9.5, job(1, 2, app="train", expected=5.0), 5.0))
    workload = Workload((Node("a", 8000, 0),), tuple(arrivals))
    simulator = Simulator(workload, Setup("hybrid", "none", {"quotes": 0}))
    table = Table({("train", "stream"): 1.5})
    simulator.machine.estimator = simulator.machine.view.estimator = table
    outcomes = {outcome.job.id: outcome for outcome in simulator.run().outcomes}
    started = outcomes[1].started
    assert started is not None
    patience_s = 60 + 8 * 5.0
    assert 9.5 + patience_s < started <= 9.5 + patience_s + 7.0 + 20.0, "once it is impatient, and those there are done"
    assert all(outcome.state is State.DONE for outcome in outcomes.values())


@pytest.mark.parametrize("cores", [2, 8])
def test_a_primary_that_nobody_suits_waits_its_own_length_for_harvest_jobs_and_no_longer(cores: int) -> None:
    """Whenever a core came free a harvest job took it, and nobody was left whose leaving would have been enough."""
    arrivals = [Arrival(0.1 * k, job(k + 2, 1, app="stream", harvest=True, expected=20.0), 20.0) for k in range(40)]
    arrivals.insert(0, Arrival(0.0, job(50, 1, app="calm", expected=18.0, bound=9.0), 18.0))
    arrivals.append(Arrival(9.5, job(1, 1, app="train", expected=15.0), 15.0))
    workload = Workload((Node("a", 1000 * cores, 0),), tuple(arrivals))
    simulator = Simulator(workload, Setup("hybrid", "none", {"quotes": 0}))
    table = Table({("train", "stream"): 1.5, ("train", "calm"): 1.5})
    simulator.machine.estimator = simulator.machine.view.estimator = table
    outcomes = {outcome.job.id: outcome for outcome in simulator.run().outcomes}
    started = outcomes[1].started
    assert started is not None
    assert started == max(18.0, 9.5 + 15.0), "once it is due, and not with the next end of a neighbour"
    assert all(outcome.state is State.DONE for outcome in outcomes.values())


def test_bounds_hold_where_the_estimator_is_right() -> None:
    """`share` breaks bounds, `hybrid` breaks none, on the same day under the same truth."""
    table = {("train", "stream"): 1.6, ("stream", "train"): 1.3, ("train", "train"): 1.02}
    arrivals = []
    for k in range(60):
        harvest = k % 2 == 0
        one = job(k + 1, 1 + k % 3, app="stream" if harvest else "train", harvest=harvest, expected=20.0)
        arrivals.append(Arrival(3.0 * k, one, 20.0))
    broken = {}
    for policy in ("share", "hybrid"):
        workload = Workload((NODE, OTHER, Node("c", 8000, 100)), tuple(arrivals))
        simulator = Simulator(workload, Setup(policy, "none", {"quotes": 0}), Pairwise(table))
        simulator.machine.estimator = simulator.machine.view.estimator = Table(table)
        outcomes = simulator.run().outcomes
        assert {outcome.state for outcome in outcomes} == {State.DONE}
        broken[policy] = sum(o.bound is not None and o.slowdown > o.bound * 1.0001 for o in outcomes)
    assert broken["share"] > 5
    assert broken["hybrid"] == 0


@pytest.mark.slow
@settings(max_examples=40)
@given(crowded())
def test_no_primary_is_placed_beside_a_bad_neighbour(day: Unruly) -> None:
    """Checked against the table itself, at every start and resumption."""
    table = Table({("cg", "fft"): 1.3, ("fft", "train"): 1.2, ("train", "train"): 1.5})
    one = Live(Setup("hybrid", "none"), day)
    one.machine.estimator = one.machine.view.estimator = table
    for action in day.actions:
        one.act(action)
        _, _, step = one.steps[-1]
        for said in step.instructions:
            if isinstance(said, ev.StartJob | ev.ResumeJob):
                assert _beyond_their_bounds(one, said.job, table) == []
    one.settle()


def _beyond_their_bounds(one: Live, started: int, table: Table) -> list[tuple[int, list[str]]]:
    """Primary jobs on the nodes of one that was started whose neighbours slow them too much, with who is there."""
    found = []
    held = {job: held for job, held in one.count.held.items() if not held.paused}
    for share in held[started].shares:
        here = [other.job for other in held.values() if any(s.node == share.node for s in other.shares)]
        slow = table.predict(tuple(App(j.app) for j in here), Capacity(0))
        for neighbour, slowdown in zip(here, slow, strict=True):
            if neighbour.klass is JobClass.PRIMARY and slowdown.mid > neighbour.max_slowdown:
                found.append((neighbour.id, [j.app for j in here]))
    return found


def test_a_weighed_job_is_a_job() -> None:
    """The number of jobs that are weighed against each other is an option, down to one."""
    told = Told("hybrid", NODE, options={"hybrid_window": 1})
    knowing(told, ("train", "stream", 1.09))
    told.submit(job(1, 3, app="train", expected=100.0))
    told.answers = False
    told.tell(
        ev.Submitted(job(2, 1, app="stream", harvest=True, expected=50.0)),
        ev.Submitted(job(3, 1, app="quiet", harvest=True, expected=50.0)),
    )
    assert told.decisions(ev.Start) == [1, 2]
