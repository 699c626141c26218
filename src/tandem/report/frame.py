"""Where the parts of a Gantt picture go."""

from collections.abc import Sequence
from dataclasses import dataclass

from tandem.report.bars import width_px
from tandem.report.chart import TimeUnit

USUAL_PX = 1000
"""The width of the lanes on a laptop, by which it is judged what fits."""

MARK_PX = 16
"""The height of one level of names of moments."""

_HEADING_PX = 24
_DAY_GAP_PX = 14


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment worth a line ("node lost"), in seconds since the day began."""

    at_s: float
    label: str


@dataclass(frozen=True, slots=True)
class Frame:
    """Where things go: rows of lanes under each other, on one time axis.

    Attributes:
        lanes: From top to bottom.
        days: How many rows.
        span_s: What the time axis covers, from 0.
        unit: Its unit.
        levels: For each moment, how high its name stands above the first row.
    """

    lanes: tuple[str, ...]
    days: int
    span_s: float
    unit: TimeUnit
    levels: tuple[int, ...]

    @property
    def lanes_px(self) -> float:
        """The height of one row's lanes."""
        count = len(self.lanes)
        return count * (34 if count <= 8 else 24 if count <= 16 else max(7.0, 400 / count))

    @property
    def top_px(self) -> float:
        """The height of the names of the moments."""
        return (max(self.levels) + 1) * MARK_PX if self.levels else 0

    @property
    def plot_px(self) -> float:
        """The height of everything but the time axis."""
        return self.top_px + self.days * (_HEADING_PX + self.lanes_px + _DAY_GAP_PX) - _DAY_GAP_PX

    def domain(self, index: int) -> tuple[float, float]:
        """Return the vertical extent of one row, as shares of the plot."""
        top_px = self.top_px + index * (_HEADING_PX + self.lanes_px + _DAY_GAP_PX) + _HEADING_PX
        return max(0.0, 1 - (top_px + self.lanes_px) / self.plot_px), 1 - top_px / self.plot_px

    def axis(self, index: int) -> str:
        """Return Plotly's name for the lane axis of one row."""
        return "y" if index == 0 else f"y{index + 1}"


def levels_of(moments: Sequence[Mark], end_s: float) -> tuple[int, ...]:
    """Give each moment the lowest level on which its name is free of the others.

    The last comes first: names stand right of their lines, so that no later line crosses an earlier name.
    """
    taken: list[list[tuple[float, float]]] = []
    levels = []
    for moment in reversed(moments):
        at_px, half_px = moment.at_s / end_s * USUAL_PX, width_px(moment.label[:32]) + 8
        reach = (at_px - half_px, at_px + half_px)
        free = (i for i, row in enumerate(taken) if all(reach[0] > b or reach[1] < a for a, b in row))
        level = next(free, len(taken))
        if level == len(taken):
            taken.append([])
        taken[level].append(reach)
        levels.append(level)
    return tuple(reversed(levels))
