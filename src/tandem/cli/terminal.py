"""How commands write: one JSON document, or text for a person; plain where no terminal reads it.

Whatever comes from a user (names, reasons, paths) passes through `one_line` before it reaches a terminal.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tandem.core.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from tandem.report.table import Table

Command = TypeVar("Command", bound=Callable[..., Any])

_KEY = 11

PIPE_COLUMNS = 200
"""How wide text may become where no terminal reads it."""


def json_option(command: Command) -> Command:
    """Add ``--json`` to a command, as the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def print_json(value: object) -> None:
    """Print one JSON document; what is not finite becomes null."""
    click.echo(json.dumps(_plain(value), indent=2))


def say(text: str = "") -> None:
    """Print one line, with everything that is not printable escaped."""
    click.echo(one_line(text))


def put(data: bytes | memoryview) -> None:
    """Write bytes to standard output, all of them: unbuffered (PYTHONUNBUFFERED), one write may take but a part."""
    left = memoryview(data)
    while left:
        left = left[sys.stdout.buffer.write(left) :]


def say_err(text: str) -> None:
    """Print one line to stderr, escaped."""
    click.echo(one_line(text), err=True)


def shell_name(path: str) -> str:
    """A path as a shell takes it: one that cannot be printed, or is not UTF-8, as `$'...'` (bash, zsh, ksh)."""
    if path.isprintable():
        return path
    quoted = (
        f"\\{sign}"
        if sign in "\\'"
        else sign
        if sign.isprintable()
        else "".join(f"\\x{b:02x}" for b in os.fsencode(sign))
        for sign in path
    )
    return f"$'{''.join(quoted)}'"


def say_pairs(pairs: Iterable[tuple[str, str]], indent: str = "") -> None:
    """Print keys and what they say in two columns; on a terminal long texts go on below themselves."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for key, text in pairs:
        head, line = f"{indent}{key:<{_KEY}} ", one_line(text)
        room = max(20, width - len(head)) if width else len(line) + 1
        parts = textwrap.wrap(line, room, break_on_hyphens=False) or [""]
        for place, part in enumerate(parts):
            click.echo((" " * len(head) if place else head) + part)


def cut(text: str, width: int) -> str:
    """Cut a text where it is too wide for its column."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def console(*, err: bool = False) -> Console:
    """A terminal, or a wide plain page where there is none."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    if "utf" not in (stream.encoding or "").lower() and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    return Console(
        file=stream, highlight=False, markup=False, emoji=False, width=None if stream.isatty() else PIPE_COLUMNS
    )


def show(renderable: RenderableType) -> None:
    """Print a rich renderable without blank lines around it and, outside a terminal, without trailing blanks."""
    page = console()
    with page.capture() as captured:
        page.print(renderable)
    lines = captured.get().split("\n")
    if not page.is_terminal:
        lines = [line.rstrip() for line in lines]
    while lines and not lines[-1].strip():
        lines.pop()
    while lines and not lines[0].strip():
        lines.pop(0)
    click.echo("\n".join(lines))


def show_table(table: Table) -> None:
    """Print a table of `tandem.report`; its title and note stand unwrapped above and below it.

    Columns that a terminal is too narrow for are left out, which is said; no word is broken.
    """
    from dataclasses import replace

    from tandem.report.table import fitting, to_rich

    if table.title:
        say(table.title)
    page, bare = console(), replace(table, title="", note="")
    kept = fitting(bare, page.width) if page.is_terminal else bare
    twin = to_rich(kept, page.width if page.is_terminal else None)
    twin.show_edge = False
    show(twin)
    if table.note:
        say(table.note)
    left_out = [column.heading for column in table.columns if column not in kept.columns]
    if left_out:
        say(f"left out, as the terminal is narrow: {', '.join(left_out)}")


@contextmanager
def progress(of_what: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, only where stderr is a terminal; the caller tells (label, done, of)."""
    if quiet or not sys.stderr.isatty():
        yield lambda label, done, of: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(of_what))
    with Progress(*columns, TimeRemainingColumn(), console=console(err=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(label: str, done: int, of: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=of)
            bar.update(tasks[label], completed=done)

        yield tell


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value if isinstance(value, str | int | bool | None) else str(value)
