"""Mixtures: proportions that hold at every moment, and sources that are read through before they are repeated."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import gcd

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.data.mixture import MAX_CYCLE, Mixture, cycle, turns_of
from tandem.data.steps import LoaderError
from tests.data.samples import InMemory, numbered

TURNS = st.lists(st.integers(1, 40), min_size=1, max_size=7)


@given(turns=TURNS)
def test_every_prefix_of_a_cycle_keeps_tijdemans_bound(turns: list[int]) -> None:
    sources, earlier = cycle(tuple(turns))
    length, count = sum(turns), len(turns)
    bound = 1 - Fraction(1, 2 * count - 2) if count > 1 else Fraction(0)
    had = [0] * count
    for position, source in enumerate(sources.tolist()):
        assert earlier[position] == had[source]
        had[source] += 1
        assert all(abs(h - Fraction(t * (position + 1), length)) <= bound for h, t in zip(had, turns, strict=True))
    assert had == turns


@given(weights=st.lists(st.floats(0.001, 1000), min_size=1, max_size=5))
def test_turns_are_the_weights_to_one_in_ten_thousand(weights: list[float]) -> None:
    if min(weights) * MAX_CYCLE < sum(weights) * 1.001:
        return
    turns = turns_of(weights)
    for turn, weight in zip(turns, weights, strict=True):
        assert abs(turn / sum(turns) - weight / sum(weights)) <= 1.01 / MAX_CYCLE


def test_plain_fractions_are_exact() -> None:
    assert turns_of([0.7, 0.2, 0.1]) == [7, 2, 1]
    assert turns_of([1 / 3, 2 / 3]) == [1, 2]
    assert turns_of([5]) == [1]
    assert sum(turns_of([3.14159265, 2.71828183])) == MAX_CYCLE


@pytest.mark.parametrize(
    ("weights", "turns"),
    [
        ([7e-7, 1e-6], [7, 10]),
        ([1e-8, 3e-8], [1, 3]),
        ([3e-7, 1e-7], [3, 1]),
        ([1e-300, 1e-300], [1, 1]),
        ([1e300, 3e300], [1, 3]),
    ],
)
def test_only_proportions_count(weights: list[float], turns: list[int]) -> None:
    assert turns_of(weights) == turns


@given(turns=TURNS, power=st.integers(-1000, 1000))
def test_weights_of_any_size_give_the_same_turns(turns: list[int], power: int) -> None:
    one = gcd(*turns)
    assert turns_of([turn * 2.0**power for turn in turns]) == [turn // one for turn in turns]


@pytest.mark.parametrize(
    "weights",
    [
        np.array([0.5, 0.25], np.float32),
        np.array([2, 1], np.uint8),
        torch.tensor([2.0, 1.0]),
        [Decimal("0.2"), Fraction(1, 10)],
        iter([2, 1]),
    ],
)
def test_weights_may_be_numbers_of_any_kind(weights: Sequence[float]) -> None:
    assert Mixture([numbered(2), numbered(2)], weights=weights).turns == [2, 1]


def test_one_source_alone_is_no_row_of_sources() -> None:
    with pytest.raises(LoaderError, match=r"sources=.*; allowed: one weight for each of 1 or more sources"):
        Mixture(numbered(2), weights=[1])  # type: ignore[arg-type]


def mixed(counts: list[int], weights: list[float], epoch_size: int | None = None) -> Mixture:
    return Mixture([numbered(count) for count in counts], weights=weights, epoch_size=epoch_size)


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    epoch_size=st.integers(1, 60),
    shuffle=st.booleans(),
    data=st.data(),
)
def test_no_sample_comes_again_before_all_others_of_its_source_came(
    counts: list[int], epoch_size: int, shuffle: bool, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(counts), max_size=len(counts)))
    mixture = mixed(counts, [float(weight) for weight in weights], epoch_size)
    drawn: list[list[int]] = [[] for _ in counts]
    for epoch in range(5):
        for number in mixture.order(seed=3, epoch=epoch, shuffle=shuffle).at(np.arange(epoch_size)).tolist():
            source, own = mixture.source_of(number)
            drawn[source].append(own)
    for own_numbers, count in zip(drawn, counts, strict=True):
        for begin in range(0, len(own_numbers), count):
            one_pass = own_numbers[begin : begin + count]
            assert len(set(one_pass)) == len(one_pass)
            assert shuffle or one_pass == list(range(len(one_pass)))


def test_passes_over_a_source_are_shuffled_differently_and_sources_of_one_size_too() -> None:
    mixture = mixed([50, 50], [1, 1], epoch_size=200)
    numbers = mixture.order(seed=0, epoch=0, shuffle=True).at(np.arange(200)).tolist()
    first = [number for number in numbers if number < 50]
    second = [number - 50 for number in numbers if number >= 50]
    assert sorted(first[:50]) == sorted(first[50:]) == list(range(50))
    assert len({tuple(first[:50]), tuple(first[50:]), tuple(second[:50]), tuple(second[50:])}) == 4


def test_positions_can_be_asked_for_in_any_order_in_any_epoch() -> None:
    order = mixed([7, 11, 30], [0.5, 0.3, 0.2], epoch_size=31).order(seed=1, epoch=6, shuffle=True)
    assert len(order) == 31
    together = order.at(np.arange(31)).tolist()
    assert together == [int(order.at(np.array([position]))[0]) for position in range(31)]


def test_views_come_in_the_order_asked_for_and_each_source_is_read_once() -> None:
    sources = [InMemory([b"a0", b"a1"]), InMemory([b"b0", b"b1", b"b2"])]
    mixture = Mixture(sources, weights=[1, 1])
    assert len(mixture) == 5
    views = mixture.read_views(np.array([4, 0, 2, 1, 4]))
    assert [bytes(view) for view in views] == [b"b2", b"a0", b"b0", b"a1", b"b2"]
    assert [source.asked for source in sources] == [[[0, 1]], [[2, 0, 2]]]


@pytest.mark.parametrize(
    ("counts", "weights", "epoch_size", "words"),
    [
        ([], [], None, "0 sources and 0 weights"),
        ([3], [1.0, 2.0], None, "1 sources and 2 weights"),
        ([3, 0], [1.0, 2.0], None, "an empty source \\(number 1\\)"),
        ([3, 3], [1.0, 0.0], None, "weights 1.0, 0.0; allowed: finite numbers above 0"),
        ([3, 3], [1.0, float("nan")], None, "weights 1.0, nan"),
        ([3, 3], [1.0, "a"], None, "weights 1.0, a; allowed: finite numbers above 0"),
        ([3, 3], [1.0, 10**400], None, "weights 1.0, 1000"),
        ([3, 3], [True, 2], None, "weights True, 2; allowed: finite numbers above 0"),
        ([3, 3], np.array([True, True]), None, "weights True, True; allowed: finite numbers above 0"),
        ([3, 3], np.ma.array([1, 2], mask=[0, 1]), None, "weights 1, --; allowed: finite numbers above 0"),
        ([3, 3], np.ones((2, 2)), None, "weights .*; allowed: finite numbers above 0"),
        ([3, 3], None, None, "weights=None; allowed: one weight for each of 1 or more sources"),
        ([3, 3], 0.5, None, "weights=0.5; allowed: one weight for each of 1 or more sources"),
        ([3, 3], {1: "a", 2: "b"}, None, r"weights=\{1: 'a', 2: 'b'\}; allowed: .* sources, in a row"),
        ([3, 3], {1.0, 2.0}, None, r"weights=\{1.0, 2.0\}; allowed: one weight for each .*, in a row"),
        ([3, 3], torch.ones(2, device="meta"), None, "weights tensor.*; allowed: finite numbers above 0"),
        ([3, 3], [1.0, 1e-6], None, "a weight of 1e-06 among"),
        ([3], [1.0], 0, "epochs of 0 samples"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(
    counts: list[int], weights: list[float], epoch_size: int | None, words: str
) -> None:
    with pytest.raises(LoaderError, match=words):
        mixed(counts, weights, epoch_size)
