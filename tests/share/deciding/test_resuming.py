"""When suspended jobs go on, and what they are owed until then, by hand."""

import pytest

from tandem.share.model import Node, State
from tandem.share.scheduler.waiting import why_it_waits
from tests.share.knowing import GPUS, NODE, TWO_CORES
from tests.share.told import Told, job


def test_who_made_room_comes_back_at_once_where_no_primary_job_is_left() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 3, harvest=True, expected=100.0))
    told.submit(job(2, 1, harvest=True, expected=100.0))
    told.submit(job(3, 4, expected=1.0), at=1.0)
    assert told.state(1) is told.state(2) is State.SUSPENDED
    told.end(3, at=2.0)
    assert told.running() == {1, 2}


def test_who_made_room_rests_beside_the_primary_jobs_that_are_left() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 2, expected=100.0))
    told.submit(job(2, 2, harvest=True, expected=100.0))
    told.submit(job(3, 2, expected=1.0), at=1.0)
    assert told.state(2) is State.SUSPENDED
    told.end(3, at=2.0)
    assert told.state(2) is State.SUSPENDED
    rests = "job 3, for which it was suspended, has ended, but it rests beside other primary jobs until"
    assert why_it_waits(told.machine, told[2]).startswith(rests)
    told.tick(at=6.0)
    assert told.running() == {1, 2}


def test_a_suspended_job_goes_on_before_harvest_jobs_of_its_priority_and_after_those_of_a_higher() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, harvest=True, expected=100.0))
    told.submit(job(2, 4, expected=10.0), at=1.0)
    told.submit(job(3, 4, harvest=True, expected=1.0), at=2.0)
    told.submit(job(4, 4, harvest=True, expected=50.0, priority=1), at=3.0)
    told.end(2, at=11.0)
    assert told.running() == {4}
    told.end(4, at=61.0)
    assert told.running() == {1}


def test_suspended_jobs_have_the_cores_that_one_of_a_higher_priority_leaves() -> None:
    """Before harvest jobs of their own that wait: those do not start along with it."""
    told = Told("hybrid", TWO_CORES)
    for number in range(1, 5):
        told.submit(job(number, 1, harvest=True, expected=600.0))
    told.submit(job(5, 2, expected=30.0), at=3.0)
    told.submit(job(6, 1, harvest=True, expected=10.0, priority=5), at=5.0)
    assert told.running() == {5}
    told.end(5, at=33.0)
    assert told.running() == {1, 6}
    told.end(6, at=43.0)
    assert told.running() == {1, 2}


def test_who_comes_after_a_suspended_job_takes_its_cores_for_no_longer_than_it_waits_anyway() -> None:
    """It needs both cores at once; one is free, the other in 60 s."""
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, harvest=True, expected=200.0))
    told.submit(job(2, 1, expected=60.0), at=10.0)
    told.submit(job(3, 1, harvest=True, expected=50.0), at=11.0)
    assert told.running() == {2, 3}, "over before the other core is free"
    told.submit(job(4, 1, harvest=True, expected=50.0), at=12.0)
    told.submit(job(5, 1, harvest=True, expected=50.0, priority=1), at=13.0)
    told.end(3, at=61.0)
    assert told.running() == {2, 5}, "one of a higher priority goes before"
    told.end(2, at=70.0)
    assert told.why(4) == "it would fit, but job 1, which is suspended, is to have the cores it lacks first"
    told.end(5, at=111.0)
    assert told.running() == {1}
    told.end(1, at=300.0)
    assert told.running() == {4}


@pytest.mark.parametrize("overdue", [False, True])
def test_for_what_may_never_end_no_core_of_a_suspended_job_is_kept(*, overdue: bool) -> None:
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, harvest=True, expected=200.0))
    told.submit(job(2, 1, expected=60.0), at=10.0)
    told.submit(job(3, 1, harvest=True, expected=500.0), at=1000.0 if overdue else 60.0)
    assert told.running() == ({2, 3} if overdue else {2})


def test_two_that_are_suspended_are_owed_their_cores_together() -> None:
    """Beside one that takes a core each of them would find its own; both do not."""
    told = Told("hybrid", NODE)
    told.submit(job(1, 2, harvest=True, expected=400.0))
    told.submit(job(2, 2, harvest=True, expected=400.0))
    told.submit(job(3, 3, expected=200.0), at=1.0)
    told.submit(job(4, 1, harvest=True, expected=400.0), at=2.0)
    assert told.running() == {3}
    told.end(3, at=201.0)
    assert told.running() == {1, 2}


def test_what_one_goes_on_with_does_not_come_free_for_another_at_once() -> None:
    """Two of four cores are free in 100 s for the second that stands still; nobody takes one for longer meanwhile."""
    told = Told("hybrid", NODE)
    told.submit(job(1, 2, harvest=True, expected=2000.0))
    told.submit(job(2, 2, harvest=True, expected=2000.0))
    told.submit(job(3, 3, expected=200.0), at=1.0)
    told.submit(job(4, 1, harvest=True, expected=150.0, priority=1), at=2.0)
    told.submit(job(5, 1, harvest=True, expected=1000.0), at=3.0)
    assert told.running() == {3, 4}
    told.submit(job(6, 1, harvest=True, expected=250.0, priority=1), at=100.0)
    told.end(4, at=152.0)
    assert told.running() == {3, 6}
    told.end(3, at=201.0)
    assert told.running() == {1, 6}
    told.end(6, at=402.0)
    assert told.running() == {1, 2}


def test_cores_are_not_kept_for_a_suspended_job_for_the_sake_of_a_guess() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, harvest=True))
    told.submit(job(2, 1), at=10.0)
    told.submit(job(3, 1, harvest=True), at=11.0)
    assert told.running() == {2, 3}, "nobody knows how long the second takes: hours are possible"


def test_what_is_kept_for_a_suspended_job_is_looked_at_again_when_a_job_takes_longer_than_expected() -> None:
    """Though nothing else happens."""
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, harvest=True, expected=200.0))
    told.submit(job(2, 1, expected=60.0), at=10.0)
    told.submit(job(3, 1, harvest=True, expected=50.0), at=60.0)
    assert told.running() == {2}
    while told.running() == {2}:
        wake = told.machine.next_wake()
        assert wake is not None
        told.tick(wake)
    assert told.running() == {2, 3}
    assert told.now < 10.0 + 2.5 * 60.0


def test_suspended_jobs_go_on_by_priority() -> None:
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, harvest=True, expected=600.0))
    told.submit(job(2, 2, expected=30.0), at=10.0)
    told.submit(job(3, 2, harvest=True, expected=200.0, priority=5), at=12.0)
    told.end(2, at=40.0)
    assert told.running() == {3}
    told.submit(job(4, 2, expected=20.0, priority=5), at=50.0)
    assert told.state(1) is told.state(3) is State.SUSPENDED
    told.end(4, at=70.0)
    assert told.running() == {3}
    told.end(3, at=300.0)
    assert told.running() == {1}


def test_a_suspended_job_takes_no_cores_that_one_before_it_lacks() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, harvest=True, expected=600.0))
    told.submit(job(2, 2, expected=60.0), at=1.0)
    told.submit(job(3, 2, harvest=True, expected=50.0), at=2.0)
    assert told.running() == {2, 3}, "over before all cores are free"
    told.submit(job(4, 2, expected=30.0), at=3.0)
    assert told.running() == {2, 4}
    told.end(4, at=33.0)
    assert told.running() == {2}, "now it would not be"
    told.end(2, at=61.0)
    assert told.running() == {1}
    told.end(1, at=600.0)
    assert told.running() == {3}


def test_memory_of_the_suspended_is_not_given_out() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, mem=80, harvest=True, expected=100.0))
    told.submit(job(2, 2, mem=40, expected=10.0), at=1.0)
    assert told.running() == {1}, "suspending it would not help"
    told.submit(job(3, 2, mem=20, expected=10.0, priority=1), at=2.0)
    assert told.running() == {3}


def test_one_that_waits_for_gpus_leaves_the_suspended_their_cores() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 2, gpus=2, expected=1000.0))
    told.submit(job(2, 14, harvest=True, expected=1000.0), at=1.0)
    told.submit(job(3, 14, expected=5.0), at=2.0)
    assert told.running() == {1, 3}
    told.submit(job(4, 2, gpus=2, expected=1000.0), at=3.0)
    told.end(3, at=20.0)
    assert told.running() == {1, 2}


def test_a_suspended_job_goes_on_before_primary_ones_of_a_lower_priority() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, harvest=True, expected=100.0, priority=2))
    told.submit(job(2, 4, expected=10.0, priority=3), at=10.0)
    told.submit(job(3, 4, expected=20.0), at=12.0)
    assert told.running() == {2}
    told.end(2, at=20.0)
    assert told.running() == {1}
    told.submit(job(4, 4, expected=10.0, priority=2), at=21.0)
    assert told.running() == {4}
    told.submit(job(5, 4, expected=20.0, priority=2), at=22.0)
    told.end(4, at=31.0)
    assert told.running() == {5}


def test_no_suspended_job_goes_on_where_that_delays_one_of_a_higher_priority() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 2, harvest=True, expected=3600.0))
    told.submit(job(2, 2, harvest=True, expected=14_400.0))
    told.submit(job(3, 2, expected=1800.0), at=300.0)
    assert told.state(2) is State.SUSPENDED
    told.submit(job(4, 4, harvest=True, expected=600.0, priority=3), at=400.0)
    told.end(3, at=2100.0)
    assert told.running() == {1}
    told.end(1, at=3600.0)
    assert told.running() == {4}
    told.end(4, at=4200.0)
    assert told.running() == {2}


def test_a_job_rests_twice_as_long_each_time_that_it_is_suspended_again_for_a_bound() -> None:
    """In so large a company nothing is learnt of the two; once the primary job is gone it goes on at once."""
    told = Told("hybrid", Node("a", 16_000, 100))
    told.submit(job(1, 1, app="train", bound=1.2, expected=100_000.0))
    told.measure(1, 10.0, at=10.0)
    told.submit(job(20, 1, app="other", expected=1e6), at=10.0)
    for k in range(2, 12):
        told.submit(job(k, 1, app=f"quiet{k}", harvest=True, expected=1e6), at=10.0)
    told.submit(job(12, 1, app="stream", harvest=True, expected=1e6), at=10.0)
    quiet = [f"quiet{k}" for k in range(2, 12)]
    rests = []
    for _ in range(13):
        assert told.state(12) is State.RUNNING
        told.measure(1, 2.0, *quiet, "other", "stream", at=told.now + 3.0, seconds=2.0)
        assert told.state(12) is State.SUSPENDED
        rests.append(told[12].rests_until - told.now)
        told.measure(1, 10.0, *quiet, "other", at=told.now + 3.0, seconds=2.0)
        told.tick(at=told[12].rests_until - 0.1)
        assert told.state(12) is State.SUSPENDED
        told.tick(at=told[12].rests_until)
    assert rests == pytest.approx([min(5.0 * 2**k, 3600.0) for k in range(13)])
    told.measure(1, 2.0, *quiet, "other", "stream", at=told.now + 3.0, seconds=2.0)
    assert told.why(12).startswith("primary job 1 goes 5.00 times slower than alone, and 1.2 is its bound; it is tried")
    told.end(1, at=told.now + 10.0)
    assert told.state(12) is State.RUNNING, "beside another primary job"
    told.tick(at=told.now + 3000.0)
    told.submit(job(30, 1, app="train", bound=1.2, expected=1e6))
    told.measure(30, 2.0, *quiet, "other", "stream", at=told.now + 3.0, seconds=2.0)
    assert told.state(12) is State.SUSPENDED
    assert told[12].rests_until == told.now + 5.0, "for another primary job, and after so long"
