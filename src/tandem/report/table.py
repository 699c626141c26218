"""A table that is shown the same way on the page and in the terminal.

`Table` holds values; `text_of` writes one cell, and both the page and `to_rich` ask it, so that the two
cannot disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text as RichText

from tandem.core.errors import one_line
from tandem.report.formats import Format, Value, show

Tone = Literal["", "good", "bad", "muted"]
"""What a value means to the reader; never told by colour alone."""

_RICH_STYLES: dict[Tone, str] = {"": "", "good": "green", "bad": "bold red", "muted": "dim"}
_GAP = 3
"""Characters between two columns."""

_LONGEST_WORD = 24
"""Longer words are broken where need be."""

_RUNNING_TEXT = 16
_SIGNS: dict[Tone, str] = {"": "", "good": "", "bad": " ▲", "muted": ""}


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: The heading.
        unit: The unit, shown beside the heading; empty where the format writes it.
        form: How numbers in it are written.
        digits: Decimals, or None for the format's own.
        align: Side; None puts numbers right and text left.
        minor: Whether it is among the first that a narrow terminal goes without.
    """

    name: str
    unit: str = ""
    form: Format = "text"
    digits: int | None = None
    align: Literal["left", "right", "center"] | None = None
    minor: bool = False

    @property
    def side(self) -> Literal["left", "right", "center"]:
        """The side that cells and heading are aligned to."""
        return self.align or ("left" if self.form == "text" else "right")

    @property
    def heading(self) -> str:
        """The heading with its unit."""
        return one_line(f"{self.name} ({self.unit})" if self.unit else self.name)


@dataclass(frozen=True, slots=True)
class Cell:
    """A value with a tone. A plain value may stand in its place where there is none."""

    value: Value
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows; a row holds plain values or `Cell`s, as many as there are columns.

    Raises:
        ValueError: A row is longer or shorter than the columns.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | Value]]
    title: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse ragged rows."""
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                counts = f"{len(row)} cells for {len(self.columns)} columns"
                message = f"row {index} of table {self.title!r} has {counts}"
                raise ValueError(message)


def text_of(table: Table, row: int, column: int) -> str:
    """Write one cell as it is shown everywhere; a bad one also carries a sign."""
    spec, value, tone = table.columns[column], _bare(table.rows[row][column]), tone_of(table, row, column)
    return show(value, spec.form, spec.digits) + _SIGNS[tone]


def tone_of(table: Table, row: int, column: int) -> Tone:
    """Return the tone of one cell."""
    cell = table.rows[row][column]
    return cell.tone if isinstance(cell, Cell) else ""


def fitting(table: Table, width: int) -> Table:
    """Leave out columns until the rest fits without a broken word: minor ones first, from the right; the first stays.

    Args:
        table: What to show.
        width: In characters of a terminal.
    """
    kept = list(range(len(table.columns)))
    leaving = sorted(kept[:0:-1], key=lambda j: not table.columns[j].minor)
    for j in leaving:
        if sum(_least(table, k) for k in kept) + _GAP * (len(kept) - 1) <= width:
            break
        kept.remove(j)
    columns, rows = [table.columns[j] for j in kept], [[row[j] for j in kept] for row in table.rows]
    return replace(table, columns=columns, rows=rows)


def to_rich(table: Table, width: int | None = None) -> RichTable:
    """Turn a table into its twin for the terminal (`rich.print` or `Console.print` shows it).

    Args:
        table: What to show.
        width: How wide it may become, in characters, so that rows wrap between words (see `fitting`); None leaves
            that to the console.
    """
    widths = [None] * len(table.columns) if width is None else _widths(table, width)
    twin = RichTable(
        title=RichText(one_line(table.title)) if table.title else None,
        caption=RichText(table.note) if table.note else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    for column, wide in zip(table.columns, widths, strict=True):
        twin.add_column(RichText(column.heading), justify=column.side, overflow="fold", width=wide)
    for i in range(len(table.rows)):
        twin.add_row(
            *(
                RichText(text_of(table, i, j), style=_RICH_STYLES[tone_of(table, i, j)])
                for j in range(len(table.columns))
            )
        )
    return twin


def _texts(table: Table, column: int) -> list[str]:
    return [table.columns[column].heading, *(text_of(table, i, column) for i in range(len(table.rows)))]


def _least(table: Table, column: int) -> int:
    """Its longest word, and for running text enough to be read."""
    texts = _texts(table, column)
    word = max(cell_len(word) for text in texts for word in [*text.split(), ""])
    return max(min(word, _LONGEST_WORD), min(max(map(cell_len, texts)), _RUNNING_TEXT), 1)


def _widths(table: Table, width: int) -> list[int | None]:
    """Each column's least; what room is left goes to those that lack least first."""
    widths: list[int | None] = []
    whole = [max(1, *map(cell_len, _texts(table, j))) for j in range(len(table.columns))]
    least = [_least(table, j) for j in range(len(table.columns))]
    room = max(0, width - sum(least) - _GAP * (len(least) - 1))
    given = list(least)
    order = sorted(range(len(least)), key=lambda j: whole[j] - least[j])
    for place, j in enumerate(order):
        more = min(whole[j] - least[j], room // (len(order) - place))
        given[j] += more
        room -= more
    widths.extend(given)
    return widths


def _bare(cell: Cell | Value) -> Value:
    return cell.value if isinstance(cell, Cell) else cell
