"""What happened on a day, read from its event log: who ran on which cores, when, and how each job ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tandem.share import events as ev
from tandem.share.codec import from_json
from tandem.share.lab.named import named
from tandem.share.model import Job, Placement, Quote, State
from tandem.share.scheduler.transitions import how_it_ended

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(slots=True)
class Stretch:
    """A stretch of time in which a job held its cores in one way: "ran", "suspended" or "throttled"."""

    start: float
    end: float
    how: str
    cores: tuple[int, ...]
    gpus: tuple[int, ...]


@dataclass(slots=True)
class Course:
    """One job's day. Instants are Unix seconds."""

    job: Job
    submitted: float
    started: float | None = None
    ended: float | None = None
    well: bool = False
    why: str = ""
    stretches: list[Stretch] = field(default_factory=list)
    quotes: dict[str, Quote] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @property
    def run_s(self) -> float | None:
        """Seconds from the start of the last attempt to the end, suspension included."""
        return None if self.started is None or self.ended is None else self.ended - self.started


@dataclass(slots=True)
class Day:
    """One policy's day."""

    policy: str
    estimator: str
    courses: dict[int, Course]
    decisions: int
    measured: list[tuple[str, tuple[str, ...], float, float]]
    """(application, neighbours, steps per second, seconds) of every unthrottled stretch that was measured."""

    @property
    def began(self) -> float:
        """The first submission."""
        return min((course.submitted for course in self.courses.values()), default=0.0)

    @property
    def makespan_s(self) -> float:
        """From the first submission to the last end."""
        return max((course.ended or course.submitted for course in self.courses.values()), default=0.0) - self.began


def read_day(
    entries: Iterable[Mapping[str, Any]],
    quotes: Iterable[Quote] = (),
    ends: Iterable[Mapping[str, Any]] = (),
    names: Mapping[int, str] | None = None,
) -> Day:
    """The day that a log tells of (its last epoch's policy names it).

    Args:
        names: what jobs are called where reasons speak of them.
        ends: how jobs ended, as the daemon says it (``id``, ``state``, ``reason``): it knows of time limits and of
            dependencies, which the log's events do not tell.
    """
    day = Day("", "", {}, 0, [])
    for entry in entries:
        if "setup" in entry:
            day.policy, day.estimator = entry["setup"]["policy"], entry["setup"]["estimator"]
            continue
        now = entry["now"]
        for raw in entry["events"]:
            _event(day, now, from_json(raw))
        for raw in entry["decisions"]:
            _decision(day, now, from_json(raw))
            day.decisions += 1
    for quote in quotes:
        course = day.courses.get(quote.job)
        if course is not None:
            course.quotes.setdefault(quote.moment, quote)
    for end in ends:
        course = day.courses[end["id"]]
        course.well, course.why = end["state"] == State.DONE.value, end["reason"]
    for course in day.courses.values():
        course.why = named(course.why, names or {})
        course.reasons = [named(reason, names or {}) for reason in course.reasons]
    return day


def _event(day: Day, now: float, event: ev.Event) -> None:
    if isinstance(event, ev.Submitted):
        day.courses[event.job.id] = Course(event.job, now)
        return
    course = day.courses.get(getattr(event, "job", -1))
    if course is None:
        return
    match event:
        case ev.Started():
            course.started = now
            _turn(course, now, "ran")
        case ev.SuspendDone():
            _turn(course, now, "suspended")
        case ev.ResumeDone():
            _turn(course, now, "ran")
        case ev.Ended(code=code, signal=signal, lost=lost, reason=reason):
            _close(course, now)
            course.ended, course.well = now, code == 0 and signal == 0 and not lost
            course.why = reason or how_it_ended(event)
        case ev.CancelAsked() if course.started is None:
            course.ended, course.why = now, "cancelled"
        case ev.Measured(rate=rate, seconds=seconds, beside=beside, throttled=False):
            day.measured.append((course.job.app, beside, rate, seconds))


def _decision(day: Day, now: float, decision: ev.Decision) -> None:
    course = day.courses.get(decision.job)
    if course is None:
        return
    if decision.reason:
        course.reasons.append(f"{type(decision).__name__.lower()}: {decision.reason}")
    match decision:
        case ev.Start(placement=placement) | ev.Resume(placement=placement):
            # The stretch begins when the engine answers; its place is known now.
            course.stretches.append(Stretch(now, now, "placed", *_held(placement)))
        case ev.Throttle(fraction=fraction):
            _turn(course, now, "ran" if fraction == 1.0 else "throttled")


def _held(placement: Placement) -> tuple[tuple[int, ...], tuple[int, ...]]:
    cores = tuple(core for share in placement.shares for core in share.cores)
    return cores, tuple(gpu for share in placement.shares for gpu in share.gpus)


def _turn(course: Course, now: float, how: str) -> None:
    """From now on the job holds its place in another way."""
    if not course.stretches:
        return
    last = course.stretches[-1]
    if last.how == "placed":
        last.start, last.how = now, how
        if len(course.stretches) > 1:
            course.stretches[-2].end = now
        return
    last.end = now
    course.stretches.append(Stretch(now, now, how, last.cores, last.gpus))


def _close(course: Course, now: float) -> None:
    if course.stretches:
        course.stretches[-1].end = now
