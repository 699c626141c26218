"""Which of the last few waiting jobs starts first, so that they end soon and no core stands idle when all is done.

Shortest first has the least sum of completion times, and while many wait the next one fills whatever comes free. The
last few leave cores idle: a long job that starts last runs on alone. So their order is the one with the least sum of
completion times plus idle time until all that runs and waits is over: a core that stands idle for a second weighs as
much as a job that waits for one. Where each of them is the last on its cores, every order has the same sum, and this
is the longest first (Coffman and Sethi, A generalized bound on LPT sequencing, 1976).
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tandem.share.model import Need, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tandem.share.state.life import Life
    from tandem.share.state.view import View

FEW = 4
"""So many are the last few: all their orders are played."""

LIKE = 4.0
"""They are left in the order of the queue where one takes more than this many times as long as another: a wrong
expectation would cost much then."""

_RUNS = frozenset({State.STARTING, State.RUNNING})


def costs_s(view: View, lives: Sequence[Life]) -> Mapping[int, float]:
    """Seconds that it costs at least to start each of the jobs first; nothing where their order makes no difference.

    Args:
        lives: All jobs that wait, in the order of the queue; each takes a part of one node.
    """
    if not 1 < len(lives) <= FEW:
        return {}
    seconds = [life.expected.mid for life in lives]
    if max(seconds) > LIKE * min(seconds):
        return {}
    needs = [life.shape.parts[0].need for life in lives]
    most = Need(*map(max, zip(*(need.vector() for need in needs), strict=True)))
    if most.gpus:  # a whole one is as good as the part of one that another takes
        most = replace(most, gpu_milli=0)
    free_in = [at - view.now for at in _places(view, lives, most)]
    if not free_in or free_in[0] > 0 or (len(free_in) == len(lives) and free_in[-1] <= 0):
        return {}
    over_in = max((one.planned_end - view.now for one in _going(view)), default=0.0)
    cores = _room(view, most)
    least: dict[int, float] = {}
    for order in itertools.permutations(range(len(lives))):
        ends = _ends([seconds[k] for k in order], free_in)
        cost = sum(ends) + cores * max(over_in, *ends)
        first = lives[order[0]].id
        least[first] = min(cost, least.get(first, cost))
    return least


def _ends(seconds: Sequence[float], free_in: Sequence[float]) -> list[float]:
    """When jobs end that start in this order, each as soon as there is a place."""
    heap, ends = list(free_in), []  # it is sorted, and so a heap
    for one in seconds:
        ends.append(heap[0] + one)
        heapq.heapreplace(heap, ends[-1])
    return ends


def _room(view: View, most: Need) -> int:
    """For how many such jobs there is room on all nodes, were they empty."""
    return sum(
        min((has // takes for has, takes in zip(node.capacity(), most.vector(), strict=True) if takes), default=1)
        for n, node in enumerate(view.ledger.nodes)
        if view.ledger.is_up(n)
    )


def _places(view: View, lives: Sequence[Life], most: Need) -> list[float]:
    """When there is a place for another job of that need, in order: as many as there are jobs at most.

    A place is free from when the jobs that hold it are expected to end.
    """
    rows = {life.shape.rows[0] for life in lives}
    leaving = sorted(_going(view), key=lambda one: (one.planned_end, one.id))
    nodes = {n for one in leaving for n in one.numbers}.union(*(view.index.nodes_now(row).tolist() for row in rows))
    able = [n for n in sorted(nodes) if all(view.index.nodes_ever(row)[n] for row in rows)]
    free = {n: view.ledger.forecast(n) for n in able}
    found: list[float] = []

    def fill(n: int, at: float) -> None:
        while len(found) < len(lives) and free[n].fits(most.vector()):
            free[n].take(most)
            found.append(at)

    for n in able:
        fill(n, view.now)
    for one in leaving:
        for n in one.numbers:
            if n in free and len(found) < len(lives):
                free[n].leave(one.id, view.ledger.holders(n)[one.id])
                fill(n, max(one.planned_end, view.now))
    return found


def _going(view: View) -> list[Life]:
    """The jobs that run and are expected to end, with those that this pass has placed."""
    running = [one for one in view.on_nodes.values() if one.state in _RUNS]
    placed = [view.jobs[job] for job in sorted(view.placed) if job not in view.on_nodes]
    return [one for one in running + placed if math.isfinite(one.planned_end)]
