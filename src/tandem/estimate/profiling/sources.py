"""Which way a programme's progress becomes known: found out by starting it.

A programme that writes records is followed by them; one that `--rate` was given for, by its output; one that ends soon
is run again and again. What is none of these cannot be measured, and the error says what to do.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from tandem.core.records import FILE_NAME, Tail
from tandem.estimate.profiling.programme import ProgrammeError
from tandem.estimate.profiling.subject import (
    PATIENCE_S,
    Output,
    Records,
    Runs,
    Subject,
    died,
    passed_over,
    silent,
    written_bytes,
)

if TYPE_CHECKING:
    from tandem.estimate.profiling.deadline import Deadline
    from tandem.estimate.profiling.programme import Programme

LONGEST_RUN_S = 2.0
"""A programme without any other sign of progress is measured by its runs if one takes no longer than this."""

LEAST_WORK_S = 1.0
"""A programme that writes records is followed by them if its steps go on for at least this long."""

LEAST_RUN_S = 0.05
"""A programme that is measured by its runs takes at least this long: of a shorter one its start would be measured."""

_LOOK_S = 0.02


def follow(
    programme: Programme, rate: str | None = None, patience_s: float = PATIENCE_S, deadline: Deadline | None = None
) -> Subject:
    """Start it and return it at work, by whichever way its progress is known.

    Args:
        programme: not yet started.
        rate: a regular expression over its output; see `subject.Output`.
        patience_s: how long nothing may be heard of it.
        deadline: when it has to be at work in any case.

    Raises:
        ProgrammeError: It dies, hangs, says nothing, or finishes before it can be measured; or the deadline came.
    """
    if rate is not None:
        subject = Subject(programme, Output(rate), patience_s)
        subject.start()
        return _at_work(subject, deadline)
    programme.start()
    begun = time.monotonic()
    tail = Tail(programme.run_dir / FILE_NAME)
    steps = _first_steps(programme, tail, begun, patience_s, deadline)
    took_s = time.monotonic() - begun
    if programme.ended is None:
        return _joined(programme, patience_s, deadline)
    if programme.ended[1] != 0:
        raise died(programme, programme.ended[1])
    if took_s > LONGEST_RUN_S:
        raise _too_short(programme, took_s, None if steps else passed_over(tail))
    subject = Subject(programme, Runs(), patience_s)
    subject.start()
    _at_work(subject, deadline)
    shortest_s = min(took_s, subject.step_s() or took_s)
    if shortest_s < LEAST_RUN_S:
        raise _over_at_once(programme, shortest_s)
    return subject


def _at_work(subject: Subject, deadline: Deadline | None) -> Subject:
    if not subject.until_it_works(deadline):
        raise _too_late(subject.programme, subject.source.way)
    if not isinstance(subject.source, Runs):
        subject.until_it_works(deadline)  # a slow first step (something is compiled) is not what steps take
    return subject


def _first_steps(programme: Programme, tail: Tail, begun: float, patience_s: float, deadline: Deadline | None) -> bool:
    """Wait until the steps of a run have gone on for a while or the run has ended; whether there were any."""
    first: float | None = None
    while programme.poll() is None:
        now = time.monotonic()
        written_bytes(programme)
        if any(record.step is not None for record in tail.poll()):
            first = first or now
        if first is not None and now - first >= LEAST_WORK_S:
            return True
        if first is None and now - begun > patience_s:
            raise silent(programme, f"{Records.way}{passed_over(tail)}", patience_s)
        if deadline is not None and not deadline.fits(_LOOK_S):
            raise _too_late(programme, f"{Records.way}{passed_over(tail)}")
        select.select([programme.fileno()], [], [], _LOOK_S)
    return first is not None


def _joined(programme: Programme, patience_s: float, deadline: Deadline | None) -> Subject:
    """A subject that follows the run which is under way, once it is known how long its steps take."""
    subject = Subject(programme, Records(), patience_s)
    subject.source.begin(programme)
    subject.read()
    return subject if subject.step_s() is not None else _at_work(subject, deadline)


def _too_late(programme: Programme, way: str) -> ProgrammeError:
    return ProgrammeError(
        given=f"{programme.name} made no progress in all the time, by {way}; it last wrote: {programme.tail()}",
        allowed="a limit in which it starts, runs alone and runs beside bubbles",
        todo="see whether it hangs; give it more time (--most), let it write records, or give --rate REGEX",
    )


def _too_short(programme: Programme, took_s: float, stepless: str | None) -> ProgrammeError:
    """The error for a run that is too long for a step; ``stepless``: what was passed over, where it told of none."""
    early = "finished before its steps could be measured"
    what = early if stepless is None else f"wrote no record with a step{stepless}"
    return ProgrammeError(
        given=f"{programme.name} {what}: it ran for {took_s:.1f} s",
        allowed=f"steps that go on for at least {LEAST_WORK_S:g} s, or whole runs of at most {LONGEST_RUN_S:g} s",
        todo="profile a longer run of it, let it write records (tandem.core.records), or give --rate REGEX",
    )


def _over_at_once(programme: Programme, took_s: float) -> ProgrammeError:
    return ProgrammeError(
        given=f"{programme.name} finishes before it can be measured: a whole run takes {1000 * took_s:.0f} ms",
        allowed=f"runs of at least {1000 * LEAST_RUN_S:.0f} ms, or steps that go on for at least {LEAST_WORK_S:g} s",
        todo="give it more to do: a larger input, or more repetitions",
    )
