"""Whom to displace so that a waiting job fits: the fewest core-seconds of work on the fewest nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tandem.share.model import Need, Part, State
from tandem.share.state.accounts import Forecast
from tandem.share.state.life import Life
from tandem.share.state.view import makes_way

if TYPE_CHECKING:
    from tandem.share.state.accounts import Holding
    from tandem.share.state.view import View


Suits = Callable[[int, Need, list[Life], Forecast], bool]
"""Asked for (node number, need there, jobs that are gone by then, what the node has by then)."""


def room_for(
    view: View, life: Life, may_go: Callable[[Life], bool], suits: Suits | None = None, *, spares_gpus: bool = False
) -> list[Life] | None:
    """Running jobs to displace for ``life``; empty if enough are leaving already, None if nothing makes it fit.

    Args:
        may_go: whether a running job may be displaced. One without GPUs is suspended (its memory stays taken), one with
            GPUs leaves altogether.
        suits: whether a node that fits by count is good for it in other respects, or more has to go.
        spares_gpus: ``may_go`` is no for every job with GPUs, so that not all jobs have to be asked about.
    """
    emptied = _where_all_comes_free(view, None if spares_gpus else may_go)
    chosen: dict[int, Life] = {}
    used: set[int] = set()
    places: list[tuple[int, Part]] = []
    for part, row in zip(life.shape.parts, life.shape.rows, strict=True):
        fitting = [n for n in view.index.nodes_now(row).tolist() if n not in used]
        already = {n for n in fitting if suits is None or suits(n, part.need, [], view.ledger.forecast(n))}
        used |= set(sorted(already)[: part.nodes])
        places += [(n, part) for n in sorted(already)[: part.nodes]]
        lacking = part.nodes - len(already)
        if lacking <= 0:
            continue
        plans = [
            (cost, n, victims)
            for n in _worth_a_look(view, part.need, row, emptied)
            if n not in used and (found := _victims(view, n, part, may_go, suits)) is not None
            for cost, victims in [found]
        ]
        if len(plans) < lacking:
            return None
        for _, n, victims in sorted(plans, key=lambda plan: plan[:2])[:lacking]:
            used.add(n)
            places.append((n, part))
            chosen.update((one.id, one) for one in _needed(view, n, part, victims, suits))
    going = list(chosen.values())
    return going if all(_is_enough(view, n, part, going, suits) for n, part in places) else None


def _where_all_comes_free(view: View, may_go: Callable[[Life], bool] | None) -> set[int]:
    """Nodes that a job leaves altogether, or with GPUs may have to; from others only cores and bandwidth come free."""
    going = [one for one in view.making_way() if one.state is State.STOPPING]
    if may_go is not None:
        running = (one for one in view.on_nodes.values() if one.shape.gpu_milli and one.state is State.RUNNING)
        going += [one for one in running if may_go(one)]
    return {n for one in going for n in one.numbers}


def _worth_a_look(view: View, need: Need, row: int, emptied: set[int]) -> list[int]:
    """Nodes that could ever hold the need, and have the memory and the GPUs for it or may get them."""
    free = view.ledger.free
    good = (free[:, 1] >= need.mem_mib) & (free[:, 4] >= need.gpus) & (free[:, 5] >= need.gpu_milli)
    good[list(emptied)] = True
    found: list[int] = (good & view.index.nodes_ever(row)).nonzero()[0].tolist()
    return found


def _victims(
    view: View, n: int, part: Part, may_go: Callable[[Life], bool], suits: Suits | None
) -> tuple[float, list[Life]] | None:
    """The cheapest jobs to displace on node ``n``; None if it never fits, or nobody leaves or is to be displaced."""
    holders = view.ledger.holders(n)
    movable: list[Life] = []
    gone: list[Life] = []
    for job in holders:
        one = view.jobs[job]
        if makes_way(one):
            gone.append(one)
        elif one.state is State.RUNNING and may_go(one):
            movable.append(one)
    if not gone and not movable:
        return None
    forecast = view.ledger.forecast(n)
    for one in gone:
        let_go(forecast, one, holders)

    def enough() -> bool:
        return forecast.fits(part.need.vector()) and (suits is None or suits(n, part.need, gone + victims, forecast))

    victims: list[Life] = []
    for one in sorted(movable, key=lambda one: (one.job.cpu_milli, -one.id)):
        if enough():
            break
        let_go(forecast, one, holders)
        victims.append(one)
    return (sum(one.job.cpu_milli / 1000 for one in victims), victims) if enough() else None


def _needed(view: View, n: int, part: Part, victims: list[Life], suits: Suits | None) -> list[Life]:
    """The victims on node ``n`` without those whose going turns out to be of no use once the others go."""
    needed = victims
    for one in reversed(victims[:-1]):  # the last was needed after all others
        others = [other for other in needed if other is not one]
        if _is_enough(view, n, part, others, suits):
            needed = others
    return needed


def _is_enough(view: View, n: int, part: Part, going: list[Life], suits: Suits | None) -> bool:
    """Whether a part has its place on node ``n`` when these are gone, and those that make way; gangs go everywhere."""
    holders = view.ledger.holders(n)
    gone = [one for job in holders if makes_way(one := view.jobs[job])] + [one for one in going if one.id in holders]
    forecast = view.ledger.forecast(n)
    for one in gone:
        let_go(forecast, one, holders)
    return forecast.fits(part.need.vector()) and (suits is None or suits(n, part.need, gone, forecast))


def let_go(forecast: Forecast, one: Life, holders: Mapping[int, list[Holding]]) -> None:
    """What comes free when the job makes way: all it has, or its cores and bandwidth where it is suspended."""
    if one.state is State.STOPPING or (one.state is State.RUNNING and one.job.gpu_total_milli):
        forecast.leave(one.id, holders[one.id])
    else:
        forecast.pause(holders[one.id])
