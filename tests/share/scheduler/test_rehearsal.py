"""What a rehearsal says is what the simulator, which shares no code with it, makes of the same jobs."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.estimate.corun import CoRun
from tandem.share import events as ev
from tandem.share.deciding import policy
from tandem.share.model import Job, JobClass, Need, Node, Part
from tandem.share.quoting.quotes import Play, Rehearsed
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine
from tandem.share.simulate.simulator import Simulator
from tandem.share.simulate.truth import Bandwidth
from tandem.share.workloads.workload import Arrival, Workload
from tests.share.told import Told, job

NODES = (Node("a", 4000, 8000, cores=(0, 1, 2, 3), membw_mbs=1000), Node("b", 2000, 4000, cores=(0, 1), membw_mbs=500))


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[Job, float]]:
    """Jobs that come together, and what each takes alone."""
    found = []
    for k in range(1, draw(st.integers(1, 12)) + 1):
        need = Need(1000 * draw(st.integers(1, 4)), draw(st.integers(1, 4)) * 500, membw_mbs=draw(st.integers(0, 400)))
        harvest = draw(st.booleans())
        found.append(
            (
                Job(
                    k,
                    (Part(need),),
                    app=f"app{draw(st.integers(0, 3))}",
                    expected_s=float(draw(st.integers(5, 50))),
                    klass=JobClass.HARVEST if harvest else JobClass.PRIMARY,
                    max_slowdown=1.5,
                ),
                draw(st.integers(3, 60)) + k / 64,  # no two end together: what comes first would be chance
            )
        )
    return found


def rehearsed(machine: Machine, seconds: dict[int, float], pessimism: float = 0.0) -> Rehearsed:
    """One play, of the machine as it is."""
    assert machine.quoter.rehearse is not None
    [play] = machine.quoter.rehearse([Play(seconds, pessimism)], list(seconds))
    return play


@pytest.mark.parametrize("name", policy.names())
@settings(max_examples=40, deadline=None)
@given(batches())
def test_a_rehearsal_and_the_simulator_agree(name: str, batch: list[tuple[Job, float]]) -> None:
    setup = Setup(name, "proportional", {"quotes": 0})
    truth = Bandwidth()  # what the estimator thinks is true; and nothing is measured, so that nothing is learned
    workload = Workload(NODES, tuple(Arrival(0.0, job, seconds) for job, seconds in batch))
    day = Simulator(workload, setup, truth, stretch_s=math.inf).run()
    machine = Machine(setup)
    machine.step(0.0, [*map(ev.NodeJoined, NODES), *(ev.Submitted(job) for job, _ in batch)][: len(NODES)])
    waiting = [ev.Submitted(job) for job, _ in batch]
    for event in waiting:
        machine.transitions.apply(event)  # as in the middle of a step, when quotes are made
    play = rehearsed(machine, {job.id: seconds for job, seconds in batch})
    assert {k: start for k, (start, _) in play.items()} == pytest.approx(
        {o.job.id: o.started for o in day.outcomes}, abs=1e-6
    )
    assert {k: end for k, (_, end) in play.items()} == pytest.approx(
        {o.job.id: o.ended for o in day.outcomes}, abs=1e-6
    )


def test_nothing_is_changed_by_a_rehearsal() -> None:
    machine = Machine(Setup("hybrid", "proportional", {"quotes": 0}))
    jobs = [Job(k, (Part(Need(2000)),), app="one", expected_s=10.0) for k in range(1, 6)]
    machine.step(0.0, [*map(ev.NodeJoined, NODES), *map(ev.Submitted, jobs)])
    machine.step(1.0, [ev.Started(1, 1), ev.Started(2, 1)])
    before = machine.snapshot()
    play = rehearsed(machine, dict.fromkeys(range(1, 6), 10.0))
    assert machine.snapshot() == before
    assert play[1] == (1.0, 11.0)
    assert play[4][0] >= 11.0
    assert not machine.history.snapshot()["runs"]


def test_a_rehearsal_keeps_cores_for_what_a_policy_before_suspended() -> None:
    told = Told("hybrid", Node("a", 4000, 0), options={"quotes": 0})
    told.submit(job(1, 3, harvest=True, expected=20.0))
    told.submit(job(2, 2, expected=50.0), at=10.0)
    told.machine = Machine(replace(told.machine.setup, policy="share", snapshot=told.machine.snapshot()))
    told.submit(job(3, 1, limit=500.0), at=11.0)
    told.submit(job(4, 1, limit=5.0), at=12.0)
    play = rehearsed(told.machine, {1: 12.0, 2: 40.0, 3: 300.0, 4: 5.0})
    assert play == {1: (12.0, 64.0), 2: (12.0, 52.0), 3: (12.0, 312.0), 4: (64.0, 69.0)}
    told.end(2, at=52.0)
    assert told.running() == {1, 3}
    told.end(1, at=64.0)
    assert told.running() == {3, 4}, "as it was rehearsed"


def test_the_upper_end_of_an_estimate_is_slower_than_its_lower_end() -> None:
    machine = Machine(Setup("share", "proportional", {"quotes": 0}))
    pair = [Job(k, (Part(Need(1000)),), app=f"app{k}", expected_s=10.0) for k in (1, 2)]
    for app, other in (("app1", "app2"), ("app2", "app1")):
        for jitter in (0.95, 1.0, 1.05):
            machine.estimator.observe(CoRun(app, (), 1.0 * jitter, 10.0))
            machine.estimator.observe(CoRun(app, (other,), 0.5 * jitter, 10.0))
    machine.step(0.0, [ev.NodeJoined(NODES[0]), *map(ev.Submitted, pair)])
    machine.step(0.0, [ev.Started(1, 1), ev.Started(2, 1)])
    seconds = {1: 10.0, 2: 10.0}
    ends = [rehearsed(machine, seconds, pessimism)[1][1] for pessimism in (-1.0, 0.0, 1.0)]
    assert ends[0] < ends[1] < ends[2]
    assert ends[1] == pytest.approx(20.0, rel=0.02)  # both go at half their speed alone
