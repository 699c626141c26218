"""The point of the system: sharing that keeps its promises.

Each pass, in this order:

1. *Guard*: where a primary job is measured to go slower than its bound allows (beyond the noise of its own rate alone),
   a harvest neighbour is throttled to a half, then a quarter, then suspended; where nobody needs that any more it is
   lifted again.
2. *Start*: waiting jobs in order of submission plus `WEIGHT` times their expected duration, so short ones pass long
   ones but nobody waits for ever. Among the first few that fit, the one that costs its neighbours and itself least is
   taken, and on the node where it costs least; never where the estimator says that a primary job's bound breaks. Jobs
   without GPUs leave a few cores for each free GPU, unless they are harvest.
3. *Room*: a primary head that lacks cores gets those of harvest jobs, which are suspended.
4. *Reserve and backfill* around the head, as EASY does, with expected durations instead of limits.
5. *Resume* suspended harvest jobs where that breaks no bound.

Options: ``hybrid_window`` (how many waiting jobs are weighed against each other), ``hybrid_cores_per_gpu``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.share.events import Decision, Reserve, Start, Suspend
from tandem.share.guard import guard, resume
from tandem.share.making_room import room_for
from tandem.share.model import JobClass
from tandem.share.neighbours import Neighbours
from tandem.share.view import Reservation, View, best_fit, node_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from tandem.share.demand_index import Shape
    from tandem.share.life import Life
    from tandem.share.model import Need, Placement

PLANS_BY_LIMIT = False

WEIGHT = 4.0
WINDOW = 6
CORES_PER_GPU = 4
PATIENCE = 8.0
"""A job that has waited this many times its expected duration (and a minute) is not passed over any more."""


def rank(life: Life, options: Mapping[str, float]) -> float:
    """Submission plus a multiple of the expected duration: a static order in which waiting counts."""
    del options
    return life.submitted_at + WEIGHT * life.expected.mid


def plan_s(life: Life) -> float:
    """The expected duration."""
    return life.expected.mid


def decide(view: View, now: float) -> list[Decision]:
    """One pass."""
    decisions = guard(view, now)
    near = Neighbours(view)
    if view.pending.fitting():
        decisions += _start(view, near, None)
    head = view.head()
    if head is not None and not view.index.may_fit(head.shape):
        decisions += _for_head(view, near, head)
    decisions += resume(view, near, now)
    return decisions


def _for_head(view: View, near: Neighbours, head: Life) -> list[Decision]:
    """Room for a primary head at the cost of harvest jobs; otherwise a reservation and what fits around it."""
    if head.job.klass is JobClass.PRIMARY and view.harvesting:
        victims = room_for(view, head, lambda one: one.job.klass is JobClass.HARVEST and not one.job.gpu_total_milli)
        if victims:
            return [Suspend(one.id, f"primary job {head.id} needs its cores") for one in victims]
    if not view.pending.fitting():
        return []
    reservation = view.earliest(head)
    if reservation is None:
        return []
    names = node_names(view, reservation.nodes)
    kept = Reserve(head.id, reservation.at, names, "it is first in the queue; nodes are kept for it")
    return [kept, *_start(view, near, reservation)]


def _start(view: View, near: Neighbours, reservation: Reservation | None) -> list[Decision]:
    """Start what fits, in order; with a reservation, only what does not delay it.

    Without one the pass ends when the head of the queue does not fit by count: then it is owed a reservation.
    """
    decisions: list[Decision] = []
    barred: set[Shape] = set()
    while True:
        candidates = _candidates(view, barred, reservation)
        if not candidates:
            return decisions
        life = near.least_costly(candidates) if len(candidates) > 1 else candidates[0]
        placement, why = _place(view, near, life, reservation)
        if placement is None:
            barred.add(life.shape)
        else:
            decisions.append(Start(life.id, placement, why))


def _candidates(view: View, barred: set[Shape], reservation: Reservation | None) -> list[Life]:
    """The first few jobs in order that may be tried now."""
    head = view.head()
    if head is None or (reservation is None and not view.index.may_fit(head.shape)):
        return []
    window = reservation.at - view.now if reservation is not None else 0.0
    firsts = []
    for shape in view.pending.fitting():
        queue = view.pending.shape(shape)
        if shape not in barred:
            firsts.append(queue.first())
        elif reservation is not None:
            firsts.append(queue.first_within(window))
    keys = sorted(key for key in firsts if key is not None)
    if not keys:
        return []
    first = view.jobs[keys[0][2]]
    patience = 60 + PATIENCE * first.expected.mid
    if not view.contended or view.now - first.submitted_at > patience:
        return [first]
    return view.first_of_shapes(keys, int(view.options.get("hybrid_window", WINDOW)))


def _place(view: View, near: Neighbours, life: Life, reservation: Reservation | None) -> tuple[Placement | None, str]:
    window = reservation.at - view.now if reservation is not None else 0.0
    short = life.plan_s <= window
    spare = view.options.get("hybrid_cores_per_gpu", CORES_PER_GPU)
    holds_back = not life.job.gpu_total_milli and life.job.klass is JobClass.PRIMARY and view.has_gpus

    def accept(n: int, need: Need) -> bool:
        del need
        if reservation is not None and not short and not view.keeps(reservation, n):
            return False
        if holds_back and not _leaves_cores(view, n, spare):
            return False
        return near.bounds_hold(n, life)

    preference = best_fit(view.ledger)

    def order(nodes: np.ndarray, need: Need) -> list[int]:
        return near.cheapest(life, preference(nodes, need))

    placement = view.place(life, order, accept)
    return placement, near.words(life)


def _leaves_cores(view: View, n: int, spare: float) -> bool:
    """Whether a few cores for each free GPU are left, as far as the node has four times as many."""
    node = view.ledger.nodes[n]
    if not node.gpus:
        return True
    each = min(1000 * spare, node.cpu_milli / (4 * len(node.gpus)))
    return bool(view.ledger.free[n, 0] >= each * view.ledger.free[n, 4])
