"""One value, one text."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.errors import one_line
from tandem.report.formats import MISSING, Format, Value, plot_lines, plot_text, show


@pytest.mark.parametrize(
    ("value", "form", "digits", "text"),
    [
        (None, "number", None, MISSING),
        (math.nan, "duration", None, MISSING),
        (math.inf, "ratio", None, "∞"),
        (-math.inf, "number", None, "-∞"),
        (math.inf, "duration", None, "forever"),
        (True, "number", None, "yes"),
        (False, "percent", None, "no"),
        ("a\nb", "text", None, "a\\nb"),
        ("a", "percent", None, "a"),
        (0, "number", None, "0"),
        (0.0, "number", None, "0"),
        (82247, "number", None, "82,247"),
        (12345.678, "number", None, "12,346"),
        (1.23456, "number", None, "1.23"),
        (0.0123456, "number", None, "0.0123"),
        (1.5, "number", 3, "1.500"),
        (0.9349, "percent", None, "93 %"),
        (0.9349, "percent", 1, "93.5 %"),
        (1.0834, "ratio", None, "1.08x"),
        (142.4, "duration", None, "2m22s"),
        (1536, "size", None, "1.5KiB"),
        (7, "text", None, "7"),
    ],
)
def test_values_are_written(value: Value, form: Format, digits: int | None, text: str) -> None:
    assert show(value, form, digits) == text


@given(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    st.sampled_from(["text", "number", "ratio", "percent"]),
)
def test_every_value_is_written_on_one_printable_line(value: Value, form: Format) -> None:
    assert show(value, form).isprintable()


def _as_plotly_reads(text: str) -> str:
    """Decode entities the way plotly.js does: once, from left to right."""
    return re.sub("&(lt|gt|amp);", lambda match: {"lt": "<", "gt": ">", "amp": "&"}[match[1]], text)


@given(st.text() | st.text(alphabet="<>&;lt/b"))
def test_plot_text_leaves_no_tag_and_reads_the_same(text: str) -> None:
    assert not set("<>") & set(plot_text(text))
    assert _as_plotly_reads(plot_text(text)) == one_line(text)


@given(st.text() | st.text(alphabet="<>& a"), st.integers(2, 20))
def test_plot_text_is_cut_to_what_is_seen(text: str, most: int) -> None:
    seen = _as_plotly_reads(plot_text(text, most))
    assert len(seen) <= most
    assert seen == one_line(text) or (seen.endswith("…") and one_line(text).startswith(seen[:-1]))


def test_plot_text_cuts_before_it_escapes() -> None:
    assert plot_text("a<b>&c", 5) == "a&lt;b&gt;…"


def test_plot_lines_keeps_only_line_ends() -> None:
    assert plot_lines("<a>\nb\x07") == "&lt;a&gt;<br>b\\x07"
