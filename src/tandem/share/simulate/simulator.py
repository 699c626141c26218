"""A day in no time: the state machine under a virtual clock.

The simulator is an engine for `scheduler.machine.Machine`: it carries out instructions by the book and tells what
happened, when. How fast jobs really go is a separate argument (`truth`), which no policy sees; what a lab
would measure is told to the machine as `Measured` events, with noise if asked for.

Determinism: equal workload, setup, truth and seed give the same day to the last decision.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tandem.estimate.corun import App, Capacity, known_as
from tandem.share import events as ev
from tandem.share.model import Job, JobClass, Quote, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine, Step
from tandem.share.simulate.metrics import Outcome
from tandem.share.simulate.truth import Truth, Undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tandem.share.workloads.workload import Workload

TELL_EVERY = 128
"""Steps between two calls that tell progress."""


@dataclass(slots=True)
class Day:
    """What came of a simulated day."""

    setup: Setup
    outcomes: list[Outcome]
    quotes: list[Quote]
    decisions: int
    steps: int
    log: list[tuple[float, tuple[ev.Event, ...], Step]] = field(default_factory=list)


@dataclass(slots=True)
class _Course:
    """The true course of one job."""

    job: Job
    work_s: float
    arrived: float
    left_s: float  # work left, in seconds alone
    saved_s: float  # work left at the last checkpoint
    rate: float = 0.0  # of work, now; 0 when it does not run
    since: float = 0.0  # when ``left_s`` was true
    attempt: int = 0
    nodes: tuple[str, ...] = ()
    rates: dict[str, float] = field(default_factory=dict)  # by node; the slowest decides
    throttle: float = 1.0
    version: int = 0
    stretch_from: float = 0.0
    first_start: float | None = None
    end: float | None = None
    state: State = State.QUEUED
    ran_s: float = 0.0  # time on the nodes at the speed its own throttle allows
    held_since: float = 0.0
    intervals: tuple[tuple[float, float, int, int], ...] = ()  # see `Outcome`; without the one that lasts


class Simulator:
    """Runs one workload under one setup."""

    def __init__(
        self,
        workload: Workload,
        setup: Setup,
        truth: Truth | None = None,
        *,
        noise: float = 0.0,
        stretch_s: float = 1.0,
        seed: int = 0,
        keep_log: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.machine = Machine(setup)
        self._workload = workload
        self._truth = truth or Undisturbed()
        self._undisturbed = isinstance(self._truth, Undisturbed)
        self._noise = noise
        self._stretch_s = stretch_s
        self._random = random.Random(seed)
        self._keep_log = keep_log
        self._progress = progress
        self._courses: dict[int, _Course] = {}
        self._on: dict[str, dict[int, _Course]] = {node.id: {} for node in workload.nodes}
        self._capacity = {node.id: Capacity(node.cpu_milli, node.membw_mbs, node.nic_mbs) for node in workload.nodes}
        self._apps: dict[int, App] = {}
        self._coming: list[tuple[float, int, int]] = []  # (when, job, version): ends of work
        self._log: list[tuple[float, tuple[ev.Event, ...], Step]] = []
        self._quotes: list[Quote] = []
        self._decisions = self._steps = 0
        self._measured: list[ev.Event] = []

    def run(self, extra: Sequence[tuple[float, ev.Event]] = ()) -> Day:
        """Play the workload to its end.

        Args:
            extra: further events at their times (a node that goes, a job that is cancelled), sorted.
        """
        arrivals = self._workload.arrivals
        now = min([a.at for a in arrivals[:1]] + [at for at, _ in extra[:1]], default=0.0)
        self._step(now, [ev.NodeJoined(node) for node in self._workload.nodes])
        arrived = told = 0
        while True:
            now = self._next(
                arrivals[arrived].at if arrived < len(arrivals) else math.inf,
                extra[told][0] if told < len(extra) else math.inf,
            )
            if math.isinf(now):
                break
            batch: list[ev.Event] = self._ends(now)
            while told < len(extra) and extra[told][0] <= now:
                event = extra[told][1]
                if isinstance(event, ev.NodeLost):
                    self._lose(now, event.node)
                batch.append(event)
                told += 1
            while arrived < len(arrivals) and arrivals[arrived].at <= now:
                arrival = arrivals[arrived]
                self._courses[arrival.job.id] = _Course(
                    arrival.job, arrival.work_s, arrival.at, arrival.work_s, arrival.work_s
                )
                batch.append(ev.Submitted(arrival.job))
                arrived += 1
            self._settle(now, self._news() + batch or [ev.Tick()])
            if self._progress is not None and self._steps % TELL_EVERY == 0:
                self._progress(arrived, len(arrivals))
        return Day(
            self.machine.setup,
            [self._outcome(course) for course in self._courses.values()],
            self._quotes,
            self._decisions,
            self._steps,
            self._log,
        )

    # ------------------------------------------------------------------------------------- engine

    def _next(self, *when: float) -> float:
        while self._coming and self._courses[self._coming[0][1]].version != self._coming[0][2]:
            heapq.heappop(self._coming)
        wake = self.machine.next_wake()
        return min(*when, self._coming[0][0] if self._coming else math.inf, math.inf if wake is None else wake)

    def _settle(self, now: float, batch: list[ev.Event]) -> None:
        """Step, carry out, tell the answers, until nothing more happens at ``now``."""
        while batch:
            step = self._step(now, batch)
            batch = []
            for instruction in step.instructions:
                answer = self._carry_out(now, instruction)
                if answer is not None:
                    batch.append(answer)
            batch = self._news() + batch

    def _news(self) -> list[ev.Event]:
        """What was measured since the last step; told before the ends, as a job's records are read before its exit."""
        news, self._measured = self._measured, []
        return news

    def _step(self, now: float, batch: list[ev.Event]) -> Step:
        step = self.machine.step(now, batch)
        self._steps += 1
        self._decisions += len(step.decisions)
        self._quotes += step.quotes
        if self._keep_log:
            self._log.append((now, tuple(batch), step))
        return step

    def _ends(self, now: float) -> list[ev.Event]:
        """Jobs whose work is done by ``now``."""
        found: list[ev.Event] = []
        while self._coming and self._coming[0][0] <= now:
            _, job, version = heapq.heappop(self._coming)
            course = self._courses[job]
            if course.version == version:
                self._off(now, course)
                found.append(ev.Ended(job, course.attempt))
        return found

    def _carry_out(self, now: float, instruction: ev.Instruction) -> ev.Event | None:
        course = self._courses[instruction.job]
        match instruction:
            case ev.StartJob(job, attempt, placement):
                course.attempt, course.left_s, course.throttle = attempt, course.saved_s, 1.0
                if course.saved_s == course.work_s:
                    course.ran_s = 0.0
                if not self._undisturbed:
                    self._apps[job] = _app(course.job)
                if course.first_start is None:
                    course.first_start = now
                self._go(now, course, tuple(dict.fromkeys(share.node for share in placement.shares)))
                return ev.Started(job, attempt)
            case ev.StopJob(job, attempt, checkpoint):
                self._off(now, course)
                if checkpoint:
                    course.saved_s = course.left_s
                return ev.Ended(job, attempt, signal=15, saved=bool(checkpoint))
            case ev.SuspendJob(job, attempt):
                self._off(now, course)
                return ev.SuspendDone(job, attempt)
            case ev.ResumeJob(job, attempt, placement):
                self._go(now, course, tuple(dict.fromkeys(share.node for share in placement.shares)))
                return ev.ResumeDone(job, attempt)
            case ev.ThrottleJob(job, attempt, fraction):
                self._throttle(now, course, fraction)
            case ev.JobEnded(job, state):
                if course.rate:  # a node was lost under it
                    self._off(now, course)
                course.end, course.state = now, state
        return None

    def _lose(self, now: float, node: str) -> None:
        """A node goes, and with it every process of the jobs that are on it."""
        for course in list(self._on[node].values()):
            self._off(now, course)

    # -------------------------------------------------------------------------------------- truth

    def _go(self, now: float, course: _Course, nodes: tuple[str, ...]) -> None:
        def enter() -> None:
            course.nodes, course.rate, course.since, course.stretch_from = nodes, 1.0, now, now
            course.rates.clear()
            for node in nodes:
                self._on[node][course.job.id] = course

        course.held_since = now
        self._change(now, nodes, enter, and_for=course)

    def _off(self, now: float, course: _Course) -> None:
        if not course.rate:
            return

        def leave() -> None:
            self._advance(now, course)
            for node in course.nodes:
                self._on[node].pop(course.job.id, None)
            course.rate = 0.0
            course.version += 1

        course.intervals += ((course.held_since, now, course.job.cpu_milli, course.job.gpu_total_milli),)
        self._change(now, course.nodes, leave)

    def _throttle(self, now: float, course: _Course, fraction: float) -> None:
        def tighten() -> None:
            self._advance(now, course)  # what it did until now, it did at the old speed
            course.throttle = fraction

        if course.rate:
            self._change(now, course.nodes, tighten, and_for=course)

    def _change(
        self, now: float, nodes: tuple[str, ...], change: Callable[[], None], and_for: _Course | None = None
    ) -> None:
        """Make a change on ``nodes`` and let everybody there go at their new rates."""
        if self._undisturbed:
            change()
            if and_for is not None:
                self._advance(now, and_for)
                self._expect_end(now, and_for, and_for.throttle)
            return
        for course in {course.job.id: course for node in nodes for course in self._on[node].values()}.values():
            self._measure(now, course)
        change()
        changed: dict[int, _Course] = {}
        for node in nodes:
            courses = list(self._on[node].values())
            for course, rate in zip(courses, self._rates_on(node, courses), strict=True):
                course.rates[node] = rate
                changed[course.job.id] = course
        for course in changed.values():
            self._advance(now, course)
            course.stretch_from = now
            rate = min(course.rates.values())
            if rate != course.rate or course is and_for:
                self._expect_end(now, course, rate)

    def _rates_on(self, node: str, courses: list[_Course]) -> tuple[float, ...]:
        members = tuple(self._apps[course.job.id] for course in courses)
        throttles = tuple(course.throttle for course in courses)
        if self._truth.quiet(members, self._capacity[node]):
            return throttles
        return self._truth.rates(members, self._capacity[node], throttles)

    def _advance(self, now: float, course: _Course) -> None:
        seconds = now - course.since
        course.left_s = max(0.0, course.left_s - seconds * course.rate)
        course.ran_s += seconds * course.throttle
        course.since = now

    def _expect_end(self, now: float, course: _Course, rate: float) -> None:
        course.rate = rate
        course.version += 1
        heapq.heappush(self._coming, (now + course.left_s / rate, course.job.id, course.version))

    def _measure(self, now: float, course: _Course) -> None:
        """What the job's records would tell of the stretch that ends now."""
        seconds = now - course.stretch_from
        if seconds < self._stretch_s or not course.job.app:
            return
        left = max(0.0, course.left_s - (now - course.since) * course.rate)
        rate = course.rate * math.exp(self._random.gauss(0.0, self._noise)) if self._noise else course.rate
        others = {one.job.id: one for node in course.nodes for one in self._on[node].values() if one is not course}
        beside = sorted(known_as(one.job.app, one.throttle) for one in others.values())
        done = 1 - left / course.work_s if course.work_s else None
        throttled = course.throttle < 1
        self._measured.append(ev.Measured(course.job.id, rate, seconds, tuple(beside), done, throttled))

    def _outcome(self, course: _Course) -> Outcome:
        job = course.job
        assert not course.rate, f"job {job.id} still runs at the end of the day"
        return Outcome(
            job=job,
            submitted=course.arrived,
            started=course.first_start,
            ended=self.machine.now if course.end is None else course.end,
            state=course.state,
            work_s=course.work_s,
            intervals=course.intervals,
            slowdown=max(1.0, course.ran_s / course.work_s) if course.work_s > 0 else 1.0,
            bound=job.max_slowdown if job.klass is JobClass.PRIMARY else None,
        )


def _app(job: Job) -> App:
    need = job.parts[0].need
    return App(job.app, need.cpu_milli, need.membw_mbs, need.nic_mbs)
