"""Room for a primary job at the head of the queue, at the cost of harvest jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.share.deciding.making_room import let_go, room_for
from tandem.share.deciding.neighbours import Neighbours
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
    victims = room_for(view, head, lambda one: gives_way_to(one, head), suits, spares_gpus=True)
    leaving = view.making_way()
    if victims is None or not (victims or leaving):
        return None
    head.has_room = True
    nodes = frozenset(n for one in (victims or leaving) for n in one.numbers)
    return PrimaryRoom(head, [Suspend(one.id, _why(view, head, one, victims)) for one in victims], nodes)


def _why(view: View, head: Life, victim: Life, victims: list[Life]) -> str:
    """Whether it is for its cores or for a bound: what would be lacking if it alone stayed."""
    who, near = f"primary job {head.id}", Neighbours.of(view)
    for n in victim.numbers:
        holders = view.ledger.holders(n)
        gone = [one for job in holders if (one := view.jobs[job]) is not victim and (one in victims or makes_way(one))]
        forecast = view.ledger.forecast(n)
        for one in gone:
            let_go(forecast, one, holders)
        fits = any(forecast.fits(part.need.vector()) for part in head.shape.parts)
        if fits and not near.bounds_hold(n, head, gone):
            return f"beside it {who} would break a bound"
    return f"{who} needs its cores"


def displaces(life: Life) -> bool:
    """Whether harvest jobs are suspended for the job where it lacks their cores."""
    return life.job.klass is JobClass.PRIMARY


def gives_way(life: Life) -> bool:
    """Whether the job is one of those harvest jobs."""
    return life.job.klass is JobClass.HARVEST and not life.shape.gpu_milli


def gives_way_to(life: Life, other: Life) -> bool:
    """Whether the job is suspended where ``other`` lacks its cores: not for one of a lower priority."""
    return displaces(other) and gives_way(life) and life.job.priority <= other.job.priority
