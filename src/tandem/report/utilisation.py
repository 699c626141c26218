"""How busy the machine was: CPU, GPU and queue length over time, as steps.

Above 2,000 steps a curve is drawn as means over equal stretches of time, so that the area under it
(core-hours, waiting time) stays what it was; the true peak is written into the picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from tandem.core.units import human_duration
from tandem.report import palette
from tandem.report.blocks import Figure
from tandem.report.chart import SMALL_PX, TimeUnit, dress, margins, nothing_to_show, time_unit
from tandem.report.formats import plot_text, show

MAX_POINTS = 2_000
_PANEL_PX = 112
_GAP_PX = 34
_TOP_PX = 26
_BOTTOM_PX = 46


@dataclass(frozen=True, slots=True)
class Steps:
    """A quantity that holds `values[i]` from `times_s[i]` until the next time; the last value only ends it.

    Raises:
        ValueError: Different lengths, times that go back, or a number that is not finite.
    """

    times_s: Sequence[float]
    values: Sequence[float]

    def __post_init__(self) -> None:
        """Refuse what is no step curve."""
        times, values = np.asarray(self.times_s, float), np.asarray(self.values, float)
        if times.shape != values.shape or times.ndim != 1:
            message = f"{times.shape} times do not go with {values.shape} values"
            raise ValueError(message)
        if not (np.isfinite(times).all() and np.isfinite(values).all() and (np.diff(times) >= 0).all()):
            message = "times must be finite and must not go back, values must be finite"
            raise ValueError(message)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.times_s)

    @property
    def area(self) -> float:
        """The integral over time, in the value's unit times seconds."""
        return float(np.dot(np.diff(np.asarray(self.times_s, float)), np.asarray(self.values, float)[:-1]))

    @property
    def mean(self) -> float:
        """The mean over time; the last value where no time passes."""
        span_s = self.times_s[-1] - self.times_s[0]
        return self.area / span_s if span_s > 0 else float(self.values[-1])


@dataclass(frozen=True, slots=True)
class Panel:
    """One curve with its own axis.

    Attributes:
        label: What it shows ("CPU, hybrid").
        steps: The curve; fractions for `cpu` and `gpu`, a count for `queue`.
        kind: Decides colour and axis.
    """

    label: str
    steps: Steps
    kind: Literal["cpu", "gpu", "queue"] = "cpu"


_COLOURS = {"cpu": palette.BLUE, "gpu": palette.GREEN, "queue": palette.ORANGE}


def thinned(steps: Steps, max_points: int = MAX_POINTS) -> Steps:
    """Return the curve with at most `max_points` steps and the same area.

    Args:
        steps: The curve.
        max_points: At least 2.

    Returns:
        The curve itself where it is short enough; otherwise its means over equal stretches.
    """
    if len(steps) <= max_points:
        return steps
    times, values = np.asarray(steps.times_s, float), np.asarray(steps.values, float)
    if times[0] == times[-1]:
        return Steps([float(times[-1])], [float(values[-1])])
    edges = np.linspace(times[0], times[-1], max_points)
    integral = np.concatenate([[0.0], np.cumsum(np.diff(times) * values[:-1])])
    keep = np.append(np.diff(times) > 0, True)  # of several steps at one time only the last lasts
    means = np.diff(np.interp(edges, times[keep], integral[keep])) / np.diff(edges)
    return Steps(edges.tolist(), [*means.tolist(), float(values[-1])])


def utilisation(panels: Sequence[Panel], title: str = "How busy the machine was", *, caption: str = "") -> Figure:
    """Draw the curves under each other on one time axis.

    Args:
        panels: From top to bottom; empty curves are left out.
        title: Heading.
        caption: How to read it.

    Returns:
        The picture.
    """
    shown = [panel for panel in panels if len(panel.steps)]
    if not shown:
        return Figure(nothing_to_show("Nothing was recorded."), title, caption)
    end_s = max(panel.steps.times_s[-1] for panel in shown)
    unit = time_unit(end_s)
    plot_px = len(shown) * (_PANEL_PX + _GAP_PX) - _GAP_PX + _TOP_PX
    plot = go.Figure()
    for index, panel in enumerate(shown):
        top_px = _TOP_PX + index * (_PANEL_PX + _GAP_PX)
        domain = (max(0.0, 1 - (top_px + _PANEL_PX) / plot_px), 1 - top_px / plot_px)
        _draw_panel(plot, index, panel, domain, unit)
    plot.update_layout(
        xaxis={
            "range": [
                min(0.0, min(p.steps.times_s[0] for p in shown) / unit.seconds),
                end_s / unit.seconds or 1,
            ],
            "title": {"text": unit.title},
            "anchor": "y" if len(shown) == 1 else f"y{len(shown)}",
        }
    )
    margins(plot, top=0, bottom=_BOTTOM_PX)
    return Figure(dress(plot, plot_px + _BOTTOM_PX), title, caption)


def _draw_panel(plot: go.Figure, index: int, panel: Panel, domain: tuple[float, float], unit: TimeUnit) -> None:
    suffix = "" if index == 0 else str(index + 1)
    steps, colour = thinned(panel.steps), _COLOURS[panel.kind]
    fraction = panel.kind != "queue"
    peak = max(panel.steps.values)
    plot.add_trace(
        go.Scatter(
            x=[t / unit.seconds for t in steps.times_s],
            y=list(steps.values),
            yaxis=f"y{suffix}",
            mode="lines" if len(steps) > 1 else "markers",
            line={"shape": "hv", "color": colour, "width": 1.4},
            fill="tozeroy",
            fillcolor=palette.faded(colour, 0.22),
            hovertemplate=f"%{{y:{'.0%' if fraction else ',.1~f'}}} at %{{x:.1f}} {unit.name}<extra></extra>",
        )
    )
    plot.update_layout(
        {
            f"yaxis{suffix}": {
                "domain": domain,
                "range": [0, max(1.02, peak * 1.05) if fraction else max(1.0, peak * 1.12)],
                "tickformat": ".0%" if fraction else "",
                "nticks": 4,
                "rangemode": "tozero",
                "fixedrange": True,
            }
        }
    )
    heading: dict[str, Any] = {"x": 0, "xanchor": "left", "text": f"<b>{plot_text(panel.label, 60)}</b>"}
    remark: dict[str, Any] = {"x": 1, "xanchor": "right", "text": _remark(panel, peak)}
    remark["font"] = {"color": palette.MUTED, "size": SMALL_PX}
    place = {"xref": "paper", "y": domain[1], "yref": "paper", "yanchor": "bottom", "yshift": 1}
    for note in (heading, remark):
        plot.add_annotation(note | place, showarrow=False)


def _remark(panel: Panel, peak: float) -> str:
    if panel.kind != "queue":
        return f"mean {show(panel.steps.mean, 'percent')}"
    at_s = panel.steps.times_s[list(panel.steps.values).index(peak)]
    mean = panel.steps.mean
    return f"mean {mean:.{0 if mean >= 10 else 1}f}, peak {math.ceil(peak):,} at {human_duration(at_s)}"
