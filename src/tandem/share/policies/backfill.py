"""EASY backfilling (Lifka 1995) on shared nodes.

Jobs start in order while they fit. The first that does not fit gets a reservation: the earliest time at which the
running jobs' limits leave it enough nodes. Any other job may start now if it does not delay that: it is over by then,
or the reserved nodes still hold the reservation with it there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.share.events import Decision, Reserve, Start
from tandem.share.policies.exclusive import OPTIONS, PLANS_BY_LIMIT, STARTS_ONLY, plan_s, rank
from tandem.share.state.view import Order, Reservation, View, best_fit, node_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from tandem.share.model import Need
    from tandem.share.state.demand_index import Shape
    from tandem.share.state.life import Life

__all__ = ["OPTIONS", "PLANS_BY_LIMIT", "STARTS_ONLY", "decide", "plan_s", "rank"]


def decide(view: View, now: float) -> list[Decision]:
    """One pass: in order, then around the head's reservation."""
    del now
    decisions: list[Decision] = []
    if not view.pending.fitting():
        return decisions
    order = best_fit(view.ledger)
    while (head := view.head()) is not None and view.index.may_fit(head.shape):
        placement = view.place(head, order)
        if placement is None:
            break  # a gang of several parts that fits part by part, but not together
        decisions.append(Start(head.id, placement, "it is first in the queue and fits"))
    if head is None or not view.pending.fitting():
        return decisions
    reservation = view.earliest(head)
    if reservation is not None and view.is_news(reservation):
        names = node_names(view, reservation.nodes)
        decisions.append(Reserve(head.id, reservation.at, names, "it is first in the queue; nodes are kept for it"))
    decisions += around(view, order, reservation)
    return decisions


def around(view: View, order: Order, reservation: Reservation | None) -> list[Decision]:
    """Start, in order, every job that fits and does not delay the reservation."""
    decisions: list[Decision] = []
    window = reservation.at - view.now if reservation is not None else float("inf")

    def keeps(n: int, need: Need) -> bool:
        del need
        return reservation is None or view.keeps(reservation, n)

    def beside(nodes: np.ndarray, need: Need) -> Iterable[int]:
        ranked = order(nodes, need)
        return ranked if reservation is None else (n for n in ranked if view.would_keep(reservation, n, need))

    barred: set[Shape] = set()  # shapes of which no long job can be placed any more in this pass
    shut: set[Shape] = set()  # nor a short one: gangs that fit part by part, but not together
    while (life := _next(view, window, barred, shut)) is not None:
        short = life.plan_s <= window
        placement = view.place(life, order) if short else view.place(life, beside, keeps)
        if placement is not None:
            why = "it is over before the head can start" if short else "it leaves the head's nodes enough"
            decisions.append(Start(life.id, placement, why))
        else:
            (shut if short else barred).add(life.shape)
    return decisions


def _next(view: View, window: float, barred: set[Shape], shut: set[Shape]) -> Life | None:
    """The first job in order that may be tried: any of a shape that is not barred, a short one of one that is."""
    best = None
    for shape in view.pending.fitting():
        if shape in shut:
            continue
        queue = view.pending.shape(shape)
        key = queue.first_within(window) if shape in barred else queue.first()
        if key is not None and (best is None or key < best):
            best = key
    return None if best is None else view.jobs[best[2]]
