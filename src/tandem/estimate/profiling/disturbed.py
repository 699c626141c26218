"""What is believed of a programme, alone and beside bubbles, where others had its cores for a part of that time."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

from tandem.estimate.profiling.programme import ProgrammeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from tandem.estimate.profile import Curve, PhaseProfile
    from tandem.estimate.profiling.ratios import Interval
    from tandem.estimate.profiling.windows import Window

MOST_WAITING = 0.5
"""Part of the time alone that others may keep it from its cores: beyond it most of what is measured is they. Below,
what was measured is kept with wider intervals, and `Profile.waited` says how long it was."""


def kept_waiting(windows: Sequence[Window], name: str, cores: int) -> float:
    """Part of the time alone in which others kept a programme from its cores.

    Raises:
        ProgrammeError: It was most of it.
    """
    waiting = waited(windows, name, cores)
    if waiting > MOST_WAITING:
        raise ProgrammeError(
            given=f"others used the cores of {name} for {waiting:.0%} of the time that it was to be alone",
            allowed=f"up to {MOST_WAITING:.0%}",
            todo="profile it when the machine is quiet, or on cores that nobody else uses",
        )
    return waiting


def waited(windows: Sequence[Window], name: str, cores: int, running: AbstractSet[str] = frozenset()) -> float:
    """The same part, however much it was; of the time in which others ran as well, where ``running`` names them all."""
    return statistics.mean(w.waits.get(name, 0.0) for w in windows if w.running == (running or {name})) / cores


def doubted(found: Interval, waited: float) -> Interval:
    """A slowdown in the time in which a programme, or reporter, had its cores, where others had them for a part of it.

    How much they had is known, but not what they cost besides, caches that they emptied above all, nor whether it was
    the work of whom it ran beside: it is uncertain by so much of itself.

    >>> from tandem.estimate.profiling.ratios import Interval
    >>> doubted(Interval(1.5, 0.25, 6), 0.2)
    Interval(mid=1.5, half=0.39051248379533277, count=6)
    """
    return replace(found, half=math.hypot(found.half, waited * found.mid))


def widened(phase: PhaseProfile, waited: float) -> PhaseProfile:
    """What was measured while others had the programme's cores for a part of the time, with intervals to match.

    Windows alone and beside bubbles alternate, and either may have been hit by all of it: slowdowns are uncertain by so
    much of themselves, pressures by so much of the dial. So are rates, though of the time in which it had its cores.

    Args:
        phase: as measured.
        waited: see `Profile.waited`.
    """

    def wider(curve: Curve) -> Curve:
        halves = [math.hypot(half, waited * slow) for slow, half in zip(curve.slowdowns, curve.halves, strict=True)]
        return replace(curve, halves=(0.0, *(round(half, 4) for half in halves[1:])))

    return replace(
        phase,
        noise=round(math.hypot(phase.noise, waited), 4),
        sensitivity={kind: wider(curve) for kind, curve in phase.sensitivity.items()},
        pressure_half={kind: round(math.hypot(half, waited), 4) for kind, half in phase.pressure_half.items()},
    )
