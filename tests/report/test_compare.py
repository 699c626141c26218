"""Policies side by side: the picture and the table hold the same figures and the same best."""

import math

import pytest

from tandem.report import palette
from tandem.report.compare import METRICS, Metric, PolicyRow, compare_picture, compare_table
from tandem.report.table import Cell, Table, text_of

ROWS = [
    PolicyRow("exclusive", {"makespan_s": 75.0, "cpu_utilisation": 0.4, "quote_coverage": 1.0, "broken_bounds": 0}),
    PolicyRow("share", {"makespan_s": 21.0, "cpu_utilisation": 0.9, "quote_coverage": 0.5, "broken_bounds": 2}),
    PolicyRow(
        "hybrid", {"makespan_s": 21.0, "cpu_utilisation": 0.8, "quote_coverage": 0.92, "gpu_utilisation": math.nan}
    ),
]


def _best(table: Table) -> dict[str, set[str]]:
    best = {}
    for row in table.rows:
        policies = zip(table.columns[1:], row[1:], strict=True)
        best[str(row[0])] = {c.name for c, cell in policies if isinstance(cell, Cell) and cell.tone == "good"}
    return best


def test_the_best_follow_direction_and_target() -> None:
    assert _best(compare_table(ROWS)) == {
        "Makespan ↓": {"share", "hybrid"},
        "CPU utilisation ↑": {"share"},
        "Broken bounds ↓": {"exclusive"},
        "Quote coverage → 90 %": {"hybrid"},
    }


def test_the_table_writes_every_figure_and_marks_what_is_missing() -> None:
    table = compare_table(ROWS)
    assert [[text_of(table, i, j) for j in range(4)] for i in range(4)] == [
        ["Makespan ↓", "1m15s", "21s", "21s"],
        ["CPU utilisation ↑", "40 %", "90 %", "80 %"],
        ["Broken bounds ↓", "0", "2", "–"],  # noqa: RUF001 - the sign for a missing value
        ["Quote coverage → 90 %", "100 %", "50 %", "92 %"],
    ]


def test_the_picture_holds_the_figures_of_the_table() -> None:
    plot, table = compare_picture(ROWS).plot, compare_table(ROWS)
    assert len(plot.data) == len(table.rows) == 4
    for i, trace in enumerate(plot.data):
        assert [text.removeprefix("<b>").removesuffix("</b>") for text in trace.text] == [
            text_of(table, i, j) for j in (1, 2, 3)
        ]
        best = {ROWS[j].policy for j, colour in enumerate(trace.marker.color) if colour == palette.BLUE}
        assert best == _best(table)[str(table.rows[i][0])]
    assert list(plot.data[0].x) == [75.0, 21.0, 21.0]
    assert list(plot.data[2].x) == [0, 2, 0]


def test_panels_do_not_overlap() -> None:
    layout = compare_picture(
        [PolicyRow("a", {m.key: 1.0 for m in METRICS}), PolicyRow("b", {m.key: 2.0 for m in METRICS})]
    ).plot.layout
    boxes = [(*layout[f"xaxis{n}"].domain, *layout[f"yaxis{n}"].domain) for n in ["", *range(2, len(METRICS) + 1)]]
    for i, a in enumerate(boxes):
        assert 0 <= a[0] < a[1] <= 1
        assert 0 <= a[2] < a[3] <= 1
        for b in boxes[i + 1 :]:
            assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]


@pytest.mark.parametrize("rows", [[], [PolicyRow("a", {})], [PolicyRow("a", {"makespan_s": math.nan})]])
def test_nothing_measured_is_said(rows: list[PolicyRow]) -> None:
    assert compare_picture(rows).plot.layout.annotations[0].text == "Nothing was measured."
    assert compare_table(rows).rows == []


def test_equal_figures_have_no_best_and_infinite_ones_no_bar() -> None:
    rows = [PolicyRow("a", {"x": math.inf, "y": 3.0}), PolicyRow("b", {"x": 1.0, "y": 3.0})]
    metrics = [Metric("x", "X"), Metric("y", "Y"), Metric("z", "Z")]
    assert _best(compare_table(rows, metrics)) == {"X ↓": {"b"}, "Y ↓": set()}
    assert list(compare_picture(rows, metrics).plot.data[0].x) == [0.0, 1.0]
