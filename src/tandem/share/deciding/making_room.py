"""Whom to displace so that a waiting job fits: the fewest core-seconds of work on the fewest nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tandem.share.model import Need, Part, State
from tandem.share.state.ledger import Forecast
from tandem.share.state.life import Life
from tandem.share.state.view import makes_way

if TYPE_CHECKING:
    from tandem.share.state.view import View


Suits = Callable[[int, Need, list[Life], Forecast], bool]
"""Asked for (node number, need there, jobs that are gone by then, what the node has by then)."""


def room_for(view: View, life: Life, may_go: Callable[[Life], bool], suits: Suits | None = None) -> list[Life] | None:
    """Running jobs to displace for ``life``; empty if enough are leaving already, None if nothing makes it fit.

    Args:
        may_go: whether a running job may be displaced. One without GPUs is suspended (its memory stays taken), one with
            GPUs leaves altogether.
        suits: whether a node that fits by count is good for it in other respects, or more has to go.
    """
    movable: dict[int, list[Life]] = {}
    for one in view.on_nodes.values():
        if one.state is State.RUNNING and may_go(one):
            for n in one.numbers:
                movable.setdefault(n, []).append(one)
    chosen: dict[int, Life] = {}
    used: set[int] = set()
    for part, row in zip(life.shape.parts, life.shape.rows, strict=True):
        ever = view.index.nodes_ever(row)
        fitting = [n for n in view.index.nodes_now(row).tolist() if n not in used]
        already = {n for n in fitting if suits is None or suits(n, part.need, [], view.ledger.forecast(n))}
        used |= set(sorted(already)[: part.nodes])
        lacking = part.nodes - len(already)
        if lacking <= 0:
            continue
        plans = [
            (cost, n, victims)
            for n in movable.keys() | _being_left(view)
            if ever[n] and n not in used and (found := _victims(view, n, part, movable.get(n, []), suits)) is not None
            for cost, victims in [found]
        ]
        if len(plans) < lacking:
            return None
        for _, n, victims in sorted(plans, key=lambda plan: plan[:2])[:lacking]:
            used.add(n)
            chosen.update((victim.id, victim) for victim in victims)
    return list(chosen.values())


def _being_left(view: View) -> set[int]:
    """Nodes on which a job is on its way out: what it frees may be enough."""
    return {n for one in view.on_nodes.values() if makes_way(one) for n in one.numbers}


def _victims(
    view: View, n: int, part: Part, movable: list[Life], suits: Suits | None
) -> tuple[float, list[Life]] | None:
    """The cheapest jobs to displace on node ``n``, shortest past work first; None if it never fits."""
    forecast = view.ledger.forecast(n)
    vector = part.need.vector()
    holders = view.ledger.holders(n)
    gone: list[Life] = []
    for job, holdings in holders.items():
        one = view.jobs[job]
        if one.state is State.STOPPING:
            forecast.leave(job, holdings)
            gone.append(one)
        elif one.state is State.SUSPENDING:
            forecast.pause(holdings)
            gone.append(one)

    def enough() -> bool:
        return forecast.fits(vector) and (suits is None or suits(n, part.need, gone + victims, forecast))

    victims: list[Life] = []
    cost = 0.0
    for one in sorted(movable, key=lambda one: (one.job.cpu_milli, -one.id)):
        if enough():
            break
        if one.job.gpu_total_milli:
            forecast.leave(one.id, holders[one.id])
        else:
            forecast.pause(holders[one.id])
        victims.append(one)
        cost += one.job.cpu_milli / 1000
    return (cost, victims) if enough() else None
