"""First fit by counts: every job that fits now starts, blind to interference and without reservations.

The best effort of a simple sharing scheduler. Large jobs may starve, and neighbours may slow each other down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.share.events import Decision, Start
from tandem.share.policies.exclusive import OPTIONS, PLANS_BY_LIMIT, STARTS_ONLY, plan_s, rank
from tandem.share.state.view import first_fit

if TYPE_CHECKING:
    from tandem.share.state.view import View

__all__ = ["OPTIONS", "PLANS_BY_LIMIT", "STARTS_ONLY", "decide", "plan_s", "rank"]


def decide(view: View, now: float) -> list[Decision]:
    """Start every waiting job that fits, in order."""
    del now
    decisions: list[Decision] = []
    for life in view.startable():
        placement = view.place(life, first_fit)
        if placement is not None:
            decisions.append(Start(life.id, placement, "it fits by count"))
    return decisions
