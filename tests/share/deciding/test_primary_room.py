"""Room for primary jobs at the cost of harvest jobs, by hand."""

import pytest

from tandem.share import events as ev
from tandem.share.model import Gpu, Node, State
from tests.share.knowing import NODE, OTHER, TWO_CORES, knowing
from tests.share.told import Told, job


def test_harvest_makes_room_for_a_primary_head_and_comes_back() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 3, mem=40, harvest=True, expected=100.0))
    told.submit(job(2, 1, mem=10, harvest=True, expected=100.0))
    told.submit(job(3, 2, mem=40, expected=10.0), at=1.0)
    assert told.running() == {2, 3}, "what the larger one leaves is enough"
    assert told.state(1) is State.SUSPENDED
    assert told.machine.ledger.free[0].tolist()[:2] == [1000, 10], "memory stays with the suspended"
    assert told[1].reason == "primary job 3 needs its cores"
    told.end(3, at=11.0)
    assert told.running() == {1, 2}


def test_who_makes_room_for_the_sake_of_a_bound_is_told_so() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 3.0), ("stream", "train", 1.0))
    told.submit(job(1, 1, app="stream", harvest=True, expected=100.0))
    told.submit(job(2, 1, app="train", expected=10.0), at=1.0)
    assert told.state(1) is State.SUSPENDED
    assert told[1].reason == "beside it primary job 2 would break a bound"


def test_good_company_does_not_make_room_where_bad_company_has_to() -> None:
    told = knowing(Told("hybrid", TWO_CORES), ("train", "stream", 3.0), ("stream", "train", 1.0))
    told.submit(job(1, 1, app="stream", harvest=True, expected=100.0))
    told.submit(job(2, 1, app="quiet", harvest=True, expected=100.0))
    told.submit(job(3, 1, app="train", expected=10.0), at=1.0)
    assert told.running() == {2, 3}, "whose going would be of no use stays"
    assert told[1].reason == "primary job 3 needs its cores"


def test_who_makes_room_for_a_bound_is_told_so_where_cores_are_lacking_too() -> None:
    told = knowing(Told("hybrid", TWO_CORES), ("train", "stream", 3.0), ("stream", "train", 1.0))
    told.submit(job(1, 1, app="stream", harvest=True, expected=100.0))
    told.submit(job(2, 1, app="stream", harvest=True, expected=100.0))
    told.submit(job(3, 1, app="train", expected=10.0), at=1.0)
    assert told.running() == {3}
    bound = "beside it primary job 3 would break a bound"
    assert (told[1].reason, told[2].reason) == (bound, bound)


def test_no_more_make_room_than_are_needed() -> None:
    told = Told("hybrid", NODE)
    for number, cores in enumerate((1, 1, 2), 1):
        told.submit(job(number, cores, harvest=True, expected=100.0))
    told.submit(job(4, 3, expected=10.0), at=1.0)
    assert len(told.running()) == 2
    assert told.machine.ledger.free[0, 0] == 0


def test_harvest_jobs_give_no_way_to_one_of_a_lower_priority() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, harvest=True, expected=10.0, priority=1))
    told.submit(job(2, 4, expected=5.0), at=1.0)
    told.tick(at=9.0)
    assert told.running() == {1}
    told.end(1, at=10.0)
    assert told.running() == {2}


def test_the_head_is_not_delayed_for_what_a_harvest_job_holds() -> None:
    """It would be suspended for the head, so the head can start when the primary job ends."""
    told = Told("hybrid", NODE)
    told.submit(job(1, 2, expected=100.0))
    told.submit(job(2, 1, harvest=True, expected=1000.0), at=1.0)
    told.submit(job(3, 4, expected=10.0), at=5.0)
    told.submit(job(4, 1, expected=500.0), at=10.0)
    assert {one.at for one in told.decided if isinstance(one, ev.Reserve)} == {100.0}
    told.submit(job(5, 1, expected=50.0), at=11.0)
    assert told.running() == {1, 2, 5}, "what is over in time may start"
    told.end(5, at=61.0)
    told.end(1, at=100.0)
    assert told.running() == {3}


def test_harvest_jobs_fill_what_is_kept_for_a_primary_head() -> None:
    """However long they take, also behind primary jobs that may not; but not with memory that it needs."""
    told = Told("hybrid", NODE)
    told.submit(job(1, 2, expected=100.0))
    told.submit(job(2, 4, mem=60, expected=10.0), at=5.0)
    told.submit(job(3, 1, mem=10, expected=500.0), at=10.0)
    told.submit(job(4, 1, mem=50, harvest=True, expected=1000.0), at=11.0)
    told.submit(job(5, 1, mem=10, harvest=True, expected=1000.0), at=12.0)
    assert told.running() == {1, 5}
    told.end(1, at=100.0)
    assert told.running() == {2}


def test_a_head_waits_for_those_that_it_does_not_bear_though_harvest_jobs_would_go() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 3.0))
    told.submit(job(1, 2, app="stream", expected=100.0))
    told.submit(job(2, 1, app="quiet", harvest=True, expected=1000.0), at=1.0)
    told.submit(job(3, 2, app="train", expected=10.0), at=5.0)
    told.submit(job(4, 1, app="quiet", expected=500.0), at=10.0)
    assert {one.at for one in told.decided if isinstance(one, ev.Reserve)} == {100.0}
    assert told.running() == {1, 2, 4}, "this one leaves it enough"
    told.end(1, at=100.0)
    assert told.running() >= {3, 4}


def test_an_array_of_harvest_jobs_gives_way_to_a_primary_job() -> None:
    told = Told("hybrid", TWO_CORES)
    told.tell(*(ev.Submitted(job(k, 1, harvest=True, expected=4.0)) for k in range(1, 17)))
    told.submit(job(20, 2, expected=20.0), at=1.0)
    told.submit(job(21, 1, expected=20.0), at=1.0)
    assert told.running() == {20}
    told.end(20, at=21.0)
    assert 21 in told.running(), "every primary job, not the first alone"


def test_gpu_harvest_is_not_suspended_for_cores() -> None:
    told = Told("hybrid", Node("g", 4000, 100, (Gpu(0),)))
    told.submit(job(1, 4, gpus=1, harvest=True))
    told.submit(job(2, 4), at=1.0)
    assert told.running() == {1}


def test_primary_jobs_are_never_displaced() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4))
    told.submit(job(2, 4, priority=100), at=1.0)
    assert told.running() == {1}


def test_harvest_displaces_nobody() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, harvest=True))
    told.submit(job(2, 4, harvest=True, priority=9), at=1.0)
    assert told.running() == {1}


def test_no_more_room_is_made_than_is_needed() -> None:
    told = Told("hybrid", NODE, OTHER)
    for k in range(1, 9):
        told.submit(job(k, 1, harvest=True, expected=100.0))
    told.submit(job(9, 2, expected=10.0), at=1.0)
    assert told.state(9) is State.RUNNING
    assert len(told.decisions(ev.Suspend)) == 2


def test_room_is_made_where_a_bound_would_break() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="stream", harvest=True, expected=100.0))
    told.submit(job(2, 1, app="train", expected=10.0), at=1.0)
    assert told.running() == {2}
    assert told.state(1) is State.SUSPENDED
    told.tick(at=20.0)
    assert told.running() == {2}, "not beside it"
    told.end(2, at=30.0)
    assert told.running() == {1}


@pytest.mark.parametrize("others", [0, 40])  # so many are not rehearsed
def test_a_quote_foresees_that_room_is_made_where_a_bound_would_break(others: int) -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.tell(*(ev.Submitted(job(k, held=True)) for k in range(10, 10 + others)))
    told.submit(job(1, 1, app="stream", harvest=True, expected=7200.0))
    told.submit(job(2, 1, app="solve", expected=50.0))
    step = told.submit(job(3, 1, app="train", expected=10.0), at=1.0)
    assert told.running() == {2, 3}
    (quote,) = [one for one in step.quotes if one.moment == "submit"]
    assert quote.start.mid == 1.0


def test_nobody_is_suspended_in_vain() -> None:
    """Job 3 could have the cores, but not beside job 1."""
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="stream", expected=100.0))
    told.submit(job(2, 3, app="quiet", harvest=True, expected=100.0))
    told.submit(job(3, 3, app="train", expected=10.0), at=1.0)
    for at in range(2, 40):
        told.tick(at=float(at))
    assert told.running() == {1, 2}
    assert told.decisions(ev.Suspend) == []


def test_nobody_takes_the_place_that_is_made() -> None:
    told = Told("hybrid", NODE, OTHER)
    told.submit(job(1, 4, harvest=True, expected=100.0))
    told.submit(job(2, 4, harvest=True, expected=100.0))
    told.answers = False
    told.submit(job(3, 4, nodes=2, expected=10.0), at=10.0)
    told.tell(ev.SuspendDone(1, 1), at=11.0)
    told.submit(job(4, 1, harvest=True, expected=15.0), at=12.0)
    assert told.state(4) is State.QUEUED
    told.tick(at=17.0)
    assert told.state(1) is State.SUSPENDED
    told.tell(ev.SuspendDone(2, 1), at=18.0)
    assert told.state(3) is State.STARTING


def test_nobody_takes_what_the_first_of_several_leaves_to_a_primary_that_bears_none_of_them() -> None:
    """It fits by count once one has stopped; until the other has, too, each core went to one more that must stop."""
    told = knowing(Told("hybrid", Node("a", 2000, 0)), ("train", "stream", 1.5))
    for k in (1, 2, 3):
        told.submit(job(k, 1, app="stream", harvest=True, expected=100.0))
    told.answers = False
    told.submit(job(4, 1, app="train", bound=1.0, expected=200.0), at=10.0)
    assert [told.state(k) for k in (1, 2)] == [State.SUSPENDING] * 2
    told.tell(ev.SuspendDone(2, 1), at=10.2)
    assert (told.state(3), told.state(4)) == (State.QUEUED, State.QUEUED)
    assert "harvest jobs give way to it" in told.machine.why(4)
    told.tell(ev.SuspendDone(1, 1), at=10.3)
    assert (told.state(3), told.state(4)) == (State.QUEUED, State.STARTING)


def test_room_is_for_the_head_and_not_for_one_that_would_cost_less() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "old", 1.05))
    told.submit(job(1, 2, app="old", expected=1000.0))
    told.submit(job(2, 2, app="quiet", harvest=True, expected=1000.0))
    told.answers = False
    told.submit(job(3, 2, app="train", expected=20.0), at=10.0)
    told.submit(job(4, 2, app="quiet", expected=20.0), at=11.0)
    told.tell(ev.SuspendDone(2, 1), at=12.0)
    assert (told.state(3), told.state(4)) == (State.STARTING, State.QUEUED)


def test_a_gang_makes_no_room_where_its_going_leaves_company_of_which_too_much_is_known() -> None:
    """On the second node the head bears the others only while nobody knows the gang, which would leave both."""
    told = knowing(Told("hybrid", NODE, Node("b", 8000, 100)), ("train", "stream", 1.05), spread=0.1)
    told.submit(job(1, 1, app="other", expected=1000.0))
    told.submit(job(2, 5, app="stream", bound=2.0, expected=1000.0))
    told.submit(job(3, 2, nodes=2, app="quiet", harvest=True, expected=1000.0), at=1.0)
    told.submit(job(4, 1, app="other", expected=1000.0), at=2.0)
    told.submit(job(5, 1, nodes=2, app="train", expected=10.0), at=3.0)
    assert told.running() == {1, 2, 3, 4}
    told.tick(at=100.0)
    assert told.state(3) is State.RUNNING
