"""Looking ahead: what is remembered between two looks against a view that remembers nothing."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.share import events as ev
from tandem.share.model import Gpu, Job, Need, Node, Part, State
from tandem.share.scheduler.machine import Machine
from tandem.share.state.view import View
from tests.share.told import Told

NODES = [Node("cpu", 4000, 8), Node("gpu", 8000, 16, (Gpu(0), Gpu(1))), Node("twin", 8000, 16, (Gpu(0), Gpu(1)))]
NEEDS = [Need(1000), Need(3000, 4), Need(1000, gpus=1), Need(2000, gpus=2), Need(1000, gpu_milli=600)]
ops = st.tuples(
    st.sampled_from(["submit", "submit", "submit", "end", "lose", "join", "wait"]),
    st.integers(0, 20),
    st.sampled_from([1.0, 3.0, 10.0]),
)


def forgetful(machine: Machine) -> View:
    """A view of the same cluster that has not been asked anything yet."""
    m = machine
    view = View(m.ledger, m.index, m.pending, m.jobs, m.on_nodes, m.estimator, m.history, m.setup.options)
    view.now = m.now
    return view


@settings(max_examples=100)
@given(st.lists(ops, min_size=20, max_size=50))
def test_a_reservation_is_never_an_old_one(story: list[tuple[str, int, float]]) -> None:
    told = Told("backfill", *NODES)
    for i, (kind, which, seconds) in enumerate(story):
        now = told.now + seconds - 1.0
        running = [job for job, life in told.machine.on_nodes.items() if life.state is State.RUNNING]
        if kind == "submit":
            part = Part(NEEDS[which % len(NEEDS)], 1 + which % 2)
            told.submit(Job(i + 1, (part,), limit_s=5 * seconds), at=now)
        elif kind == "end" and running:
            told.end(running[which % len(running)], at=now)
        elif kind == "lose":
            told.tell(ev.NodeLost(NODES[which % 3].id), at=now)
        elif kind == "join":
            told.tell(ev.NodeJoined(NODES[which % 3]), at=now)
        else:
            told.tick(now)
        for life in [told.machine.jobs[key[2]] for key in told.machine.pending.in_order()]:
            assert told.machine.view.earliest(life) == forgetful(told.machine).earliest(life)


def test_a_reservation_moves_with_a_planned_end() -> None:
    told = Told("backfill", Node("n", 1000, 0))
    told.submit(Job(1, (Part(Need(1000)),), limit_s=10.0))
    told.submit(Job(2, (Part(Need(1000)),), limit_s=10.0))
    view, second = told.machine.view, told[2]
    first = view.earliest(second)
    assert first is not None
    assert first.at == 10.0
    assert view.earliest(second) is first, "nothing has changed"
    told.machine.plan_end(told[1], 7.0)
    moved = view.earliest(second)
    assert moved is not None
    assert moved.at == 7.0


def test_a_reservation_is_told_once_and_again_after_a_hold() -> None:
    told = Told("backfill", Node("n", 2000, 0))
    told.submit(Job(1, (Part(Need(1000)),), limit_s=100.0))
    told.submit(Job(2, (Part(Need(2000)),), limit_s=10.0))
    told.submit(Job(3, (Part(Need(1000)),), limit_s=500.0))
    told.submit(Job(4, (Part(Need(1000)),), limit_s=500.0))
    assert [one.job for one in told.decided if isinstance(one, ev.Reserve)] == [2]
    assert told[2].reserved is not None
    told.tell(ev.HoldAsked(2), ev.ReleaseAsked(2))
    assert [one.job for one in told.decided if isinstance(one, ev.Reserve)] == [2, 2]
    assert told[2].reserved is not None
