"""What suspended jobs are owed: all their cores at once, though these come free one by one.

So who comes after them takes none of those cores for longer than they have to wait for the others anyway.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.share.deciding.going_on import free_at, gave_up, leaves_at
from tandem.share.deciding.guard import suffers
from tandem.share.deciding.resting import rests
from tandem.share.model import JobClass, State
from tandem.share.state.history import is_guess
from tandem.share.state.life import Life

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from tandem.share.deciding.neighbours import Neighbours
    from tandem.share.model import Need
    from tandem.share.state.view import View

_RUN = (State.STARTING, State.RUNNING)

_SOON_S = 1e-3
"""When what is overdue is expected to end."""

Cores = tuple[int, int, int]
"""CPU and bandwidths: what a suspended job gave up. Memory and GPUs it has."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """One that goes on at ``at`` on a node, if ``spare`` of what is left then is not taken by others."""

    life: Life
    at: float
    spare: Cores


class Owed:
    """Claims of suspended jobs on their nodes, as things stand when they are first asked for."""

    def __init__(self, view: View, near: Neighbours, lives: Iterable[Life]) -> None:
        """Set up.

        Args:
            view: of this pass; nobody else is placed while these are asked.
            near: of this pass.
            lives: the suspended jobs, in the order in which they go on.
        """
        self._view = view
        self._near = near
        self._claims: dict[int, list[_Claim]] = defaultdict(list)
        self._taken: dict[int, dict[float, Cores]] = defaultdict(dict)  # by those before, from when they go on
        self._leaving: dict[int, tuple[list[float], list[Cores]]] = {}
        self._at: dict[Hashable, float] = {}
        for life in lives:
            self.add(life)

    def add(self, life: Life) -> None:
        """One more that stays suspended, behind the others."""
        at = self._goes_on_at(life)
        for n in life.numbers:
            lacks = _cores(gave_up(self._view, life, n))
            taken = self._taken[n]
            left = self._free_at(n, at)
            for since, of in taken.items():
                if since <= at:
                    left = _less(left, of)
            spare = _less(left, lacks)
            if self._view.now < at < math.inf and min(spare) >= 0:
                self._claims[n].append(_Claim(life, at, spare))
            before = taken.get(at, (0, 0, 0))
            taken[at] = (before[0] + lacks[0], before[1] + lacks[1], before[2] + lacks[2])

    def delayed(self, n: int, need: Need, seconds: float) -> Life | None:
        """The first of them that would wait longer if ``need`` were taken on node ``n`` for so long; None if nobody."""
        takes, until = _cores(need), self._view.now + seconds
        for claim in self._claims.get(n, ()):
            if until > claim.at and min(_less(claim.spare, takes)) < 0:
                return claim.life
        return None

    def _free_at(self, n: int, at: float) -> Cores:
        """What a node has free when those are gone that are expected to go by then."""
        if n not in self._leaving:
            view = self._view
            forecast, holders = view.ledger.forecast(n), view.ledger.holders(n)
            ends, free = [], [_without_memory(forecast.row())]
            for end, job in sorted((gone_at(view, view.jobs[job]), job) for job in holders):
                forecast.leave(job, holders[job])
                ends.append(end)
                free.append(_without_memory(forecast.row()))
            self._leaving[n] = ends, free
        ends, free = self._leaving[n]
        return free[bisect_right(ends, at)]

    def _goes_on_at(self, life: Life) -> float:
        app = self._view.app(life)
        gang = life.id if len(life.shape.parts) > 1 else 0
        alike = (life.numbers, life.shape, app, life.job.klass, life.job.max_slowdown, gang)
        at = self._at.get(alike)
        if at is None:
            at = self._at[alike] = _goes_on_at(self._view, self._near, life)
        return max(at, life.rests_until) if rests(self._view, life, self._view.now) else at


def gone_at(view: View, life: Life) -> float:
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


def _goes_on_at(view: View, near: Neighbours, life: Life) -> float:
    """When a suspended job is expected to have what it lacks; now where it could go on, infinite where nobody knows."""
    now, at = view.now, view.now
    if not all(view.ledger.can_unpause(life.id, n) for n in life.numbers):
        at = max(free_at(view, life, now, lambda one, _: gone_at(view, one)), now + _SOON_S)
    for n in life.numbers:
        if near.bounds_hold(n, life) and not suffers(view, life):
            continue
        primary = [one for one in view.neighbours(n) if one.job.klass is JobClass.PRIMARY]
        unsuited = [one for one in primary if not near.suit(n, life, one)] or primary
        at = max([at, now + _SOON_S, *(gone_at(view, one) for one in unsuited)])
    return at


def _cores(need: Need) -> Cores:
    return need.cpu_milli, need.membw_mbs, need.nic_mbs


def _without_memory(row: tuple[int, int, int, int]) -> Cores:
    return row[0], row[2], row[3]


def _less(one: Cores, other: Cores) -> Cores:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2]
