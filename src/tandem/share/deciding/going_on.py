"""Lifting what a policy that no longer decides has done to jobs: they go on before the policy in charge starts others.

The oldest suspended job that lacks cores is given a reservation: what its nodes have too little of for it is kept free
until the jobs that hold it are expected to leave. A job that is past the upper end of its expected duration, and has no
time limit, is expected to stay for ever: on its account nothing is kept free, so nobody waits for what may never come.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tandem.share.events import Decision, Reserve, Resume, Throttle
from tandem.share.model import Need, State
from tandem.share.state.view import node_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tandem.share.state.life import Life
    from tandem.share.state.view import View


def go_on(view: View, now: float, *, resumes: bool) -> list[Decision]:
    """Lift throttles, resume who has cores, and keep free in the ledger what the oldest of the others lacks.

    Args:
        resumes: whether the policy in charge resumes jobs itself.
    """
    decisions: list[Decision] = []
    kept = False
    for life in left_behind(view):
        if life.state is State.RUNNING:
            decisions.append(Throttle(life.id, 1.0, "the policy that throttled it no longer decides"))
        elif life.state is State.SUSPENDED and not resumes:
            placement = view.place_resumed(life)
            if placement is not None:
                decisions.append(Resume(life.id, placement, "its cores are free again"))
                continue
            at = math.inf if kept else free_at(view, life, now)
            if not math.isinf(at):
                kept = True
                _keep_free(view, life, now, at)
                names = node_names(view, life.numbers)
                decisions.append(
                    Reserve(life.id, at, names, "it was suspended, and the cores it lacks are kept for it")
                )
            elif life.reserved is not None:
                why = "an older one needs them first" if kept else "nobody knows when they come free"
                decisions.append(Reserve(life.id, now, (), f"its cores are not kept for it any more: {why}"))
    return decisions


def left_behind(view: View) -> list[Life]:
    """The jobs that a policy before suspended or throttled, the oldest first."""
    return [life for _, life in sorted(view.curbed.items()) if life.curbed_before]


def free_at(view: View, life: Life, now: float, leaves: Callable[[Life, float], float] | None = None) -> float:
    """When all nodes of a suspended job are expected to have its cores and bandwidth; infinite where nobody knows.

    Args:
        view: of this pass.
        life: the suspended job.
        now: the time.
        leaves: when another gives up its cores; `leaves_at`, if not given.
    """
    gone_at = leaves or leaves_at
    at = now
    for n in life.numbers:
        forecast, vector = view.ledger.forecast(n), gave_up(view, life, n).vector()
        holders = view.ledger.holders(n)
        leaving = iter(sorted((gone_at(view.jobs[job], now), job) for job in holders if job != life.id))
        while not forecast.fits(vector):
            end, job = next(leaving, (math.inf, None))
            if job is None or math.isinf(end):
                return math.inf
            forecast.leave(job, holders[job])
            at = max(at, end)
    return at


def _keep_free(view: View, life: Life, now: float, at: float) -> None:
    for n in life.numbers:
        leaving = (job for job in view.ledger.holders(n) if job != life.id and leaves_at(view.jobs[job], now) <= at)
        view.ledger.keep_free(n, gave_up(view, life, n), leaving)


def leaves_at(life: Life, now: float) -> float:
    """When a job is expected to give up its cores."""
    if life.state in (State.SUSPENDING, State.SUSPENDED):
        return now
    overdue = life.job.limit_s is None and life.ran(now) >= life.expected.high * (1 - 1e-6)
    return math.inf if overdue and life.state is not State.STOPPING else max(now, life.planned_end)


def gave_up(view: View, life: Life, n: int) -> Need:
    """What a suspended job gave up on a node of what that is told to have now."""
    needs: Iterable[Need] = [holding.share.need for holding in view.ledger.holders(n)[life.id]]
    cpu, membw, nic = (
        sum(column) for column in zip(*((w.cpu_milli, w.membw_mbs, w.nic_mbs) for w in needs), strict=True)
    )
    more_cpu, _, more_membw, more_nic = view.ledger.claim(life.id, n)
    return Need(cpu - more_cpu, membw_mbs=membw - more_membw, nic_mbs=nic - more_nic)
