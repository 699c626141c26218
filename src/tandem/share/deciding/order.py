"""Who goes first: one order for the jobs that wait and for those that are suspended.

By priority, primary jobs before harvest jobs; then by submission plus `WEIGHT` times the expected duration, or what is
left of it. So short ones pass long ones, but not for ever, and who had begun goes before its like that has not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.share.model import JobClass

if TYPE_CHECKING:
    from tandem.share.state.life import Life
    from tandem.share.state.pending import Key

WEIGHT = 4.0

HARVEST_AFTER_S = 1e10
"""Harvest jobs fill what primary ones of their priority leave: they stand behind all of them in the queue."""


def rank_of(life: Life, left_s: float) -> float:
    """The place among jobs of its priority of one that has ``left_s`` to run; smaller goes first."""
    after_s = HARVEST_AFTER_S if life.job.klass is JobClass.HARVEST else 0.0
    return after_s + life.submitted_at + WEIGHT * left_s


def turn(life: Life, now: float) -> Key:
    """The place of a job that waits or is suspended."""
    waits = life.placement is None
    at = life.rank if waits else rank_of(life, max(0.0, life.plan_s - life.ran(now)))
    return -life.job.priority, at, life.id
