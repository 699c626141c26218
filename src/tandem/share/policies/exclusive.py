"""Whole nodes, first come first served: what most labs do today, and the measure of what sharing gains.

A job gets its nodes to itself and is pinned to the cores it asked for, so its rate is its rate alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.share.events import Decision, Start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tandem.share.state.life import Life
    from tandem.share.state.view import View

PLANS_BY_LIMIT = True
STARTS_ONLY = True
WHOLE_NODES = True
OPTIONS: Mapping[str, str] = {}


def rank(life: Life, options: Mapping[str, float]) -> float:
    """First come first served."""
    del options
    return life.submitted_at


def plan_s(life: Life) -> float:
    """The user's limit; without one, what is expected at most."""
    return life.job.limit_s or life.expected.high


def decide(view: View, now: float) -> list[Decision]:
    """Start from the head of the queue until the head does not fit."""
    del now
    decisions: list[Decision] = []
    while (head := view.head()) is not None:
        placement = view.place_whole(head)
        if placement is None:
            break
        decisions.append(Start(head.id, placement, "its nodes are empty, and it gets them whole"))
    return decisions
