"""The look that all pictures share: font, margins, axes, the time axis, notes inside a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from tandem.report import palette
from tandem.report.formats import plot_text

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
FONT_PX = 13
SMALL_PX = 11.5

_AXIS: Mapping[str, Any] = {
    "showline": False,
    "zeroline": False,
    "gridcolor": palette.GRID,
    "tickfont": {"size": SMALL_PX, "color": palette.MUTED},
    "title": {"font": {"size": 12, "color": palette.MUTED}, "standoff": 8},
    "ticks": "",
    "automargin": True,
    "exponentformat": "none",
    "separatethousands": True,
}


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """A unit in which a stretch of time is read easily."""

    name: str
    seconds: float

    @property
    def title(self) -> str:
        """The title of a time axis in this unit."""
        return f"time ({self.name})"


def time_unit(span_s: float) -> TimeUnit:
    """Choose the unit for a stretch of `span_s` seconds.

    >>> time_unit(140).name, time_unit(2000).name, time_unit(30000).name, time_unit(9e6).name
    ('s', 'min', 'h', 'days')
    """
    for unit, below_s in (
        (TimeUnit("s", 1), 400),
        (TimeUnit("min", 60), 3 * 3600),
        (TimeUnit("h", 3600), 4 * 86400),
    ):
        if span_s < below_s:
            return unit
    return TimeUnit("days", 86400)


def dress(plot: go.Figure, height_px: float) -> go.Figure:
    """Give a finished figure the shared look; axes keep what they set themselves.

    Args:
        plot: The figure, changed in place.
        height_px: Its height; its width is the page's.

    Returns:
        The same figure.
    """
    plot.update_layout(
        template=go.layout.Template(layout={"xaxis": _AXIS, "yaxis": _AXIS}),
        height=round(height_px),
        autosize=True,
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": FONT_PX, "color": palette.INK},
        hoverlabel={
            "bgcolor": palette.SURFACE,
            "bordercolor": palette.MUTED,
            "font": {"family": FONT, "size": 12.5, "color": palette.INK},
            "align": "left",
        },
        dragmode="zoom",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": palette.MUTED, "activecolor": palette.INK},
        bargap=0,
    )
    return plot


def margins(plot: go.Figure, *, left: int = 10, right: int = 16, top: int = 10, bottom: int = 44) -> None:
    """Set the margins in pixels; axes widen them where their labels need it."""
    plot.update_layout(margin={"l": left, "r": right, "t": top, "b": bottom, "pad": 4})


def nothing_to_show(sentence: str) -> go.Figure:
    """Return a small picture that says why there is none."""
    plot = go.Figure()
    plot.add_annotation(
        text=plot_text(sentence),
        showarrow=False,
        x=0.5,
        y=0.5,
        xref="paper",
        yref="paper",
        font={"color": palette.MUTED, "size": FONT_PX},
    )
    plot.update_xaxes(visible=False)
    plot.update_yaxes(visible=False)
    margins(plot, top=4, bottom=4)
    return dress(plot, 64)
