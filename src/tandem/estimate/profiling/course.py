"""What part of all the time that a programme ran it stood still, whoever ran beside it.

Windows tell how fast it works: one in which no step ends says nothing, and their median passes over what is seldom. A
programme that writes a checkpoint, or waits, now and then gets less far than they say. So the gaps between its steps
that windows pass over are held against all the time, of which a part beside others counts as so much less as they slow
the programme. What others take of its cores meanwhile makes its steps longer, and its pauses not: it is no pause.

Source: the ratio estimator of renewal processes (pauses over time, over whole cycles of work and pause).
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from tandem.estimate.profile import Pauses
from tandem.estimate.profiling.windows import had_s, slowdowns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tandem.estimate.profiling.progress import Trace
    from tandem.estimate.profiling.windows import Stage

LEAST_PAUSED = 0.1
"""Pauses are told from this part of the time on, where it also exceeds the noise of windows: steps of uneven length are
none."""

_LONG = 0.5
"""Gaps of at least this part of the longest one are counted with it."""


@dataclass(frozen=True, slots=True)
class Course:
    """All the time that a programme ran in one phase.

    Attributes:
        part: of it that it stood still.
        rate: steps per second of the rest.
        longest_s: the longest time between two points.
        seen: how many were at least half as long.
    """

    part: float
    rate: float
    longest_s: float
    seen: int


def course(
    trace: Trace, phase: str, stretches: Sequence[tuple[float, float]], least_s: float, since: float | None = None
) -> Course | None:
    """What the points of a trace within a phase say; None where no step is seen there but in long gaps.

    It ends with the last long gap, unless what follows is longer than whatever lay between two of them: a part of a
    cycle of work and pause would count for a whole one.

    Args:
        trace: the programme's.
        phase: the phase.
        stretches: (since when, what a second counts) by time: 1 alone, 0 while it is stopped; 1 before the first.
        least_s: in gaps longer than this it stood still, but for the time that their steps take elsewhere.
        since: only what comes after the first long gap from then on; all unless given.

    >>> from tandem.estimate.profiling.progress import Trace
    >>> trace = Trace()
    >>> for t, step in [(0, 0), (1, 10), (2, 20), (5, 20), (6, 30), (7, 40), (10, 40)]:
    ...     trace.add(t, step)
    >>> course(trace, "", [], 1.0)
    Course(part=0.6, rate=10.0, longest_s=3, seen=2)
    """
    own_s = own_seconds(stretches)
    gaps = [
        (own_s(end) - own_s(begin), done) for begin, end, done in trace.gaps(phase) if since is None or begin >= since
    ]
    longest_s = max((gap_s for gap_s, _ in gaps), default=0.0)
    if longest_s <= 0.0:
        return None
    if since is not None:  # it looks in amidst a cycle
        first = next(i for i, (gap_s, _) in enumerate(gaps) if gap_s >= _LONG * longest_s)
        gaps = gaps[first + 1 :]
        if not gaps:
            return None
    work_s = steps = gaps_s = gap_steps = longest_cycle_s = until_s = 0.0
    whole, seen = (0.0, 0.0, 0.0, 0.0), 0
    for gap_s, done in gaps:
        if gap_s > least_s:
            gaps_s, gap_steps = gaps_s + gap_s, gap_steps + done
        else:
            work_s, steps = work_s + gap_s, steps + done
        if gap_s >= _LONG * longest_s:
            longest_cycle_s = max(longest_cycle_s, work_s + gaps_s - until_s)
            until_s, whole, seen = work_s + gaps_s, (work_s, steps, gaps_s, gap_steps), seen + 1
    if work_s + gaps_s - until_s <= longest_cycle_s:
        work_s, steps, gaps_s, gap_steps = whole
    if steps <= 0.0 or work_s <= 0.0:
        return None
    rate = steps / work_s
    return Course(max(0.0, gaps_s - gap_steps / rate) / (work_s + gaps_s), rate, longest_s, seen)


def own_seconds(stretches: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """Seconds alone that have passed at a moment; see `course` for the stretches."""
    begins = [begin for begin, _ in stretches]
    lengths = [(b - a) * weight for (a, weight), (b, _) in pairwise(stretches)]
    counted = list(accumulate(lengths, initial=0.0))

    def own_s(t: float) -> float:
        i = bisect_right(begins, t) - 1
        if i < 0:
            return t - begins[0] if begins else t
        return counted[i] + (t - begins[i]) * stretches[i][1]

    return own_s


def lived(stage: Stage, name: str, cores: int, phase: str | None = None) -> list[tuple[float, float]]:
    """Since when a second counts for how much of one alone; see `course`.

    Beside others it counts by the slowdown that windows tell, and wherever others had its cores by what it had of them,
    if that is less.

    Args:
        stage: its windows, and who ran when.
        name: the programme's.
        cores: how many it has.
        phase: the one whose windows tell of slowdowns; each by itself, and the middle of all, unless given.
    """

    def counts(running: frozenset[str]) -> float:
        ratios = slowdowns(stage.windows, name, running, phase) if len(running) > 1 else []
        return 1.0 / max(1.0, statistics.median(ratios)) if ratios else float(name in running)

    known = {running: counts(running) for running in {running for _, running in stage.switches}}
    changes: list[tuple[float, float | None, float | None]] = [
        (t, known[running], None) for t, running in stage.switches
    ]
    changes += [(t, None, part) for t, part in _had(stage.kept.get(name, []), cores)]
    found, weight, part = [], 1.0, 1.0
    for t, by_others, by_cores in sorted(changes, key=lambda change: change[0]):
        weight = weight if by_others is None else by_others
        part = part if by_cores is None else by_cores
        found.append((t, min(weight, part)))
    return found


def _had(kept: Sequence[tuple[float, float]], cores: int) -> list[tuple[float, float]]:
    """Since when it had what part of its cores."""
    found = [
        (begin, had_s(end - begin, then_s - before_s, cores) / (end - begin))
        for (begin, before_s), (end, then_s) in pairwise(kept)
        if end > begin
    ]
    return found + [(end, 1.0) for end, _ in kept[-1:]]


def paused(
    stretches: Sequence[tuple[float, float]],
    trace: Trace,
    phase: str,
    least_s: float,
    rate: float,
    noise: float,
    since: float,
) -> tuple[Pauses, float] | None:
    """A programme's pauses in a phase, and the noise of its rate while it works; None where it does not pause.

    Where all its steps together came slower or faster than windows say (others had its cores), that is noise too.

    Args:
        stretches: see `course`.
        trace: its progress.
        phase: the phase.
        least_s: how long windows are; they hold shorter pauses.
        rate: what its windows alone say, in the time in which it had its cores.
        noise: relative half-width of the 90 % interval of one of them.
        since: when it began to run alone without a break. Whole cycles from then on are preferred: one that pauses by
            the clock works less between two pauses where it is slowed or stopped.
    """
    found = course(trace, phase, stretches, least_s)
    if found is None or not max(LEAST_PAUSED, noise) < found.part < 1.0:
        return None
    alone, seen = course(trace, phase, stretches, least_s, since), found.seen
    if alone is not None and alone.seen > 1 and _LONG * found.longest_s <= alone.longest_s and alone.part > 0.0:
        found, seen = alone, alone.seen
    elif since < math.inf:
        seen = min(seen, 2)  # too few whole cycles alone
    pauses = Pauses(round(found.part, 4), round(found.longest_s, 3), seen)
    return pauses, max(noise, abs(1.0 - found.rate / rate))
