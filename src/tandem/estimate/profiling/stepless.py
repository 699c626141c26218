"""What part of the time each phase takes, and in which of them a programme tells of no step.

It follows from when phases were announced, in seconds that the programme ran alone
(`tandem.estimate.profiling.course.own_seconds`), not from windows: those are taken until each phase has some, and none
has a rate in a phase without steps, where the programme writes a checkpoint, validates, or waits for somebody.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from tandem.estimate.profiling.course import own_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

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
    shares, cycles = _of_cycles(trace, counted, lambda _: own_s, stretches[0][0], since)
    found = {phase: share for phase, share in shares.items() if phase not in counted and share >= LEAST_SHARE}
    return {phase: share for phase, share in found.items() if not any(done for *_, done in trace.gaps(phase))}, cycles


def with_steps(
    stretches: Mapping[str, Sequence[tuple[float, float]]], trace: Trace, since: float = math.inf
) -> dict[str, float]:
    """Of the time that all the phases with steps take, the part of each; none where one was not seen.

    Args:
        stretches: of each phase, since when it ran, and what a second counts there; see `stepless`.
        trace: the programme's progress.
        since: see `stepless`.
    """
    own_s = {phase: own_seconds(one) for phase, one in stretches.items()}
    begin = min((one[0][0] for one in stretches.values() if one), default=math.inf)
    if trace.last is None or begin == math.inf:
        return {}
    shares, _ = _of_cycles(trace, stretches, lambda phase: own_s.get(phase, float), begin, since)
    total = sum(shares.get(phase, 0.0) for phase in stretches)
    return {phase: shares[phase] / total for phase in stretches} if all(map(shares.get, stretches)) else {}


def overlooked(
    stretches: Sequence[tuple[float, float]],
    trace: Trace,
    counted: Collection[str],
    least: float,
    since: float = math.inf,
) -> list[str]:
    """Phases with steps that are not ``counted``, though they take that part of the time or more; see `stepless`."""
    if not stretches or trace.last is None:
        return []
    own_s = own_seconds(stretches)
    shares, _ = _of_cycles(trace, {phase for _, phase in trace.entered}, lambda _: own_s, stretches[0][0], since)
    found = [phase for phase, share in shares.items() if phase not in counted and share >= least]
    return [p for p in found if any(done for begin, end, done in trace.gaps(p) if own_s(end) > own_s(begin))]


def _of_cycles(
    trace: Trace, counted: Collection[str], own_s: Callable[[str], Callable[[float], float]], begin: float, since: float
) -> tuple[dict[str, float], int]:
    shares, cycles = _shares(trace, counted, own_s, begin)
    if since < math.inf:
        alone, whole = _shares(trace, counted, own_s, since)
        shares, cycles = (alone, whole) if whole > 1 else (shares, min(cycles, 2))
    return shares, cycles


def _shares(
    trace: Trace, counted: Collection[str], own_s: Callable[[str], Callable[[float], float]], begin: float
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
            passed_s[phase] = passed_s.get(phase, 0.0) + own_s(phase)(end) - own_s(phase)(t)
    total_s = sum(passed_s.values())
    return {phase: one_s / total_s for phase, one_s in passed_s.items()} if total_s > 0 else {}, max(0, len(again) - 1)


def _changes(trace: Trace, counted: Collection[str]) -> list[tuple[float, str | None]]:
    """When it came into another phase, and into which; None for what a later run begins with, before its steps."""
    found: list[tuple[float, str | None]] = []
    for t, phase in trace.entered:
        is_first = bool(found) and bisect_right(trace.ended, found[-1][0]) < bisect_right(trace.ended, t)
        found.append((t, None if is_first and phase not in counted else phase))
    return found
