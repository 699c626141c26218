"""Why a job waits, in words that name jobs as their users do."""

from dataclasses import replace

from tandem.share import events as ev
from tandem.share.model import After, Gpu, Job, JobClass, Need, Node, Part, State
from tandem.share.scheduler import waiting
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine
from tests.share.told import Told

NODE = Node("n", 4000, 1000, cores=(0, 1, 2, 3))


def job(number: int, cores: int = 1, *, array: int | None = None, mem: int = 0, **more: object) -> Job:
    place = None if array is None else (array, number - array)
    need = Need(1000 * cores, mem)
    return Job(id=number, parts=(Part(need),), array=place, expected_s=10.0, **more)  # type: ignore[arg-type]


def machine(*jobs: Job, policy: str = "share") -> Machine:
    """Where each job was submitted a second after the one before."""
    made = Machine(Setup(policy, "none"))
    made.step(0.0, [ev.NodeJoined(NODE)])
    for now, one in enumerate(jobs, 1):
        made.step(float(now), [ev.Submitted(one)])
    return made


def throttled(number: int, most: int) -> Job:
    """Element of array 10 that runs at most ``most`` of its jobs at a time."""
    return job(number, array=10, after=(After(number - most, ok=False),) if number >= 10 + most else ())


def test_elements_of_arrays_are_named_by_array_and_index() -> None:
    after = (After(10), After(11), After(12))
    made = machine(job(10, array=10), job(11, 4, array=10), job(12, 4), job(13, after=after))
    assert made.why(12) == "job 10_1 is first in the queue; not enough free cores on any node"
    assert made.why(13) == "it waits for jobs 10_0, 10_1, 12 to end"
    assert waiting.named(made, "it would delay job 11; job 12 needs it, job 99 is gone") == (
        "it would delay job 10_1; job 12 needs it, job 99 is gone"
    )


def test_many_dependencies_are_counted() -> None:
    made = machine(*(job(n, 4) for n in range(1, 10)), job(10, after=tuple(After(n) for n in range(1, 10))))
    assert made.why(10) == "it waits for jobs 1, 2, 3, 4, 5, 6 and 3 more to end"


def test_an_array_that_runs_so_many_at_a_time_is_no_dependency() -> None:
    made = machine(job(1), *(throttled(n, 2) for n in (10, 11, 12, 13)))
    assert [waiting.array_throttle(made.jobs[n].job) for n in (1, 10, 11, 12, 13)] == [0, 0, 0, 2, 2]
    assert made.why(13) == "its array runs at most 2 at a time"


def test_a_throttled_element_may_wait_for_others_too() -> None:
    both = job(11, array=10, after=(After(1), After(10, ok=False)))
    made = machine(job(1), job(10, array=10, after=(After(1),)), both)
    assert made.why(11) == "its array runs at most 1 at a time; it waits for job 1 to end"


def test_that_what_it_waits_for_is_held_is_said() -> None:
    made = machine(
        job(1, held=True),
        job(2, after=(After(1),)),
        job(3, after=(After(2),)),
        job(4, after=(After(1), After(2))),
        *(throttled(n, 1) for n in (10, 11)),
    )
    made.step(7.0, [ev.HoldAsked(11)])
    assert made.why(2) == "it waits for job 1, which is held"
    assert made.why(3) == "it waits for job 2 to end; job 1 is held"
    assert made.why(4) == "it waits for jobs 1, 2 to end; job 1 is held"
    made.step(8.0, [ev.Submitted(throttled(12, 1))])
    assert made.why(12) == "its array runs at most 1 at a time; job 10_1 is held"


def test_what_is_held_ahead_is_found_once_for_all_jobs_of_a_chain() -> None:
    chain = [job(n, after=(After(n - 1),) if n > 1 else (), held=n == 1) for n in range(1, 2001)]
    made = Machine(Setup("share", "none"))
    made.step(0.0, [ev.NodeJoined(NODE), *map(ev.Submitted, chain)])
    known: dict[int, int | None] = {}
    assert waiting.held_ahead(made, made.jobs[2000], known) == 1
    assert known == dict.fromkeys(range(2, 2001), 1)
    made.step(1.0, [ev.HoldAsked(1000)])
    assert waiting.held_ahead(made, made.jobs[2000]) == 1000


def test_who_runs_before_a_job_that_came_earlier_is_said() -> None:
    made = machine(job(1, 2), job(2, 4), job(3, array=3), job(4, array=3))
    assert waiting.overtaken(made, made.jobs[2]) == (
        "job 3_0 runs before it: it asks for less, and fits; job 3_1 runs before it: it asks for less, and fits"
    )
    assert waiting.overtaken(made, made.jobs[1]) == ""


def test_a_job_in_the_gap_before_a_reservation_is_said_to_be_there() -> None:
    made = machine(job(1, 2, limit_s=100.0), job(2, 4, limit_s=10.0), job(3, limit_s=10.0), policy="backfill")
    assert waiting.overtaken(made, made.jobs[2]) == "job 3 runs before it: it fits in the gap"


def test_a_suspended_job_is_told_that_what_it_was_suspended_for_has_ended() -> None:
    told = Told("hybrid", Node("a", 4000, 0))
    told.submit(job(1, 3, klass=JobClass.HARVEST))
    told.submit(job(2, 2), at=10.0)
    assert told.why(1) == "primary job 2 needs its cores"
    told.submit(job(3, 2), at=11.0)
    told.end(2, at=12.0)
    assert told.why(1) == "job 2, for which it was suspended, has ended, but not all the cores it needs are free"
    told.tick(13.0)
    assert told.why(1) == "job 2, for which it was suspended, has ended, but not all the cores it needs are free"
    told.machine = Machine(replace(told.machine.setup, policy="share", snapshot=told.machine.snapshot()))
    told.tick(14.0)
    assert "not all the cores it needs are free; the cores it lacks are kept for it, expected by " in told.why(1)
    told.end(3, at=14.5)
    assert told.state(1) is State.RUNNING
    assert told.why(1) == "its cores are free again"
    told.tick(15.0)
    assert told.why(1) == "its cores are free again"


def test_what_went_on_without_a_scheduler_and_is_suspended_again_is_told_why() -> None:
    told = Told("hybrid", Node("a", 4000, 0))
    told.submit(job(1, 3, klass=JobClass.HARVEST))
    told.submit(job(2, 2), at=10.0)
    told.submit(job(3, 2), at=11.0)
    told.end(2, at=12.0)
    told.tell(ev.WentOn(1, 1, 12.5), at=13.0)
    assert told.why(1) == "job 2, for which it was suspended, has ended, but not all the cores it needs are free"
    told.end(3, at=14.0)
    assert told.state(1) is State.RUNNING


def test_cores_that_somebody_else_holds_are_named() -> None:
    made = machine(policy="backfill")
    made.step(1.0, [ev.ForeignUse("n", (0, 1, 3), ()), ev.Submitted(job(1, 2))])
    assert made.why(1).endswith(
        "not enough free cores on any node: cores 0-1,3 are held by another scheduler or by `tandem profile`, "
        "nobody knows how long"
    )
    made.step(2.0, [ev.ForeignUse("n", (3,), ()), ev.Submitted(job(2, 4))])
    assert "core 3 is held by another scheduler" in made.why(2)


def test_a_gpu_that_a_foreign_process_uses_is_named() -> None:
    made = Machine(Setup("backfill", "none"))
    made.step(0.0, [ev.NodeJoined(Node("g", 4000, 1000, cores=(0, 1, 2, 3), gpus=(Gpu(0, "h100", 81_559),)))])
    wanting = Job(id=1, parts=(Part(Need(1000, gpus=1)),), expected_s=10.0)
    made.step(1.0, [ev.ForeignUse("g", (), (0,)), ev.Submitted(wanting)])
    assert (
        "GPU 0 is held by another scheduler, by `tandem profile` or by a process on the GPU that is no job"
        in made.why(1)
    )
    made.step(2.0, [ev.ForeignUse("g", (), ())])
    assert made.jobs[1].state.name == "STARTING"


def test_an_element_that_dooms_its_dependants_is_named_as_users_know_it() -> None:
    made = machine(job(10, array=10), job(11, array=10), job(12, after=(After(11),)))
    ends = made.step(9.0, [ev.Started(11, 1), ev.Ended(11, 1, code=1)]).instructions
    (told,) = [one.reason for one in ends if isinstance(one, ev.JobEnded) and one.job == 12]
    assert told == "job 10_1, on whose success it depends, did not end well"


def test_what_nodes_that_became_too_small_lack_is_said_and_nobody_else_blamed() -> None:
    made = machine(job(1, 3), job(2, 3), job(3, 2, mem=900))
    made.step(4.0, [ev.NodeJoined(replace(NODE, cpu_milli=2000, mem_mib=500, cores=(0, 1)))])
    made.step(5.0, [ev.Submitted(job(4)), ev.Ended(1, 1)])
    assert made.jobs[4].state is State.STARTING
    too_many = "no node that could take it is up: it asks for 3 cores on one node (at most 2 cores on a node)"
    assert made.why(2).endswith(too_many)
    assert waiting.overtaken(made, made.jobs[2]) == ""
    assert made.why(3).endswith(
        "it asks for 2 cores, 900 MiB of memory on one node (at most 500 MiB of memory on a node)"
    )
    made.step(6.0, [ev.NodeJoined(NODE), ev.Ended(4, 1)])
    assert made.jobs[2].state is State.STARTING
