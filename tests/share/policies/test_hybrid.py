"""`hybrid` by hand: neighbours, room, reservations, enforcement."""

import heapq
import math
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tandem.estimate.corun import App, Capacity, CoRun, Slowdown
from tandem.share import events as ev
from tandem.share.deciding.guard import suffers
from tandem.share.deciding.neighbours import Neighbours
from tandem.share.model import Gpu, JobClass, Node, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.waiting import why_it_waits
from tandem.share.simulate.simulator import Simulator
from tandem.share.simulate.truth import Pairwise
from tandem.share.workloads.workload import Arrival, Workload
from tests.share.told import Told, job
from tests.share.unruly import Live, Unruly, crowded

NODE = Node("a", 4000, 100)
OTHER = Node("b", 4000, 100)
GPUS = Node("g", 16_000, 100, (Gpu(0), Gpu(1)))


def knowing(told: Told, *pairs: tuple[str, str, float], spread: float = 0.0) -> Told:
    """Give the machine's estimator a table of (who, beside whom, slowdown); ``spread`` is its half-width."""
    told.machine.estimator = told.machine.view.estimator = Table({(a, b): slow for a, b, slow in pairs}, spread)
    return told


class Table:
    """An estimator that knows pairs by heart; whom it does not know costs nothing."""

    def __init__(self, pairs: dict[tuple[str, str], float], spread: float = 0.0) -> None:
        self.pairs = pairs
        self.spread = spread

    def observe(self, corun: CoRun) -> None:
        """It has learnt enough."""

    def predict(self, apps: tuple[App, ...], capacity: Capacity) -> tuple[Slowdown, ...]:
        """The product over the neighbours."""
        answers = []
        for i, app in enumerate(apps):
            slow = 1.0
            for j, other in enumerate(apps):
                slow *= self.pairs.get((app.key, other.key), 1.0) if i != j else 1.0
            answers.append(
                Slowdown(slow, max(1.0, slow - self.spread), slow + self.spread, True, f"{slow:.2f} in the table")
            )
        return tuple(answers)

    def knows(self, app: App) -> bool:
        """Whether it is in the table."""
        return any(app.key in pair for pair in self.pairs)

    def revision(self, keys: Iterable[str]) -> tuple[int, int]:
        """It never learns."""
        return 0, 0


# ---------------------------------------------------------------------------------------- neighbours


def test_a_known_bad_pair_is_never_put_together() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="train"))
    told.submit(job(2, 1, app="stream", harvest=True))
    assert told.state(2) is State.QUEUED
    assert told.why(2) == (
        "it would fit, but a bound would break beside those that run now: "
        "job 1 may take 1.10x as long as alone, and 1.50x is expected (1.50 in the table)"
    )
    told.end(1)
    assert told.state(2) is State.RUNNING
    told.submit(job(3, 1, app="stream"))
    assert told.running() == {2, 3}, "it does not hurt its like"


@pytest.mark.parametrize(("safe", "together"), [(1.0, False), (0.0, True)])
def test_a_bound_has_to_hold_at_the_upper_end_of_the_interval(*, safe: float, together: bool) -> None:
    told = knowing(Told("hybrid", NODE, options={"hybrid_safe": safe}), ("train", "stream", 1.05), spread=0.1)
    told.submit(job(1, 1, app="train"))
    told.submit(job(2, 1, app="stream", harvest=True))
    assert (told.state(2) is State.RUNNING) == together


@pytest.mark.parametrize(
    ("rates", "bound", "together"),
    [
        ((10.0, 10.1, 9.9), 1.10, False),  # beyond 1.10 and 4 % of noise, the least there is
        ((10.0, 11.0, 9.2), 1.10, True),  # not beyond 9 %
        ((10.0, 11.0, 9.2), 1.04, False),  # in the middle the bound itself has to hold
        ((10.0, 11.0), 1.10, False),  # too few to tell
    ],
)
def test_a_bound_is_not_held_more_closely_than_the_jobs_own_pace(
    rates: tuple[float, ...], bound: float, together: bool
) -> None:
    """Slowed by 1.05 are expected, and by 1.15 possible."""
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.05), spread=0.1)
    told.submit(job(1, 1, app="train", harvest=True))
    for k, rate in enumerate(rates):
        told.measure(1, rate, at=3.0 * (k + 1))
    told.end(1)
    told.submit(job(2, 1, app="train", bound=bound))
    told.submit(job(3, 1, app="stream", harvest=True))
    assert (told.state(3) is State.RUNNING) == together
    if rates == (10.0, 10.1, 9.9):
        assert told.why(3) == (
            "it would fit, but a bound would break beside those that run now: job 2 may take 1.10x as long as alone, "
            "or 4% more as its own pace varies by that, and up to 1.15x is possible (1.05 in the table)"
        )


def test_a_stranger_is_judged_by_the_middle() -> None:
    """If it had to be harmless for certain, it would never run beside anybody, and stay a stranger."""
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5), spread=0.4)
    told.submit(job(1, 1, app="train"))
    told.submit(job(2, 1, app="unheard of", harvest=True))
    assert told.state(2) is State.RUNNING


@pytest.mark.parametrize("estimator", ["learned", "proportional", "additive", "worst_pair"])
def test_what_nothing_but_a_try_can_tell_is_tried(estimator: str) -> None:
    """One that tells no rate is never measured, however often it was somebody's neighbour."""
    told = Told("hybrid", NODE, estimator=estimator)
    told.submit(job(1, 1, app="train"))
    told.measure(1, 10.0, at=3.0)
    told.submit(job(2, 1, app="prep"))
    told.measure(1, 9.9, "prep", at=6.0)
    told.end(2)
    told.submit(job(3, 1, app="prep"))
    assert told.running() == {1, 3}


@pytest.mark.parametrize("estimator", ["learned", "proportional", "additive", "worst_pair"])
def test_two_that_were_measured_beside_others_only_are_tried_together(estimator: str) -> None:
    told = Told("hybrid", NODE, estimator=estimator)
    for number, app in enumerate(("train", "solve")):
        told.submit(job(10 * number + 1, 1, app=app))
        told.measure(10 * number + 1, 10.0, at=told.now + 3.0)
        told.submit(job(10 * number + 2, 1, app="prep"))
        told.measure(10 * number + 1, 9.9, "prep", at=told.now + 3.0)
        told.end(10 * number + 1)
        told.end(10 * number + 2)
    told.submit(job(31, 1, app="train"))
    told.submit(job(32, 1, app="solve"))
    assert told.running() == {31, 32}


@pytest.mark.parametrize("estimator", ["learned", "proportional", "additive", "worst_pair"])
def test_one_that_was_measured_beside_others_only_waits_until_it_is_measured_alone(estimator: str) -> None:
    told = Told("hybrid", NODE, estimator=estimator)
    told.submit(job(1, 1, app="train"))
    told.submit(job(2, 1, app="prep"))
    told.measure(2, 5.0, "train", at=3.0)
    told.end(2)
    told.submit(job(3, 1, app="prep"))
    assert told.running() == {1}
    assert told.why(3) == (
        "it would fit, but a bound would break beside those that run now: it may take 1.10x as long as alone, "
        "and up to 1.60x is possible (its slowdown beside train is not known, as it never ran alone: assumed 1.0x)"
    )
    told.end(1)
    told.measure(3, 5.0, at=6.0)
    told.end(3)
    told.submit(job(4, 1, app="train"))
    told.submit(job(5, 1, app="prep"))
    assert told.running() == {4, 5}, "now it is known that it was not slowed"


def test_the_arriving_primary_is_protected_too() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="stream"))
    told.submit(job(2, 1, app="train"))
    assert told.running() == {1}
    told.end(1)
    assert told.running() == {2}


def test_a_primary_that_accepts_it_gets_it() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="train", bound=1.6))
    told.submit(job(2, 1, app="stream"))
    assert told.running() == {1, 2}


def test_harvest_has_no_bound() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="train", harvest=True))
    told.submit(job(2, 1, app="stream"))
    assert told.running() == {1, 2}


def test_the_quieter_neighbour_is_preferred() -> None:
    told = knowing(Told("hybrid", NODE, OTHER), ("train", "stream", 1.08), ("train", "quiet", 1.01))
    told.submit(job(1, 3, app="stream", expected=100.0))
    told.submit(job(2, 2, app="quiet", expected=100.0))
    assert (told.where(1), told.where(2)) == (("a",), ("b",))
    told.submit(job(3, 1, app="train", expected=100.0))
    assert told.where(3) == ("b",), "though a is fuller"
    assert "beside quiet" in told[3].reason


def test_who_is_not_known_is_allowed() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="train"))
    told.submit(job(2, 1, app="new", harvest=True))
    assert told.running() == {1, 2}


def test_a_bad_neighbour_does_not_block_those_behind_it() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="train", expected=100.0))
    for k in (2, 3, 4):
        told.submit(job(k, 1, app="stream", harvest=True, expected=10.0), at=1.0)
    told.submit(job(5, 1, app="quiet", harvest=True, expected=10.0), at=2.0)
    assert told.running() == {1, 5}


def test_a_good_job_behind_many_bad_ones_of_its_shape_is_found() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5), ("train", "gather", 1.4))
    told.submit(job(1, 1, app="train", expected=100.0))
    for k in range(2, 11):
        told.submit(job(k, 1, app="stream" if k % 2 else "gather", harvest=True, expected=10.0), at=1.0)
    told.submit(job(11, 1, app="quiet", harvest=True, expected=10.0), at=2.0)
    assert told.running() == {1, 11}


def test_all_nodes_are_asked_before_a_job_is_passed_over() -> None:
    """The first five nodes have a bad neighbour, and all of them are fuller than the sixth."""
    nodes = [Node(f"n{k}", 4000, 100) for k in range(6)]
    told = knowing(Told("hybrid", *nodes), ("train", "stream", 1.5))
    for k in range(1, 6):
        told.submit(job(k, 3, app="train", expected=100.0))
    told.submit(job(6, 1, app="stream", harvest=True, expected=10.0), at=1.0)
    assert told.where(6) == ("n5",)


def test_stated_bandwidths_are_not_believed_to_the_last() -> None:
    """0.9 of the bandwidth by what they say: within the node, but statements may be too low."""
    node = Node("a", 4000, 100, membw_mbs=1000)
    told = Told("hybrid", node, estimator="proportional")
    told.submit(job(1, 1, app="train", membw=450, bound=1.05, expected=100.0))
    told.submit(job(2, 1, app="stream", membw=450, harvest=True, expected=10.0))
    assert told.running() == {1}
    told.submit(job(3, 1, app="quiet", membw=350, harvest=True, expected=10.0), at=1.0)
    assert told.running() == {1, 3}


@pytest.mark.parametrize("estimator", ["proportional", "learned"])
def test_a_large_node_with_bandwidth_for_all_is_filled(estimator: str) -> None:
    """Twenty that state what they take, with bounds: what nobody measured does not grow with their number."""
    told = Told("hybrid", Node("a", 96_000, 100, membw_mbs=200_000), estimator=estimator)
    for k in range(1, 21):
        told.submit(job(k, 4, app=f"app{k}", membw=1_000, bound=1.10, expected=100.0))
    assert told.running() == set(range(1, 21))


def test_what_was_learned_counts_on_a_node_that_has_not_changed() -> None:
    """Answers are kept from pass to pass, but not beyond an observation of those that they are about."""
    told = Told("hybrid", NODE, OTHER, estimator="proportional")
    told.submit(job(1, 1, app="train", bound=1.2, expected=1000.0))
    told.measure(1, 10.0, at=10.0)
    told.submit(job(2, 4, app="wide", expected=1000.0), at=11.0)
    told.submit(job(3, 4, app="stream", harvest=True, expected=10.0), at=12.0)
    assert (told.where(1), told.where(2), told.state(3)) == (("a",), ("b",), State.QUEUED)
    near = Neighbours.of(told.machine.view)
    assert near.bounds_hold(0, told[3])
    for _ in range(3):
        told.machine.estimator.observe(CoRun("train", ("stream",), 5.0, 10.0))
    assert not Neighbours.of(told.machine.view).bounds_hold(0, told[3])


def test_the_cheapest_of_the_first_few_goes_first() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.09), ("stream", "train", 3.0))
    told.submit(job(1, 3, app="train", expected=100.0))
    told.answers = False
    told.tell(
        ev.Submitted(job(2, 1, app="stream", harvest=True, expected=50.0)),
        ev.Submitted(job(3, 1, app="quiet", harvest=True, expected=50.0)),
    )
    assert told.decisions(ev.Start) == [1, 3]


# -------------------------------------------------------------------------------------------- room


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


@pytest.mark.parametrize(("gpus", "cores", "at_once"), [(1, 2, 2), (4, 2, 2), (1, 4, 3), (2, 8, 6)])
def test_whole_cores_are_kept_for_gpu_jobs_or_none(gpus: int, cores: int, at_once: int) -> None:
    """A quarter of two cores is half a core, which nobody could use."""
    told = Told("hybrid", Node("g", 1000 * cores, 0, tuple(Gpu(k) for k in range(gpus))))
    for number in range(1, cores + 1):
        told.submit(job(number, 1, expected=60.0))
    assert len(told.running()) == at_once


def test_a_start_says_what_it_had_waited_for() -> None:
    told = knowing(Told("hybrid", NODE), ("train", "stream", 1.5))
    told.submit(job(1, 1, app="stream", expected=100.0))
    told.submit(job(2, 1, app="train", expected=10.0), at=1.0)
    told.end(1, at=41.0)
    bound = "a bound would break beside those that run now"
    assert told[2].reason == f"nobody is beside it; it had waited 40s, and was refused a place meanwhile: {bound}"
    told.submit(job(3, 1, app="train", expected=10.0), at=42.0)
    assert "waited" not in told[3].reason


def test_a_primary_job_goes_before_the_harvest_jobs_that_came_earlier() -> None:
    """However short they are, and however long the one that runs still takes."""
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, harvest=True, expected=1e5))
    told.submit(job(2, 2, harvest=True, expected=1.0), at=1.0)
    told.submit(job(3, 2, expected=10.0), at=1.5)
    assert told.running() == {3}
    assert told.state(1) is State.SUSPENDED
    told.end(3, at=20.0)
    assert told.running() == {1}, "who had begun goes on before others begin"


def test_but_not_before_those_of_a_higher_priority() -> None:
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, harvest=True, expected=1e5))
    told.submit(job(2, 2, harvest=True, expected=1.0, priority=1), at=1.0)
    told.submit(job(3, 2, expected=10.0), at=1.5)
    told.tick(at=100.0)
    assert told.running() == {1}
    told.end(1, at=200.0)
    assert told.running() == {2}


def test_an_array_of_harvest_jobs_gives_way_to_a_primary_job() -> None:
    told = Told("hybrid", TWO_CORES)
    told.tell(*(ev.Submitted(job(k, 1, harvest=True, expected=4.0)) for k in range(1, 17)))
    told.submit(job(20, 2, expected=20.0), at=1.0)
    told.submit(job(21, 1, expected=20.0), at=1.0)
    assert told.running() == {20}
    told.end(20, at=21.0)
    assert 21 in told.running(), "every primary job, not the first alone"


def test_neither_class_nor_priority_is_weighed_against_what_neighbours_cost() -> None:
    """The harvest job and the one of a lower priority would cost nothing."""
    told = knowing(Told("hybrid", TWO_CORES), ("train", "stream", 1.05), ("stream", "train", 1.05))
    told.submit(job(1, 1, app="stream", expected=100.0))
    told.submit(job(2, 1, expected=30.0), at=0.5)
    told.submit(job(3, 1, app="train", expected=20.0, priority=1), at=1.0)
    told.submit(job(4, 1, expected=20.0), at=1.0)
    told.submit(job(5, 1, harvest=True, expected=20.0), at=1.0)
    told.end(2, at=30.0)
    assert told.running() == {1, 3}


def test_order_among_primary_jobs_stays_as_it_is() -> None:
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 2, expected=100.0))
    told.submit(job(2, 2, expected=10.0), at=1.0)
    told.submit(job(3, 2, expected=1.0), at=2.0)
    told.end(1, at=50.0)
    assert told.running() == {3}, "the shorter one, though the other is due as well"


def test_memory_of_the_suspended_is_not_given_out() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, mem=80, harvest=True, expected=100.0))
    told.submit(job(2, 2, mem=40, expected=10.0), at=1.0)
    assert told.running() == {1}, "suspending it would not help"
    told.submit(job(3, 2, mem=20, expected=10.0, priority=1), at=2.0)
    assert told.running() == {3}


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


def test_one_that_waits_for_gpus_leaves_the_suspended_their_cores() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 2, gpus=2, expected=1000.0))
    told.submit(job(2, 14, harvest=True, expected=1000.0), at=1.0)
    told.submit(job(3, 14, expected=5.0), at=2.0)
    assert told.running() == {1, 3}
    told.submit(job(4, 2, gpus=2, expected=1000.0), at=3.0)
    told.end(3, at=20.0)
    assert told.running() == {1, 2}


# ------------------------------------------------------------------------------- cores for GPU jobs


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


# ------------------------------------------------------------------------------------ order, patience


def test_short_jobs_pass_long_ones_but_not_for_ever() -> None:
    told = Told("hybrid", NODE)
    told.submit(job(1, 4, expected=100.0))
    told.submit(job(2, 4, expected=50.0), at=1.0)
    told.submit(job(3, 4, expected=10.0), at=2.0)
    told.submit(job(4, 4, expected=10.0), at=180.0)
    for k in (1, 3, 2):
        told.end(k, at=200.0 + k)
    assert told.decisions(ev.Start) == [1, 3, 2, 4], "4 weights of 40 s for each are less than 178 s of waiting"


def test_a_primary_that_nobody_suits_is_not_passed_over_for_ever() -> None:
    """Beside the stream it would be too slow, and the stream never ends: after its patience its node falls quiet."""
    arrivals = [Arrival(7.0 * k, job(k + 2, 1, app="stream", expected=20.0, bound=9.0), 20.0) for k in range(100)]
    arrivals.insert(2, Arrival(9.5, job(1, 2, app="train", expected=5.0), 5.0))
    workload = Workload((Node("a", 8000, 0),), tuple(arrivals))
    simulator = Simulator(workload, Setup("hybrid", "none", {"quotes": 0}))
    table = Table({("train", "stream"): 1.5})
    simulator.machine.estimator = simulator.machine.view.estimator = table
    outcomes = {outcome.job.id: outcome for outcome in simulator.run().outcomes}
    started = outcomes[1].started
    assert started is not None
    patience_s = 60 + 8 * 5.0
    assert 9.5 + patience_s < started <= 9.5 + patience_s + 7.0 + 20.0, "once it is impatient, and those there are done"
    assert all(outcome.state is State.DONE for outcome in outcomes.values())


@pytest.mark.parametrize("cores", [2, 8])
def test_a_primary_that_nobody_suits_waits_its_own_length_for_harvest_jobs_and_no_longer(cores: int) -> None:
    """Whenever a core came free a harvest job took it, and nobody was left whose leaving would have been enough."""
    arrivals = [Arrival(0.1 * k, job(k + 2, 1, app="stream", harvest=True, expected=20.0), 20.0) for k in range(40)]
    arrivals.insert(0, Arrival(0.0, job(50, 1, app="calm", expected=18.0, bound=9.0), 18.0))
    arrivals.append(Arrival(9.5, job(1, 1, app="train", expected=15.0), 15.0))
    workload = Workload((Node("a", 1000 * cores, 0),), tuple(arrivals))
    simulator = Simulator(workload, Setup("hybrid", "none", {"quotes": 0}))
    table = Table({("train", "stream"): 1.5, ("train", "calm"): 1.5})
    simulator.machine.estimator = simulator.machine.view.estimator = table
    outcomes = {outcome.job.id: outcome for outcome in simulator.run().outcomes}
    started = outcomes[1].started
    assert started is not None
    assert started == max(18.0, 9.5 + 15.0), "once it is due, and not with the next end of a neighbour"
    assert all(outcome.state is State.DONE for outcome in outcomes.values())


# --------------------------------------------------------------------------------------- enforcement


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


@pytest.mark.parametrize(("beside", "suffering"), [("stream@0.25", True), ("stream", True), ("streams", False)])
def test_a_job_stays_suspended_while_a_primary_one_suffers_from_its_like(beside: str, *, suffering: bool) -> None:
    """Throttled or not."""
    told = breached(rate=2.0)
    assert told.state(2) is State.SUSPENDED
    told.measure(1, 7.0, beside, at=30.0, seconds=2.0)
    assert suffers(told.machine.view, told[2]) is suffering


def test_a_job_that_goes_on_goes_on_at_its_full_speed_where_nobody_needs_its_throttle() -> None:
    """Though nothing else happens."""
    told = breached(rate=6.5)
    told.measure(1, 7.0, "stream@0.5", at=15.0, seconds=2.0)
    told.measure(1, 7.0, "stream@0.25", at=18.0, seconds=2.0)
    assert (told.state(2), told[2].throttle) == (State.SUSPENDED, 0.25)
    told.end(1, at=40.0)
    assert (told.state(2), told[2].throttle) == (State.RUNNING, 1.0)


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


# --------------------------------------------------------------------------------------- in whole days


def test_bounds_hold_where_the_estimator_is_right() -> None:
    """`share` breaks bounds, `hybrid` breaks none, on the same day under the same truth."""
    table = {("train", "stream"): 1.6, ("stream", "train"): 1.3, ("train", "train"): 1.02}
    arrivals = []
    for k in range(60):
        harvest = k % 2 == 0
        one = job(k + 1, 1 + k % 3, app="stream" if harvest else "train", harvest=harvest, expected=20.0)
        arrivals.append(Arrival(3.0 * k, one, 20.0))
    broken = {}
    for policy in ("share", "hybrid"):
        workload = Workload((NODE, OTHER, Node("c", 8000, 100)), tuple(arrivals))
        simulator = Simulator(workload, Setup(policy, "none", {"quotes": 0}), Pairwise(table))
        simulator.machine.estimator = simulator.machine.view.estimator = Table(table)
        outcomes = simulator.run().outcomes
        assert {outcome.state for outcome in outcomes} == {State.DONE}
        broken[policy] = sum(o.bound is not None and o.slowdown > o.bound * 1.0001 for o in outcomes)
    assert broken["share"] > 5
    assert broken["hybrid"] == 0


@pytest.mark.slow
@settings(max_examples=40)
@given(crowded())
def test_no_primary_is_placed_beside_a_bad_neighbour(day: Unruly) -> None:
    """Checked against the table itself, at every start and resumption."""
    table = Table({("cg", "fft"): 1.3, ("fft", "train"): 1.2, ("train", "train"): 1.5})
    one = Live(Setup("hybrid", "none"), day)
    one.machine.estimator = one.machine.view.estimator = table
    for action in day.actions:
        one.act(action)
        _, _, step = one.steps[-1]
        for said in step.instructions:
            if isinstance(said, ev.StartJob | ev.ResumeJob):
                assert _beyond_their_bounds(one, said.job, table) == []
    one.settle()


def _beyond_their_bounds(one: Live, started: int, table: Table) -> list[tuple[int, list[str]]]:
    """Primary jobs on the nodes of one that was started whose neighbours slow them too much, with who is there."""
    found = []
    held = {job: held for job, held in one.count.held.items() if not held.paused}
    for share in held[started].shares:
        here = [other.job for other in held.values() if any(s.node == share.node for s in other.shares)]
        slow = table.predict(tuple(App(j.app) for j in here), Capacity(0))
        for neighbour, slowdown in zip(here, slow, strict=True):
            if neighbour.klass is JobClass.PRIMARY and slowdown.mid > neighbour.max_slowdown:
                found.append((neighbour.id, [j.app for j in here]))
    return found


def test_a_weighed_job_is_a_job() -> None:
    """The number of jobs that are weighed against each other is an option, down to one."""
    told = Told("hybrid", NODE, options={"hybrid_window": 1})
    knowing(told, ("train", "stream", 1.09))
    told.submit(job(1, 3, app="train", expected=100.0))
    told.answers = False
    told.tell(
        ev.Submitted(job(2, 1, app="stream", harvest=True, expected=50.0)),
        ev.Submitted(job(3, 1, app="quiet", harvest=True, expected=50.0)),
    )
    assert told.decisions(ev.Start) == [1, 2]


# ---------------------------------------------------------------------------------------- the last ones

TWO_CORES = Node("a", 2000, 100)


@pytest.mark.parametrize(
    ("first_s", "waiting", "next_one"),
    [
        (20.0, [(15.0, False), (12.0, False)], 3),  # the core of the first is free before 12 s are over
        (40.0, [(15.0, False), (12.0, False)], 4),  # there is no second core in that time
        (20.0, [(50.0, False), (12.0, False)], 4),  # who takes so much longer ends last anyway
        (20.0, [(12.0, False), (15.0, False)], 3),  # nobody is passed over by one that came later
        (20.0, [(15.0, True), (12.0, False)], 4),  # harvest jobs come after primary ones, as ever
        (20.0, [(15.0, False), (12.0, False), (11.0, False)], 5),  # one of the three is not the last on its core
    ],
)
def test_of_those_that_are_the_last_on_their_cores_the_longest_goes_first(
    first_s: float, waiting: list[tuple[float, bool]], next_one: int
) -> None:
    told = Told("hybrid", TWO_CORES)
    told.submit(job(1, 1, expected=first_s))
    told.submit(job(2, 1, expected=10.0))
    for number, (expected_s, harvest) in enumerate(waiting, 3):
        told.submit(job(number, 1, expected=expected_s, harvest=harvest), at=0.1 * number)
    told.end(2, at=10.0)
    assert told.running() == {1, next_one}


def test_a_core_is_not_the_last_place_of_a_job_that_needs_two() -> None:
    """Two jobs of two cores wait, and the one that ends in time frees a single core."""
    told = Told("hybrid", Node("a", 3000, 100))
    told.submit(job(1, 1, expected=20.0))
    told.submit(job(2, 2, expected=10.0))
    told.submit(job(3, 2, expected=15.0), at=0.3)
    told.submit(job(4, 2, expected=12.0), at=0.4)
    told.end(2, at=10.0)
    assert told.running() == {1, 4}, "shortest first: what the first job frees is too little for another"


GPU_NODE = Node("g", 4000, 100, (Gpu(0),))


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        ((Node("a", 2000, 24),), {"mem": 18}),  # a core in time, but no memory
        ((GPU_NODE,), {"gpus": 1}),  # a core in time, but no GPU
        ((NODE, Node("g", 1000, 100, (Gpu(0),))), {"gpus": 1}),  # on a node without GPUs
    ],
)
def test_a_core_is_not_the_last_place_of_a_job_that_needs_more(nodes: tuple[Node, ...], more: dict[str, int]) -> None:
    told = Told("hybrid", *nodes)
    told.submit(job(1, 1, expected=20.0))
    told.submit(job(2, 1, expected=10.0, **more))
    told.submit(job(3, 1, expected=15.0, **more), at=0.3)
    told.submit(job(4, 1, expected=12.0, **more), at=0.4)
    told.end(2, at=10.0)
    assert told.running() == {1, 4}, "shortest first: what the first job frees holds no other"


def test_of_two_that_have_a_gpu_each_in_time_the_longest_goes_first() -> None:
    told = Told("hybrid", GPUS)
    told.submit(job(1, 1, gpus=1, expected=20.0))
    told.submit(job(2, 1, gpus=1, expected=10.0))
    told.submit(job(3, 1, gpus=1, expected=15.0), at=0.3)
    told.submit(job(4, 1, gpus=1, expected=12.0), at=0.4)
    told.end(2, at=10.0)
    assert told.running() == {1, 3}


def test_among_the_last_few_a_whole_gpu_is_a_place_for_a_part_of_one() -> None:
    """And one GPU is enough for that: it is not a whole one and a part."""
    told = Told("hybrid", GPUS)
    told.submit(job(1, 1, gpus=1, expected=20.0))
    told.submit(job(2, 1, gpus=1, expected=10.0))
    told.submit(job(3, 1, gpus=1, expected=15.0), at=0.3)
    told.submit(job(4, 1, gpu_milli=500, expected=12.0), at=0.4)
    told.end(2, at=10.0)
    assert told.running() == {1, 3}


@given(st.integers(2, 4), st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 20))
@example(2, [6, 7, 4], 2)
def test_the_last_few_wait_longer_than_by_shortest_first_only_where_cores_are_idle_less(
    cores: int, seconds: list[int], apart: int
) -> None:
    """Shortest first has the least sum of completion times; more of it has to be worth the cores that are idle less."""
    held = [float(50 + apart * k) for k in range(cores)]  # when each core comes free
    arrivals = [Arrival(0.0, job(k + 1, 1, expected=end), end) for k, end in enumerate(held)]
    arrivals += [
        Arrival(1.0 + k / 1024, job(100 + k, 1, expected=float(one)), float(one))
        for k, one in enumerate(sorted(seconds, reverse=True))
    ]
    setup = Setup("hybrid", "none", options={"quotes": 0})
    simulator = Simulator(Workload((Node("a", 1000 * cores, 0),), tuple(arrivals)), setup)
    ended = [outcome.ended for outcome in simulator.run().outcomes if outcome.job.id >= 100]
    shortest_first = []
    for one in sorted(seconds):
        shortest_first.append(heapq.heappop(held) + one)
        heapq.heappush(held, shortest_first[-1])
    done = [one or math.inf for one in ended]
    all_over, over_by_shortest = max(50.0 + apart * (cores - 1), *done), max(held)
    assert sum(done) + cores * all_over <= sum(shortest_first) + cores * over_by_shortest + 1e-6
