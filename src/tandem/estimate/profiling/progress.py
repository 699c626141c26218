"""How far a programme is, as a function of time, and how fast it therefore goes within a window.

A trace is a list of points (t, step): a record that the programme wrote, a match in its output, the end of one of its
runs. Between two points the work is taken to be even. A window's rate is taken between the points that lie within
one stretch of undisturbed running: a step that was under way when the neighbours changed belongs to no window.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from tandem.estimate.counting import Counting

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_PART = 0.5
"""A rate is given where the points cover at least this part of the window."""

FINEST_S = 1e-3
"""Points that follow each other faster than this are thinned out, so that a trace stays small."""

_LOOKED_AT = 64


class Trace:
    """Progress over time; points are added in the order of time.

    >>> trace = Trace()
    >>> for t in range(5):
    ...     trace.add(t, 10.0 * t)
    >>> trace.rate(0.5, 3.5)
    10.0
    """

    def __init__(self) -> None:
        self._counting = Counting()
        self._times: list[float] = []
        self._steps: list[float] = []
        self._cuts: list[float] = []
        self.ended: list[float] = []
        """When runs ended."""
        self._phases: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """How many points there are."""
        return len(self._times)

    @property
    def last(self) -> tuple[float, float] | None:
        """The newest point, or None."""
        return (self._times[-1], self._steps[-1]) if self._times else None

    def add(self, t: float, step: float) -> None:
        """Add a point; one that lies before the newest, or says the same time, is passed over.

        Where the programme counts afresh (its next epoch, say) the trace goes on (`tandem.estimate.counting`), with
        whatever lies between; where it goes back some steps, the trace is cut.
        """
        if self._times and t <= self._times[-1]:
            return
        step = self._counting.take(step)
        if self._steps and step < self._steps[-1]:
            self._cuts.append(t)
        if self._fine(t):
            self._times[-1], self._steps[-1] = t, step
        else:
            self._times.append(t)
            self._steps.append(step)

    def reach(self, t: float, step: float) -> None:
        """Add a point where a step is reached; what only says once more which one that was is passed over.

        Points are then as far apart as steps are, however often they are told.
        """
        fresh = not self._times or bool(self._cuts and self._cuts[-1] > self._times[-1])
        if fresh or step != self._counting.newest:
            self.add(t, step)

    def cut(self, t: float) -> None:
        """Say that what follows ``t`` is another run, and has nothing to do with the last: no window reaches across."""
        self.ended.append(t)
        self._cuts.append(t)
        self._counting.another_run()

    def typical_gap(self) -> float | None:
        """Median time between neighbouring points of late, or None where there are fewer than two."""
        gaps = [b - a for a, b in pairwise(self._times[-_LOOKED_AT:])]
        return statistics.median(gaps) if gaps else None

    def gaps(self, phase: str) -> Iterator[tuple[float, float, float]]:
        """Between each two points that follow each other within a phase, with no cut between: begin, end, steps."""
        points = pairwise(zip(self._times, self._steps, strict=True))
        for (begin, was), (end, step) in points:
            cut = bisect_right(self._cuts, begin)
            if self.phase(begin, end) == phase and not (cut < len(self._cuts) and self._cuts[cut] <= end):
                yield begin, end, step - was

    @property
    def entered(self) -> list[tuple[float, str]]:
        """When each phase began, by time."""
        return self._phases

    def enter(self, t: float, phase: str) -> None:
        """Say that a phase begins; the one that it is in, named once more, changes nothing but in another run."""
        if self._phases:
            since, present = self._phases[-1]
            if phase == present and not (self.ended and self.ended[-1] > since):
                return
        self._phases.append((t, phase))

    def lasting(self) -> dict[str, float]:
        """How long each phase lasted, by the median; those that have been left are known."""
        found: dict[str, list[float]] = {}
        for (begun, phase), (left, _) in pairwise(self._phases):
            found.setdefault(phase, []).append(left - begun)
        return {phase: statistics.median(lengths) for phase, lengths in found.items()}

    def phase(self, begin: float, end: float) -> str | None:
        """The phase that the whole window lies in: "" where none was announced, None where it changes within."""
        i = bisect_right(self._phases, begin, key=lambda entry: entry[0])
        if i < len(self._phases) and self._phases[i][0] < end:
            return None
        return self._phases[i - 1][1] if i else ""

    def rate(self, begin: float, end: float, since: float | None = None) -> float | None:
        """Steps per second within a window, or None where too little is known of it.

        Args:
            begin: where the window begins, in seconds.
            end: where it ends; the programme was undisturbed until then.
            since: when the present neighbours were set; points from then on count. ``begin`` unless given.
        """
        first = bisect_left(self._times, begin if since is None else since)
        last = bisect_right(self._times, end) - 1
        if last <= first:
            return None
        low, high = max(begin, self._times[first]), self._times[last]
        cut = bisect_right(self._cuts, self._times[first])
        if high - low < LEAST_PART * (end - begin) or (cut < len(self._cuts) and self._cuts[cut] <= high):
            return None
        done = self._steps[last] - self._at(low, first, last)
        return done / (high - low)

    def _fine(self, t: float) -> bool:
        """Whether a point at ``t`` may take the newest one's place: of what no phase or cut parts."""
        if len(self._times) < 2 or t - (since := self._times[-2]) >= FINEST_S:
            return False
        return not (self._cuts and self._cuts[-1] >= since) and not (self._phases and self._phases[-1][0] >= since)

    def _at(self, t: float, first: int, last: int) -> float:
        """Steps done at ``t``, which lies between two points."""
        i = min(max(bisect_right(self._times, t, first, last + 1), first + 1), last)
        before, after = self._times[i - 1], self._times[i]
        part = (t - before) / (after - before)
        return self._steps[i - 1] + part * (self._steps[i] - self._steps[i - 1])
