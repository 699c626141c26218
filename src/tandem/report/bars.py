"""Stretches of jobs on lanes, and the blocks that they are drawn as."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ran", "throttled", "suspended"]

_LETTER_PX = 6.6
_PADDING_PX = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One stretch of one job on one lane.

    Attributes:
        lane: The core or GPU ("core 0").
        start_s: Begin, seconds since the day began.
        end_s: End, not before the begin; equal is allowed.
        label: What is written on it where it fits ("stencil #5").
        kind: Colour family: `primary`, `harvest`, `gpu`, or anything else.
        state: What the job did then.
        hover: Shown on pointing at it; several lines allowed.
        app: The application, which has one shade everywhere; empty takes the label.
        broken: Whether the job's bound was broken.
        short: What is written where the label does not fit ("#5").

    Raises:
        ValueError: The times are not finite, or the end lies before the begin.
    """

    lane: str
    start_s: float
    end_s: float
    label: str
    kind: str = "primary"
    state: State = "ran"
    hover: str = ""
    app: str = ""
    broken: bool = False
    short: str = ""

    def __post_init__(self) -> None:
        """Refuse times that cannot be drawn."""
        if not (math.isfinite(self.start_s) and math.isfinite(self.end_s) and self.start_s <= self.end_s):
            message = f"bar {self.label!r} on {self.lane!r} runs from {self.start_s} s to {self.end_s} s"
            raise ValueError(message)

    @property
    def shade(self) -> tuple[str, str]:
        """What decides its colour: the class of the job and its application."""
        return self.kind, self.app or self.label

    @property
    def length_s(self) -> float:
        """How long it lasts."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Block:
    """The stretch `bar` on `height` neighbouring lanes, of which `top` is the first (lane 0 is uppermost)."""

    bar: Bar
    top: int
    height: int

    @property
    def middle(self) -> float:
        """Its vertical centre, in lanes."""
        return self.top + (self.height - 1) / 2


def blocks(bars: Sequence[Bar], lanes: Sequence[str]) -> list[Block]:
    """Join the stretches of one job that lie on neighbouring lanes over the same time.

    Args:
        bars: Stretches, in any order; each lane is in `lanes`.
        lanes: From top to bottom.

    Returns:
        The blocks in drawing order: those with a broken bound last, so that nothing covers their outline.
    """
    places = {lane: index for index, lane in enumerate(lanes)}
    joined: list[Block] = []
    for bar in sorted(bars, key=lambda bar: (*_identity(bar), places[bar.lane])):
        last = joined[-1] if joined else None
        place = places[bar.lane]
        if last and _identity(last.bar) == _identity(bar) and place == last.top + last.height:
            joined[-1] = Block(last.bar, last.top, last.height + 1)
        else:
            joined.append(Block(bar, place, 1))
    return sorted(joined, key=lambda block: (block.bar.broken, block.bar.start_s, block.top))


def writings(joined: Sequence[Block], px_per_s: float) -> Mapping[Block, str]:
    """Choose what is written on each block, so that a job's name stands once, where it fits.

    Args:
        joined: The blocks.
        px_per_s: About how wide a second is drawn.

    Returns:
        The label, or its short form, or nothing; with a sign where the bound was broken.
    """
    chosen: dict[tuple[str, int, int], Block] = {}
    for block in joined:
        place = (block.bar.label, block.top, block.height)
        if place not in chosen or _prominence(block) > _prominence(chosen[place]):
            chosen[place] = block
    return {block: _fitting(block.bar, block.bar.length_s * px_per_s) for block in chosen.values()}


def width_px(text: str) -> float:
    """Estimate how wide a small label is drawn."""
    return len(text) * _LETTER_PX


def _fitting(bar: Bar, room_px: float) -> str:
    sign = " ▲" if bar.broken else ""
    for text in (bar.label + sign, bar.short + sign, sign.strip()):
        if width_px(text) + _PADDING_PX <= room_px:
            return text
    return ""


def _prominence(block: Block) -> tuple[bool, float]:
    return block.bar.state != "suspended", block.bar.length_s


def _identity(bar: Bar) -> tuple[float, float, str, str, str, tuple[str, str], bool, str]:
    return bar.start_s, bar.end_s, bar.label, bar.hover, bar.state, bar.shade, bar.broken, bar.short
