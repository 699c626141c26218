"""Who is beside a job now, and whose names the caller sees."""

from dataclasses import replace

from tandem.share import events as ev
from tandem.share.daemon import answers
from tandem.share.daemon.answers import Caller
from tandem.share.model import Job, Need, Node, Part
from tandem.share.scheduler import waiting
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine

ALICE, BOB = (Caller(uid, uid, 1, all=False) for uid in (1001, 1002))
ROOT = Caller(0, 0, 1, all=True)


def job(number: int, name: str, caller: Caller) -> Job:
    return Job(id=number, parts=(Part(Need(1000)),), name=name, app="app", uid=caller.uid)


def crowd() -> Machine:
    """Jobs 1 and 2 of one user and 3 of another on one node."""
    jobs = job(1, "mine", ALICE), job(2, "", ALICE), job(3, "secret", BOB)
    made = Machine(Setup("share", "none"))
    made.step(0.0, [ev.NodeJoined(Node("n", 3000, 1000, cores=(0, 1, 2))), *map(ev.Submitted, jobs)])
    made.step(1.0, [ev.Started(number, 1) for number in (1, 2, 3)])
    return made


def test_names_are_told_only_of_ones_own_jobs() -> None:
    machine = crowd()
    assert answers.neighbours(machine, ALICE, machine.jobs[1]) == ["app", "another user's job"]
    assert answers.neighbours(machine, BOB, machine.jobs[3]) == ["another user's job"] * 2
    assert answers.neighbours(machine, ROOT, machine.jobs[3]) == ["mine", "app"]


def test_who_has_left_is_not_beside_any_more() -> None:
    machine = crowd()
    machine.step(2.0, [ev.Ended(2, 1, code=0), ev.Ended(3, 1, code=0)])
    assert answers.neighbours(machine, ALICE, machine.jobs[1]) == []
    assert answers.neighbours(machine, ALICE, machine.jobs[2]) == []


def queued() -> Machine:
    """One core: job 1 runs, then the elements 0, 1, 2, 5 of the array 2, of which 2 is held, and job 6."""
    made = Machine(Setup("share", "none"))
    array = [replace(job(2 + k, "a", ALICE), array=(2, index)) for k, index in enumerate((0, 1, 2, 5))]
    others = job(1, "x", BOB), job(6, "y", ALICE)
    made.step(0.0, [ev.NodeJoined(Node("n", 1000, 1000, cores=(0,)))])
    made.step(0.0, [ev.Submitted(one) for one in (others[0], *array, others[1])])
    made.step(1.0, [ev.HoldAsked(4)])
    return made


def test_elements_of_an_array_that_wait_alike_are_together() -> None:
    machine = queued()
    groups = waiting.together(machine.jobs.values())
    assert [[life.id for life in group] for group in groups] == [[1], [2, 3], [4], [5], [6]]
    machine.step(2.0, [ev.ReleaseAsked(4)])
    groups = waiting.together(machine.jobs.values())
    assert [[life.id for life in group] for group in groups] == [[1], [2, 3, 4, 5], [6]]


def test_which_promises_a_hold_took_back_is_told() -> None:
    moments = ("submit", "submit", "start", "submit", "start")
    promises = [{"moment": moment, "at": 10.0 * k, "finish_high": 10.0 * k + 25} for k, moment in enumerate(moments)]
    for count, held, gone in (
        (3, False, [True, False, False]),
        (2, True, [True, True]),
        (1, False, [False]),
        (3, True, [True, True, True]),  # held before a retry
        (5, False, [True, True, True, False, False]),
    ):
        assert [one["taken_back"] for one in answers.taken_back(promises[:count], [], held=held)] == gone
    for holds, held, gone in (
        ([29.0], False, [False, True, True, False, False]),  # the first was broken by then
        ([29.0, 44.0], True, [False, True, True, True, True]),
        ([44.0], False, [False, False, True, True, True]),  # let go without another promise
    ):
        assert [one["taken_back"] for one in answers.taken_back(promises, holds, held=held)] == gone


def test_they_are_not_told_that_they_wait_for_each_other() -> None:
    machine = queued()
    machine.step(2.0, [ev.ReleaseAsked(4)])
    _, array, other = waiting.together(machine.jobs.values())
    assert waiting.why_together(machine, array, {}) == "not enough free cores on any node"
    assert "job 2_0 is first in the queue" in waiting.why_it_waits(machine, array[1])
    assert "job 2_0 is first in the queue" in waiting.why_together(machine, other, {})
