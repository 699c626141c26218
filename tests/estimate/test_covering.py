"""Sets that are put together of companies: by hand, and against bandwidth that many share."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.estimate.covering import Company, cover
from tandem.estimate.observed import FEW, Observed

HALF = 0.04


def company(beside: str, slowdown: float) -> Company:
    """One application a letter; seen once, with the same half-width on either side."""
    return Company.of(beside, Observed(1, slowdown, slowdown - HALF, slowdown + HALF))


def largest_first(*companies: Company) -> list[Company]:
    return sorted(companies, key=lambda one: -one.size)


def test_the_largest_companies_are_taken_first_each_as_often_as_it_is_there() -> None:
    found = cover(largest_first(company("aaaa", 1.1), company("a", 1.05), company("b", 1.2)), "aaaaaaaaab")
    assert [(one.size, one.seen.mid) for one in found.parts] == [(4, 1.1), (1, 1.05), (1, 1.2)]
    assert found.excess == pytest.approx(2 * 0.1 + 0.05 + 0.2)
    assert found.below == found.above == pytest.approx(4 * HALF**2)
    assert not found.left.total()
    assert (found.least, found.most, found.whole) == (0.0, math.inf, None)
    assert found.words() == ["4 a 1.10x", "a 1.05x", "b 1.20x"]


def test_who_is_in_no_company_is_left() -> None:
    found = cover(largest_first(company("aab", 1.3), company("b", 1.1)), "abbc")
    assert +found.left == {"a": 1, "c": 1}
    assert found.excess == pytest.approx(0.2)


def test_a_set_costs_no_more_than_one_that_holds_it() -> None:
    found = cover(largest_first(company("a" * 16, 1.15), company("aaaa", 1.1)), "a" * 8)
    assert found.excess == pytest.approx(0.15)
    assert found.most == pytest.approx(0.15 + HALF)
    assert found.words() == ["4 a 1.10x", "all of them among 16 a 1.15x"]


def test_who_is_not_there_is_not_named() -> None:
    """They may be another user's, whose application has the same name."""
    found = cover(largest_first(company("aabcc", 1.2), company("a", 1.15)), "aa")
    assert found.words() == ["a 1.15x", "all of them among 2 a + 3 others 1.20x"]


def test_but_what_was_seen_of_a_part_counts() -> None:
    """Beside more it went faster: one of the two was seen at an idle moment of the loud one."""
    found = cover(largest_first(company("abl", 1.0), company("b", 1.0), company("l", 1.5)), "bl")
    assert (found.excess, found.most) == (pytest.approx(0.5), pytest.approx(0.5 + HALF))


def test_of_two_that_hold_it_the_one_that_costs_less_decides() -> None:
    """The loud one of the smaller is in the other not there."""
    known = largest_first(company("a", 1.1), company("b", 1.1), company("abl", 1.5), company("abcd", 1.15))
    assert cover(known, "ab").excess == pytest.approx(0.15)


def test_between_two_sizes_of_the_same_it_is_a_straight_line() -> None:
    found = cover(largest_first(company("a" * 16, 1.6), company("aaaa", 1.0), company("a", 1.0)), "a" * 10)
    assert found.excess == pytest.approx(0.6 * (10 - 4) / (16 - 4))
    assert found.above == pytest.approx(HALF**2)
    assert cover(largest_first(company("aab", 1.6), company("a", 1.0)), "aa").excess == 0.0, "b may be the loud one"


def test_half_of_a_crowd_that_proved_too_large_may_be_tried_and_beyond_that_each_counts_for_its_part() -> None:
    crowd = [company("abcdefghij", 1.5)]
    assert cover(crowd, "abcde").least == 0.0
    found = cover(crowd, "abcdef")
    assert (found.least, found.most) == (pytest.approx(0.5 * 6 / 10), pytest.approx(0.5 + HALF))
    assert +found.left == Counter("abcdef")
    grown = largest_first(*crowd, company("abcde", 1.1))
    assert cover(grown, "abcdefg").least == 0.0
    assert cover(grown, "abcdefgh").least == pytest.approx(0.1 + (0.5 - 0.1) * 3 / 5)


def test_nobody_is_blamed_for_what_another_is_known_to_do() -> None:
    """The loud one (l) of the company that was slowed is known, and is not there."""
    crowd = "l" + "x" * FEW
    assert cover(largest_first(company(crowd, 2.0), company("l", 2.0)), "x" * FEW).least == 0.0
    assert cover(largest_first(company(crowd, 2.5), company("l", 2.0)), "x" * FEW).least == pytest.approx(0.5)
    assert cover(largest_first(company(crowd, 2.5), company("l", 2.0)), "x").least == 0.0


def test_of_a_few_any_set_that_nobody_saw_may_be_tried() -> None:
    """Each of the two may be harmless without the other."""
    assert cover(largest_first(company("er", 1.63), company("r", 1.0)), "e").least == 0.0
    found = cover(largest_first(company("eer", 1.63), company("r", 1.0)), "er")
    assert (found.excess, found.least) == (0.0, 0.0)
    assert cover(largest_first(company("aaaa", 1.6), company("a", 1.0)), "aaa").excess == 0.0


keys = st.lists(st.sampled_from("abc"), min_size=1, max_size=12)


@given(st.lists(st.tuples(keys, st.floats(1.04, 3.0)), max_size=12), keys)
def test_everybody_is_in_one_part_or_left(seen: list[tuple[list[str], float]], there: list[str]) -> None:
    known = largest_first(*(company("".join(sorted(beside)), slowdown) for beside, slowdown in seen))
    left, excess, above = [*there], 0.0, 0.0
    for one in known:
        while all(left.count(key) >= number for key, number in one.counts.items()):
            for key in one.counts.elements():
                left.remove(key)
            excess += one.seen.mid - 1.0
            above += HALF**2
    found = cover(known, there)
    assert sorted(found.left.elements()) == sorted(left)
    if found.whole is None:
        assert (found.excess, found.above) == (pytest.approx(excess), pytest.approx(above))
    elif left:
        assert found.whole.size > FEW
        assert 2 * found.count > found.whole.size
    else:
        assert found.excess <= max(excess, found.whole.seen.mid - 1.0) + 1e-9
        assert found.excess >= max(one.seen.mid for one in found.parts) - 1.0 - 1e-9


@given(st.sets(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 40), st.integers(1, 30))
def test_bandwidth_that_is_free_until_it_is_used_up(sizes: set[int], count: int, fit: int) -> None:
    """Beyond what was seen nothing is known; within, it is never too little, nor more than the next larger."""

    def truth(n: int) -> float:
        return max(1.0, (n + 1) / fit)  # the neighbours, and itself

    found = cover(largest_first(*(company("a" * n, truth(n)) for n in sizes)), "a" * count)
    if count <= max(sizes):
        guess = 1.0 + max(found.excess, found.least)
        assert guess <= truth(min(n for n in sizes if n >= count)) + 1e-9
        if count >= min(sizes) and min(n for n in sizes if n >= count) > FEW:
            assert guess >= truth(count) - 1e-9
    if count in sizes:
        assert found.excess == pytest.approx(truth(count) - 1.0)
