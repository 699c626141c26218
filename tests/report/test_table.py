"""The table on the page and its twin in the terminal say the same."""

import io
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tandem.report.formats import Format, Value
from tandem.report.page import Page, Section, render
from tandem.report.table import Cell, Column, Table, Tone, fitting, text_of, to_rich

values = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | st.text(max_size=12)
forms: st.SearchStrategy[Format] = st.sampled_from(["text", "number", "ratio", "percent"])
tones: st.SearchStrategy[Tone] = st.sampled_from(["", "good", "bad", "muted"])


class Cells(HTMLParser):
    """Collects the text of every heading and cell."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.classes: list[str] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th"):
            self._inside = True
            self.texts.append("")
            self.classes.append(dict(attrs).get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[-1] += data


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Tables of up to four columns and five rows, with any text in any cell."""
    columns = draw(st.lists(st.builds(Column, name=st.text(max_size=8), form=forms), min_size=1, max_size=4))
    cells = values | st.builds(Cell, values, tones)
    rows = draw(st.lists(st.tuples(*[cells] * len(columns)), min_size=1, max_size=5))
    return Table(columns, rows)


@given(tables())
def test_page_and_terminal_show_the_same_cells(table: Table) -> None:
    on_page = Cells(render(Page("t", "", [Section("", [table])])))
    twin = to_rich(table)
    headings = [str(column.header) for column in twin.columns]
    by_column = [[str(cell) for cell in column.cells] for column in twin.columns]
    in_terminal = [*headings, *(text for row in zip(*by_column, strict=True) for text in row)]
    assert on_page.texts == in_terminal


def test_the_terminal_prints_figures_and_signs_and_reads_no_markup() -> None:
    table = Table(
        [Column("job"), Column("slowdown", form="ratio"), Column("alone", unit="s", form="number", digits=1)],
        [("[bold]cg[/bold]", Cell(1.314, "bad"), 12.0), ("lu\n", 1.0, None)],
        title="[red]jobs",
        note="alone on the same cores",
    )
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=False).print(to_rich(table))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "[bold]cg[/bold] 1.31x ▲ 12.0" in lines
    assert "lu\\n 1.00x –" in lines  # noqa: RUF001 - the sign for a missing value
    assert "job slowdown alone (s)" in lines
    assert "[red]jobs" in lines
    assert "alone on the same cores" in lines


def test_numbers_stand_right_and_tones_reach_the_page() -> None:
    table = Table([Column("job"), Column("x", form="number")], [(Cell("a", "muted"), Cell(1, "good"))])
    assert Cells(render(Page("t", "", [Section("", [table])]))).classes == ["left", "right", "left muted", "right good"]


def test_a_bad_cell_is_told_by_a_sign_too() -> None:
    table = Table([Column("x", form="number")], [(Cell(2, "bad"),), (Cell(2, "good"),)])
    assert [text_of(table, i, 0) for i in range(2)] == ["2 ▲", "2"]


@pytest.mark.parametrize("row", [(), ("a", "b", "c")])
def test_ragged_rows_are_refused(row: tuple[Value, ...]) -> None:
    with pytest.raises(ValueError, match="row 0 of table 'jobs' has"):
        Table([Column("a"), Column("b")], [row], title="jobs")


def drawn(table: Table, width: int) -> str:
    out = io.StringIO()
    twin = to_rich(fitting(table, width), width)
    twin.show_edge = False
    Console(file=out, width=width, highlight=False).print(twin)
    return out.getvalue()


JOBS = Table(
    [
        Column("APPLICATION"),
        Column("CORE", minor=True),
        Column("STARTS", "s", "number", 1, minor=True),
        Column("TAKES"),
        Column("WHY"),
    ],
    [("calm", "own", 0.0, "60.0 s (60.0-72.0)", "it started 3 min after its quoted start; it ran long beside harvest")],
)


def test_a_narrow_terminal_goes_without_minor_columns_and_breaks_no_word() -> None:
    assert drawn(JOBS, 200).count("\n") == 3
    assert [column.name for column in fitting(JOBS, 80).columns] == ["APPLICATION", "CORE", "STARTS", "TAKES", "WHY"]
    assert [column.name for column in fitting(JOBS, 60).columns] == ["APPLICATION", "CORE", "TAKES", "WHY"]
    assert [column.name for column in fitting(JOBS, 40).columns] == ["APPLICATION", "TAKES"]
    assert [column.name for column in fitting(JOBS, 10).columns] == ["APPLICATION"]
    for width in range(40, 120):
        words = set(drawn(JOBS, width).split())
        kept = fitting(JOBS, width).columns
        assert {column.name for column in kept} <= words
        assert len(kept) < 5 or {"started", "harvest", "(60.0-72.0)", "calm", "STARTS"} <= words, width


words = st.text("abcdefgh", min_size=1, max_size=12)
texts = st.lists(words, min_size=1, max_size=6).map(" ".join)


@given(
    st.lists(st.tuples(words, texts, st.booleans()), min_size=1, max_size=8, unique_by=lambda one: one[0]),
    st.integers(24, 120),
)
def test_no_line_is_too_wide_and_no_word_of_what_is_kept_is_broken(
    columns: list[tuple[str, str, bool]], width: int
) -> None:
    heads = [Column(name, minor=minor) for name, _, minor in columns]
    table = Table(heads, [[text for _, text, _ in columns]])
    page, kept = drawn(table, width), fitting(table, width)
    assert all(len(line) <= width for line in page.splitlines())
    assert kept.columns[0] == heads[0]
    shown = page.split()
    for column, cell in zip(kept.columns, kept.rows[0], strict=True):
        assert {column.name, *str(cell).split()} <= set(shown)
