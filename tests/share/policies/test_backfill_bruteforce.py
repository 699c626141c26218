"""`backfill` starts every job exactly when a naive EASY does."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.share.model import Gpu, Job, Need, Node, Part, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate.simulator import Simulator
from tandem.share.traces import philly
from tandem.share.workloads.workload import Arrival, Workload, limits_with_error
from tests.share import naive_easy
from tests.share.traces.conftest import philly_trace

__all__ = ["philly_trace"]


def simulated(workload: Workload) -> dict[int, float]:
    """When each job starts under `backfill`."""
    day = Simulator(workload, Setup("backfill", "none", {"quotes": 0})).run()
    assert {outcome.state for outcome in day.outcomes} <= {State.DONE}
    return {outcome.job.id: outcome.started for outcome in day.outcomes if outcome.started is not None}


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Small ones: whole seconds, so that sums are exact, and many ties."""
    nodes = tuple(
        Node(f"n{i}", 1000 * draw(st.integers(1, 8)), draw(st.sampled_from([8, 16])), tuple(map(Gpu, range(gpus))))
        for i, gpus in enumerate(draw(st.lists(st.sampled_from([0, 0, 2, 4]), min_size=1, max_size=4)))
    )
    arrivals = []
    at = 0
    for i in range(1, draw(st.integers(1, 25)) + 1):
        at += draw(st.sampled_from([0, 0, 1, 2, 5]))
        need = Need(
            1000 * draw(st.integers(0, 6)),
            draw(st.sampled_from([0, 0, 4, 8])),
            gpus=draw(st.sampled_from([0, 0, 1, 2])),
        )
        able = sum(
            node.cpu_milli >= need.cpu_milli and node.mem_mib >= need.mem_mib and len(node.gpus) >= need.gpus
            for node in nodes
        )
        work_s = draw(st.integers(1, 20))
        if able:
            limit_s = float(work_s + draw(st.sampled_from([0, 0, 1, 5, 30])))
            job = Job(i, (Part(need, draw(st.integers(1, able))),), limit_s=limit_s)
            arrivals.append(Arrival(float(at), job, float(work_s)))
    return Workload(nodes, tuple(arrivals))


@pytest.mark.slow
@given(workloads())
@settings(max_examples=400)
def test_small_workloads(workload: Workload) -> None:
    assert simulated(workload) == naive_easy.starts(workload)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_one_node_and_everything_at_once(jobs: list[tuple[int, int, int]]) -> None:
    arrivals = tuple(
        Arrival(0.0, Job(i, (Part(Need(1000 * cores)),), limit_s=float(work + slack)), float(work))
        for i, (cores, work, slack) in enumerate(jobs, 1)
    )
    workload = Workload((Node("n", 4000, 0),), arrivals)
    assert simulated(workload) == naive_easy.starts(workload)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "faster"), [(0, 1), (10_000, 1), (0, 40), (30_000, 40)])
def test_philly(philly_trace: Path, first: int, faster: int) -> None:
    """2,000 jobs on 110 nodes of 4 GPUs, limits 1 to 5 times the run time; ``faster``: compressed, for long queues."""
    whole = philly.read(philly_trace)
    begin = whole.arrivals[first].at
    arrivals = tuple(Arrival((a.at - begin) // faster, a.job, a.work_s) for a in whole.arrivals[first : first + 2000])
    limited = limits_with_error(Workload(whole.nodes, arrivals), seed=first)
    rounded = tuple(replace(a, job=replace(a.job, limit_s=round(a.job.limit_s or 0.0))) for a in limited.arrivals)
    workload = Workload(whole.nodes, rounded)
    started = simulated(workload)
    assert len(started) == 2000
    assert started == naive_easy.starts(workload)
    waited = sum(started[a.job.id] > a.at for a in arrivals)
    assert faster == 1 or waited > 400, "the queue is long"
