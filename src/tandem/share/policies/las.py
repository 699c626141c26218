"""Least attained service, preemptive (discretised two-dimensional LAS, Gu et al., Tiresias, NSDI '19).

Jobs are in classes by the GPU-seconds (for jobs without GPUs: core-seconds) they have had; lower classes go first, and
within a class the earlier submission. A waiting job of a lower class displaces running ones of higher classes: jobs
without GPUs are suspended, jobs with GPUs are requeued if they can checkpoint, and left alone otherwise.

Options: see `OPTIONS`; ``las_step_s`` is 3600 unless it is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.share.deciding.making_room import room_for
from tandem.share.deciding.policy import Range
from tandem.share.events import Decision, Requeue, Resume, Start, Suspend
from tandem.share.model import State
from tandem.share.policies.exclusive import PLANS_BY_LIMIT, plan_s
from tandem.share.state.view import View, best_fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tandem.share.state.life import Life

__all__ = ["OPTIONS", "PLANS_BY_LIMIT", "RANGES", "RESUMES", "alarm", "decide", "plan_s", "rank"]

RESUMES = True
OPTIONS: Mapping[str, str] = {"las_step_s": "seconds of the first class; each further one is ten times as wide"}
RANGES: Mapping[str, Range] = {"las_step_s": Range(0.001, whole=False)}
STEP_S = 3600.0
CLASS_WIDTH = 1e13
"""Distance between the ranks of two classes: more than any submission time."""


def service_class(attained_s: float, step_s: float) -> int:
    """0 below the step, 1 below ten steps, 2 beyond."""
    return 0 if attained_s < step_s else 1 if attained_s < 10 * step_s else 2


def rank(life: Life, options: Mapping[str, float]) -> float:
    """By class, then by submission."""
    step_s = options.get("las_step_s", STEP_S)
    return service_class(life.attained(life.queued_at), step_s) * CLASS_WIDTH + life.submitted_at


def alarm(life: Life, now: float, options: Mapping[str, float]) -> float | None:
    """Seconds until the running job leaves its class."""
    step_s = options.get("las_step_s", STEP_S)
    attained = life.attained(now)
    width = (life.job.gpu_total_milli or life.job.cpu_milli) / 1000
    edges = [edge for edge in (step_s, 10 * step_s) if edge > attained]
    return (edges[0] - attained) / width + 1e-3 if edges and width else None


def decide(view: View, now: float) -> list[Decision]:
    """Start and resume in order of class; displace for the head."""
    decisions: list[Decision] = []
    order = best_fit(view.ledger)
    step = view.options.get("las_step_s", STEP_S)

    def level(life: Life) -> int:
        return service_class(life.attained(now), step)

    head = view.head()
    if head is not None and view.making_way():
        placement = view.place(head, order)
        if placement is not None:
            decisions.append(Start(head.id, placement, "least attained service"))
        elif _room_for(view, head, level(head), step) == []:
            return decisions  # enough are leaving already, and nobody is to take what they leave
    suspended = sorted(
        (life for life in view.on_nodes.values() if life.state is State.SUSPENDED),
        key=lambda life: (level(life), life.submitted_at),
    )
    waiting = view.startable()
    candidate = next(waiting, None)
    for life in suspended:
        while candidate is not None and (level(candidate), candidate.submitted_at) < (level(life), life.submitted_at):
            placement = view.place(candidate, order)
            if placement is not None:
                decisions.append(Start(candidate.id, placement, "least attained service"))
            candidate = next(waiting, None)
        placement = view.place_resumed(life)
        if placement is not None:
            decisions.append(Resume(life.id, placement, "its turn has come again"))
    while candidate is not None:
        placement = view.place(candidate, order)
        if placement is not None:
            decisions.append(Start(candidate.id, placement, "least attained service"))
        candidate = next(waiting, None)
    head = view.head()
    if head is not None:
        decisions += _displace(view, head, level(head), step)
    return decisions


def _displace(view: View, head: Life, head_level: int, step: float) -> list[Decision]:
    reason = f"job {head.id} has had less service"
    return [
        Requeue(life.id, reason) if life.job.gpu_total_milli else Suspend(life.id, reason)
        for life in _room_for(view, head, head_level, step) or ()
    ]


def _room_for(view: View, head: Life, head_level: int, step: float) -> list[Life] | None:
    """See `room_for`. Whoever is displaced stands behind the head in the queue, or they would displace each other."""

    def may_go(life: Life) -> bool:
        preemptable = not life.job.gpu_total_milli or bool(life.job.checkpoint)
        behind = life.job.priority <= head.job.priority and service_class(life.attained(view.now), step) > head_level
        return preemptable and behind

    return room_for(view, head, may_go)
