"""Pairs that were never seen: exact where the truth is of rank one, moderate where little is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.inferred import Inferred

SENSITIVITY = {"cg": 2.0, "stencil": 1.2, "lu": 0.1, "fft": 0.9, "sort": 0.6}
PRESSURE = {"cg": 1.1, "stencil": 1.5, "lu": 0.05, "fft": 1.0, "sort": 0.7}


def truth(app: str, beside: str) -> float:
    return 1 + 0.3 * SENSITIVITY[app] * PRESSURE[beside]


def test_a_hidden_pair_is_found_where_the_truth_is_a_product() -> None:
    for hidden in [("cg", "stencil"), ("lu", "cg"), ("fft", "sort")]:
        seen = {(a, b): truth(a, b) for a in SENSITIVITY for b in PRESSURE if a != b and (a, b) != hidden}
        assert Inferred(seen).slowdown(*hidden) == pytest.approx(truth(*hidden), abs=0.1)


def test_a_sensitive_application_beside_a_new_one_is_judged_by_its_own_record() -> None:
    inferred = Inferred({("cg", "stream"): 1.7, ("lu", "stream"): 1.0, ("lu", "cg"): 1.02})
    sensitive, calm = inferred.slowdown("cg", "new"), inferred.slowdown("lu", "new")
    assert sensitive is not None
    assert calm is not None
    assert sensitive > 1.15
    assert calm < sensitive


def test_two_that_were_never_seen_are_not_guessed() -> None:
    assert Inferred({("cg", "stream"): 1.7}).slowdown("new", "newer") is None
    assert Inferred({}).slowdown("cg", "stream") is None


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), st.floats(1.0, 20.0), min_size=1, max_size=20
    )
)
def test_never_below_one_and_never_beyond_reason(pairs: dict[tuple[str, str], float]) -> None:
    inferred = Inferred(pairs)
    for app in "abcdefg":
        for beside in "abcdefg":
            guess = inferred.slowdown(app, beside)
            assert guess is None or 1.0 <= guess < 1000.0


def test_the_order_in_which_pairs_came_changes_nothing() -> None:
    pairs = {(a, b): truth(a, b) for a in SENSITIVITY for b in PRESSURE if a < b}
    backwards = dict(reversed(list(pairs.items())))
    assert Inferred(pairs).slowdown("sort", "cg") == Inferred(backwards).slowdown("sort", "cg")
