"""Matches found by a child: as `re` finds them, and an end to what takes too long."""

import re
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.estimate.profiling.matcher import LONGEST_LINE, Matcher

cached = cache(Matcher)
LINES = st.lists(st.text(st.sampled_from("step 019.\x00\ud800é"), max_size=40), max_size=6)


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(LINES, min_size=1, max_size=4))
@pytest.mark.parametrize(("pattern", "group"), [(r"ste?p", 0), (r"step ?(\d+)?", 1), (r"(?P<rate>\d+)\.(\d*)", "rate")])
def test_equal_to_matching_here(pattern: str, group: str | int, batches: list[list[str]]) -> None:
    matcher = cached(pattern, group)
    for lines in batches:
        assert matcher.found(lines) == [one.group(group) for line in lines for one in re.finditer(pattern, line)]


def test_a_line_is_cut() -> None:
    matcher = Matcher("x", 0)
    assert len(matcher.found(["x" * (LONGEST_LINE + 5)]) or []) == LONGEST_LINE
    matcher.close()


@pytest.mark.slow
def test_what_takes_too_long_ends_and_stays_ended() -> None:
    matcher = Matcher("(a+)+$", 0)
    assert matcher.found(["aaa"]) == ["aaa"]
    assert matcher.found(["a" * 40 + "b"]) is None
    assert matcher.found(["aaa"]) is None
    matcher.close()
