"""Calibrate the bubbles of this machine: each beside its own reporter, in short interleaved windows.

The machine is taken to be noisy, in bursts: many short windows, every one beside a bubble between two alone; the
slowdown is taken against their mean, a level's slowdown is the median over rounds, and the curve is made to ascend. On
one core only "cpu" can be measured, since reporter and bubble need different cores for anything else.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tandem.core import machine
from tandem.estimate.bubbles.bubble import Bubble
from tandem.estimate.bubbles.calibration import Calibration, Response
from tandem.estimate.bubbles.gpu import GpuBubble, GpuReporter
from tandem.estimate.bubbles.gpu import lacking as lacking_gpu
from tandem.estimate.bubbles.isotonic import ascending
from tandem.estimate.bubbles.process import BubbleError
from tandem.estimate.bubbles.reporter import Reporter
from tandem.estimate.profile import GPU_KINDS, KINDS
from tandem.estimate.profiling.ratios import scatter_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEVELS = (0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 0.9, 1.0)
"""Raw levels that are measured."""

_ROUNDS, _GPU_ROUNDS = 8, 5
_FEWEST_ROUNDS = 3
_MOST_S = 3.6  # of a kind, before its rounds are cut short: eight take 3 s where nobody else is
_STALLED = 1000.0  # slowdown or scatter taken for windows in which not one operation was done
_SHARED = (
    "cpu",
    "fs_read",
    "fs_write",
)  # kinds whose bubble waits for the reporter, for itself or for the kernel's own


@dataclass(frozen=True, slots=True)
class Spans:
    """How long the windows of a calibration are, in seconds.

    Attributes:
        alone_s: of the reporter alone.
        beside_s: of it beside the bubble.
        settle_s: what passes before each window: caches fill, queues drain.
    """

    alone_s: float
    beside_s: float
    settle_s: float


SPANS = Spans(0.015, 0.025, 0.005)
GPU_SPANS = Spans(0.03, 0.05, 0.015)
"""Time slices of a GPU, and what is under way when the dial is turned, take some milliseconds."""


class Feels(Protocol):
    """A reporter: `Reporter` or `GpuReporter`."""

    def go(self) -> None:
        """Work."""

    def pause(self) -> None:
        """Sleep."""

    def rate(self, seconds: float) -> float:
        """Operations per second over the next `seconds`."""

    def waited_s(self) -> float:
        """Seconds so far in which somebody else had its cores."""


class Presses(Protocol):
    """A bubble: `Bubble` or `GpuBubble`."""

    def set(self, level: float) -> None:
        """Turn the dial."""

    def waited_s(self) -> float:
        """Seconds so far in which somebody else had its cores."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What the windows of one kind say.

    Attributes:
        slowdowns: level -> slowdown of the reporter beside the bubble, in each round.
        alone: its operations per second in each window alone.
        waited: part of the windows alone in which others kept it from its core. The kernel counts a wait when it is
            over, so that one which began before its window may make this more than 1.
        bubble_waited: part of the windows beside in which somebody kept the bubble's threads from theirs, all added.
    """

    slowdowns: Mapping[float, Sequence[float]]
    alone: Sequence[float]
    waited: float
    bubble_waited: float


def calibrate(
    *, cores: tuple[int, ...], folder: Path | None, progress: Callable[[str], None] | None = None
) -> Calibration:
    """Measure every kind on these cores, in less than 30 s.

    Args:
        cores: The reporter runs on the first, a bubble on the others ("cpu" on the first, which it is about).
        folder: Where the kinds that use a disk do; None takes the temporary folder.
        progress: Told a line before each kind.

    Raises:
        BubbleError: No cores, or cores that this process may not use.
        BubbleMissingError: The native part was not built.
    """
    began = time.monotonic()
    responses: dict[str, Response] = {}
    lacking: dict[str, str] = {}
    for kind in KINDS:
        if kind != "cpu" and len(cores) < 2:
            lacking[kind] = "it needs two cores, one for the reporter and one for the bubble"
            continue
        if progress is not None:
            progress(f"calibrating {kind}")
        beside = cores[:1] if kind == "cpu" else cores[1:]
        try:
            with (
                Reporter(kind, cores=cores[:1], folder=folder) as reporter,
                Bubble(kind, cores=beside, folder=folder) as bubble,
            ):
                own = 0 if kind in _SHARED else len(beside)
                responses[kind] = respond(reporter, bubble, LEVELS, own=own, most_s=_MOST_S)
        except BubbleError as error:
            if not kind.startswith("fs_"):
                raise
            lacking[kind] = error.given  # a folder that is full or cannot be written
    fingerprint = machine.discover().fingerprint
    return Calibration(fingerprint, cores, responses, lacking, time.time(), time.monotonic() - began)


def with_gpu(
    known: Calibration, device: int = 0, *, progress: Callable[[str], None] | None = None, rounds: int = _GPU_ROUNDS
) -> Calibration:
    """Add the kinds of a GPU to a calibration, in less than 30 s; `lacking` says why where there can be none.

    Raises:
        BubbleError: A bubble did not come up.
    """
    began = time.monotonic()
    if (why := lacking_gpu(device)) is not None:
        return replace(known, lacking={**known.lacking, **dict.fromkeys(GPU_KINDS, why)})
    responses = dict(known.responses)
    with ExitStack() as stack:
        pairs = {
            kind: (stack.enter_context(GpuReporter(kind, device)), stack.enter_context(GpuBubble(kind, device)))
            for kind in GPU_KINDS
        }
        for reporter, bubble in pairs.values():
            reporter.wait_ready()
            bubble.wait_ready()
        for kind, (reporter, bubble) in pairs.items():
            if progress is not None:
                progress(f"calibrating {kind}")
            responses[kind] = respond(reporter, bubble, LEVELS, rounds=rounds, spans=GPU_SPANS)
    left = {kind: why for kind, why in known.lacking.items() if kind not in responses}
    cost_s = known.cost_s + time.monotonic() - began
    return replace(known, responses=responses, lacking=left, cost_s=cost_s)


def respond(
    reporter: Feels,
    bubble: Presses,
    levels: Sequence[float],
    *,
    rounds: int = _ROUNDS,
    spans: Spans = SPANS,
    own: int = 0,
    most_s: float = math.inf,
) -> Response:
    """Measure the reporter's response to the bubble at the ``levels``, from 0 to 1.

    Args:
        reporter: feels; paused.
        bubble: presses; at 0.
        levels: raw ones.
        rounds: how often each level is tried.
        spans: how long windows are.
        own: cores that the bubble has a thread on each of and shares with nobody, so that whatever it waits, others
            had them; 0 leaves its waiting out.
        most_s: see `taken`.
    """
    found = taken(reporter, bubble, levels[1:], rounds=rounds, spans=spans, most_s=most_s)
    medians = [statistics.median(found.slowdowns[level]) for level in levels[1:]]
    waited = min(1.0, max(found.waited, found.bubble_waited / own if own else 0.0))
    return Response(
        tuple(levels),
        monotone(levels, medians),
        noise(found.slowdowns),
        scatter=round(min(_STALLED, scatter_of(found.alone)), 4),
        waited=round(waited, 4),
    )


def slowdowns(
    reporter: Feels, bubble: Presses, levels: Sequence[float], *, rounds: int = _ROUNDS, spans: Spans = SPANS
) -> dict[float, list[float]]:
    """Return the reporter's slowdown beside the bubble in each round, for each of the ``levels``."""
    return {
        level: list(rounds)
        for level, rounds in taken(reporter, bubble, levels, rounds=rounds, spans=spans).slowdowns.items()
    }


def taken(
    reporter: Feels,
    bubble: Presses,
    levels: Sequence[float],
    *,
    rounds: int = _ROUNDS,
    spans: Spans = SPANS,
    most_s: float = math.inf,
) -> Taken:
    """Take the windows: the reporter alone, beside the bubble at each of the ``levels``, and alone after each.

    On a busy machine that takes longer: after ``most_s`` seconds no round is begun, but for the first three.
    """

    def window(level: float, seconds: float) -> tuple[float, float]:
        """The reporter's rate, and what was waited meanwhile: by the reporter alone, by the bubble where it presses."""
        bubble.set(level)
        time.sleep(spans.settle_s)
        waits = bubble.waited_s if level else reporter.waited_s
        waited_s, began = waits(), time.monotonic()
        rate = reporter.rate(seconds)
        return rate, (waits() - waited_s) / (time.monotonic() - began)

    begun = time.monotonic()
    reporter.go()
    before, waited = window(0.0, spans.alone_s)
    alone, waits, bubble_waits = [before], [waited], []
    found: dict[float, list[float]] = {level: [] for level in levels}
    for turn in range(rounds):
        if turn >= _FEWEST_ROUNDS and time.monotonic() - begun > most_s:
            break
        for level in levels if turn % 2 == 0 else levels[::-1]:  # up and down: a drift evens out
            beside, bubble_waited = window(level, spans.beside_s)
            after, waited = window(0.0, spans.alone_s)
            found[level].append((before + after) / 2 / beside if beside > 0 else _STALLED)
            before = after
            alone.append(after)
            waits.append(waited)
            bubble_waits.append(bubble_waited)
    reporter.pause()
    return Taken(found, alone, statistics.fmean(waits), statistics.fmean(bubble_waits))


def monotone(levels: Sequence[float], measured: Sequence[float]) -> tuple[float, ...]:
    """Return a slowdown for each level: 1 at level 0, never descending.

    Levels that isotonic regression cannot tell apart count as one measurement at the middle of them (the last ones: at
    level 1), and straight lines join these: a burst of noise becomes a slope, not a step that the dial could not use.

    Args:
        levels: from 0 to 1.
        measured: the slowdown at each level but the first.
    """
    knots = [(0.0, 1.0)]
    pairs = zip(levels[1:], ascending(measured), strict=True)
    for value, pool in groupby(pairs, key=lambda pair: pair[1]):
        knots.append((statistics.fmean(level for level, _ in pool), max(1.0, value)))
    knots[-1] = (1.0, knots[-1][1])
    at, values = [level for level, _ in knots], [value for _, value in knots]
    return tuple(float(value) for value in np.interp(list(levels), at, values))


def noise(found: Mapping[float, Sequence[float]]) -> float:
    """Half-width of the 90 % interval of a level's median slowdown, relative; the median over levels.

    From the median absolute deviation over rounds, by the normal distribution's factors: 1.4826 to its standard
    deviation, 1.2533 / sqrt(rounds) to that of a median, 1.645 to the interval.
    """
    widths = []
    for rounds in found.values():
        middle = statistics.median(rounds)
        deviation = statistics.median(abs(one - middle) for one in rounds)
        widths.append(1.645 * 1.2533 * 1.4826 * deviation / middle / math.sqrt(len(rounds)))
    return statistics.median(widths)
