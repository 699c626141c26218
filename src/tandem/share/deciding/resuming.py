"""Letting suspended jobs go on: by priority, and before the harvest jobs of theirs that have not begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.share.deciding.going_on import gave_up
from tandem.share.deciding.guard import suffers
from tandem.share.deciding.owed import Owed
from tandem.share.deciding.resting import rests
from tandem.share.events import Decision, Resume
from tandem.share.model import JobClass, State
from tandem.share.state.view import makes_way

if TYPE_CHECKING:
    from tandem.share.deciding.neighbours import Neighbours
    from tandem.share.state.life import Life
    from tandem.share.state.view import Reservation, View


def resume(
    view: View, near: Neighbours, now: float, reservation: Reservation | None = None, *, before: Life | None = None
) -> list[Decision]:
    """Resume suspended jobs that rest no more and whose cores are free, where that breaks no bound.

    Nobody is resumed while others make way for a primary job at the head of the queue.

    Args:
        view: of this pass.
        near: of this pass.
        now: the time.
        reservation: of a waiting job, which none that comes after it delays.
        before: only those that go before this waiting job; None: all.
    """
    decisions: list[Decision] = []
    head = view.head()
    if head is not None and head.job.klass is JobClass.PRIMARY and any(map(makes_way, view.curbed.values())):
        return decisions
    stay: list[Life] = []
    owed: Owed | None = None
    for life in suspended(view, before):
        if _may_go_on(view, near, life, now, reservation):
            if owed is None:
                owed = Owed(view, near, stay)
            left_s = max(0.0, life.plan_s - life.ran(now))
            delays = any(owed.delayed(n, gave_up(view, life, n), left_s) for n in life.numbers)
            placement = None if delays else view.place_resumed(life)
            if placement is not None:
                decisions.append(Resume(life.id, placement, "its cores are free again"))
                owed = None
                continue
        stay.append(life)
        if owed is not None:
            owed.add(life)
    return decisions


def suspended(view: View, before: Life | None = None) -> list[Life]:
    """The suspended jobs that go before a waiting one, or all of them, in the order in which they go on."""
    standing = (life for life in view.curbed.values() if life.state is State.SUSPENDED and life.id not in view.placed)
    going = (life for life in standing if before is None or goes_before(life, before))
    return sorted(going, key=lambda one: (-one.job.priority, one.id))


def goes_before(life: Life, waiting: Life) -> bool:
    """Whether a suspended job goes before a waiting one: by priority, and before the harvest jobs of its own."""
    if life.job.priority != waiting.job.priority:
        return life.job.priority > waiting.job.priority
    return waiting.job.klass is JobClass.HARVEST


def _may_go_on(view: View, near: Neighbours, life: Life, now: float, reservation: Reservation | None) -> bool:
    if rests(view, life, now) or not all(view.ledger.can_unpause(life.id, n) for n in life.numbers):
        return False
    if reservation is not None and _delays(view, life, reservation, now):
        return False
    return all(near.bounds_hold(n, life) for n in life.numbers) and not suffers(view, life)


def _delays(view: View, life: Life, reservation: Reservation, now: float) -> bool:
    """Whether a suspended job that goes on would delay a waiting one that goes before it."""
    over_in_time = now + max(0.0, life.plan_s - life.ran(now)) <= reservation.at
    if reservation.displaces(life) or over_in_time or goes_before(life, view.jobs[reservation.job]):
        return False
    return not all(view.would_keep(reservation, n, gave_up(view, life, n)) for n in life.numbers)
