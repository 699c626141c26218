"""Co-execution time: when each of several applications ends that start together or one after another.

Slowdowns hold for a set; sets change as members come and go. So time is cut where somebody starts or ends: within a
piece the set is constant, each member's remaining work (in seconds alone) shrinks at the rate 1 / slowdown, and the
next piece begins with the first that ends or starts. With n members there are at most 2 n pieces, whatever they last.

    told = predict([Work(App("cg"), 60.0), Work(App("lu"), 90.0, start_s=10.0)], estimator, capacity)

Intervals: the same play with every slowdown at the lower and at the upper end of its 90 % interval. So errors are taken
to be fully correlated, over members and over time, as a model that is wrong about a resource is wrong about it for all
and for ever; were they independent, the intervals would be narrower. What a member's work alone is counts as known.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from tandem.core.errors import TandemError
from tandem.estimate.corun import App, Slowdown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tandem.estimate.corun import Capacity, Estimator, Words

_MID, _LOW, _HIGH = attrgetter("mid"), attrgetter("low"), attrgetter("high")


class WorkError(TandemError):
    """Work or a start that is no time."""


@dataclass(frozen=True, slots=True)
class Work:
    """One application and how much it has to do.

    Attributes:
        app: which application.
        alone_s: how long it would take alone.
        start_s: when it starts.
    """

    app: App
    alone_s: float
    start_s: float = 0.0


class Span(NamedTuple):
    """A time in seconds with its 90 % interval."""

    mid: float
    low: float
    high: float


class Course(NamedTuple):
    """How one member fares.

    Attributes:
        work: what was asked.
        together: its slowdown while all members of the question run.
        end_s: when it ends.
        took_s: from its start to its end.
        slowdown: ``took_s`` over its time alone; with the same interval.
        words: what contends for what, of the piece that costs it most; "" where nobody was beside it.
    """

    work: Work
    together: Slowdown
    end_s: Span
    took_s: Span
    slowdown: Span
    words: str | Words

    @property
    def why(self) -> str:
        """What contends for what, in words."""
        return str(self.words)


class Piece(NamedTuple):
    """A time in which the set is the same, in the middle scenario: members by index, and their slowdowns."""

    begin_s: float
    end_s: float
    members: tuple[int, ...]
    slowdowns: tuple[Slowdown, ...]


class Prediction(NamedTuple):
    """The answer: one course for each member, the pieces, and when the last one ends (0 for nobody)."""

    courses: tuple[Course, ...]
    pieces: tuple[Piece, ...]
    end_s: Span


def predict(works: Sequence[Work], estimator: Estimator, capacity: Capacity) -> Prediction:
    """When each of ``works`` ends on one node.

    Args:
        works: any number, none included; the same application may be there twice.
        estimator: what is believed of sets (`tandem.estimate.estimators.make`).
        capacity: the node.

    Raises:
        WorkError: work that is not above 0, or a start that is below, or either that is no finite number.
    """
    for work in works:
        _check(work)
    if not works:
        return Prediction((), (), Span(0.0, 0.0, 0.0))
    answers: dict[tuple[int, ...], tuple[Slowdown, ...]] = {}

    def ask(members: tuple[int, ...]) -> tuple[Slowdown, ...]:
        if members not in answers:
            answers[members] = estimator.predict(tuple([works[i].app for i in members]), capacity)
        return answers[members]

    coming = sorted(range(len(works)), key=lambda i: (-works[i].start_s, -i))
    pieces: list[Piece] = []
    ends = _play(works, coming[:], ask, _MID, pieces)
    lower = _play(works, coming[:], ask, _LOW)
    upper = _play(works, coming, ask, _HIGH)
    together = ask(tuple(range(len(works))))
    spans = [_span(*one) for one in zip(ends, lower, upper, strict=True)]
    courses = tuple(
        _course(i, work, slowdown, span, pieces)
        for i, (work, slowdown, span) in enumerate(zip(works, together, spans, strict=True))
    )
    last = _span(max(ends), max(span.low for span in spans), max(span.high for span in spans))
    return Prediction(courses, tuple(pieces), last)


def _play(
    works: Sequence[Work],
    coming: list[int],
    ask: Callable[[tuple[int, ...]], tuple[Slowdown, ...]],
    believed: Callable[[Slowdown], float],
    pieces: list[Piece] | None = None,
) -> list[float]:
    """Ends of all, if every slowdown is what ``believed`` takes it for; empties ``coming`` and fills ``pieces``."""
    left = [work.alone_s for work in works]
    ends = [math.inf] * len(works)
    running: list[int] = []
    now = 0.0
    while running or coming:
        if coming:
            if not running:
                now = max(now, works[coming[-1]].start_s)
            while coming and works[coming[-1]].start_s <= now:
                insort(running, coming.pop())
        members = tuple(running)
        slowdowns = ask(members)
        slow = [*map(believed, slowdowns)]
        ends_at = [now + left[i] * by for i, by in zip(members, slow, strict=True)]
        until = min(ends_at)
        if coming:
            until = min(until, works[coming[-1]].start_s)
        running = []
        for i, by, end in zip(members, slow, ends_at, strict=True):
            if end <= until:
                ends[i] = end
            else:
                left[i] = max(0.0, left[i] - (until - now) / by)
                running.append(i)
        if pieces is not None:
            pieces.append(Piece(now, until, members, slowdowns))
        now = until
    return ends


def _span(mid: float, low: float, high: float) -> Span:
    """In order: where a set is kinder than a smaller one, ends need not be ordered as slowdowns."""
    return Span(mid, min(low, mid, high), max(low, mid, high))


def _course(i: int, work: Work, together: Slowdown, end: Span, pieces: Sequence[Piece]) -> Course:
    took = Span(end.mid - work.start_s, end.low - work.start_s, end.high - work.start_s)
    slowdown = Span(took.mid / work.alone_s, took.low / work.alone_s, took.high / work.alone_s)
    worst = -1.0
    words: str | Words = ""
    for piece in pieces:
        if len(piece.members) > 1 and i in piece.members:
            one = piece.slowdowns[piece.members.index(i)]
            lost = (piece.end_s - piece.begin_s) * (1.0 - 1.0 / one.mid)
            if lost > worst:
                worst, words = lost, one.words
    return Course(work, together, end, took, slowdown, words)


def _check(work: Work) -> None:
    if not 0.0 < work.alone_s < math.inf:
        raise WorkError(
            given=f"{work.alone_s} s of work for {work.app.key!r}",
            allowed="a finite number of seconds above 0",
            todo="say how long it takes alone",
        )
    if not 0.0 <= work.start_s < math.inf:
        raise WorkError(
            given=f"a start at {work.start_s} s for {work.app.key!r}",
            allowed="a finite number of seconds, 0 or more",
            todo="count starts from the first",
        )
