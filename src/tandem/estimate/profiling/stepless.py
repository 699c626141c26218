"""Phases in which a programme tells of no step: it writes a checkpoint, validates, or waits for somebody.

No window has a rate there, so that windows say nothing of them. How much of the time they take follows from when they
were announced, in seconds that the programme ran alone (`tandem.estimate.profiling.course.own_seconds`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from tandem.estimate.profiling.course import own_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from tandem.estimate.profiling.progress import Trace

LEAST_SHARE = 0.01
"""Phases that take less of the time are passed over."""


def stepless(
    stretches: Sequence[tuple[float, float]], trace: Trace, counted: Collection[str], since: float = math.inf
) -> tuple[dict[str, float], int]:
    """Part of the time that each phase without steps takes, and how many whole cycles that rests on.

    Args:
        stretches: since when it ran, and what a second counts (see `tandem.estimate.profiling.course.course`).
        trace: the programme's progress.
        counted: phases whose rate is known; what later runs begin with before those is their start, and no part of it.
        since: when it began to run alone without a break: two whole cycles from then on are preferred, since one that
            waits by the clock works less between two waits where it is slowed or stopped.
    """
    if not stretches or trace.last is None:
        return {}, 0
    own_s = own_seconds(stretches)
    shares, cycles = _shares(trace, counted, own_s, stretches[0][0])
    if since < math.inf:
        alone, whole = _shares(trace, counted, own_s, since)
        shares, cycles = (alone, whole) if whole > 1 else (shares, min(cycles, 2))
    found = {phase: share for phase, share in shares.items() if phase not in counted and share >= LEAST_SHARE}
    return {phase: share for phase, share in found.items() if not any(done for *_, done in trace.gaps(phase))}, cycles


def _shares(
    trace: Trace, counted: Collection[str], own_s: Callable[[float], float], begin: float
) -> tuple[dict[str, float], int]:
    """Part of the time since ``begin`` by phase, of whole cycles where there are any, and how many there are."""
    assert trace.last is not None
    changes = _changes(trace, counted)
    spans: list[tuple[float, str | None]] = [(t, phase) for t, phase in changes if t >= begin]
    again = [t for t, phase in spans if phase == spans[0][1]]
    if len(again) > 1:
        spans = [(t, phase) for t, phase in spans if t <= again[-1]]
    else:
        before = [phase for t, phase in changes if t < begin][-1:]
        spans = [*((begin, phase) for phase in before), *spans, (max(begin, trace.last[0]), "")]
    passed_s: dict[str, float] = {}
    for (t, phase), (end, _) in pairwise(spans):
        if phase is not None:
            passed_s[phase] = passed_s.get(phase, 0.0) + own_s(end) - own_s(t)
    total_s = sum(passed_s.values())
    return {phase: one_s / total_s for phase, one_s in passed_s.items()} if total_s > 0 else {}, max(0, len(again) - 1)


def _changes(trace: Trace, counted: Collection[str]) -> list[tuple[float, str | None]]:
    """When it came into another phase, and into which; None for what a later run begins with, before its steps."""
    found: list[tuple[float, str | None]] = []
    for t, phase in trace.entered:
        is_first = bool(found) and bisect_right(trace.ended, found[-1][0]) < bisect_right(trace.ended, t)
        found.append((t, None if is_first and phase not in counted else phase))
    return found
