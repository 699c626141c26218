"""Whom `hybrid` puts beside whom, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tandem.estimate.corun import CoRun
from tandem.share import events as ev
from tandem.share.deciding.neighbours import Neighbours
from tandem.share.model import Node, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.simulate import case as cases
from tandem.share.simulate.simulator import Simulator
from tests.share.knowing import NODE, OTHER, knowing
from tests.share.told import Told, job

if TYPE_CHECKING:
    from pathlib import Path

    from tandem.share.simulate.metrics import Outcome


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


@pytest.mark.parametrize("theirs", [7, 8])
def test_what_other_users_run_is_in_no_reason(theirs: int) -> None:
    """Reasons are for the job's owner, and the names of jobs may be command lines."""
    told = knowing(Told("hybrid", NODE), ("train", "secret", 1.05), ("train", "stream", 1.5), ("secret", "stream", 1.5))
    told.submit(job(1, 1, app="secret", uid=theirs))
    told.submit(job(2, 1, app="train", uid=7))
    told.submit(job(3, 1, app="stream", uid=7, harvest=True))
    mine = theirs == 7
    assert told[2].reason == (
        "beside secret: 1.05 in the table" if mine else "beside job 1: 1.05x as long as alone is expected (1.05-1.05)"
    )
    assert told.why(3) == (
        "it would fit, but a bound would break beside those that run now: "
        f"job 1 may take 1.10x as long as alone, and 1.50x is expected{' (1.50 in the table)' if mine else ''}"
    )


@pytest.mark.parametrize("estimator", ["learned", "proportional", "additive", "worst_pair", "bubble"])
def test_no_estimator_tells_a_user_what_another_runs(estimator: str) -> None:
    """Neither while it is there nor later, when the user's own jobs are judged by what was seen beside it."""
    told = Told("hybrid", Node("a", 8000, 100), estimator=estimator)
    told.submit(job(1, 1, app="train", uid=7, bound=1.3))
    told.measure(1, 10.0, at=3.0)
    told.submit(job(2, 1, app="quiet", uid=7))
    told.submit(job(3, 1, app="secret", uid=8, harvest=True))
    told.measure(1, 9.0, "quiet", "secret", at=6.0)
    told.measure(2, 9.0, "secret", "train", at=6.0)
    told.submit(job(4, 1, app="new", uid=7, harvest=True))
    told.submit(job(5, 1, app="secret", uid=8, harvest=True))
    for number in (2, 3, 4, 5):
        told.end(number)
    told.submit(job(6, 1, app="quiet", uid=7))
    mine = (1, 2, 4, 6)
    said = [getattr(one, "reason", "") for one in told.decided if one.job in mine] + [told.why(6)]
    assert "beside train" in " ".join(said), "of their own jobs it is told"
    assert not [one for one in said if "secret" in one]


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


def test_a_throttled_neighbour_is_judged_as_what_it_is_then() -> None:
    """Others may join, once it was seen beside the primary job so; without its throttle a bound would break."""
    told = Told("hybrid", Node("a", 8000, 100), estimator="proportional")
    told.submit(job(1, 1, app="train", bound=1.2, expected=10_000.0))
    told.measure(1, 10.0, at=10.0)
    told.submit(job(2, 1, app="render", harvest=True, expected=10_000.0), at=10.0)
    told.measure(1, 10.0, "render", at=20.0)
    told.end(2, at=21.0)
    told.submit(job(3, 1, app="stream", harvest=True, expected=10_000.0), at=22.0)
    told.measure(1, 5.0, "stream", at=30.0)
    assert told[3].throttle == 0.25
    told.submit(job(4, 1, app="render", harvest=True, expected=100.0), at=31.0)
    assert told.state(4) is State.QUEUED, "nobody knows what the other does at a quarter"
    told.measure(1, 9.9, "stream@0.25", at=40.0)
    assert told.state(4) is State.RUNNING
    told.submit(job(5, 1, app="stream", harvest=True, expected=100.0), at=50.0)
    assert told.state(5) is State.QUEUED


def test_a_neighbour_whose_throttle_is_lifted_is_not_judged_as_throttled() -> None:
    """One primary job follows another in the same moment: the next is not let beside it for what it was before."""
    told = Told("hybrid", Node("a", 2000, 100), estimator="proportional")
    told.submit(job(1, 1, app="train", bound=1.2, expected=100.0))
    told.measure(1, 10.0, at=10.0)
    told.submit(job(2, 1, app="stream", harvest=True, expected=10_000.0), at=10.0)
    told.measure(1, 5.0, "stream", at=20.0)
    assert told[2].throttle == 0.25
    told.measure(1, 9.9, "stream@0.25", at=30.0)
    told.tell(ev.Ended(1, 1), ev.Submitted(job(3, 1, app="train", bound=1.2, expected=100.0)), at=50.0)
    assert (told.state(2), told.state(3)) == (State.SUSPENDED, State.RUNNING)


def waves(folder: Path, takes_mbs: int) -> list[tuple[float, float]]:
    """Five waves of thirty equal primary jobs (bound 1.10) that state nothing: how long each takes, and its slowest."""
    text = "[[nodes]]\ncpus = 64\nmembw_mbs = 100000\n[truth]\nmodel = 'bandwidth'\n"
    for at_s, count in ((0, 1), (2000, 2), *((6000 + 40_000 * k, 30) for k in range(5))):
        text += "[[jobs]]\nname = 'fit'\ncpus = 2\nwork_s = 1800\nexpected_s = 1800\nmax_slowdown = 1.1\n"
        text += f"takes_membw_mbs = {takes_mbs}\nat_s = {at_s}\nevery_s = 0\ncount = {count}\n"
    (folder / "waves.toml").write_text(text)
    case = cases.load(folder / "waves.toml")
    outcomes = Simulator(cases.workload(case), Setup("hybrid"), cases.truth(case)).run().outcomes[3:]
    by_wave: dict[float, list[Outcome]] = {}
    for one in outcomes:
        by_wave.setdefault(one.submitted, []).append(one)
    return [(max(one.ended for one in ones) - at, max(one.slowdown for one in ones)) for at, ones in by_wave.items()]


def test_a_node_is_filled_further_each_time_that_it_proved_harmless(tmp_path: Path) -> None:
    """Seen by pairs alone, five at a time, six times 1800 s: for ever, if nothing were learnt of five together."""
    took = [took_s for took_s, _ in waves(tmp_path, 500)]
    assert took[0] == pytest.approx(3 * 1800)
    assert took[-1] <= 2 * 1800
    assert took == sorted(took, reverse=True)


def test_a_crowd_that_proved_too_large_is_not_tried_again(tmp_path: Path) -> None:
    """Of 5 GB/s each, twenty have what they need, twenty-two are at their bound."""
    took = waves(tmp_path, 5000)
    assert sum(slowest > 1.1 for _, slowest in took) == 1
    assert took[-1] == (pytest.approx(2 * 1800), pytest.approx(1.0))
