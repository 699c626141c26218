"""What `hybrid` does where a bound is measured to be broken, by hand."""

import pytest

from tandem.estimate.corun import App, Capacity
from tandem.share import events as ev
from tandem.share.deciding.guard import suffers
from tandem.share.deciding.resting import HELPED, in_vain_for
from tandem.share.model import Node, State
from tests.share.knowing import NODE, knowing
from tests.share.told import Told, job


def breached(rate: float = 5.0, bound: float = 1.2) -> Told:
    """A primary job that goes at 10 alone, beside a harvest job."""
    told = Told("hybrid", NODE)
    told.submit(job(1, 1, app="train", bound=bound, expected=1000.0))
    told.measure(1, 10.0, at=10.0)
    told.submit(job(2, 1, app="stream", harvest=True, expected=1000.0), at=10.0)
    told.measure(1, rate, "stream", at=12.0)
    return told


def test_a_measured_breach_throttles_then_suspends() -> None:
    told = breached(rate=6.5)
    assert told[2].throttle == 0.5
    assert told[2].reason == "primary job 1 goes 1.54 times slower than alone, and 1.2 is its bound"
    told.measure(1, 7.0, "stream", at=13.0, seconds=2.0)
    assert told[2].throttle == 0.5, "part of that was measured before the throttle"
    told.measure(1, 7.0, "stream", at=14.0, seconds=1.0)
    assert told[2].throttle == 0.5, "it was measured beside another neighbour than the throttled one"
    told.measure(1, 7.0, "stream@0.5", at=15.0, seconds=2.0)
    assert told[2].throttle == 0.25
    told.measure(1, 7.0, "stream@0.25", at=18.0, seconds=2.0)
    assert told.state(2) is State.SUSPENDED
    told.measure(1, 10.0, at=21.0, seconds=2.0)
    assert [one.fraction for one in told.decided if isinstance(one, ev.Throttle)] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("rate", "fraction"),
    [(6.5, 0.5), (5.0, 0.25), (4.0, None), (2.2, None)],  # 1.54, 2, 2.5 and 4.5 times slower; 1.3 is tolerated
)
def test_a_neighbour_is_curbed_at_once_as_far_as_should_be_enough(rate: float, fraction: float | None) -> None:
    told = breached(rate=rate)
    if fraction is None:
        assert told.state(2) is State.SUSPENDED
    else:
        assert (told.state(2), told[2].throttle) == (State.RUNNING, fraction)


def test_within_the_bound_and_its_noise_nothing_is_done() -> None:
    told = breached(rate=10.0 / (1.2 * 1.07))  # little is known of its rate alone: 8 % may be noise
    assert told[2].throttle == 1.0
    told = breached(rate=10.0 / (1.2 * 1.09))
    assert told[2].throttle == 0.5


def test_a_job_that_goes_on_goes_on_at_its_full_speed_where_nobody_needs_its_throttle() -> None:
    """Though nothing else happens."""
    told = breached(rate=6.5)
    told.measure(1, 7.0, "stream@0.5", at=15.0, seconds=2.0)
    told.measure(1, 7.0, "stream@0.25", at=18.0, seconds=2.0)
    assert (told.state(2), told[2].throttle) == (State.SUSPENDED, 0.25)
    told.end(1, at=40.0)
    assert (told.state(2), told[2].throttle) == (State.RUNNING, 1.0)


def test_who_waits_or_stands_still_is_looked_at_again_after_measurements_but_not_after_each() -> None:
    """A job that was never alone is not let beside anybody that is known; once it was alone it is."""
    told = knowing(Told("hybrid", NODE), ("train", "stream", 3.0))
    told.submit(job(1, 1, app="train", expected=1000.0))
    told.submit(job(2, 1, app="stream", harvest=True, expected=1000.0), at=1.0)
    assert told.running() == {1}
    knowing(told)
    told.measure(1, 10.0, at=3.0)
    assert told.running() == {1}, "a pass was two seconds ago"
    told.measure(1, 10.0, at=6.0)
    assert told.running() == {1, 2}


def test_the_throttle_is_lifted_when_the_primary_is_gone() -> None:
    told = breached()
    told.end(1, at=20.0)
    assert told[2].throttle == 1.0
    assert told.said[-1] == ev.ThrottleJob(2, 1, 1.0)


def test_a_suspended_job_comes_back_when_the_primary_is_gone() -> None:
    told = breached(rate=2.0)
    assert told.state(2) is State.SUSPENDED
    told.end(1, at=40.0)
    assert told.state(2) is State.RUNNING


def test_the_least_throttled_neighbour_is_the_next() -> None:
    told = breached(rate=6.5)
    told.submit(job(3, 1, app="other", harvest=True, expected=1000.0), at=13.0)
    told.measure(1, 6.5, "other", "stream@0.5", at=20.0)
    assert (told[2].throttle, told[3].throttle) == (0.5, 0.5)
    told.measure(1, 7.2, "other@0.5", "stream@0.5", at=30.0)
    assert sorted([told[2].throttle, told[3].throttle]) == [0.25, 0.5]


@pytest.mark.parametrize(
    ("metered", "stated", "throttles"),
    [
        (1000, (400, 10), (0.5, 1.0)),
        (1000, (400, 0), (0.5, 1.0)),  # taken for 250
        (1000, (10, 0), (1.0, 0.5)),
        (None, (400, 10), (1.0, 0.5)),
    ],
)
def test_the_neighbour_that_presses_most_is_curbed_first(
    metered: int | None, stated: tuple[int, int], throttles: tuple[float, float]
) -> None:
    """Though another came later, who is curbed where nobody knows."""
    told = Told("hybrid", Node("a", 8000, 100, membw_mbs=metered))
    told.submit(job(1, 2, app="train", bound=1.2, expected=1000.0), at=0.0)
    told.measure(1, 10.0, at=2.0)
    told.submit(job(2, 2, app="stream", harvest=True, membw=stated[0], expected=1000.0), at=3.0)
    told.submit(job(3, 2, app="quiet", harvest=True, membw=stated[1], expected=1000.0), at=4.0)
    told.measure(1, 6.5, "stream", "quiet", at=20.0)
    assert (told[2].throttle, told[3].throttle) == throttles


@pytest.mark.parametrize("fine", [True, False])
def test_who_came_after_a_primary_job_was_fine_is_suspected_first(*, fine: bool) -> None:
    """Whatever the others take."""
    told = Told("hybrid", Node("a", 8000, 100, membw_mbs=1000))
    told.submit(job(1, 2, app="train", bound=1.2, expected=1000.0), at=0.0)
    told.measure(1, 10.0, at=2.0)
    told.submit(job(2, 2, app="quiet", harvest=True, membw=400, expected=1000.0), at=3.0)
    if fine:
        told.measure(1, 10.0, "quiet", at=9.0)
    told.submit(job(3, 2, app="stream", harvest=True, membw=10, expected=1000.0), at=10.0)
    told.measure(1, 6.5, "quiet", "stream", at=20.0)
    assert (told[2].throttle, told[3].throttle) == ((1.0, 0.5) if fine else (0.5, 1.0))


@pytest.mark.parametrize(("without", "in_vain"), [(3.3, True), (4.2, False)])
def test_who_stood_still_in_vain_is_not_the_first_to_stand_still_again(without: float, *, in_vain: bool) -> None:
    """It goes on as soon as it has rested, and is the last to have come again."""
    told = knowing(Told("hybrid", Node("a", 8000, 100)))
    told.submit(job(1, 2, app="train", bound=1.2, expected=1000.0), at=0.0)
    told.measure(1, 10.0, at=2.0)
    for k, app in enumerate(("first", "second", "third"), start=2):
        told.submit(job(k, 2, app=app, harvest=True, expected=1000.0), at=3.0)
    told.measure(1, 3.3, "first", "second", "third", at=20.0)
    assert told.state(4) is State.SUSPENDED
    told.measure(1, without, "first", "second", at=26.0)
    assert told.state(3) is State.SUSPENDED
    assert told.state(4) is State.RUNNING
    assert told[4].in_vain_for == ({1: 20.0} if in_vain else {})
    told.measure(1, 3.3, "first", "third", at=32.0)
    assert (told.state(2) is State.SUSPENDED, told.state(4) is State.SUSPENDED) == (in_vain, not in_vain)


def test_what_was_in_vain_counts_until_the_primary_job_is_fine() -> None:
    """Also where the job stood still again meanwhile, for another."""
    told = knowing(Told("hybrid", Node("a", 8000, 100)))
    told.submit(job(1, 2, app="train", bound=1.2, expected=1000.0), at=0.0)
    told.measure(1, 10.0, at=2.0)
    told.submit(job(2, 2, app="first", harvest=True, expected=1000.0), at=3.0)
    told.measure(1, 3.3, "first", at=20.0)
    one = told[1]
    again = told[2]
    again.in_vain_for, again.rests_from = {1: 4.0, 7: 4.0}, {8: 2.0}
    assert in_vain_for(told.machine.view, again) == {1: 4.0}, "7 is fine, and 8"
    again.rests_from = {1: 1.0 + (one.slowdown - 1.0) / HELPED * 1.01}
    told.measure(1, 3.3, at=30.0)
    assert in_vain_for(told.machine.view, again) == {1: 4.0}, "it helped, this time"
    again.rests_from = {1: one.slowdown}
    assert in_vain_for(told.machine.view, again) == {1: 20.0}


def test_steps_of_other_arguments_are_not_taken_for_a_slowdown() -> None:
    """`solve large` makes a step where `solve small` makes a hundred; its neighbour does it no harm."""
    told = Told("hybrid", NODE)
    told.submit(job(1, 1, app="solve", variant="small", bound=1.1, expected=5.0), at=0.0)
    told.measure(1, 100.0, at=2.0)
    told.end(1, at=5.0)
    told.submit(job(2, 1, app="solve", variant="large", bound=1.1, expected=100.0), at=6.0)
    told.submit(job(3, 1, app="stream", harvest=True, expected=100.0), at=6.0)
    told.measure(2, 1.0, "stream", at=10.0)
    assert told[2].slowdown is None
    assert told[3].throttle == 1.0
    assert [one.app for one in told.machine.coruns] == ["solve"]


def test_arguments_that_never_ran_alone_do_not_keep_others_from_being_learned() -> None:
    """A first, short run beside others was all that co-runs were ever counted in."""
    told = Told("hybrid", NODE, estimator="learned")
    told.submit(job(1, 1, app="solve", variant="trial", harvest=True, expected=5.0), at=0.0)
    told.submit(job(2, 1, app="stream", harvest=True, expected=5.0), at=0.0)
    told.measure(1, 100.0, "stream", at=2.0)
    told.end(1, at=5.0)
    told.end(2, at=5.0)
    told.submit(job(3, 1, app="solve", variant="real", expected=50.0), at=6.0)
    told.measure(3, 2.0, at=9.0)
    told.submit(job(4, 1, app="stream", harvest=True, expected=50.0), at=10.0)
    told.measure(3, 1.0, "stream", at=13.0)
    assert [(one.app, one.beside, one.rate) for one in told.machine.coruns] == [
        ("solve", (), 2.0),
        ("solve", ("stream",), 1.0),
    ]
    slowed = told.machine.estimator.predict((App("solve", 1000), App("stream", 1000)), Capacity(4000, None, None))[0]
    assert slowed.mid == pytest.approx(2.0)


def test_a_throttled_job_teaches_nothing() -> None:
    told = breached()
    told.tell(ev.Measured(2, 3.0, 2.0, (), None, throttled=True), at=16.0)
    assert told.machine.history.alone_rate(told[2].job) is None
    told.end(2, at=30.0)
    told.submit(job(4, app="stream"), at=31.0)
    assert told[4].expected.mid != 20.0, "nor does how long it took"


def test_what_was_observed_is_not_done_again() -> None:
    """With an estimator that learns, the pair is known to be bad after it was measured once."""
    told = Told("hybrid", NODE, estimator="proportional")
    told.submit(job(1, 1, app="train", bound=1.2, expected=1000.0))
    told.submit(job(2, 1, app="stream", harvest=True, expected=1000.0))
    assert told.running() == {1, 2}
    told.measure(1, 10.0, at=10.0)
    for at in (20.0, 30.0, 40.0):
        told.measure(1, 5.0, "stream", at=at, seconds=5.0)
    told.end(2, at=50.0)
    told.submit(job(3, 1, app="stream", harvest=True, expected=1000.0), at=51.0)
    assert told.state(3) is State.QUEUED


@pytest.mark.parametrize(
    ("beside", "suffering"), [("stream@0.25", True), ("stream", True), ("streams", False), ("stream@home", False)]
)
def test_a_job_stays_suspended_while_a_primary_one_suffers_from_its_like(beside: str, *, suffering: bool) -> None:
    """Throttled or not."""
    told = breached(rate=2.0)
    assert told.state(2) is State.SUSPENDED
    told.measure(1, 7.0, beside, at=30.0, seconds=2.0)
    assert suffers(told.machine.view, told[2]) is suffering
