"""Reading tables of jobs: lines, columns by name, numbers; and the one way in which a bad cell is reported.

A reader in `tandem.share.traces` opens a table, asks for the columns it needs by name (order and extra columns do not
matter) and converts cells. Whatever is wrong becomes a `TraceError` with file, line, column, what was there and what
is allowed.
"""

import csv
import gzip
import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from tandem.core.errors import TraceError
from tandem.core.nearest import nearest
from tandem.share.model import GPUS_OF_NODE_MOST, LONGEST_S, NODES_MOST, Gpu, Node

DAMAGED = (csv.Error, EOFError, OSError, zlib.error)
"""What reading a file that is cut off, rotten or no text at all may raise."""

_LATEST_S = 253_402_300_800.0  # in Unix time the year 10000

_GZIP = b"\x1f\x8b"


def open_text(path: Path) -> TextIO:
    """Open a text file, gzipped or not (told by its first bytes).

    Raises:
        TraceError: The file is missing, a folder, not readable, or empty.
    """
    try:
        with path.open("rb") as raw:
            magic = raw.read(2)
    except OSError as error:
        raise TraceError(
            given=f"cannot read {path}: {error.strerror}",
            allowed="a file that exists and can be read",
            todo="check the path",
        ) from error
    if not magic:
        raise TraceError(given=f"{path} is empty", allowed="a table with rows", todo="export it again")
    if magic == _GZIP:
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def first_line(path: Path) -> str:
    """The first line of a file without its end, or "" where there is none that can be read."""
    try:
        with open_text(path) as file:
            return file.readline(65_536).rstrip("\r\n")
    except (TraceError, *DAMAGED):
        return ""


def damaged(path: Path, line: int, error: Exception) -> TraceError:
    """The error for a file that cannot be read on after a line."""
    return TraceError(
        given=f"{path} is damaged after line {line}: {error or type(error).__name__}",
        allowed="a whole text file, gzipped or not",
        todo="it may be cut off: download or export it again",
    )


def bad_cell(path: Path, line: int, column: str, given: str, allowed: str, todo: str = "") -> TraceError:
    """The error for one cell that cannot be understood."""
    return TraceError(
        given=f"{path} line {line}, column {column}: {given!r}",
        allowed=allowed,
        todo=todo or "correct the line or remove it",
    )


@dataclass(frozen=True, slots=True)
class Table:
    """A delimited file with a header row.

    Attributes:
        path: where it comes from, for errors.
        header: column names as they stand in the file.
    """

    path: Path
    header: tuple[str, ...]
    _delimiter: str
    _quoted: bool

    def column(self, *names: str, todo: str = "") -> int:
        """Index of the first of ``names`` that there is (upper and lower case are alike).

        Raises:
            TraceError: There is none; the message lists the columns and the nearest name.
        """
        index = self.optional(*names)
        if index is not None:
            return index
        near = nearest(names[0], self.header)
        hint = f"did you mean {near!r}? " if near else ""
        raise TraceError(
            given=f"{self.path} has no column {' or '.join(map(repr, names))}",
            allowed=f"a table with it; the columns are {', '.join(self.header)}",
            todo=hint + (todo or "add the column to the header and the rows"),
        )

    def optional(self, *names: str) -> int | None:
        """Index of the first of ``names`` that there is, or None."""
        known = {name.strip().lower(): i for i, name in reversed(list(enumerate(self.header)))}
        return next((known[name.lower()] for name in names if name.lower() in known), None)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Each row with its line number; empty lines are left out.

        Raises:
            TraceError: A row has too few or too many cells.
        """
        width = len(self.header)
        with open_text(self.path) as file:
            reader = csv.reader(file, delimiter=self._delimiter, quoting=_style(self._quoted), strict=True)
            next(reader)
            try:
                for row in reader:
                    if len(row) == width:
                        yield reader.line_num, row
                    elif row:
                        raise _ragged(self, reader.line_num, len(row))
            except DAMAGED as error:
                raise damaged(self.path, reader.line_num, error) from error


def open_table(path: Path, delimiter: str = ",", *, quoting: bool = True) -> Table:
    """Open a table and read its header.

    Args:
        path: the file, gzipped or not.
        delimiter: one character.
        quoting: whether double quotes enclose cells (as in CSV; not in ``sacct -P``).
    """
    try:
        with open_text(path) as file:
            header: list[str] = next(csv.reader(file, delimiter=delimiter, quoting=_style(quoting)), [])
    except DAMAGED as error:
        raise damaged(path, 1, error) from error
    if not header:
        raise TraceError(
            given=f"{path} starts with an empty line", allowed="a header row", todo="add the names of the columns"
        )
    return Table(path, tuple(cell.strip() for cell in header), delimiter, quoting)


def number(table: Table, line: int, column: str, text: str) -> float:
    """A finite number, negative or not.

    Raises:
        TraceError: The text is no such number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise bad_cell(table.path, line, column, text, "a number")
    return value


def whole(table: Table, line: int, column: str, text: str, empty: int | None = None) -> int:
    """A whole number of at least 0; ``empty`` stands for an empty cell where that is allowed.

    Raises:
        TraceError: The text is no such number.
    """
    if not text.strip() and empty is not None:
        return empty
    value = number(table, line, column, text)
    if value < 0 or value != int(value):
        raise bad_cell(table.path, line, column, text, "a whole number of at least 0")
    return int(value)


def at_most_ten_years(path: Path, line: int, column: str, text: str, seconds: float) -> float:
    """A duration as it is, negative or not: nobody could wait for a longer one, or compute with it.

    Raises:
        TraceError: It is longer than `LONGEST_S`.
    """
    if seconds > LONGEST_S:
        raise bad_cell(path, line, column, text, "a duration of at most ten years")
    return seconds


def before_year_10000(path: Path, line: int, column: str, text: str, seconds: float) -> float:
    """An instant in seconds, from 1970 or from where a trace begins.

    Raises:
        TraceError: It is so far off that nothing could be computed with it.
    """
    if not abs(seconds) < _LATEST_S:
        raise bad_cell(path, line, column, text, "an instant before the year 10000")
    return seconds


def submission_order(times: Sequence[float]) -> list[int]:
    """Indices of ``times`` in the order of submission; ties keep the order of the file."""
    return sorted(range(len(times)), key=times.__getitem__)


def counted_nodes(count: int, cores: int, gpus: int, mem_mib: int, gpu_type: str = "") -> tuple[Node, ...]:
    """``count`` equal nodes, named node-0001 and on; ``mem_mib`` 0 leaves memory unmetered in jobs.

    Raises:
        TraceError: There are more of them, or of their GPUs, than can be played.
    """
    if count > NODES_MOST or gpus > GPUS_OF_NODE_MOST:
        raise TraceError(
            given=f"{count} nodes of {gpus} GPUs",
            allowed=f"at most {NODES_MOST} nodes, and {GPUS_OF_NODE_MOST} GPUs on each",
            todo="change nodes or gpus",
        )
    devices = tuple(Gpu(i, gpu_type) for i in range(gpus))
    width = max(4, len(str(count)))
    return tuple(Node(f"node-{i + 1:0{width}d}", cores * 1000, mem_mib, devices) for i in range(count))


def _style(quoted: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE


def _ragged(table: Table, line: int, cells: int) -> TraceError:
    return TraceError(
        given=f"{table.path} line {line} has {cells} cells",
        allowed=f"{len(table.header)} cells, as the header: {', '.join(itertools.islice(table.header, 12))}",
        todo="a cell may hold the delimiter or a line end: correct the line, or export with another delimiter",
    )
