"""A report: one HTML file that works offline, on light and dark screens and on paper.

Everything that comes from a user (job names, reasons) is escaped; the page's content policy allows only its
own two scripts and no connection at all. Plotly is inlined once, about 4.8 MB, where there is a picture.

    write(Page("A lab's day", "2 cores, 14 jobs", [Section("What sharing gained", [facts, picture])]), path)
"""

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.io
import plotly.offline
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tandem.core.durable import written_aside
from tandem.report import palette, table
from tandem.report.blocks import Block, Fact, Facts, Figure, Key, Text
from tandem.report.table import Cell, Column, Table
from tandem.report.target import MARK, ReportError, refuse_foreign, unwritten

__all__ = [
    "Block",
    "Cell",
    "Column",
    "Fact",
    "Facts",
    "Figure",
    "Key",
    "Page",
    "ReportError",
    "Section",
    "Table",
    "Text",
    "render",
    "write",
]

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, what stands under it, and a short note on how to read it."""

    heading: str
    body: Sequence[Block]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    sections: Sequence[Section]


def render(page: Page) -> str:
    """Return the report as HTML.

    Args:
        page: What to show.

    Returns:
        A whole document in which nothing is fetched from elsewhere.
    """
    figures = [block for section in page.sections for block in section.body if isinstance(block, Figure)]
    scripts = [_plotly(), _source("report.js")] if figures else []
    template = _environment().get_template("report.html.j2")
    return template.render(
        page=page,
        policy=_policy(scripts),
        style=Markup(_source("report.css")),
        mark=Markup(MARK),
        scripts=[Markup(script) for script in scripts],
        dark=_in_script(json.dumps(palette.DARK)),
    )


def write(page: Page, path: Path) -> Path:
    """Write the report aside and rename it into place: a reader sees the old one or the new one, whole.

    Args:
        page: What to show.
        path: The file; its folder is made if need be.

    Returns:
        `path`.

    Raises:
        ReportError: The file cannot be written (no permission, no space, a folder or another's file of that name).
    """
    html = render(page)
    refuse_foreign(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as out:
            out.write(html.encode())
    except OSError as error:
        raise unwritten(path, error.strerror or str(error), len(html)) from error
    return path


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["dark_twin"] = lambda colour: palette.DARK.get(colour, colour)
    environment.filters["figure_json"] = _figure_json
    environment.globals["text_of"] = table.text_of
    environment.globals["tone_of"] = table.tone_of
    return environment


def _printable(value: object) -> object:
    """Escape control characters and lone surrogates, which no HTML file may hold."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in value)


def _figure_json(figure: Figure) -> Markup:
    """Return the figure as JSON that may stand in a script element."""
    return _in_script(plotly.io.to_json(figure.plot, validate=False, engine="json"))


def _in_script(text: str) -> Markup:
    """Escape JSON so that no tag or comment is left in it, whatever the encoder escapes by itself."""
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _policy(scripts: Sequence[str]) -> str:
    """Return the content policy: these scripts, the page's own style, its own pictures, and nothing else."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    own = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {own}"


@functools.cache
def _plotly() -> str:
    """Return plotly.js with the line ends an HTML reader will see."""
    return str(plotly.offline.get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


@functools.cache
def _source(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
