"""One value, one text: how figures are written, the same on the page and in the terminal.

Limits: grouping and decimal signs are English (`82,247.5`); there is no translation.
"""

import math
from typing import Literal

from tandem.core.errors import one_line
from tandem.core.units import human_duration, human_size

Value = str | int | float | bool | None
"""What a cell or a big number may hold."""

Format = Literal["text", "number", "duration", "ratio", "percent", "size"]
"""`duration` takes seconds, `percent` a fraction (0.93 is written 93 %), `size` bytes, `ratio` a factor."""

MISSING = "\u2013"
"""What is written for None and for not-a-number."""


def show(value: Value, form: Format = "text", digits: int | None = None) -> str:
    """Write one value on one line.

    Args:
        value: What to write; a text is written as it is, whatever the format.
        form: How a number is written.
        digits: Decimals; None takes what the format is usually read with.

    Returns:
        The text, without line ends or control characters.

    >>> show(142.4, "duration"), show(1.0834, "ratio"), show(0.934, "percent"), show(82247), show(None)
    ('2m22s', '1.08x', '93 %', '82,247', '–')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return one_line(value)
    if form == "duration":
        return human_duration(value)
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if form == "ratio":
        return f"{value:,.{2 if digits is None else digits}f}x"
    if form == "percent":
        return f"{value * 100:.{0 if digits is None else digits}f} %"
    if form == "size":
        return human_size(value)
    return _number(value, digits)


def plot_text(text: str, max_chars: int | None = None) -> str:
    """Make a text safe inside a picture: Plotly reads tags and entities in every label.

    Args:
        text: Anything, a user's job name included.
        max_chars: Longer texts are cut here and end in an ellipsis.

    Returns:
        One line in which no tag and no entity is left but the escapes of `&`, `<` and `>` (Plotly knows no
        others).
    """
    line = one_line(text)
    if max_chars is not None and len(line) > max_chars:
        line = line[: max_chars - 1].rstrip() + "…"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def plot_lines(text: str) -> str:
    """Make a text of several lines safe for a hover box, keeping its line ends."""
    return "<br>".join(plot_text(line) for line in text.splitlines())


def _number(value: float, digits: int | None) -> str:
    if digits is None and (isinstance(value, int) or value == round(value)):
        digits = 0
    if digits is None:
        digits = max(0, min(6, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{digits}f}"
