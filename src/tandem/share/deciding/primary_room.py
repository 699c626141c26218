"""Room for a primary job at the head of the queue, at the cost of harvest jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.share.deciding.making_room import room_for
from tandem.share.deciding.neighbours import BOUND_BREAKS
from tandem.share.events import Suspend
from tandem.share.model import JobClass
from tandem.share.state.life import Life
from tandem.share.state.view import makes_way

if TYPE_CHECKING:
    from tandem.share.deciding.making_room import Suits
    from tandem.share.state.view import View


@dataclass(frozen=True, slots=True)
class PrimaryRoom:
    """What is being made for a primary job.

    Attributes:
        suspensions: none where enough are leaving already, and nobody else is to take what they leave.
        nodes: the numbers of the nodes where somebody leaves.
    """

    guest: Life
    suspensions: list[Suspend]
    nodes: frozenset[int]


def primary_room(view: View, head: Life, suits: Suits) -> PrimaryRoom | None:
    """Room for a primary head, made by suspending harvest jobs without GPUs; None where none is needed or to be had.

    Args:
        suits: whether a node that fits by count is good for it, or more have to go.
    """
    if not displaces(head) or not view.harvesting:
        return None
    victims = room_for(view, head, gives_way, suits)
    leaving = [one for one in view.on_nodes.values() if makes_way(one)]
    if victims is None or not (victims or leaving):
        return None
    head.has_room = True
    fits = head.hindered in ("", BOUND_BREAKS) and view.index.may_fit(head.shape)
    who = f"primary job {head.id}"
    why = f"beside it {who} would break a bound" if fits else f"{who} needs its cores"
    nodes = frozenset(n for one in (victims or leaving) for n in one.numbers)
    return PrimaryRoom(head, [Suspend(one.id, why) for one in victims], nodes)


def displaces(life: Life) -> bool:
    """Whether harvest jobs are suspended for the job where it lacks their cores."""
    return life.job.klass is JobClass.PRIMARY


def gives_way(life: Life) -> bool:
    """Whether the job is one of those harvest jobs."""
    return life.job.klass is JobClass.HARVEST and not life.shape.gpu_milli
