"""The waiting jobs against a sorted list."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.share.model import Need, Node, Part
from tandem.share.state.demand_index import DemandIndex, Shape
from tandem.share.state.ledger import Ledger
from tandem.share.state.pending import BLOCK, Key, Pending, ShapeQueue

SHAPES = [(Part(Need(1000)),), (Part(Need(2000)),), (Part(Need(1000), 2),), (Part(Need(1000)), Part(Need(2000)))]
ops = st.tuples(
    st.booleans(), st.integers(0, 3), st.integers(-2, 2), st.sampled_from([0.0, 1.0, 2.0, 2.5]), st.integers(1, 9)
)


@settings(max_examples=100)
@given(st.lists(ops, min_size=20, max_size=60), st.integers(0, 6))
def test_it_is_a_sorted_list(story: list[tuple[bool, int, int, float, int]], cores: int) -> None:
    ledger = Ledger()
    for i in range(2):
        ledger.join(Node(f"n{i}", 1000 * cores, 0))
    pending = Pending(DemandIndex(ledger))
    shapes = [Shape(parts) for parts in SHAPES]
    waiting: dict[Key, tuple[Shape, float]] = {}
    for job, (add, which, priority, rank, seconds) in enumerate(story):
        if add or not waiting:
            key = (float(-priority), rank, job)
            pending.add(key, shapes[which], float(seconds))
            waiting[key] = (shapes[which], float(seconds))
        else:
            key = sorted(waiting)[which % len(waiting)]
            pending.remove(key[2])
            del waiting[key]
        _check(pending, waiting)
        fitting = {shape for shape, _ in waiting.values() if all(p.need.cpu_milli <= 1000 * cores for p in shape.parts)}
        assert set(pending.fitting()) == fitting


def _check(pending: Pending, waiting: dict[Key, tuple[Shape, float]]) -> None:
    assert list(pending.in_order()) == sorted(waiting)
    assert pending.head() == min(waiting, default=None)
    assert pending.last() == max(waiting, default=None)
    assert len(pending) == len(waiting)
    assert set(pending.shapes()) == {shape for shape, _ in waiting.values()}
    for shape in pending.shapes():
        mine = sorted(key for key, (s, _) in waiting.items() if s is shape)
        queue = pending.shape(shape)
        assert list(queue) == mine
        assert queue.first() == mine[0]
        for limit in (0.5, 3.0, 9.0):
            assert queue.first_within(limit) == next((key for key in mine if waiting[key][1] <= limit), None)


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(1, 100)),
        min_size=BLOCK,
        max_size=5 * BLOCK,
        unique_by=lambda j: j[0],
    )
)
@settings(max_examples=40)
def test_long_queues_split_into_blocks(jobs: list[tuple[int, int]]) -> None:
    queue = ShapeQueue()
    for job, seconds in jobs:
        queue.add((0.0, 0.0, job), float(seconds))
    left = dict(jobs)
    for job, seconds in jobs[::2]:
        assert queue.remove((0.0, 0.0, job)) == seconds
        del left[job]
    assert [key[2] for key in queue] == sorted(left)
    for limit in (1.0, 10.0, 50.0):
        expected = min((job for job, seconds in left.items() if seconds <= limit), default=None)
        found = queue.first_within(limit)
        assert (found[2] if found else None) == expected


def test_a_job_that_comes_back_stands_where_it_stood() -> None:
    ledger = Ledger()
    ledger.join(Node("n", 1000, 0))
    pending = Pending(DemandIndex(ledger))
    shape = Shape(SHAPES[0])
    for job in (1, 2):
        pending.add((0.0, float(job), job), shape, 1.0)
    pending.remove(1)
    assert pending.head() == (0.0, 2.0, 2)
    pending.add((0.0, 1.0, 1), shape, 1.0)
    assert [key[2] for key in pending.in_order()] == [1, 2]
    assert pending.head() == (0.0, 1.0, 1)


def test_the_heap_of_heads_does_not_grow_with_jobs_that_left() -> None:
    ledger = Ledger()
    ledger.join(Node("n", 1000, 0))
    pending = Pending(DemandIndex(ledger))
    shape = Shape(SHAPES[0])
    for job in range(5000):
        pending.add((0.0, float(job), job), shape, 1.0)
        if job > 5:
            pending.remove(job)
    assert len(pending._order) < 200
