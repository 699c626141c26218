"""EASY backfilling, case by case, worked out by hand."""

from tandem.share import events as ev
from tandem.share.model import Gpu, Job, Need, Node, Part, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.simulator import Simulator
from tandem.share.workloads.workload import Arrival, Workload
from tests.share.told import Told, job

NODE = Node("a", 4000, 100)


def starts(nodes: tuple[Node, ...], *jobs: tuple[float, Job, float]) -> dict[int, float | None]:
    """When each of (arrival, job, work) starts."""
    day = Simulator(Workload(nodes, tuple(Arrival(*one) for one in jobs)), Setup("backfill", "none")).run()
    return {outcome.job.id: outcome.started for outcome in day.outcomes}


def test_a_short_job_passes_the_head_and_a_long_one_does_not() -> None:
    found = starts(
        (NODE,),
        (0.0, job(1, 3, limit=10), 10.0),
        (1.0, job(2, 4, limit=10), 10.0),  # promised 10
        (2.0, job(3, 1, limit=9), 8.0),  # until 11: would delay it
        (3.0, job(4, 1, limit=7), 7.0),  # until 10: would not
    )
    assert found == {1: 0.0, 2: 10.0, 3: 20.0, 4: 3.0}


def test_an_early_end_brings_the_head_forward() -> None:
    found = starts(
        (NODE,),
        (0.0, job(1, 3, limit=100), 10.0),
        (1.0, job(2, 4, limit=10), 10.0),  # promised 100
        (2.0, job(3, 1, limit=50), 50.0),  # until 52 <= 100: starts, and holds the head up until 52 all the same
    )
    assert found == {1: 0.0, 2: 52.0, 3: 2.0}, "EASY plans by limits, and limits were wrong"


def test_a_long_job_starts_beside_the_reservation() -> None:
    found = starts(
        (NODE, Node("b", 4000, 100)),
        (0.0, job(1, 3, limit=10), 10.0),  # a
        (0.0, job(2, 4, limit=30), 30.0),  # b
        (1.0, job(3, 3, limit=10), 10.0),  # promised a at 10, which leaves a core
        (2.0, job(4, 1, limit=99), 99.0),  # that one
        (3.0, job(5, 1, limit=99), 99.0),  # none is left, neither now nor beside the head
    )
    assert found == {1: 0.0, 2: 0.0, 3: 10.0, 4: 2.0, 5: 20.0}


def test_the_reservation_is_for_one_resource_of_several() -> None:
    gpu = Node("g", 4000, 100, (Gpu(0), Gpu(1)))
    found = starts(
        (gpu,),
        (0.0, job(1, 1, gpus=2, limit=10), 10.0),
        (1.0, job(2, 2, gpus=2, limit=10), 10.0),  # waits for GPUs until 10
        (2.0, job(3, 2, limit=99), 99.0),  # leaves it two cores
        (3.0, job(4, 1, limit=99), 99.0),  # would not
        (4.0, job(5, 1, limit=6), 6.0),  # is over by then
    )
    assert found == {1: 0.0, 2: 10.0, 3: 2.0, 4: 20.0, 5: 4.0}


def test_a_gang_is_promised_the_nodes_that_come_free_first() -> None:
    nodes = tuple(Node(f"n{i}", 4000, 0) for i in range(3))
    told = Told("backfill", *nodes)
    for k, limit in ((1, 30.0), (2, 10.0), (3, 20.0)):
        told.submit(job(k, 3, limit=limit))
    told.submit(job(4, 4, nodes=2, limit=5.0), at=1.0)
    told.submit(job(5, 1, limit=500.0), at=2.0)  # the only node that is not promised
    assert told.where(5) == ("n0",)
    reserve = next(one for one in told.decided if isinstance(one, ev.Reserve))
    assert (reserve.job, reserve.at, reserve.nodes) == (4, 20.0, ("n1", "n2"))
    told.submit(job(6, 1, limit=500.0), at=3.0)
    assert told.state(6) is State.QUEUED


def test_the_fullest_node_is_taken() -> None:
    told = Told("backfill", Node("a", 8000, 0), Node("b", 4000, 0), Node("g", 2000, 0, (Gpu(0),)))
    for k, cores in ((1, 3), (2, 4), (3, 1), (4, 1)):
        told.submit(job(k, cores, limit=100.0))
    assert [told.where(k) for k in (1, 2, 3, 4)] == [("b",), ("a",), ("b",), ("a",)], "GPU nodes last"


def test_an_overdue_job_is_planned_anew() -> None:
    """A job without a limit that runs longer than expected does not make the reservation point to the past."""
    told = Told("backfill", NODE)
    told.submit(job(1, 3, expected=10.0))
    planned = told[1].planned_end
    told.submit(job(2, 4, limit=10.0), at=1.0)
    told.tick(at=planned + 1.0)
    assert told[1].planned_end > told.now
    told.submit(job(3, 1, limit=0.1), at=planned + 2.0)
    assert told.state(3) is State.RUNNING
    told.submit(job(4, 1, limit=1e6), at=planned + 3.0)
    assert told.state(4) is State.QUEUED


def test_a_cancelled_head_lets_the_next_one_go() -> None:
    told = Told("backfill", NODE)
    told.submit(job(1, 3, limit=10.0))
    told.submit(job(2, 4, limit=10.0))
    told.submit(job(3, 1, limit=100.0))
    assert told.state(3) is State.QUEUED
    told.tell(ev.CancelAsked(2))
    assert told.state(3) is State.RUNNING


def test_a_gang_that_fits_only_part_by_part_does_not_stop_the_pass() -> None:
    told = Told("backfill", NODE, Node("b", 4000, 0))
    told.submit(job(1, 4, limit=100.0))
    told.submit(job(2, 2, limit=100.0))
    told.submit(job(3, 4, nodes=2, limit=100.0), at=1.0)  # head
    told.submit(Job(4, (Part(Need(2000)), Part(Need(1000))), limit_s=5.0), at=2.0)  # 3 cores in all, b has 2
    told.submit(job(5, 1, limit=5.0), at=3.0)
    assert told.state(4) is State.QUEUED
    assert told.state(5) is State.RUNNING
