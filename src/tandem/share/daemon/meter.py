"""How fast each job goes beside whom, from the records it writes.

A stretch is a time in which a job's neighbours, and what throttles them, did not change. The first record after a
change is where a stretch's measurement begins; the rate is the steps done from there to the last record, over the time
between the two. Long stretches are reported every few seconds, so that a broken bound is seen soon. The meter reads no
clock: the time is passed in. What each stretch was is also kept as `Beside` rows, with or without a rate; of one that
lasts, what there is of it, so that a daemon that is killed does not take hours with it.

A programme may count its steps afresh (each epoch, say): see `tandem.estimate.counting`.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tandem.core.records import FILE_NAME, Tail, open_owned_by
from tandem.estimate.corun import known_as
from tandem.estimate.counting import Counting
from tandem.estimate.observed import FASTEST, LEAST_S
from tandem.share.events import Measured
from tandem.share.store.entry import Beside

REPORT_S = 3.0
"""A long stretch is reported this often, in seconds."""

KEEP_S = 60.0
"""What there is of the stretches is kept this often, in seconds."""

SHORTEST_S = 0.1
"""A stretch without a rate that is shorter is not kept, in seconds."""


@dataclass(frozen=True, slots=True)
class Metered:
    """A running job as the meter sees it."""

    job: int
    attempt: int
    app: str
    uid: int
    nodes: tuple[str, ...]
    run_dir: str


class _Point(NamedTuple):
    """A record: when it was written, and how many steps had been done, by one count that goes on."""

    t: float
    steps: float


@dataclass(slots=True)
class _Stretch:
    """One job's measurement since its neighbours last changed."""

    who: Metered
    tail: Tail
    throttle: float = 1.0
    began_at: float = 0.0
    beside: tuple[tuple[int, str], ...] = ()
    reported_at: float = 0.0
    kept_at: float = 0.0
    kept: bool = False  # what there was of it
    counting: Counting = field(default_factory=Counting)
    since: _Point | None = None  # where the measurement of the next report begins
    first: _Point | None = None  # where the measurement of the whole stretch begins
    last: _Point | None = None
    rates: list[float] = field(default_factory=list)  # of records that tell a rate but no step
    done: float | None = None
    phase: str = ""  # announced last
    within: str | None = None  # the phase that all steps since the last report were made in; None where it changed
    at: str = ""  # the phase of the last step
    met: dict[str, list[float]] = field(default_factory=dict)  # alone: steps and seconds of phases, not told yet
    stays: bool = False  # the last step was told in the present phase

    @property
    def alone(self) -> bool:
        """Whether nobody is beside the job and it has all of its cores, so that its rate is its own."""
        return not self.beside and self.throttle >= 1


def tail_of(who: Metered) -> Tail:
    """Follow a job's records, as a reader that trusts nothing of what lies in the job's folder."""
    return Tail(Path(who.run_dir) / FILE_NAME, opener=open_owned_by(who.uid))


class Meter:
    """Follows all running jobs.

    Args:
        follow: Opens the records of a job; tests pass their own.
    """

    def __init__(self, follow: Callable[[Metered], Tail] = tail_of) -> None:
        self._follow = follow
        self._running: dict[int, _Stretch] = {}
        self._on_node: dict[str, set[int]] = {}
        self._measured: list[Measured] = []
        self._besides: list[Beside] = []

    def __len__(self) -> int:
        return len(self._running)

    def runs(self, now: float, who: Metered, throttle: float = 1.0) -> None:
        """The job runs from now on (it started, or was resumed)."""
        known = self._running.get(who.job)
        if known is not None and known.who == who:
            return
        if known is not None:
            self.rests(now, who.job)
        stretch = _Stretch(who, self._follow(who), throttle, now, reported_at=now, kept_at=now)
        while earlier := stretch.tail.poll():  # of an earlier attempt, or from before the daemon looked: no measure
            stretch.phase = next((one.phase for one in reversed(earlier) if one.phase is not None), stretch.phase)
        self._running[who.job] = stretch
        for node in who.nodes:
            self._on_node.setdefault(node, set()).add(who.job)
        self._changed(now, who.nodes)

    def rests(self, now: float, job: int) -> None:
        """The job does not run any more since ``now``, which may be some time ago (it ended, or was suspended)."""
        stretch = self._running.get(job)
        if stretch is None:
            return
        self._read(stretch)
        self._close(max(now, stretch.began_at), stretch)
        del self._running[job]
        for node in stretch.who.nodes:
            self._on_node[node].discard(job)
        self._changed(now, stretch.who.nodes)

    def ended(self, now: float, job: int, attempt: int, at: float | None = None) -> None:
        """The attempt has ended, at ``at`` where that is known: nobody was beside it after that."""
        stretch = self._running.get(job)
        if stretch is not None and stretch.who.attempt == attempt:
            self.rests(now if at is None else min(now, at), job)

    def throttled(self, now: float, job: int, fraction: float) -> None:
        """The job runs at `fraction` of its cores from now on."""
        stretch = self._running.get(job)
        if stretch is not None and stretch.throttle != fraction:
            self._read(stretch)
            self._close(now, stretch)
            stretch.throttle = fraction
            self._begin(now, stretch, stretch.beside)
            self._changed(now, stretch.who.nodes)

    def poll(self, now: float) -> None:
        """Read what the jobs wrote; report those whose stretch is long, and keep what there is of all now and then."""
        for stretch in self._running.values():
            self._read(stretch)
            if now - stretch.reported_at >= REPORT_S:
                self._report(now, stretch)
        if any(now - stretch.kept_at >= KEEP_S for stretch in self._running.values()):  # all in one write
            for stretch in self._running.values():
                self._keep(now, stretch)
                stretch.kept_at = now

    def take(self) -> tuple[list[Measured], list[Beside]]:
        """Return what was measured since the last call."""
        measured, besides = self._measured, self._besides
        self._measured, self._besides = [], []
        return measured, besides

    def close(self, now: float) -> None:
        """End all stretches: nobody measures from now on."""
        for stretch in self._running.values():
            self._read(stretch)
            self._close(now, stretch)
        self._running.clear()
        self._on_node.clear()

    # -------------------------------------------------------------------------------------- details

    def _changed(self, now: float, nodes: Iterable[str]) -> None:
        """The set of jobs on these nodes changed: whoever has other neighbours now begins a new stretch."""
        for job in {job for node in nodes for job in self._on_node.get(node, ())}:
            stretch = self._running[job]
            beside = tuple(self._neighbours(stretch.who))
            if beside != stretch.beside:
                at = max(now, stretch.reported_at)  # an end may be older than what was reported since
                self._read(stretch)
                self._close(at, stretch)
                self._begin(at, stretch, beside)

    def _neighbours(self, who: Metered) -> Iterator[tuple[int, str]]:
        jobs = {job for node in who.nodes for job in self._on_node[node]} - {who.job}
        for job in sorted(jobs):
            other = self._running[job]
            yield job, known_as(other.who.app, other.throttle)

    def _begin(self, now: float, stretch: _Stretch, beside: tuple[tuple[int, str], ...]) -> None:
        stretch.began_at = stretch.reported_at = stretch.kept_at = now
        stretch.beside, stretch.kept = beside, False
        stretch.since = stretch.first = stretch.last = None
        stretch.rates = []
        stretch.stays = False  # what was met of phases alone goes on where the job is alone again

    def _read(self, stretch: _Stretch) -> None:
        for record in stretch.tail.poll():
            if record.phase is not None:
                stretch.stays = stretch.stays and record.phase == stretch.phase
                stretch.phase = record.phase
            if record.step is not None:
                if record.total:
                    stretch.done = min(1.0, max(0.0, record.step / record.total))
                _step(stretch, record.t, record.step)
            elif record.rate is not None:
                if stretch.first is None and not stretch.rates:
                    stretch.within = stretch.phase
                elif stretch.at != stretch.phase:
                    stretch.within = None
                stretch.at = stretch.phase
                stretch.rates.append(record.rate)

    def _report(self, now: float, stretch: _Stretch) -> None:
        """Send the rate since the last report to the state machine."""
        rate = _rate(stretch.since, stretch.last, stretch.rates[1:])
        if rate is None:
            if stretch.since is not None and stretch.last is not None and stretch.last.steps < stretch.since.steps:
                _report_from(now, stretch)  # it went back some steps
            return
        seconds = max(0.0, now - stretch.reported_at)
        beside = tuple(sorted(app for _, app in stretch.beside))
        throttled = stretch.throttle < 1
        phase = stretch.within
        turns: tuple[tuple[str, float], ...] = ()
        if stretch.alone:
            if phase is not None and seconds >= LEAST_S:  # it is told by the rate itself
                stretch.met.pop(phase, None)
            turns = tuple(_taken(stretch.met))
        self._measured.append(Measured(stretch.who.job, rate, seconds, beside, stretch.done, throttled, phase, turns))
        _report_from(now, stretch)

    def _close(self, now: float, stretch: _Stretch) -> None:
        """The stretch is over: report its rest, keep the whole of it."""
        self._keep(now, stretch)
        self._report(now, stretch)

    def _keep(self, now: float, stretch: _Stretch) -> None:
        """Keep the stretch, until now, in place of what was kept of it before."""
        whole = _rate(stretch.first, stretch.last, stretch.rates[1:])
        short = now <= stretch.began_at or (whole is None and now - stretch.began_at < SHORTEST_S)
        if short and not stretch.kept:
            return
        who = stretch.who
        self._besides.append(
            Beside(
                who.job,
                who.attempt,
                who.app,
                ",".join(who.nodes),
                stretch.began_at,
                now,
                stretch.beside,
                whole,
                stretch.throttle < 1,
                stretch.kept,
            )
        )
        stretch.kept = True


def _taken(met: dict[str, list[float]]) -> Iterator[tuple[str, float]]:
    """The rates of phases that were met for long enough, which are taken out."""
    for phase, (steps, seconds) in list(met.items()):
        if seconds >= REPORT_S:
            del met[phase]
            if 1.0 / FASTEST <= steps / seconds <= FASTEST:
                yield phase, steps / seconds


def _report_from(now: float, stretch: _Stretch) -> None:
    """The next report is of what follows the newest record."""
    stretch.reported_at, stretch.within, stretch.since = now, stretch.at, stretch.last
    stretch.rates = stretch.rates[-1:]


def _step(stretch: _Stretch, t: float, step: float) -> None:
    """Take in a record that tells a step."""
    last = stretch.last
    if last is not None and t <= last.t:
        return
    point = _Point(t, stretch.counting.take(step))
    if last is None:
        stretch.since, stretch.first, stretch.within = point, point, stretch.phase
    elif not stretch.stays:  # in between, it was in another phase
        stretch.within = None
    elif stretch.alone:
        met = stretch.met.setdefault(stretch.phase, [0.0, 0.0])
        met[0] += point.steps - last.steps
        met[1] += t - last.t
    stretch.last, stretch.stays, stretch.at = point, True, stretch.phase


def _rate(first: _Point | None, last: _Point | None, told: list[float]) -> float | None:
    """Steps per second between two records; the mean of what was told where no steps were counted.

    None where that is not above 0, or more than any rate is.
    """
    rate = sum(told) / len(told) if told else math.nan
    if first is not None and last is not None and last is not first:
        rate = (last.steps - first.steps) / (last.t - first.t)
    return rate if 1.0 / FASTEST <= rate <= FASTEST else None
