"""A table that is shown the same way on the page and in the terminal.

`Table` holds values; `text_of` writes one cell, and both the page and `to_rich` ask it, so that the two
cannot disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table as RichTable
from rich.text import Text as RichText

from tandem.core.errors import one_line
from tandem.report.formats import Format, Value, show

Tone = Literal["", "good", "bad", "muted"]
"""What a value means to the reader; never told by colour alone."""

_RICH_STYLES: dict[Tone, str] = {"": "", "good": "green", "bad": "bold red", "muted": "dim"}
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
    """

    name: str
    unit: str = ""
    form: Format = "text"
    digits: int | None = None
    align: Literal["left", "right", "center"] | None = None

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


def to_rich(table: Table) -> RichTable:
    """Turn a table into its twin for the terminal (`rich.print` or `Console.print` shows it)."""
    twin = RichTable(
        title=RichText(one_line(table.title)) if table.title else None,
        caption=RichText(table.note) if table.note else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    for column in table.columns:
        twin.add_column(RichText(column.heading), justify=column.side, overflow="fold")
    for i in range(len(table.rows)):
        twin.add_row(
            *(
                RichText(text_of(table, i, j), style=_RICH_STYLES[tone_of(table, i, j)])
                for j in range(len(table.columns))
            )
        )
    return twin


def _bare(cell: Cell | Value) -> Value:
    return cell.value if isinstance(cell, Cell) else cell
