"""Enforcing bounds with what was measured: throttle, then suspend a harvest job beside a primary one that suffers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tandem.estimate.corun import known_as
from tandem.share.events import Decision, Suspend, Throttle
from tandem.share.model import JobClass, State

if TYPE_CHECKING:
    from tandem.share.state.life import Life
    from tandem.share.state.view import View

STEPS = (0.5, 0.25)
"""Fractions of its cores that a harvest job is throttled to before it is suspended."""


def guard(view: View, now: float) -> list[Decision]:
    """Throttle or suspend where a bound is measured to be broken; lift throttles that nobody needs."""
    decisions: list[Decision] = []
    if not view.harvesting:
        return decisions
    for _, life in sorted(view.strained.items()):
        if life.state is State.RUNNING and life.slowdown is not None and life.slowdown > _tolerated(view, life):
            for n in life.numbers:
                decisions += _tighten(view, life, life.slowdown, n)
    for _, life in sorted(view.curbed.items()):
        throttled = life.throttle < 1.0 and life.state is State.RUNNING
        if throttled and not any(_has_primary(view, n) for n in life.numbers):
            decisions.append(Throttle(life.id, 1.0, "no primary job is beside it any more"))
    del now
    return decisions


def _tolerated(view: View, life: Life) -> float:
    """The bound plus the noise of the job's own rate alone."""
    return life.job.max_slowdown * (1 + view.history.alone_noise(life.job))


def _tighten(view: View, primary: Life, slowdown: float, n: int) -> list[Decision]:
    """Curb the harvest neighbour that is suspected most, if the measurement came after the last time.

    Only one that was there when it was measured: who has come since the job was fine last, and then who presses most;
    of equal ones the last to come. Who stood still for it in vain, and it has not been fine since, comes after all
    others. It is throttled as far as should be enough, where what the primary job loses falls as its neighbour's cores
    do; where no throttle would be, it is suspended at once.
    """
    harvest = [
        one
        for one in view.neighbours(n)
        if one.job.klass is JobClass.HARVEST
        and one.state is State.RUNNING
        and known_as(one.job.app, one.throttle) in primary.beside
    ]
    if not harvest or primary.guarded_at >= primary.measured_from:
        return []

    def suspicion(one: Life) -> tuple[bool, bool, float, float, int]:
        in_vain = primary.fine_at < one.in_vain_for.get(primary.id, -math.inf)
        since = one.run_since is not None and one.run_since >= primary.fine_at
        return not in_vain, since, _presses_mbs(view, one, n), one.throttle, one.id

    worst = max(harvest, key=suspicion)
    why = (
        f"primary job {primary.id} goes {slowdown:.2f} times slower than alone, "
        f"and {primary.job.max_slowdown:g} is its bound"
    )
    tolerated = _tolerated(view, primary)
    for fraction in STEPS:
        if fraction < worst.throttle and 1 + (slowdown - 1) * fraction / worst.throttle <= tolerated:
            return [Throttle(worst.id, fraction, why)]
    return [Suspend(worst.id, why)]


def _presses_mbs(view: View, life: Life, n: int) -> float:
    """Memory bandwidth that a job takes of a node: what is stated, or else as large a part as it has of the cores.

    Nothing where the node's is not known.
    """
    node, app = view.ledger.nodes[n], view.app(life, n)
    if not node.membw_mbs:
        return 0.0
    return (app.membw_mbs or node.membw_mbs * app.cpu_milli / node.cpu_milli) * life.throttle


def _has_primary(view: View, n: int) -> bool:
    jobs = map(view.jobs.__getitem__, view.ledger.holders(n))
    return any(one.job.klass is JobClass.PRIMARY and one.state is State.RUNNING for one in jobs)


def primaries(view: View, n: int) -> list[Life]:
    """The primary jobs that run on a node."""
    return [one for one in view.neighbours(n) if one.job.klass is JobClass.PRIMARY and one.state is State.RUNNING]


def suffers(view: View, life: Life) -> bool:
    """Whether a primary job on the nodes of ``life`` was last measured beyond its bound, beside such a neighbour.

    That is one of the same application, throttled or not.
    """
    names = {known_as(life.job.app, fraction) for fraction in (1.0, *STEPS)}
    return any(
        one.slowdown is not None and one.slowdown > _tolerated(view, one) and not names.isdisjoint(one.beside)
        for n in life.numbers
        for one in primaries(view, n)
    )
