"""Rehearsing the queue: the policy itself, on a copy of the cluster, with run times that are given.

What a policy will do with the jobs that wait is best said by the policy. A rehearsal is a small engine: it starts and
stops jobs at once, lets each go at the speed that the estimator gives it beside its neighbours, and ends it when its
work is done. Nothing is learned from it, and jobs that nobody has submitted yet do not come.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.share import events as ev
from tandem.share.model import State

if TYPE_CHECKING:
    from collections.abc import Collection

    from tandem.share.quoting.quotes import Play, Rehearsed
    from tandem.share.scheduler.machine import Machine
    from tandem.share.state.life import Life

STEPS_A_JOB = 12
"""A rehearsal that takes more steps than this for each job is broken off: what is left is not known."""


@dataclass(slots=True)
class _Course:
    """How far a job is: seconds alone that are left as of ``since``, and how fast they go."""

    left_s: float
    since: float
    rate: float = 0.0
    version: int = 0

    def advance(self, now: float) -> None:
        """Count what was done since."""
        self.left_s = max(0.0, self.left_s - (now - self.since) * self.rate)
        self.since = now


def rehearse(machine: Machine, play: Play, wanted: Collection[int]) -> Rehearsed:
    """Play the queue until all of ``wanted`` have ended, or nothing happens any more.

    Args:
        machine: a copy, which is used up.
        play: what the jobs take.
        wanted: waiting or running jobs.

    Returns:
        Start and end of each job that ended, in Unix seconds; a job that runs already starts now.
    """
    rehearsal = _Rehearsal(machine, play)
    began = machine.now
    rehearsal.play(wanted)
    return {job: (rehearsal.starts.get(job, began), end) for job, end in rehearsal.ends.items()}


class _Rehearsal:
    """One play of the queue."""

    def __init__(self, machine: Machine, play: Play) -> None:
        self._machine = machine
        self._seconds = play.seconds
        self._pessimism = play.pessimism
        self._strangers_leave = machine.now + play.strangers_s
        self._courses: dict[int, _Course] = {}
        self._coming: list[tuple[float, int, int]] = []  # (when, job, version)
        self.starts: dict[int, float] = {}
        self.ends: dict[int, float] = {}

    def play(self, wanted: Collection[int]) -> None:
        """Play until all of ``wanted`` have ended."""
        machine, left = self._machine, set(wanted)
        now = machine.now
        for life in machine.on_nodes.values():
            if life.state is not State.STOPPING:
                self._courses[life.id] = _Course(self._seconds[life.id], now)
        self._pace(now, {n for life in machine.on_nodes.values() for n in life.numbers})
        batch: list[ev.Event] = [_answer(life) for life in machine.on_nodes.values() if life.state in _AWAITED]
        steps = STEPS_A_JOB * (len(machine.jobs) + 4)
        while left and steps:
            steps -= 1
            step = machine.step(now, batch or [ev.Tick()])
            batch = []
            for instruction in step.instructions:
                if isinstance(instruction, ev.JobEnded):
                    self.ends[instruction.job] = now
                    left.discard(instruction.job)
                else:
                    batch += self._carry_out(now, instruction)
            if batch:
                continue
            now = self._next(now)
            if math.isinf(now):
                return
            batch = self._ended(now) + self._left_by_strangers(now)

    # ------------------------------------------------------------------------------------ details

    def _carry_out(self, now: float, instruction: _Order) -> list[ev.Event]:
        job, attempt = instruction.job, instruction.attempt
        life = self._machine.jobs[job]
        match instruction:
            case ev.StartJob():
                self.starts.setdefault(job, now)
                self._courses[job] = _Course(self._seconds[job], now)
                self._pace(now, set(life.numbers))
                return [ev.Started(job, attempt)]
            case ev.ResumeJob():
                self._courses.setdefault(job, _Course(self._seconds[job], now)).since = now
                self._pace(now, set(life.numbers))
                return [ev.ResumeDone(job, attempt)]
            case ev.SuspendJob():
                self._rest(now, life)
                return [ev.SuspendDone(job, attempt)]
            case ev.StopJob():
                self._rest(now, life)
                return [ev.Ended(job, attempt, signal=15, saved=True)]
            case _:
                self._pace(now, set(life.numbers))
                return []

    def _rest(self, now: float, life: Life) -> None:
        """The job stands still; its neighbours go on without it."""
        course = self._courses.get(life.id)
        if course is not None:
            course.advance(now)
            course.rate, course.version = 0.0, course.version + 1
        self._pace(now, set(life.numbers))

    def _pace(self, now: float, nodes: set[int]) -> None:
        """Every job on the nodes goes at the speed that its neighbours leave it."""
        view = self._machine.view
        for n in nodes:
            on = [life for life in view.neighbours(n) if life.id in self._courses]
            going = [life for life in on if life.state not in (State.SUSPENDING, State.SUSPENDED, State.STOPPING)]
            slowed = view.estimator.predict(tuple(view.app(life, n) for life in going), view.capacity(n))
            for life, slowdown in zip(going, slowed, strict=True):
                end = slowdown.high if self._pessimism > 0 else slowdown.low
                slow = max(1.0, slowdown.mid + abs(self._pessimism) * (end - slowdown.mid))
                course = self._courses[life.id]
                course.advance(now)
                course.rate = life.throttle / slow
                course.version += 1
                heapq.heappush(self._coming, (now + course.left_s / course.rate, life.id, course.version))

    def _next(self, now: float) -> float:
        while self._coming and not self._holds(self._coming[0]):
            heapq.heappop(self._coming)
        wake = self._machine.next_wake()
        end = self._coming[0][0] if self._coming else math.inf
        return max(now, min(end, self._strangers_leave, math.inf if wake is None else wake))

    def _ended(self, now: float) -> list[ev.Event]:
        """Jobs whose work is done by ``now``."""
        ended: list[ev.Event] = []
        while self._coming and self._coming[0][0] <= now:
            due = heapq.heappop(self._coming)
            if self._holds(due):
                life = self._machine.jobs[due[1]]
                ended.append(ev.Ended(life.id, life.attempt))
                del self._courses[life.id]
                self._pace(now, set(life.numbers))
        return ended

    def _left_by_strangers(self, now: float) -> list[ev.Event]:
        """What others hold comes free, once."""
        if now < self._strangers_leave:
            return []
        self._strangers_leave = math.inf
        ledger = self._machine.ledger
        return [ev.ForeignUse(node.id) for n, node in enumerate(ledger.nodes) if any(ledger.foreign_seen(n))]

    def _holds(self, due: tuple[float, int, int]) -> bool:
        course = self._courses.get(due[1])
        return course is not None and course.version == due[2]


_Order = ev.StartJob | ev.StopJob | ev.SuspendJob | ev.ResumeJob | ev.ThrottleJob

_AWAITED = (State.STARTING, State.SUSPENDING, State.RESUMING, State.STOPPING)
"""States in which an engine owes an answer."""


def _answer(life: Life) -> ev.Event:
    job, attempt = life.id, life.attempt
    match life.state:
        case State.STARTING:
            return ev.Started(job, attempt)
        case State.SUSPENDING:
            return ev.SuspendDone(job, attempt)
        case State.RESUMING:
            return ev.ResumeDone(job, attempt)
        case _:
            return ev.Ended(job, attempt, signal=15, saved=True)
