"""Antagonists with a dial, reporters that feel them, and the calibration that makes one the other's unit.

    with Bubble("membw_read", cores=(1,), calibration=calibration) as bubble, Reporter("cache", cores=(0,)) as reporter:
        alone = reporter.rate(0.2)
        bubble.set(0.5)
        beside = reporter.rate(0.2)

Each is a small native process of its own (`bubble.cpp`, kernels in `native/`, one family a file), pinned to cores, gone
with whoever started it, `kill -9` included. What each kind does, in which units and within which limits, is in
docs/reference/bubbles.md; bubbles of a GPU are in `tandem.estimate.bubbles.gpu`.
"""

from tandem.estimate.bubbles.bubble import Bubble
from tandem.estimate.bubbles.calibrating import calibrate, with_gpu
from tandem.estimate.bubbles.calibration import Calibration, Response, describe
from tandem.estimate.bubbles.gpu import GpuBubble, GpuReporter
from tandem.estimate.bubbles.keeping import anew, cached, kept, load, save, why_not
from tandem.estimate.bubbles.process import BubbleError, BubbleMissingError
from tandem.estimate.bubbles.reporter import Reporter

__all__ = [
    "Bubble",
    "BubbleError",
    "BubbleMissingError",
    "Calibration",
    "GpuBubble",
    "GpuReporter",
    "Reporter",
    "Response",
    "anew",
    "cached",
    "calibrate",
    "describe",
    "kept",
    "load",
    "save",
    "why_not",
    "with_gpu",
]
