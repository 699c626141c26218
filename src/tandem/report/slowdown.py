"""How much applications slow each other down, and how well that was foreseen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from tandem.report import palette
from tandem.report.blocks import Fact, Figure, Key
from tandem.report.chart import SMALL_PX, dress, margins, nothing_to_show
from tandem.report.formats import plot_text, show

_CELL_PX = 38
_NUMBERED_APPS = 16
_BAND = 0.10


@dataclass(frozen=True, slots=True)
class PairSlowdown:
    """How much longer `app` runs beside `beside` than alone.

    Attributes:
        app: The application that is slowed down.
        beside: Its neighbour.
        slowdown: Run time beside it over run time alone.
        observations: How many co-runs it rests on.
        low: Lower bound of its 90 % interval, or None.
        high: Upper bound, or None.
    """

    app: str
    beside: str
    slowdown: float
    observations: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A slowdown as it was predicted and as it came; `label` says of whom beside whom."""

    label: str
    predicted: float
    actual: float

    @property
    def within_band(self) -> bool:
        """Whether the prediction is within 10 % of what came."""
        return abs(self.predicted - self.actual) <= _BAND * self.actual * (1 + 1e-12)


def slowdown_map(pairs: Sequence[PairSlowdown], title: str = "Who slows whom", *, caption: str = "") -> Figure:
    """Draw a heat map: a row for each application, a column for each neighbour; unobserved pairs stay empty.

    Args:
        pairs: At most one per (app, beside).
        title: Heading.
        caption: How to read it.

    Returns:
        The picture.

    Raises:
        ValueError: A pair is given twice.
    """
    known = {(pair.app, pair.beside): pair for pair in pairs}
    if len(known) != len(pairs):
        message = "a pair is given twice; pool its observations first"
        raise ValueError(message)
    if not known:
        return Figure(nothing_to_show("No two applications were observed together yet."), title, caption)
    apps = sorted({name for pair in known for name in pair})
    worst = max(pair.slowdown for pair in pairs)
    numbered = len(apps) <= _NUMBERED_APPS
    cells = [[known.get((app, beside)) for beside in apps] for app in apps]
    plot = go.Figure(_heat(cells, max(1.5, worst), numbered=numbered))
    ticks = {
        "tickvals": list(range(len(apps))),
        "ticktext": [plot_text(app, 18) for app in apps],
        "tickfont": {"color": palette.INK, "size": SMALL_PX},
        "showgrid": False,
        "fixedrange": True,
    }
    plot.update_xaxes(**ticks, title_text="beside", tickangle=-35 if len(apps) > 5 else 0)
    plot.update_yaxes(**ticks, title_text="slowed down", range=[len(apps) - 0.5, -0.5])
    margins(plot)
    return Figure(dress(plot, 130 + _cell_px(len(apps)) * len(apps)), title, caption)


def prediction_fact(predictions: Sequence[Prediction]) -> Fact:
    """Return the share of predictions within 10 % as a big number, with the median error as its note."""
    if not predictions:
        return Fact("predicted within 10 %", None, note="nothing to compare yet")
    errors = sorted(abs(p.predicted / p.actual - 1) for p in predictions)
    half = len(errors) // 2
    median = errors[half] if len(errors) % 2 else (errors[half - 1] + errors[half]) / 2
    share = sum(p.within_band for p in predictions) / len(predictions)
    return Fact(
        "predicted within 10 %",
        share,
        "percent",
        note=f"of {len(errors)}; median error {show(median, 'percent', 1)}",
    )


def prediction_picture(
    predictions: Sequence[Prediction], title: str = "Slowdown, predicted and actual", *, caption: str = ""
) -> Figure:
    """Draw predicted over actual slowdown with the diagonal and a band of 10 %; the worst misses are named.

    Args:
        predictions: The points; slowdowns are ratios above 0.
        title: Heading.
        caption: How to read it.

    Returns:
        The picture.
    """
    if not predictions:
        return Figure(nothing_to_show("Nothing was predicted and measured yet."), title, caption)
    values = [value for p in predictions for value in (p.predicted, p.actual)]
    low, high = min(1.0, *values) - 0.04, max(1.2, *values) * 1.06
    plot = go.Figure()
    _draw_band(plot, low, high)
    _draw_points(plot, [p for p in predictions if p.within_band], palette.BLUE, "circle")
    _draw_points(plot, [p for p in predictions if not p.within_band], palette.BAD, "diamond")
    for miss in _worst_apart([p for p in predictions if not p.within_band], high - low):
        right_half = miss.actual > (low + high) / 2
        plot.add_annotation(
            x=miss.actual,
            y=miss.predicted,
            text=plot_text(miss.label, 30),
            showarrow=False,
            xanchor="right" if right_half else "left",
            xshift=-8 if right_half else 8,
            font={"size": SMALL_PX},
        )
    plot.update_xaxes(range=[low, high], ticksuffix="x", title_text="actual slowdown", nticks=8)
    plot.update_yaxes(range=[low, high], ticksuffix="x", title_text="predicted slowdown", nticks=8)
    margins(plot)
    inside_count = sum(p.within_band for p in predictions)
    keys = (
        Key(f"within 10 % ({inside_count})", palette.BLUE, "dot"),
        Key(f"further off ({len(predictions) - inside_count})", palette.BAD, "dot"),
    )
    shown = keys if inside_count < len(predictions) else keys[:1]
    return Figure(dress(plot, 440), title, caption, shown, half=True)


def _heat(cells: Sequence[Sequence[PairSlowdown | None]], worst: float, *, numbered: bool) -> go.Heatmap:
    return go.Heatmap(
        z=[[pair.slowdown if pair else None for pair in row] for row in cells],
        x=list(range(len(cells))),
        y=list(range(len(cells))),
        zmin=1.0,
        zmax=worst,
        colorscale=[[i / (len(palette.HEAT) - 1), colour] for i, colour in enumerate(palette.HEAT)],
        xgap=2,
        ygap=2,
        text=[[f"{pair.slowdown:.2f}" if pair and numbered else "" for pair in row] for row in cells],
        texttemplate="%{text}",
        textfont={"size": SMALL_PX},
        customdata=[[_hover(pair) if pair else "" for pair in row] for row in cells],
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        colorbar={
            "title": {"text": "slowdown", "font": {"size": SMALL_PX}, "side": "top"},
            "thickness": 10,
            "outlinewidth": 0,
            "ticksuffix": "x",
            "tickfont": {"size": SMALL_PX, "color": palette.MUTED},
        },
    )


def _draw_band(plot: go.Figure, low: float, high: float) -> None:
    below, above = 1 - _BAND, 1 + _BAND
    corners = ((low, low * below), (high, high * below), (high, high * above), (low, low * above))
    path = "M" + " L".join(f"{x},{y}" for x, y in corners) + " Z"
    fill = palette.faded(palette.BLUE, 0.12)
    plot.add_shape(type="path", path=path, fillcolor=fill, line={"width": 0}, layer="below")
    line = {"color": palette.MUTED, "width": 1, "dash": "dot"}
    plot.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, layer="below", line=line)


def _draw_points(plot: go.Figure, chosen: Sequence[Prediction], colour: str, symbol: str) -> None:
    plot.add_trace(
        go.Scatter(
            x=[p.actual for p in chosen],
            y=[p.predicted for p in chosen],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.85},
            customdata=[
                f"<b>{plot_text(p.label)}</b><br>predicted {p.predicted:.2f}x, actual {p.actual:.2f}x" for p in chosen
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )


def _cell_px(apps: int) -> float:
    return _CELL_PX if apps <= _NUMBERED_APPS else max(8.0, 620 / apps)


def _hover(pair: PairSlowdown) -> str:
    interval = "" if pair.low is None or pair.high is None else f" ({pair.low:.2f} to {pair.high:.2f})"
    plural = "" if pair.observations == 1 else "s"
    return (
        f"<b>{plot_text(pair.app)}</b> beside <b>{plot_text(pair.beside)}</b><br>"
        f"{pair.slowdown:.2f}x{interval}, {pair.observations} observation{plural}"
    )


def _worst_apart(misses: Sequence[Prediction], span: float, most: int = 4) -> list[Prediction]:
    """Choose the worst misses whose names do not run into each other."""
    chosen: list[Prediction] = []
    for miss in sorted(misses, key=lambda p: -abs(math.log(p.predicted / p.actual))):
        apart = all(
            abs(miss.predicted - c.predicted) > 0.05 * span or abs(miss.actual - c.actual) > 0.45 * span for c in chosen
        )
        if apart and len(chosen) < most:
            chosen.append(miss)
    return chosen
