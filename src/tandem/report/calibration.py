"""How often a claimed probability was kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from tandem.report import palette
from tandem.report.blocks import Figure
from tandem.report.chart import SMALL_PX, dress, margins, nothing_to_show
from tandem.report.formats import show


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of `asked` intervals that claimed to hold with probability `claimed`, `held` did.

    Raises:
        ValueError: More held than were asked.
    """

    claimed: float
    held: int
    asked: int

    def __post_init__(self) -> None:
        """Refuse impossible counts."""
        if not 0 <= self.held <= self.asked:
            message = f"{self.held} of {self.asked} intervals cannot have held"
            raise ValueError(message)


def calibration_picture(
    points: Sequence[Calibration], title: str = "Claimed against observed", *, caption: str = ""
) -> Figure:
    """Draw observed over claimed coverage with 95 % Wilson intervals; on the diagonal the claims are true.

    Args:
        points: One per claimed probability; those nobody asked for are left out.
        title: Heading.
        caption: How to read it.

    Returns:
        The picture.
    """
    asked = sorted((point for point in points if point.asked), key=lambda point: point.claimed)
    if not asked:
        return Figure(nothing_to_show("No interval has been put to the test."), title, caption)
    observed = [point.held / point.asked for point in asked]
    ranges = [wilson(point.held, point.asked) for point in asked]
    plot = go.Figure()
    plot.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line={"color": palette.MUTED, "width": 1, "dash": "dot"})
    plot.add_trace(
        go.Scatter(
            x=[point.claimed for point in asked],
            y=observed,
            mode="lines+markers",
            line={"color": palette.BLUE, "width": 2},
            marker={"color": palette.BLUE, "size": 9},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [high - y for (_, high), y in zip(ranges, observed, strict=True)],
                "arrayminus": [y - low for (low, _), y in zip(ranges, observed, strict=True)],
                "color": palette.BLUE,
                "thickness": 1.2,
                "width": 4,
            },
            customdata=[_hover(p, r) for p, r in zip(asked, ranges, strict=True)],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    plot.add_annotation(
        x=0.14, y=0.14, text="as claimed", showarrow=False, xanchor="left", yanchor="top", xshift=6,
        font={"color": palette.MUTED, "size": SMALL_PX},
    )  # fmt: skip
    plot.update_xaxes(range=[0, 1.02], tickformat=".0%", title_text="claimed probability")
    plot.update_yaxes(range=[0, 1.04], tickformat=".0%", title_text="share that held")
    margins(plot)
    return Figure(dress(plot, 380), title, caption, half=True)


def wilson(held: int, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share (E. B. Wilson, 1927).

    Args:
        held: Successes.
        asked: Trials, at least 1.
        z: Quantile of the normal distribution; 1.96 makes it a 95 % interval.

    Returns:
        The lower and the upper bound, in [0, 1] and around `held / asked`.
    """
    share = held / asked
    scale = 1 + z * z / asked
    middle = (share + z * z / (2 * asked)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _hover(point: Calibration, interval: tuple[float, float]) -> str:
    low, high = (show(share, "percent") for share in interval)
    claimed, observed = show(point.claimed, "percent"), show(point.held / point.asked, "percent")
    counts = f"{point.held} of {point.asked} held, 95 % interval {low} to {high}"
    return f"claimed {claimed}, observed {observed}<br>{counts}"
