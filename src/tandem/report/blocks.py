"""What a section of a report is made of: pictures, tables, big numbers, prose."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from tandem.report.formats import Format, Value, show
from tandem.report.table import Table, Tone

KeyStyle = Literal["solid", "faded", "hatched", "outlined", "dot", "line"]


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a picture's key: a small sample and what it stands for.

    Attributes:
        label: What it stands for.
        colour: `#rrggbb`.
        style: How the sample is drawn.
        group: Entries of one group stand together behind its name.
    """

    label: str
    colour: str
    style: KeyStyle = "solid"
    group: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture.

    Attributes:
        plot: The Plotly figure. Its texts are already escaped (`formats.plot_text`); its colours are those of
            `palette`, which the page turns into their dark twins where the reader prefers dark.
        title: What it shows, as a heading.
        caption: How to read it, in a sentence.
        key: Samples shown above it, only for what cannot be labelled in place.
        half: Whether half the page's width is enough; two halves in a row stand beside each other.
    """

    plot: go.Figure
    title: str = ""
    caption: str = ""
    key: Sequence[Key] = ()
    half: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """A big number with its label, and where it helps a short note."""

    label: str
    value: Value
    form: Format = "text"
    digits: int | None = None
    note: str = ""
    tone: Tone = ""

    @property
    def text(self) -> str:
        """The number as it is shown."""
        return show(self.value, self.form, self.digits)


@dataclass(frozen=True, slots=True)
class Facts:
    """A row of big numbers."""

    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True)
class Text:
    """Prose; an empty line starts a new paragraph."""

    text: str

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The paragraphs, without the empty ones."""
        return tuple(part.strip() for part in self.text.replace("\r\n", "\n").split("\n\n") if part.strip())


Block = Figure | Table | Facts | Text
