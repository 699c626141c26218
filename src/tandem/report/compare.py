"""Policies side by side: small multiples of bars, one panel per metric, and the same figures as a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

from tandem.report import palette
from tandem.report.blocks import Figure
from tandem.report.chart import SMALL_PX, dress, margins, nothing_to_show
from tandem.report.formats import Format, Value, plot_text, show
from tandem.report.table import Cell, Column, Table

_ROW_PX = 26
_PANEL_TOP_PX = 40
_PANEL_GAP_PX = 16


@dataclass(frozen=True, slots=True)
class Metric:
    """What is compared.

    Attributes:
        key: Its name in `PolicyRow.metrics`.
        label: Its name for the reader.
        form: How it is written.
        better: The direction that is better, or None where neither is.
        target: Where closeness to a value is better instead of a direction.
        digits: Decimals, or None for the format's own.
    """

    key: str
    label: str
    form: Format = "number"
    better: Literal["lower", "higher"] | None = "lower"
    target: float | None = None
    digits: int | None = None

    @property
    def heading(self) -> str:
        """The label with the direction that is better."""
        if self.target is not None:
            return f"{self.label} → {show(self.target, self.form, self.digits)}"
        return self.label + {"lower": " ↓", "higher": " ↑", None: ""}[self.better]

    def loss(self, value: float) -> float:
        """Return a number that is smaller for a better value; the same for all where nothing is better."""
        if self.target is not None:
            return abs(value - self.target)
        return {"lower": value, "higher": -value, None: 0.0}[self.better]

    @property
    def judges(self) -> bool:
        """Whether one value can be better than another."""
        return self.target is not None or self.better is not None


METRICS: tuple[Metric, ...] = (
    Metric("makespan_s", "Makespan", "duration"),
    Metric("mean_completion_s", "Mean completion", "duration"),
    Metric("p50_completion_s", "Median completion", "duration"),
    Metric("p99_completion_s", "p99 completion", "duration"),
    Metric("mean_wait_s", "Mean wait", "duration"),
    Metric("p50_wait_s", "Median wait", "duration"),
    Metric("p99_wait_s", "p99 wait", "duration"),
    Metric("bounded_slowdown", "Bounded slowdown", "ratio"),
    Metric("cpu_utilisation", "CPU utilisation", "percent", "higher"),
    Metric("gpu_utilisation", "GPU utilisation", "percent", "higher"),
    Metric("jain_fairness", "Jain fairness", "number", "higher", digits=3),
    Metric("broken_bounds", "Broken bounds", "number"),
    Metric("quote_coverage", "Quote coverage", "percent", None, target=0.9),
)
"""The metrics the scheduler reports, in reading order."""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One policy and what it reached; a metric that was not measured is absent (or NaN)."""

    policy: str
    metrics: Mapping[str, float]

    def value(self, metric: Metric) -> float | None:
        """Return the measured value, or None where there is none."""
        value = self.metrics.get(metric.key)
        return None if value is None or math.isnan(value) else float(value)


def compare_table(rows: Sequence[PolicyRow], metrics: Sequence[Metric] = METRICS, title: str = "") -> Table:
    """Build the table: a row per metric that any policy has, a column per policy, the best in each row toned.

    Args:
        rows: The policies, in the order of the columns.
        metrics: What to show, in order.
        title: Heading.

    Returns:
        The table. A metric in which all are equal has no best.
    """
    measured = _measured(rows, metrics)
    lines: list[tuple[Cell | Value, ...]] = []
    for metric in measured:
        best = _best(rows, metric)
        cells = [
            Cell(show(row.value(metric), metric.form, metric.digits), "good" if row.policy in best else "")
            for row in rows
        ]
        lines.append((metric.heading, *cells))
    columns = [Column("metric"), *(Column(row.policy, align="right") for row in rows)]
    return Table(columns, lines, title, "↓ lower is better, ↑ higher is better, → closer is better." if lines else "")


def compare_picture(
    rows: Sequence[PolicyRow],
    metrics: Sequence[Metric] = METRICS,
    title: str = "The policies side by side",
    *,
    caption: str = "",
    columns: int = 4,
) -> Figure:
    """Draw one panel of bars per metric, the best policy of each panel in full colour.

    Args:
        rows: The policies, from top to bottom.
        metrics: What to show, in order; those that no policy has are left out.
        title: Heading.
        caption: How to read it.
        columns: Panels beside each other, at least 1.

    Returns:
        The picture.
    """
    measured = _measured(rows, metrics)
    if not measured:
        return Figure(nothing_to_show("Nothing was measured."), title, caption)
    plot = go.Figure()
    grid = _Grid(len(rows), len(measured), min(columns, len(measured)))
    for index, metric in enumerate(measured):
        _draw_panel(plot, index, metric, rows, grid)
    margins(plot, top=0, bottom=8)
    return Figure(dress(plot, grid.height_px + 8), title, caption)


@dataclass(frozen=True, slots=True)
class _Grid:
    policies: int
    panels: int
    columns: int

    @property
    def rows(self) -> int:
        return math.ceil(self.panels / self.columns)

    @property
    def panel_px(self) -> float:
        return _PANEL_TOP_PX + self.policies * _ROW_PX

    @property
    def height_px(self) -> float:
        return self.rows * (self.panel_px + _PANEL_GAP_PX)

    def across(self, index: int) -> tuple[float, float]:
        column, width = index % self.columns, 1 / self.columns
        return column * width, (column + 1) * width - (0.03 if column < self.columns - 1 else 0)

    def down(self, index: int) -> tuple[float, float]:
        top_px = (index // self.columns) * (self.panel_px + _PANEL_GAP_PX) + _PANEL_TOP_PX
        return 1 - (top_px + self.policies * _ROW_PX) / self.height_px, 1 - top_px / self.height_px


def _draw_panel(plot: go.Figure, index: int, metric: Metric, rows: Sequence[PolicyRow], grid: _Grid) -> None:
    suffix = "" if index == 0 else str(index + 1)
    across, down = grid.across(index), grid.down(index)
    lengths = [_length(row, metric) for row in rows]
    plot.add_trace(go.Bar(**_bars(metric, rows), x=lengths, xaxis=f"x{suffix}", yaxis=f"y{suffix}"))
    plot.update_layout(
        {
            f"xaxis{suffix}": {
                "domain": across,
                "anchor": f"y{suffix}",
                # the numbers behind the longest bars need room
                "range": [min([0.0, *lengths]) * 1.1, (max([0.0, *lengths]) or 1.0) * 1.38],
                "visible": False,
                "fixedrange": True,
            },
            f"yaxis{suffix}": {
                "domain": down,
                "anchor": f"x{suffix}",
                "range": [len(rows) - 0.5, -0.5],
                "tickvals": list(range(len(rows))),
                "ticktext": [plot_text(row.policy, 24) for row in rows],
                "tickfont": {"size": 12.5, "color": palette.INK},
                "showticklabels": index % grid.columns == 0,
                "showgrid": False,
                "fixedrange": True,
            },
        }
    )
    heading = {"x": across[0], "xref": "paper", "xanchor": "left", "font": {"size": 12.5}}
    place = {"y": down[1], "yref": "paper", "yanchor": "bottom", "yshift": 3, "showarrow": False}
    plot.add_annotation(heading | place, text=f"<b>{plot_text(metric.heading, 40)}</b>")


def _bars(metric: Metric, rows: Sequence[PolicyRow]) -> dict[str, Any]:
    """Return the look of one panel's bars; the best stand out by colour and by bold numbers."""
    best = _best(rows, metric)
    numbers = [show(row.value(metric), metric.form, metric.digits) for row in rows]
    pairs = list(zip(rows, numbers, strict=True))
    return {
        "orientation": "h",
        "y": list(range(len(rows))),
        "width": 0.62,
        "text": [f"<b>{number}</b>" if row.policy in best else number for row, number in pairs],
        "textposition": "outside",
        "textfont": {
            "size": SMALL_PX,
            "color": [palette.MUTED if row.value(metric) is None else palette.INK for row in rows],
        },
        "cliponaxis": False,
        "marker": {"color": [palette.BLUE if row.policy in best else palette.PALE_BLUE for row in rows]},
        "customdata": [
            f"<b>{plot_text(row.policy)}</b><br>{plot_text(metric.label)} {number}" for row, number in pairs
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _length(row: PolicyRow, metric: Metric) -> float:
    """Return how long a bar is drawn: nothing where nothing finite was measured."""
    value = row.value(metric)
    return value if value is not None and math.isfinite(value) else 0.0


def _measured(rows: Sequence[PolicyRow], metrics: Sequence[Metric]) -> list[Metric]:
    return [metric for metric in metrics if any(row.value(metric) is not None for row in rows)]


def _best(rows: Sequence[PolicyRow], metric: Metric) -> set[str]:
    """Return the policies that share the best value; empty where all are equal or nothing is better."""
    losses = {row.policy: metric.loss(value) for row in rows if (value := row.value(metric)) is not None}
    if not metric.judges or len(set(losses.values())) < 2:
        return set()
    least = min(losses.values())
    return {policy for policy, loss in losses.items() if loss == least}
