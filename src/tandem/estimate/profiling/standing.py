"""Cores that a programme keeps busy while it gets no further: in phases without steps, and in pauses.

    standing = Standing(subject, cores=1)
    standing.watch(0.5)
    standing.use("save")

Whoever waits for it looks again and again. What it used between two looks counts where it told of nothing in between:
no step, no phase, no end of its run. So neither steps count, nor what a run begins with before its first one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from tandem.estimate.profiling.deadline import Deadline
from tandem.estimate.profiling.subject import POLL_S
from tandem.estimate.profiling.windows import had_s

if TYPE_CHECKING:
    from tandem.estimate.profiling.subject import Subject


class _Stretch(NamedTuple):
    phase: str | None
    passed_s: float
    had_s: float
    cpu_s: float


class Standing:
    """What was seen of one programme while it ran alone.

    Args:
        subject: the programme, with its progress.
        cores: how many it has.
    """

    def __init__(self, subject: Subject, cores: int) -> None:
        self._subject, self._cores = subject, cores
        self._seen: list[_Stretch] = []
        self._begin()

    def watch(self, seconds: float) -> None:
        """Watch it for so long.

        Raises:
            ProgrammeError: It ended badly.
        """
        until = Deadline.after(seconds)
        while until.fits(POLL_S):
            time.sleep(POLL_S)
            self._look()
        self._end()

    def until_it_works(self, deadline: Deadline) -> bool:
        """Watch it until it has made progress; see `Subject.until_it_works`."""
        works = self._subject.until_it_works(deadline, self._look)
        self._end()
        return works

    def use(self, phase: str, longer_s: float = 0.0) -> float | None:
        """Cores that it kept busy in the time that it had them; None where it was not seen.

        Args:
            phase: the one in which it was.
            longer_s: only what lasted longer without a step counts.
        """
        seen = [one for one in self._seen if one.phase == phase and one.passed_s > longer_s]
        had = sum(one.had_s for one in seen)
        return min(sum(one.cpu_s for one in seen) / had, float(self._cores)) if seen else None

    def _begin(self) -> None:
        self._told: object = None
        self._phase: str | None = None
        self._since: tuple[float, float] | None = None  # moment, seconds of processor time
        self._last = (0.0, 0.0)
        self._kept_s = 0.0

    def _look(self) -> None:
        """Look at it, and read its progress."""
        now = self._spent()  # before its progress is read: what that does not tell of came later
        self._subject.read()
        trace = self._subject.trace
        told = self._subject.programme.runs, len(trace.entered), trace.last
        if told != self._told:
            self._end()
            self._told = told
        elif self._since is not None:
            self._last = now
        else:  # only now: a programme at its steps is not to be asked so often how long it waits for its cores
            is_start = trace.last is None or bool(trace.ended and trace.ended[-1] >= trace.last[0])
            self._phase = None if is_start else trace.entered[-1][1] if trace.entered else ""
            self._kept_s = self._subject.programme.waited_s()
            self._since = self._last = self._spent()

    def _end(self) -> None:
        """Keep what was seen since it last told of something."""
        if self._since is not None and self._last > self._since:
            (begin, before_s), (end, after_s) = self._since, self._last
            kept_s = self._subject.programme.waited_s() - self._kept_s
            had = had_s(end - begin, kept_s, self._cores)
            self._seen.append(_Stretch(self._phase, end - begin, had, after_s - before_s))
        self._begin()

    def _spent(self) -> tuple[float, float]:
        return time.monotonic(), self._subject.programme.cpu_s()
