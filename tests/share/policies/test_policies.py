"""`exclusive` and `share` by hand, and what every policy does with a head that waits."""

from dataclasses import replace

import pytest

from tandem.share import events as ev
from tandem.share.model import Gpu, Job, Need, Node, Part, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.simulator import Simulator
from tandem.share.workloads.workload import Arrival, Workload
from tests.share.told import Told, job

GPU_NODE = Node("g", 40_000, 1000, tuple(Gpu(g) for g in range(8)))


def starts(policy: str, nodes: tuple[Node, ...], *jobs: tuple[float, Job, float]) -> dict[int, float | None]:
    """When each of (arrival, job, work) starts."""
    workload = Workload(nodes, tuple(Arrival(*one) for one in jobs))
    day = Simulator(workload, Setup(policy, "none", {"quotes": 0})).run()
    return {outcome.job.id: outcome.started for outcome in day.outcomes}


# ---------------------------------------------------------------------------------------- exclusive


def test_exclusive_is_strictly_first_come_first_served() -> None:
    nodes = (Node("a", 4000, 0), Node("b", 4000, 0))
    found = starts(
        "exclusive",
        nodes,
        (0.0, job(1, 1, limit=10), 10.0),
        (1.0, job(2, 1, nodes=2, limit=10), 10.0),
        (2.0, job(3, 1, limit=1), 1.0),  # b is empty, but job 2 stands before it
    )
    assert found == {1: 0.0, 2: 10.0, 3: 20.0}


def test_exclusive_gives_nodes_whole() -> None:
    told = Told("exclusive", Node("a", 4000, 0, cores=(0, 1, 2, 3)))
    told.submit(job(1, 1))
    told.submit(job(2, 1))
    assert told.running() == {1}
    placement = told[1].placement
    assert placement is not None
    assert placement.whole
    assert placement.shares[0].cores == (0,), "pinned to what it asked for, so that its rate is its rate alone"
    told.end(1)
    assert told.running() == {2}


def test_exclusive_leaves_a_node_alone_that_others_use() -> None:
    told = Told("exclusive", Node("a", 4000, 0, cores=(0, 1, 2, 3)))
    told.tell(ev.ForeignUse("a", cores=(3,)))
    told.submit(job(1))
    assert told.state(1) is State.QUEUED
    told.tell(ev.ForeignUse("a"))
    assert told.state(1) is State.RUNNING


# -------------------------------------------------------------------------------------------- share


def test_share_takes_the_first_node_that_fits() -> None:
    told = Told("share", Node("a", 4000, 0), Node("b", 4000, 0))
    for k, cores in enumerate((3, 3, 1, 1), 1):
        told.submit(job(k, cores))
    assert [told.where(k) for k in (1, 2, 3, 4)] == [("a",), ("b",), ("a",), ("b",)]


def test_a_big_gang_may_starve_under_share() -> None:
    nodes = (Node("a", 4000, 0), Node("b", 4000, 0))
    stream = [(float(k), job(k + 2, 2, limit=5), 5.0) for k in range(60)]
    found = starts("share", nodes, *stream[:2], (1.5, job(100, 4, nodes=2, limit=5), 5.0), *stream[2:])
    assert found[100] is not None
    assert found[100] >= 60.0, "until the stream is over"


@pytest.mark.parametrize("policy", ["backfill", "hybrid"])
def test_a_big_gang_does_not_starve_where_there_are_reservations(policy: str) -> None:
    nodes = (Node("a", 4000, 0), Node("b", 4000, 0))
    stream = [(float(k), job(k + 2, 2, limit=5, expected=5.0), 5.0) for k in range(200)]
    gang = (1.5, job(500, 4, nodes=2, limit=5, expected=5.0), 5.0)
    found = starts(policy, nodes, *stream[:2], gang, *stream[2:])
    assert found[500] is not None
    assert found[500] <= 30.0


@pytest.mark.parametrize("policy", ["backfill", "hybrid"])
def test_a_gang_of_two_kinds_does_not_starve_either(policy: str) -> None:
    """Each part fits most of the time, both together never by chance."""
    nodes = (Node("a", 4000, 0, (Gpu(0),)),)
    both = Job(500, (Part(Need(2000, gpus=1)), Part(Need(2000))), limit_s=5.0, expected_s=5.0)
    stream = [(float(k), job(k + 2, 1, limit=4, expected=4.0), 4.0) for k in range(200)]
    found = starts(policy, nodes, *stream[:2], (1.5, both, 5.0), *stream[2:])
    assert found[500] is not None
    assert found[500] <= 30.0


@pytest.mark.parametrize("policy", ["share", "backfill", "las", "hybrid"])
def test_a_head_that_waits_for_gpus_does_not_block_others(policy: str) -> None:
    told = Told(policy, GPU_NODE)
    told.submit(job(1, 8, gpus=8, limit=1000.0))
    told.submit(job(2, 1, gpus=1, limit=1000.0), at=1.0)
    told.submit(job(3, 4, limit=5000.0), at=2.0)
    assert told.state(2) is State.QUEUED
    assert told.state(3) is State.RUNNING


NEVER = job(500, 9, nodes=1, limit=5, expected=5.0)
NEVER_TOGETHER = Job(501, (Part(Need(3000), nodes=2), Part(Need(2000))), limit_s=5.0, expected_s=5.0)


@pytest.mark.parametrize("never", [NEVER, NEVER_TOGETHER], ids=["too wide", "not together"])
@pytest.mark.parametrize("policy", ["exclusive", "share", "backfill", "las", "hybrid"])
def test_what_no_node_can_hold_is_passed_over(policy: str, never: Job) -> None:
    nodes = (Node("a", 4000, 0), Node("b", 4000, 0))
    whole = job(1, 4, nodes=2, limit=10, expected=10.0)
    day = [
        (0.0, whole, 10.0),
        (1.0, replace(whole, id=2), 10.0),
        (2.0, job(3, 1, limit=20, expected=20.0), 20.0),
        (3.0, job(4, 4, nodes=1, limit=20, expected=20.0), 20.0),
        (4.0, job(5, 3, nodes=2, limit=20, expected=20.0), 20.0),
    ]
    without = starts(policy, nodes, *day)
    found = starts(policy, nodes, (0.0, never, 5.0), *day[:1], (1.0, replace(never, id=600), 5.0), *day[1:])
    assert found == {never.id: None, 600: None, **without}
    assert None not in without.values()


@pytest.mark.parametrize("never", [NEVER, NEVER_TOGETHER], ids=["too wide", "not together"])
@pytest.mark.parametrize("policy", ["backfill", "hybrid"])
def test_behind_what_no_node_can_hold_a_big_gang_does_not_starve(policy: str, never: Job) -> None:
    nodes = (Node("a", 4000, 0), Node("b", 4000, 0))
    stream = [(float(k), job(k + 2, 2, limit=5, expected=5.0), 5.0) for k in range(60)]
    big = job(100, 4, nodes=2, limit=5, expected=5.0)
    found = starts(policy, nodes, (0.0, never, 5.0), *stream[:2], (1.5, big, 5.0), *stream[2:])
    assert found[100] is not None
    assert found[100] < 20.0


@pytest.mark.parametrize("policy", ["backfill", "hybrid"])
def test_a_head_whose_node_is_away_blocks_nobody(policy: str) -> None:
    told = Told(policy, GPU_NODE, Node("c", 4000, 0))
    told.submit(job(1, 8, gpus=8, limit=1000.0, expected=900.0))
    told.submit(job(2, 8, gpus=8, limit=1000.0, expected=900.0), at=1.0)
    told.tell(ev.NodeLost("g"), at=2.0)
    told.submit(job(3, 4, limit=5000.0, expected=4000.0), at=3.0)
    assert told.state(2) is State.QUEUED
    assert told.state(3) is State.RUNNING
    told.tell(ev.NodeJoined(GPU_NODE), at=4.0)
    assert told.state(2) is State.RUNNING


def test_exclusive_passes_its_head_over_while_no_node_that_could_hold_it_is_up() -> None:
    told = Told("exclusive", GPU_NODE, Node("c", 4000, 0))
    told.submit(job(1, 8, gpus=8))
    told.submit(job(2, 8, gpus=8))
    told.submit(job(3))
    told.submit(job(4))
    told.tell(ev.NodeLost("g"), at=1.0)
    assert (told.state(2), told.state(3), told.state(4)) == (State.QUEUED, State.RUNNING, State.QUEUED)
    assert "is first in the queue" not in told.machine.why(4), "it is the first of those that could run"
    assert told.machine.why(2) == (
        "job 4 is first in the queue; no node that could take it is up: "
        "it asks for 8 cores, 8 whole GPUs on one node (no GPU: there is none here)"
    )
    told.tell(ev.NodeJoined(GPU_NODE), at=2.0)
    assert (told.state(2), told.state(3), told.state(4)) == (State.RUNNING, State.RUNNING, State.QUEUED)
    told.end(3, at=3.0)
    assert told.state(4) is State.RUNNING


def test_exclusive_blocks_at_its_head() -> None:
    told = Told("exclusive", GPU_NODE, Node("c", 4000, 0))
    told.submit(job(1, 8, gpus=8))
    told.submit(job(2, 8, gpus=8))
    told.submit(job(3))
    assert told.state(3) is State.QUEUED


# ---------------------------------------------------------------------- the cost of long queues


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["exclusive", "share", "backfill", "las", "hybrid"])
def test_a_step_does_not_look_at_every_waiting_job(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 10,000 jobs waiting a step tries few placements and looks at few jobs."""
    from tandem.share.state.pending import ShapeQueue
    from tandem.share.state.view import View

    told = Told(policy, *(Node(f"n{i}", 16_000, 0) for i in range(8)), options={"quotes": 0})
    told.tell(*(ev.Submitted(job(k, 1 + k % 5, limit=50.0 + k % 97, expected=50.0)) for k in range(1, 10_001)))
    tries = looked = 0
    take, within = View._take, ShapeQueue.first_within

    def counted_take(*args: object) -> object:
        nonlocal tries
        tries += 1
        return take(*args)  # type: ignore[arg-type]

    def counted_within(queue: ShapeQueue, seconds: float) -> object:
        nonlocal looked
        looked += len(queue._blocks)
        return within(queue, seconds)

    monkeypatch.setattr(View, "_take", counted_take)
    monkeypatch.setattr(ShapeQueue, "first_within", counted_within)
    before = len(told.decisions(ev.Start))
    for k in range(100):
        told.end(min(told.running()), at=10.0 + k)
    started = len(told.decisions(ev.Start)) - before
    assert started > 50
    steps = 200
    assert tries <= started + 6 * steps, "the shapes that are refused, not the jobs"
    assert looked <= 100 * (tries + steps)
