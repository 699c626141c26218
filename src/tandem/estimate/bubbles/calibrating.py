"""Calibrate the bubbles of this machine: each beside its own reporter, in short interleaved windows.

The machine is taken to be noisy: every window beside a bubble stands between two windows alone, the slowdown is taken
against their mean, a level's slowdown is the median over rounds, and the curve is made to ascend. On one core only
"cpu" can be measured, since reporter and bubble need different cores for anything else.
"""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from tandem.core import machine
from tandem.estimate.bubbles.bubble import Bubble
from tandem.estimate.bubbles.calibration import Calibration, Response
from tandem.estimate.bubbles.isotonic import ascending
from tandem.estimate.bubbles.process import BubbleError
from tandem.estimate.bubbles.reporter import Reporter
from tandem.estimate.profile import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LEVELS = (0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 0.9, 1.0)
"""Raw levels that are measured."""

_ROUNDS = 3
_ALONE_S = 0.05
_BESIDE_S = 0.08
_SETTLE_S = 0.015  # caches fill, queues drain
_STALLED = 1000.0  # slowdown taken for a window in which not one operation was done


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
                responses[kind] = respond(reporter, bubble, LEVELS)
        except BubbleError as error:
            if not kind.startswith("fs_"):
                raise
            lacking[kind] = error.given  # a folder that is full or cannot be written
    fingerprint = machine.discover().fingerprint
    return Calibration(fingerprint, cores, responses, lacking, time.time(), time.monotonic() - began)


def respond(reporter: Reporter, bubble: Bubble, levels: Sequence[float], *, rounds: int = _ROUNDS) -> Response:
    """Measure the reporter's slowdown beside the bubble at each of the ``levels``, of which the first is 0."""
    reporter.go()
    alone = [_window(reporter, bubble, 0.0, _ALONE_S)]
    found: dict[float, list[float]] = {level: [] for level in levels[1:]}
    for turn in range(rounds):
        for level in levels[1:] if turn % 2 == 0 else levels[:0:-1]:  # up and down: a drift evens out
            beside = _window(reporter, bubble, level, _BESIDE_S)
            alone.append(_window(reporter, bubble, 0.0, _ALONE_S))
            found[level].append((alone[-2] + alone[-1]) / 2 / beside if beside > 0 else _STALLED)
    reporter.pause()
    return Response(tuple(levels), monotone([statistics.median(found[level]) for level in levels[1:]]), noise(alone))


def monotone(slowdowns: Sequence[float]) -> tuple[float, ...]:
    """Return a response's slowdowns: 1 at level 0, then ``slowdowns`` made to ascend and never below 1."""
    return (1.0, *(max(1.0, value) for value in ascending(slowdowns)))


def noise(alone: Sequence[float]) -> float:
    """Half of what nine in ten pairs of neighbouring windows alone differ by, relative."""
    differences = sorted(abs(b / a - 1.0) for a, b in pairwise(alone) if a > 0)
    return differences[min(len(differences) - 1, int(0.9 * len(differences)))] / 2 if differences else 0.0


def _window(reporter: Reporter, bubble: Bubble, level: float, seconds: float) -> float:
    bubble.set(level)
    time.sleep(_SETTLE_S)
    return reporter.rate(seconds)
