"""What every scheduling policy promises, in unruly days and in ordered ones."""

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.core import plug
from tandem.share.deciding import policy
from tandem.share.events import NodeJoined, StartJob, Submitted
from tandem.share.model import Gpu, Job, JobClass, Need, Node, Part, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine
from tandem.share.simulate.replay import replay, setup_entry, step_entry
from tandem.share.simulate.simulator import Simulator
from tandem.share.workloads.workload import Arrival, Workload
from tests.share.recount import Recount
from tests.share.unruly import Unruly, continued, crowded, days, live

POLICIES = plug.names("share.policies")
OPTIONS = {"las_step_s": 20.0}


SELDOM = {**OPTIONS, "quotes": 8}
"""A quote is rehearsed, which takes most of a test's time; what is not about quotes gives every eighth job one."""

SOME = {**OPTIONS, "quotes": 3}
"""Where quotes are compared but are not the point."""


def setup_of(name: str, options: Mapping[str, float] = OPTIONS) -> Setup:
    """The policy with an estimator that knows of interference."""
    return Setup(name, "proportional", options)


def test_there_are_policies() -> None:
    assert {"exclusive", "share", "backfill", "las", "hybrid"} <= set(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_it_has_what_a_policy_has(name: str) -> None:
    loaded = policy.load(name)
    assert isinstance(loaded.PLANS_BY_LIMIT, bool)
    assert callable(loaded.rank)
    assert callable(loaded.plan_s)
    assert callable(loaded.decide)
    assert loaded.__doc__, "it says what it does"


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
@given(day=days())
@settings(max_examples=100)
def test_nothing_is_given_out_twice_and_every_job_ends_once(name: str, day: Unruly) -> None:
    over = live(setup_of(name, SELDOM), day)
    assert over.count.ends == dict.fromkeys({job.id for job in day.jobs} - over.refused, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
@given(day=crowded())
@settings(max_examples=60)
def test_the_same_in_crowded_days(name: str, day: Unruly) -> None:
    over = live(setup_of(name, SELDOM), day)
    assert over.count.ends == dict.fromkeys({job.id for job in day.jobs} - over.refused, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
@given(day=crowded() | days(), part=st.floats(0, 1))
@settings(max_examples=40)
def test_equal_steps_give_equal_answers_with_and_without_a_snapshot(name: str, day: Unruly, part: float) -> None:
    setup = setup_of(name, SOME)
    steps = live(setup, day).steps
    again = Machine(setup)
    assert [again.step(now, events) for now, events, _ in steps] == [step for _, _, step in steps]
    first, second = continued(setup, steps, int(part * len(steps)))
    assert first == second, "nothing is lost in a snapshot"


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
@given(day=crowded() | days(), part=st.floats(0, 1))
@settings(max_examples=20)
def test_a_stored_day_replays_without_a_difference(name: str, day: Unruly, part: float) -> None:
    setup = setup_of(name, SOME)
    steps = live(setup, day).steps
    at = int(part * len(steps))
    machine = Machine(setup)
    for now, events, _ in steps[:at]:
        machine.step(now, events)
    entries = [step_entry(*told) for told in steps]
    second = setup_entry(Setup(name, setup.estimator, setup.options, machine.snapshot()))
    found = replay([setup_entry(setup), *entries[:at], second, *entries[at:]])
    assert found.epochs == 2
    assert found.steps == len(steps)
    assert not found.differences


def some_jobs(count: int) -> Workload:
    """Jobs of every kind on three nodes, more than fit at once."""
    nodes = tuple(Node(f"n{i}", 16_000, 64_000, tuple(Gpu(g) for g in range(4)), membw_mbs=10_000) for i in range(3))
    kinds = [
        (Need(4000, 1000, gpus=1), 1),
        (Need(2000, 1000, 4000), 1),
        (Need(8000, 2000, gpus=4), 2),
        (Need(1000, gpu_milli=500), 1),
        (Need(500), 1),
        (Need(16_000), 1),
    ]
    arrivals = []
    for i in range(count):
        need, nodes_wanted = kinds[i % len(kinds)]
        klass = JobClass.HARVEST if i % 5 == 0 else JobClass.PRIMARY
        work = 10.0 + 7 * (i % 11)
        job = Job(i + 1, (Part(need, nodes_wanted),), app=f"app{i % 4}", klass=klass, limit_s=2 * work, uid=i % 3)
        arrivals.append(Arrival(3.0 * (i // 2), job, work))
    return Workload(nodes, tuple(arrivals), "some")


@pytest.mark.parametrize("name", POLICIES)
def test_a_simulated_day_ends_and_is_counted_right(name: str) -> None:
    workload = some_jobs(120)
    day = Simulator(workload, setup_of(name), keep_log=True).run()
    assert Counter(outcome.state for outcome in day.outcomes) == {State.DONE: 120}
    count = Recount()
    for now, events, step in day.log:
        for event in events:
            count.told(event)
        count.did(now, step.instructions)
    assert count.ends == Counter(range(1, 121))
    assert not count.held
    assert {quote.moment for quote in day.quotes} == {"submit", "start"}
    assert len(day.quotes) == 240 + sum(attempt - 1 for attempt in count.attempt.values())


@pytest.mark.parametrize("name", POLICIES)
def test_it_starts_what_fits_on_an_idle_machine(name: str) -> None:
    machine = Machine(setup_of(name))
    machine.step(0.0, [NodeJoined(Node("n", 4000, 0))])
    step = machine.step(1.0, [Submitted(Job(1, (Part(Need(4000)),)))])
    (start,) = [one for one in step.instructions if isinstance(one, StartJob)]
    assert start.job == 1
    assert all(decision.reason for decision in step.decisions), "every decision carries its reason"


@pytest.mark.parametrize("name", POLICIES)
def test_an_infeasible_job_does_not_mark_nodes_as_used(name: str) -> None:
    """A gang of three on two free nodes takes nothing; a gang of two does then."""
    machine = Machine(setup_of(name))
    machine.step(0.0, [NodeJoined(Node(f"n{i}", 4000, 0)) for i in range(3)])
    machine.step(1.0, [Submitted(Job(1, (Part(Need(4000)),), expected_s=50.0))])
    machine.step(2.0, [Submitted(Job(2, (Part(Need(4000), 3),), expected_s=5.0, priority=-1))])
    assert machine.ledger.free[:, 0].tolist() == [0, 4000, 4000] or machine.setup.policy == "exclusive"
    step = machine.step(3.0, [Submitted(Job(3, (Part(Need(4000), 2),), expected_s=1.0, limit_s=2.0))])
    assert [one.job for one in step.instructions if isinstance(one, StartJob)] == [3]
    machine.ledger.audit()


@pytest.mark.parametrize("name", POLICIES)
def test_parts_of_a_gang_may_meet_on_a_node_but_not_overfill_it(name: str) -> None:
    """The tasks of one gang are deducted one after the other."""
    machine = Machine(setup_of(name))
    machine.step(0.0, [NodeJoined(Node("n", 6000, 0))])
    together = Job(1, (Part(Need(2000)), Part(Need(4000))))
    machine.check(together)
    step = machine.step(1.0, [Submitted(together)])
    assert [type(one) for one in step.instructions] == [StartJob]
    machine.ledger.audit()
    assert machine.ledger.holders(0)[1][0].share.need != machine.ledger.holders(0)[1][1].share.need


@pytest.mark.parametrize("name", POLICIES)
def test_a_gang_finds_the_only_way_in_which_its_parts_fit(name: str) -> None:
    machine = Machine(setup_of(name))
    machine.step(0.0, [NodeJoined(Node("large", 8000, 0)), NodeJoined(Node("small", 4000, 0))])
    gang = Job(1, (Part(Need(4000)), Part(Need(8000))))
    machine.check(gang)
    step = machine.step(1.0, [Submitted(gang)])
    (start,) = [one for one in step.instructions if isinstance(one, StartJob)]
    assert [share.node for share in start.placement.shares] == ["small", "large"], "in the order of the parts"
