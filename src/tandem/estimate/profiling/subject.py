"""A programme with the way its progress is known: by its records, by its output, or by the ends of its runs.

Every way fills a `Trace`. A programme that ends well is started again, so that there is always something to measure;
one that ends badly, or says nothing for too long, is a `ProgrammeError` in words that say what to do.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING, Protocol

from tandem.core.clock import SystemClock
from tandem.core.records import FILE_NAME, Record, Tail
from tandem.estimate.profiling.deadline import Deadline
from tandem.estimate.profiling.matcher import LONGEST_LINE, MOST_CPU_S, Matcher
from tandem.estimate.profiling.programme import Programme, ProgrammeError
from tandem.estimate.profiling.progress import Trace

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 20.0
LARGEST = 1e15
"""No step and no rate in a programme's output is larger."""

MOST_READ_S = 2.0
"""Processor time for the records that were written between two looks at them: beyond it they come faster than that."""

MOST_RECORDS_BYTES = 1 << 30

_CHUNK_BYTES = 1 << 16
_AT_ONCE_BYTES = 1 << 16
_SHORT_BYTES = 1 << 10
"""A terminal that holds less than this has been read for now."""

MOST_LINES, LINE_BYTES = 1e5, 20
"""Lines a second that are read, where each counts for one more by so many bytes; a faster programme would wait for
whoever reads, and its rate be theirs."""

_STRETCH_S, _APART_S = 1.0, 0.2
"""How long that is looked at, without a break as long as the second."""
_SHOWN = 60
POLL_S = 0.01
"""How often one looks at a programme that is waited for."""


class Source(Protocol):
    """Where progress comes from; one for each subject."""

    way: str
    """How it is known, for people."""

    def begin(self, programme: Programme) -> None:
        """Be told before each start of the programme."""

    def read(self, programme: Programme, trace: Trace) -> None:
        """Add what has become known since the last call."""

    def finish(self, programme: Programme, trace: Trace, t: float) -> None:
        """Be told that a run has ended well at ``t``."""

    def filenos(self) -> list[int]:
        """Descriptors that are readable when `read` is urgent."""


class Records:
    """Progress by run records (`tandem.core.records`); what is no record or no step is passed over."""

    way = "its run records"

    def begin(self, programme: Programme) -> None:
        """Forget the last run."""
        self._tail: Tail | None = None

    def read(self, programme: Programme, trace: Trace) -> None:
        """Read the records that are there now.

        Raises:
            ProgrammeError: They come faster than they can be read.
        """
        if self._tail is None:
            self._tail = Tail(programme.run_dir / FILE_NAME)
        begun, before = time.thread_time(), -1
        size = written_bytes(programme)  # what is written meanwhile is left to the next call
        while before < self._tail.offset < size:
            before = self._tail.offset
            for record in self._tail.poll():
                self._take(record, trace)
            if time.thread_time() - begun > MOST_READ_S:
                raise too_fast(programme.name, "records")
        if self._tail.corrupt:
            self.way = f"{Records.way}{passed_over(self._tail)}"

    def finish(self, programme: Programme, trace: Trace, t: float) -> None:
        """Nothing reaches from one run into the next."""
        self.read(programme, trace)
        trace.cut(t)

    def filenos(self) -> list[int]:
        """None: records carry their time."""
        return []

    def _take(self, record: Record, trace: Trace) -> None:
        if record.phase is not None:
            trace.enter(record.t, record.phase)
        if record.step is None:
            return
        if -LARGEST <= record.step <= LARGEST:
            trace.reach(record.t, record.step)
        else:
            self.way = f"{Records.way} (passed over: {record.step:g}, which is no step)"


def written_bytes(programme: Programme) -> int:
    """Size of its records.

    Raises:
        ProgrammeError: They would fill the disk.
    """
    path = programme.run_dir / FILE_NAME
    size = path.stat().st_size if path.is_file() else 0
    if size > MOST_RECORDS_BYTES:
        raise too_fast(programme.name, "records")
    return size


def passed_over(tail: Tail) -> str:
    """How many lines were no records, in words; "" where all were."""
    needs = "each is a JSON object with a number t, in unix seconds, and a number step"
    return f" (passed over: {tail.corrupt} lines of {FILE_NAME} that are none: {needs})" if tail.corrupt else ""


class Runs:
    """Progress by runs that were completed: for short programmes, from start to end."""

    way = "how often it ran to its end"

    def begin(self, programme: Programme) -> None:
        """Nothing to do: the next run is the next step."""

    def read(self, programme: Programme, trace: Trace) -> None:
        """The first run's beginning is the first point."""

    def finish(self, programme: Programme, trace: Trace, t: float) -> None:
        """One more."""
        trace.add(t, programme.runs)

    def filenos(self) -> list[int]:
        """None of its own: the end of the process wakes whoever waits."""
        return []


class Output:
    """Progress by a regular expression over what the programme prints.

    Without a group each match counts one step; the number that a first group holds is the step that was reached; one
    in a group named `rate` is the present rate. What is no such number (nan, a rate below 0) is passed over, and so is
    what lies beyond the first 4,096 characters of a line. The programme writes to a terminal of its own, so that lines
    come when they are printed.
    """

    way = "its output"

    def __init__(self, pattern: str) -> None:
        self._pattern = compiled(pattern)
        self._group: str | int = "rate" if "rate" in self._pattern.groupindex else min(1, self._pattern.groups)
        self._matcher = Matcher(pattern, self._group)
        self._ours, theirs = os.openpty()
        os.set_blocking(self._ours, False)
        self._theirs = theirs
        self._rest = ""
        self._count = 0.0
        self._seen_at: float | None = None
        self._read_lines, self._since_s, self._looked_s = 0.0, 0.0, 0.0

    def begin(self, programme: Programme) -> None:
        """Let the next run write to the terminal."""
        programme.output = self._theirs
        self._rest, self._seen_at = "", None

    def read(self, programme: Programme, trace: Trace) -> None:
        """Look for matches in the lines that were completed.

        Raises:
            ProgrammeError: That takes too long, or they come faster than they can be read.
        """
        now, lasted_s = time.monotonic(), self._looked_s - self._since_s
        if lasted_s >= _STRETCH_S and self._read_lines > MOST_LINES * lasted_s:
            raise too_fast(programme.name, "output")
        if lasted_s >= _STRETCH_S or now - self._looked_s > _APART_S:
            self._read_lines, self._since_s = 0.0, now
        self._read(programme, trace, _SHORT_BYTES)
        self._looked_s = time.monotonic()

    def finish(self, programme: Programme, trace: Trace, t: float) -> None:
        """Nothing reaches from one run into the next."""
        self._read(programme, trace, 1)
        trace.cut(t)

    def filenos(self) -> list[int]:
        """The terminal: a line's time is when it is read."""
        return [self._ours]

    def close(self) -> None:
        """Close the terminal, and end the search."""
        self._matcher.close()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self, programme: Programme, trace: Trace, least: int) -> None:
        """Read until the terminal holds fewer bytes than ``least``, or for long enough."""
        total = 0
        while total < _AT_ONCE_BYTES and (chunk := self._chunk()):
            total += len(chunk)
            self._look(chunk, programme, trace)
            if len(chunk) < least:
                break

    def _look(self, chunk: bytes, programme: Programme, trace: Trace) -> None:
        now = SystemClock().now()
        with (programme.run_dir / "stdout").open("ab") as log:
            log.write(chunk)
        *lines, rest = re.split("[\r\n]", self._rest + chunk.decode(errors="replace"))
        self._rest = rest[:LONGEST_LINE]
        self._read_lines += chunk.count(b"\n") + len(chunk) / LINE_BYTES
        found = self._matcher.found(lines) if lines else []
        if found is None:
            raise _no_rate(
                self._pattern.pattern,
                f"it takes more than {MOST_CPU_S:g} s to look for it in {max(lines, key=len)[:_SHOWN]!r}",
                "write it without repetitions of repetitions: a+ for (a+)+",
            )
        for text in found:
            self._take(text, now)
        if lines and self._seen_at == now:
            trace.reach(now, self._count)

    def _take(self, text: str | None, now: float) -> None:
        if self._group == 0:
            self._count += 1
        else:
            try:
                value = float(text or "")
            except ValueError:
                return
            is_rate = self._group == "rate"
            if not (0.0 if is_rate else -LARGEST) <= value <= LARGEST:
                self.way = f"its output (passed over: {value:g}, which is no {'rate' if is_rate else 'step'})"
                return
            if not is_rate:
                self._count = value
            elif self._seen_at is not None:
                self._count += value * (now - self._seen_at)
        self._seen_at = now

    def _chunk(self) -> bytes:
        with contextlib.suppress(OSError):
            return os.read(self._ours, _CHUNK_BYTES)
        return b""


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression of `Output`.

    Raises:
        ProgrammeError: It is none, matches nothing at all, or leaves open which of its groups is meant.
    """
    try:
        found = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise _no_rate(pattern, str(error), "put it right, and quote it for the shell") from error
    if found.match("") is not None:
        raise _no_rate(pattern, "it matches where nothing is", "let it name what each step prints")
    if "rate" not in found.groupindex and found.groups > 1:
        raise _no_rate(pattern, f"it has {found.groups} groups", "write (?:...) for those that are not the step")
    return found


def _no_rate(pattern: str, why: str, todo: str) -> ProgrammeError:
    return ProgrammeError(
        given=f"the regular expression {pattern!r} ({why})",
        allowed="Python's, with no group, one group, or one named rate, such as 'step (\\d+)'",
        todo=todo,
    )


class Subject:
    """A programme and its trace, as a participant of `tandem.estimate.profiling.windows`.

    Attributes:
        name: the programme's.
        trace: its progress.
        source: how that is known.
    """

    def __init__(self, programme: Programme, source: Source, patience_s: float = PATIENCE_S) -> None:
        self.name = programme.name
        self.programme = programme
        self.source = source
        self.trace = Trace()
        self._patience_s = patience_s

    def start(self) -> None:
        """Start a run."""
        self.source.begin(self.programme)
        self.programme.start()
        if isinstance(self.source, Runs) and not len(self.trace):
            self.trace.add(SystemClock().now(), 0.0)

    def go(self) -> None:
        """Let it run on."""
        self.programme.go()

    def pause(self) -> None:
        """Stop it."""
        self.programme.pause()

    def read(self) -> None:
        """Notice progress and ends; a run that has ended well is followed by the next.

        Raises:
            ProgrammeError: It ended badly.
        """
        ended = self.programme.poll()
        if ended is None:
            self.source.read(self.programme, self.trace)
            return
        t, status = ended
        if status != 0:
            raise died(self.programme, status)
        self.source.finish(self.programme, self.trace, t)
        self.start()

    def waited_s(self) -> float:
        """Seconds that it was kept from its cores so far."""
        return self.programme.waited_s()

    def filenos(self) -> list[int]:
        """Descriptors that are readable when `read` is urgent."""
        own = self.programme.fileno()
        return [*self.source.filenos(), *([own] if own >= 0 else [])]

    def until_it_works(self, deadline: Deadline | None = None, look: Callable[[], None] | None = None) -> bool:
        """Wait until it has made progress in its present run, with nothing else going on; False: the deadline came.

        Args:
            deadline: wait no longer.
            look: called again and again meanwhile instead of `read`, which it does as well.

        Raises:
            ProgrammeError: It ended badly, or no progress was seen for too long.
        """
        known = len(self.trace)
        patience = Deadline.after(self._patience_s)
        while len(self.trace) < known + 2:
            if deadline is not None and not deadline.fits(POLL_S):
                return False
            if not patience.fits(0.0):
                raise silent(self.programme, self.source.way, self._patience_s)
            time.sleep(POLL_S)
            (look or self.read)()
        return True

    def step_s(self) -> float | None:
        """Typical time between two points while it runs, or None before there are any."""
        return self.trace.typical_gap()


def died(programme: Programme, status: int) -> ProgrammeError:
    """The error for a programme that ended badly."""
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return ProgrammeError(
        given=f"{programme.name} {how}; it last wrote: {programme.tail()}",
        allowed="a programme that runs well",
        todo="run it by hand with the same arguments and put that right first",
    )


def too_fast(name: str, what: str) -> ProgrammeError:
    """The error for a programme that writes records, or output, without end."""
    return ProgrammeError(
        given=f"{name} writes {what} faster than {'it' if what == 'output' else 'they'} can be read",
        allowed="some ten thousand steps a second, and pauses in which what was written is read",
        todo="let it tell only every N-th step: a hundred a second are plenty",
    )


def silent(programme: Programme, way: str, patience_s: float) -> ProgrammeError:
    """The error for a programme of which nothing is heard."""
    return ProgrammeError(
        given=f"{programme.name} made no progress in {patience_s:g} s, by {way}; it last wrote: {programme.tail()}",
        allowed="run records with a step, output that --rate matches, or a run that ends within that time",
        todo="let it write records (tandem.core.records), give --rate REGEX, or profile a shorter run of it",
    )
