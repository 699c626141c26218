"""Products of one shape as a table and a picture: ours, every dense one, and what the memory allows at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import plotly.graph_objects as go

from tandem.report import palette
from tandem.report.blocks import Figure, Key
from tandem.report.chart import dress, margins
from tandem.report.formats import plot_text
from tandem.report.page import Page, Section
from tandem.report.table import Cell, Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.kernels.sparse.measuring import Comparison, Timed

_ROW_PX = 22


def table(comparison: Comparison) -> Table:
    """Return one shape's products, ours first, each group from fast to slow."""
    columns = (
        Column("product"),
        Column("time", "us", "number", 0),
        Column("bits a weight", form="number", digits=2),
        Column("read", "GB/s", "number", 1),
        Column("of bandwidth", form="percent"),
        Column("32 weights", "ns", "number", 1),
        Column("32 weights", "cycles", "number", 1),
        Column("over best dense", form="ratio", digits=2),
    )
    rows = [
        *(_row(comparison, timed, "sparse ") for timed in comparison.ours),
        *(_row(comparison, timed, "dense ") for timed in _fast_first(comparison.dense)),
    ]
    bandwidth = comparison.read_bytes_per_s / 1e9
    whence = "each matrix comes from memory" if comparison.from_memory else "matrices this small come from a cache"
    return Table(
        columns,
        rows,
        title=_title(comparison),
        note=f"{comparison.threads} threads, which read {bandwidth:.1f} GB/s at most; {whence}; "
        f"32 weights are those of one thread{_clock(comparison)}; time: "
        f"median of the rounds; over best dense: median of each round's ratio to {comparison.best_dense.name}",
    )


def page(comparisons: Sequence[Comparison], machine: str) -> Page:
    """Return a report of several shapes."""
    sections = [Section(_title(c), [figure(c), table(c)]) for c in comparisons]
    return Page("Products with sparse weights", machine, sections)


def figure(comparison: Comparison) -> Figure:
    """Return times as bars; a mark on each is the time in which the memory alone could deliver its bytes."""
    timed = [*comparison.ours, *_fast_first(comparison.dense)]
    names = [plot_text(one.name) for one in timed]
    colours = [palette.BLUE if one.zeros is not None else palette.PALE_BLUE for one in timed]
    plot = go.Figure(go.Bar(x=[1e6 * one.median_s for one in timed], y=names, orientation="h", marker_color=colours))
    if comparison.read_bytes_per_s:
        bounds_us = [1e6 * one.size_bytes / comparison.read_bytes_per_s for one in timed]
        mark = {"symbol": "line-ns", "size": 14, "line": {"width": 2, "color": palette.INK}}
        plot.add_trace(go.Scatter(x=bounds_us, y=names, mode="markers", marker=mark))
    plot.update_yaxes(autorange="reversed", showgrid=False)
    plot.update_xaxes(title_text="time of a product (us)", rangemode="tozero")
    margins(plot, left=140)
    dress(plot, 80 + _ROW_PX * len(timed)).update_layout(bargap=0.25)
    key = (
        Key("sparse", palette.BLUE),
        Key("dense", palette.PALE_BLUE),
        Key("what the memory allows", palette.INK, "line"),
    )
    return Figure(plot, caption="Shorter is better; the mark is the roofline of each.", key=key)


def _row(comparison: Comparison, timed: Timed, kind: str) -> list[Cell | str | float | None]:
    bandwidth = comparison.share_of_bandwidth(timed) if comparison.read_bytes_per_s else None
    speedup = comparison.speedup(timed)
    return [
        kind + timed.name,
        1e6 * timed.median_s,
        8 * timed.size_bytes / (comparison.rows * comparison.cols),
        timed.bytes_per_s / 1e9,
        bandwidth,
        comparison.ns_per_32(timed),
        comparison.cycles_per_32(timed) or None,
        Cell(speedup, "good" if timed.zeros is not None and speedup > 1 else ""),
    ]


def _clock(comparison: Comparison) -> str:
    if not comparison.clock_hz:
        return ""
    return f"; {comparison.clock_hz / 1e9:.2f} GHz, as additions that wait for one another tell"


def _fast_first(dense: Sequence[Timed]) -> list[Timed]:
    return sorted(dense, key=lambda timed: timed.median_s)


def _title(comparison: Comparison) -> str:
    count = comparison.count
    return f"{comparison.rows} x {comparison.cols}, {count} {'row' if count == 1 else 'rows'} of x"
