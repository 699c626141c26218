"""Isotonic regression against the min-max formula."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.bubbles.isotonic import ascending

values = st.lists(st.floats(0.5, 50.0), min_size=1, max_size=12)


@given(values)
def test_it_is_the_min_max_formula(given_values: list[float]) -> None:
    """Robertson, Wright, Dykstra (1988): each value is the largest over a <= i of the smallest over b >= i of means."""
    n = len(given_values)
    expected = [max(min(fmean(given_values[a : b + 1]) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
    assert ascending(given_values) == pytest.approx(expected)


@given(values)
def test_it_ascends_keeps_the_mean_and_what_ascends_already(given_values: list[float]) -> None:
    found = ascending(given_values)
    assert found == sorted(found)
    assert fmean(found) == pytest.approx(fmean(given_values))
    assert ascending(sorted(given_values)) == sorted(given_values)
