"""Letting suspended jobs go on, and what they are owed until then.

A suspended job needs all its cores on its nodes at once, and they come free one by one. So who comes after it in the
queue, or after it among the suspended, takes none of them for longer than it has to wait for the others anyway.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tandem.share.deciding.going_on import free_at, gave_up, leaves_at
from tandem.share.deciding.guard import suffers
from tandem.share.deciding.order import turn
from tandem.share.events import Decision, Resume
from tandem.share.model import JobClass, State
from tandem.share.state.history import is_guess
from tandem.share.state.view import makes_way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.share.deciding.neighbours import Neighbours
    from tandem.share.model import Need
    from tandem.share.state.life import Life
    from tandem.share.state.view import Reservation, View

REST_S = 5.0
"""A suspended job rests at least so long before it is resumed beside a primary one."""

_RUN = (State.STARTING, State.RUNNING)

_SOON_S = 1e-3
"""When what is overdue is expected to end."""


def resume(
    view: View, near: Neighbours, now: float, reservation: Reservation | None = None, *, until: Life | None = None
) -> list[Decision]:
    """Resume suspended jobs that rest no more and whose cores are free, where that breaks no bound.

    Nobody is resumed while others make way for a primary job at the head of the queue.

    Args:
        reservation: of a waiting job, which none that comes after it delays.
        until: only those whose turn is before this waiting job's; None: all.
    """
    decisions: list[Decision] = []
    head = view.head()
    if head is not None and head.job.klass is JobClass.PRIMARY and any(map(makes_way, view.curbed.values())):
        return decisions
    before: list[Life] = []  # that stay suspended
    for life in suspended(view, until):
        if _may_go_on(view, near, life, now, before, reservation):
            placement = view.place_resumed(life)
            if placement is not None:
                decisions.append(Resume(life.id, placement, "its cores are free again"))
                continue
        before.append(life)
    return decisions


def suspended(view: View, until: Life | None = None) -> list[Life]:
    """The suspended jobs whose turn is before that of the waiting job ``until``, or all, in the order of turns."""
    standing = (life for life in view.curbed.values() if life.state is State.SUSPENDED and life.id not in view.placed)
    turns = sorted((turn(life, view.now), life) for life in standing)
    return [life for at, life in turns if until is None or at < turn(until, view.now)]


def rests(view: View, life: Life, now: float) -> bool:
    """Whether a suspended job is spared being resumed, so that it does not come and go beside a primary one."""
    return now < life.rests_until and any(
        one.job.klass is JobClass.PRIMARY for n in life.numbers for one in view.neighbours(n)
    )


def delayed(
    view: View, near: Neighbours, before: Sequence[Life], n: int, need: Need | None, seconds: float
) -> Life | None:
    """The first of the suspended jobs ``before`` that would wait longer for its cores if ``need`` were taken on a node.

    Args:
        near: of this pass.
        before: the suspended jobs to ask for.
        n: the node.
        need: what is taken there; None: it is taken already.
        seconds: for how long.
    """
    takes = (0, 0, 0, 0) if need is None else need.vector()[:4]
    ahead: list[tuple[float, tuple[int, ...]]] = []  # when those before it go on, and what they take then
    for one in before:
        if n not in one.numbers:
            continue
        at, lacks = _goes_on_at(view, near, one), gave_up(view, one, n).vector()
        then, holders = view.ledger.forecast(n), view.ledger.holders(n)
        for job, held in holders.items():
            if job != one.id and _gone_at(view, view.jobs[job]) <= at:
                then.leave(job, held)
        taken = [sum(of[kind] for since, of in ahead if since <= at) for kind in range(4)]
        left = [there - of for there, of in zip(then.row(), taken, strict=True)]
        without = [there - of for there, of in zip(left, takes, strict=True)]
        ahead.append((at, lacks))
        if view.now < at < math.inf and view.now + seconds > at and _has(left, lacks) and not _has(without, lacks):
            return one
    return None


def _has(left: Sequence[int], lacks: Sequence[int]) -> bool:
    """Whether that is left, of all but memory, which a suspended job has."""
    return all(left[kind] >= lacks[kind] for kind in (0, 2, 3))


def _goes_on_at(view: View, near: Neighbours, life: Life) -> float:
    """When a suspended job is expected to have what it lacks; now where it could go on, infinite where nobody knows."""
    now, at = view.now, view.now
    if not all(view.ledger.can_unpause(life.id, n) for n in life.numbers):
        at = max(free_at(view, life, now, lambda one, _: _gone_at(view, one)), now + _SOON_S)
    if rests(view, life, now):
        at = max(at, life.rests_until)
    for n in life.numbers:
        if near.bounds_hold(n, life) and not suffers(view, life):
            continue
        primary = [one for one in view.neighbours(n) if one.job.klass is JobClass.PRIMARY]
        unsuited = [one for one in primary if not near.suit(n, life, one)] or primary
        at = max([at, now + _SOON_S, *(_gone_at(view, one) for one in unsuited)])
    return at


def _gone_at(view: View, life: Life) -> float:
    """When a job is expected to give up its cores: at the latest that is thought possible, if that is but a guess.

    So nothing is kept idle for what may end any time. One that goes on in this pass has them from now on.
    """
    now = view.now
    guessed = life.done is None and is_guess(life.expected)
    left_s = (life.expected.high if guessed else life.plan_s) - life.ran(now)
    if life.id in view.placed:
        return now + max(left_s, _SOON_S)
    at = leaves_at(life, now)
    return max(at, now + left_s) if guessed and life.state in _RUN else at


def _may_go_on(
    view: View, near: Neighbours, life: Life, now: float, before: Sequence[Life], reservation: Reservation | None
) -> bool:
    if rests(view, life, now) or not all(view.ledger.can_unpause(life.id, n) for n in life.numbers):
        return False
    if reservation is not None and _delays(view, life, reservation, now):
        return False
    left_s = max(0.0, life.plan_s - life.ran(now))
    if before and any(delayed(view, near, before, n, gave_up(view, life, n), left_s) for n in life.numbers):
        return False
    return all(near.bounds_hold(n, life) for n in life.numbers) and not suffers(view, life)


def _delays(view: View, life: Life, reservation: Reservation, now: float) -> bool:
    """Whether a suspended job that goes on would delay a waiting one whose turn is before its own."""
    over_in_time = now + max(0.0, life.plan_s - life.ran(now)) <= reservation.at
    before = turn(life, now) < turn(view.jobs[reservation.job], now)
    if reservation.displaces(life) or over_in_time or before:
        return False
    return not all(view.would_keep(reservation, n, gave_up(view, life, n)) for n in life.numbers)
