"""Cores that `hybrid` keeps for GPU jobs, by hand."""

import pytest

from tandem.share import events as ev
from tandem.share.model import Gpu, Node, State
from tests.share.knowing import GPUS
from tests.share.told import Told, job


@pytest.mark.parametrize(("gpus", "cores", "at_once"), [(1, 2, 2), (4, 2, 2), (1, 4, 3), (2, 8, 6)])
def test_whole_cores_are_kept_for_gpu_jobs_or_none(gpus: int, cores: int, at_once: int) -> None:
    """A quarter of two cores is half a core, which nobody could use."""
    told = Told("hybrid", Node("g", 1000 * cores, 0, tuple(Gpu(k) for k in range(gpus))))
    for number in range(1, cores + 1):
        told.submit(job(number, 1, expected=60.0))
    assert len(told.running()) == at_once


def test_cores_are_kept_for_gpu_jobs() -> None:
    told = Told("hybrid", GPUS)  # 16 cores, 2 GPUs: 2 cores a GPU (an eighth of the cores, at most 4)
    told.submit(job(1, 10))
    told.submit(job(2, 3))
    assert told.running() == {1}
    assert told.why(2) == "it would fit, but the cores that are left are kept for GPU jobs"
    told.submit(job(3, 2))
    assert told.running() == {1, 3}
    told.submit(job(4, 2, gpus=2))
    assert told.running() == {1, 3, 4}, "they were kept for this one"


def test_harvest_may_have_them() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 16, harvest=True))
    assert told.running() == {1}
    told.submit(job(2, 2, gpus=1), at=1.0)
    assert told.running() == {2}


def test_harvest_jobs_have_what_primary_ones_of_their_shape_leave() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 12, expected=100.0))
    told.submit(job(2, 2, expected=100.0), at=1.0)
    told.submit(job(3, 2, harvest=True, expected=100.0), at=2.0)
    told.submit(job(4, 2, harvest=True, expected=100.0), at=3.0)
    assert told.running() == {1, 3, 4}
    told.submit(job(5, 4, gpus=2, expected=100.0), at=4.0)
    assert told.running() == {1, 5}, "they make room for whom it was kept"


def test_harvest_jobs_make_room_for_a_gpu_job_behind_a_head_that_may_not_have_their_cores() -> None:
    """However many the head needs."""
    told = Told("hybrid", GPUS)
    told.submit(job(1, 12, expected=100.0))
    told.submit(job(2, 6, expected=100.0), at=1.0)
    told.submit(job(3, 4, harvest=True, expected=100.0), at=3.0)
    told.submit(job(5, 2, gpus=1, expected=300.0), at=4.0)
    assert told.running() == {1, 5}
    told.submit(job(6, 2, gpus=1, expected=300.0), at=5.0)
    assert told.running() == {1, 5, 6}
    for at in range(10, 50, 5):
        told.tick(at=float(at))
    assert told.decisions(ev.Suspend) == [3]


def test_who_has_a_raised_priority_leaves_no_cores() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 8, gpus=1, expected=100.0))
    told.submit(job(2, 8, gpus=1, expected=100.0))
    told.submit(job(3, 8, gpus=1, expected=100.0), at=1.0)
    told.submit(job(4, 8, expected=100.0, priority=1), at=2.0)
    told.end(1, at=100.0)
    assert told.running() == {2, 4}


def test_no_room_is_made_for_a_gpu_job_of_a_lower_priority_than_the_heads() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 12, expected=100.0))
    told.submit(job(2, 6, expected=100.0), at=1.0)
    told.submit(job(3, 4, harvest=True, expected=100.0, priority=-1), at=3.0)
    told.submit(job(5, 2, gpus=1, expected=300.0, priority=-1), at=4.0)
    assert told.running() == {1, 3}


def test_room_that_was_made_for_a_gpu_job_is_not_taken_by_others_that_were_suspended() -> None:
    """However many wait ahead of it."""
    told = Told("hybrid", Node("g", 32_000, 100, (Gpu(0), Gpu(1))))
    for number in range(1, 9):
        told.submit(job(number, 4, harvest=True, expected=18_000.0))
    for number in (11, 12):
        told.submit(job(number, 4, gpus=1, expected=7200.0), at=60.0 + number)
        told.end(number, at=61.0 + number) if number == 12 else None
    for number in range(21, 30):
        told.submit(job(number, 8, expected=6600.0), at=120.0)
    told.submit(job(13, 4, gpus=1, expected=7200.0), at=660.0)
    assert told.state(13) is State.RUNNING
    suspended = len(told.decisions(ev.Suspend))
    for at in range(665, 800, 5):
        told.tick(at=float(at))
    assert len(told.decisions(ev.Suspend)) == suspended


@pytest.mark.parametrize("head_cores", [16, 14, 10])
def test_no_room_is_made_past_a_head_from_which_no_cores_are_kept(head_cores: int) -> None:
    """It takes so much of a node that none could be; then harvest jobs delay it as little as empty cores do."""
    started = []
    for harvest in (3, 0):
        told = Told("hybrid", GPUS)
        told.submit(job(1, 4, gpus=1, expected=1000.0))
        for number in range(2, 2 + harvest):
            told.submit(job(number, 4, harvest=True, expected=3000.0), at=10.0)
        told.submit(job(10, head_cores, expected=200.0), at=20.0)
        for number, at in ((11, 100.0), (12, 400.0)):
            told.submit(job(number, 4, gpus=1, expected=950.0), at=at)
        running = told.running() | {0}
        told.end(1, at=1000.0)
        if 11 in running:
            told.end(11, at=1000.0)
        started.append((told[10].started_at, 11 in running))
    assert started[0] == started[1]


def test_cores_of_harvest_jobs_count_as_kept() -> None:
    """They give way to a GPU job; so none of them has to for the sake of one that may come."""
    told = Told("hybrid", GPUS)
    for number in range(1, 14):
        told.submit(job(number, 1, harvest=True, expected=100.0))
    told.submit(job(20, 2, expected=40.0), at=10.0)
    assert told.decisions(ev.Suspend) == []
    assert told.state(20) is State.RUNNING
    told.submit(job(21, 3, expected=40.0), at=11.0)
    assert len(told.decisions(ev.Suspend)) == 2, "with the one that is free"
    told.submit(job(22, 4, gpus=2, expected=40.0), at=12.0)
    assert {20, 21, 22} <= told.running()
    assert len(told.decisions(ev.Suspend)) == 6


def test_no_more_harvest_jobs_give_way_than_leave_the_kept_cores() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 8, expected=100.0))
    for number in range(2, 10):
        told.submit(job(number, 1, harvest=True, expected=100.0))
    told.submit(job(20, 5, expected=40.0), at=10.0)
    assert told.running() == {1, *range(2, 10)}, "8 - 5 cores are less than the 4 that are kept"
    told.submit(job(21, 4, expected=40.0), at=11.0)
    assert told.state(21) is State.QUEUED, "room is made for the head alone"
    told.tell(ev.CancelAsked(20), at=12.0)
    assert told.state(21) is State.RUNNING
    assert len(told.decisions(ev.Suspend)) == 4


def test_nothing_is_kept_where_the_gpus_are_taken() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 1, gpus=2))
    told.submit(job(2, 15))
    assert told.running() == {1, 2}


def test_a_job_for_the_whole_node_is_not_kept_from_it() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 16))
    assert told.running() == {1}


def test_nor_one_that_has_waited_for_long() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 10, expected=5000.0))
    told.submit(job(2, 4, expected=10.0))
    assert told.running() == {1}
    assert told.machine.next_wake() == 60 + 8 * 10.0, "though nothing else happens"
    told.tick(at=60 + 8 * 10.0 - 1.0)
    assert told.running() == {1}
    told.tick(at=60 + 8 * 10.0)
    assert told.running() == {1, 2}
