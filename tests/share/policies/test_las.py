"""Least attained service, by hand: classes of service of 10 and 100 core-seconds (or GPU-seconds)."""

import pytest

from tandem.share import events as ev
from tandem.share.model import Gpu, Node, State
from tandem.share.policies.las import service_class
from tests.share.told import Told, job

NODE = Node("a", 4000, 100, (Gpu(0), Gpu(1)))


def las(*nodes: Node) -> Told:
    """A machine with narrow classes."""
    return Told("las", *(nodes or (NODE,)), options={"las_step_s": 10.0})


@pytest.mark.parametrize(("attained", "level"), [(0.0, 0), (9.9, 0), (10.0, 1), (99.0, 1), (100.0, 2), (1e9, 2)])
def test_classes(attained: float, level: int) -> None:
    assert service_class(attained, 10.0) == level


def test_a_new_job_displaces_one_that_had_more() -> None:
    told = las()
    told.submit(job(1, 4))
    assert told.machine.next_wake() == pytest.approx(2.5, abs=0.01), "4 cores leave the first class after 2.5 s"
    told.submit(job(2, 4), at=1.0)
    assert told.running() == {1}, "both are new"
    told.tick(at=3.0)
    assert told.running() == {2}
    assert told.state(1) is State.SUSPENDED
    told.tick(at=5.0)
    assert told.running() == {2}
    told.tick(at=5.6)
    assert told.running() == {2}, "now they are alike, so nobody is displaced"
    told.end(2, at=6.0)
    assert told.running() == {1}
    assert told.decisions(ev.Suspend) == [1]
    assert told[1].attained(6.0) == pytest.approx(12.0)


def test_memory_stays_with_the_suspended() -> None:
    told = las()
    told.submit(job(1, 4, mem=60))
    told.submit(job(2, 4, mem=60), at=3.0)
    assert told.running() == {1}, "suspending job 1 does not make room for job 2's memory"
    told.submit(job(3, 4, mem=40), at=4.0)
    told.tick(at=5.0)
    assert told.state(1) in (State.RUNNING, State.SUSPENDED)
    told.machine.ledger.audit()


def test_a_gpu_job_is_requeued_if_it_can_save_itself_and_left_alone_otherwise() -> None:
    told = las()
    told.submit(job(1, 1, gpus=1))
    told.submit(job(2, 1, gpus=1, checkpoint="SIGUSR1"))
    told.tell(ev.Measured(2, 1.0, 5.0, (), 0.4), at=15.0)
    told.submit(job(3, 1, gpus=1), at=20.0)
    assert told.running() == {1, 3}
    assert told.state(2) is State.QUEUED
    assert told.decisions(ev.Requeue) == [2]
    assert told[2].failures == 0, "that attempt does not count"
    assert told[2].saved_done == 0.4
    told.end(3, at=21.0)
    assert told.state(2) is State.RUNNING
    assert told[2].attempt == 2
    assert told[2].attained(21.0) == pytest.approx(20.0)


def test_without_a_checkpoint_gpu_jobs_run_on() -> None:
    told = las()
    for k in (1, 2):
        told.submit(job(k, 1, gpus=1))
    told.submit(job(3, 1, gpus=1), at=1000.0)
    assert told.running() == {1, 2}
    assert told.state(3) is State.QUEUED


def test_a_job_of_higher_priority_is_not_displaced() -> None:
    """It would be first in the queue again, and displace in its turn."""
    told = las()
    told.submit(job(1, 4, priority=5))
    told.submit(job(2, 4), at=100.0)
    assert told.running() == {1}
    told.submit(job(3, 4, priority=5), at=101.0)
    assert told.running() == {3}


def test_nobody_takes_the_place_that_is_made_for_a_gang() -> None:
    told = las(NODE, Node("b", 4000, 100))
    told.submit(job(1, 4))
    told.submit(job(2, 4))
    told.answers = False
    told.submit(job(3, 4, nodes=2), at=50.0)
    assert told.state(1) is told.state(2) is State.SUSPENDING
    told.tell(ev.SuspendDone(1, 1), at=51.0)
    assert told.state(1) is State.SUSPENDED, "not resumed, though its cores are free"
    told.submit(job(4, 1), at=52.0)
    assert told.state(4) is State.QUEUED
    told.tell(ev.SuspendDone(2, 1), at=53.0)
    assert told.state(3) is State.STARTING


def test_the_step_is_an_option() -> None:
    told = Told("las", NODE)
    told.submit(job(1, 4))
    assert told.machine.next_wake() == pytest.approx(900.0, abs=0.01)
    told.submit(job(2, 4), at=100.0)
    assert told.running() == {1}
