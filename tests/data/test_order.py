"""The shuffle: a permutation for every count, as uniform as chance, the same on every machine."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tandem.data.order import MAX_COUNT, InOrder, Shuffled, mix

SURE = 1e-4  # a fair order fails one of these tests in so many; they are seeded, so that they fail always or never


@pytest.mark.slow
def test_it_is_a_permutation_of_every_small_count_and_its_inverse_leads_back() -> None:
    for count in range(2001):
        positions = np.arange(count)
        order = Shuffled(count, seed=count // 3, epoch=count % 5)
        numbers = order.at(positions)
        assert np.array_equal(np.sort(numbers), positions), count
        assert np.array_equal(order.position_of(numbers), positions), count


@given(
    count=st.integers(1, MAX_COUNT),
    seed=st.integers(-(2**70), 2**70),
    epoch=st.integers(0, 2**64),
    fractions=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50),
)
def test_of_any_count_distinct_positions_have_distinct_samples_and_lead_back(
    count: int, seed: int, epoch: int, fractions: list[float]
) -> None:
    positions = np.unique(np.array([min(int(part * count), count - 1) for part in fractions], dtype=np.int64))
    order = Shuffled(count, seed=seed, epoch=epoch)
    numbers = order.at(positions)
    assert len(set(numbers.tolist())) == len(positions)
    assert numbers.min() >= 0
    assert numbers.max() < count
    assert np.array_equal(order.position_of(numbers), positions)


@given(count=st.integers(1, 200_000), seed=st.integers(0, 9))
def test_of_any_count_that_can_be_listed_it_is_a_permutation(count: int, seed: int) -> None:
    numbers = Shuffled(count, seed=seed, epoch=seed).at(np.arange(count))
    assert np.array_equal(np.sort(numbers), np.arange(count))


@given(count=st.integers(1, 10**12), data=st.data())
def test_the_sample_at_a_position_does_not_depend_on_what_else_is_asked(count: int, data: st.DataObject) -> None:
    order = Shuffled(count, seed=1, epoch=2)
    positions = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)), dtype=np.int64)
    together = order.at(positions)
    assert together.tolist() == [int(order.at(position[None])[0]) for position in positions]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_all_orders_of_few_samples_are_equally_likely(count: int) -> None:
    epochs = 20 * math.factorial(count)
    seen = Counter(tuple(Shuffled(count, seed=3, epoch=e).at(np.arange(count)).tolist()) for e in range(epochs))
    counts = [seen[order] for order in itertools.permutations(range(count))]
    assert stats.chisquare(counts).pvalue > SURE


@pytest.mark.slow
@pytest.mark.parametrize("count", [9, 100, 1023, 1024, 50_000])
def test_two_positions_hold_every_pair_of_samples_equally_often(count: int) -> None:
    """Chi-square over a grid of where the samples of two neighbouring positions lie, over many epochs."""
    epochs, cells = 2000, 3
    positions = np.array([count // 2, count // 2 + 1])
    found = np.array([Shuffled(count, seed=11, epoch=e).at(positions) for e in range(epochs)])
    grid = found * cells // count
    counts = np.bincount(grid[:, 0] * cells + grid[:, 1], minlength=cells**2)
    sizes = np.bincount(np.arange(count) * cells // count, minlength=cells)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)  # ordered pairs of distinct samples in each pair of cells
    assert stats.chisquare(counts, epochs * pairs.ravel() / (count * (count - 1))).pvalue > SURE


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 1000, 5000])
def test_the_number_of_samples_that_stay_in_place_is_poisson_with_mean_one(count: int) -> None:
    epochs = 1500
    positions = np.arange(count)
    fixed = [int((Shuffled(count, seed=5, epoch=e).at(positions) == positions).sum()) for e in range(epochs)]
    counts = np.bincount(np.minimum(fixed, 4), minlength=5)
    wanted = stats.poisson(1).pmf(np.arange(4))
    assert stats.chisquare(counts, epochs * np.append(wanted, 1 - wanted.sum())).pvalue > SURE


@pytest.mark.slow
@pytest.mark.parametrize("count", [50, 1500, 20_000])
@pytest.mark.parametrize("neighbour", ["epoch", "seed"])
def test_neighbouring_epochs_and_seeds_are_not_correlated(count: int, neighbour: str) -> None:
    """Kendall's tau of n unrelated ranks is normal with variance 2 (2n + 5) / (9 n (n - 1)); its squares add up."""
    pairs = 40
    variance = 2 * (2 * count + 5) / (9 * count * (count - 1))
    orders = [
        Shuffled(count, **{"seed": 7, "epoch": 7} | {neighbour: e}).at(np.arange(count)) for e in range(pairs + 1)
    ]
    taus = [stats.kendalltau(a, b).statistic for a, b in itertools.pairwise(orders)]
    assert SURE < stats.chi2(pairs).cdf(sum(tau**2 for tau in taus) / variance) < 1 - SURE


def test_it_is_the_order_that_plain_integers_give() -> None:
    """The same network written out for one position at a time, in Python's own integers."""
    for count, seed, epoch in [(1, 0, 0), (7, 1, 2), (1000, 3, 0), (5000, 2**63, 9), (2**40 + 9, -1, 2**33)]:
        positions = [position * (count - 1) // 16 for position in range(17)]
        numbers = Shuffled(count, seed=seed, epoch=epoch).at(np.array(positions))
        assert numbers.tolist() == [plain_sample_at(position, count, seed, epoch) for position in positions]


def plain_sample_at(position: int, count: int, seed: int, epoch: int) -> int:
    left_size = math.isqrt(count - 1) + 1
    left_size += left_size % 2
    sizes = (left_size, -(-count // left_size))
    state = 0
    for word in (seed, epoch, count):
        state = mix((state ^ word) % 2**64)
    keys = [mix((state + i * 0x9E3779B97F4A7C15) % 2**64) >> 32 for i in range(1, 65)]
    while True:
        halves = list(divmod(position, sizes[1]))
        for number in range(20 if count < 1024 else 8):
            x = halves[1 - number % 2] ^ keys[2 * number]
            x = ((x ^ x >> 16) * 0x7FEB352D) % 2**32
            x = ((x ^ x >> 15) * 0x846CA68B) % 2**32
            x = (x + keys[2 * number + 1]) % 2**32
            x = ((x ^ x >> 16) * 0x7FEB352D) % 2**32
            size = sizes[number % 2]
            halves[number % 2] = (halves[number % 2] + (x * size >> 32)) % size
        position = halves[0] * sizes[1] + halves[1]
        if position < count:
            return position


def test_splitmix64_gives_its_published_numbers() -> None:
    """The first outputs of SplitMix64 seeded with 1234567, as in the test vectors of the Rosetta Code task."""
    step = 0x9E3779B97F4A7C15
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [mix((1234567 + i * step) % 2**64) for i in range(4)] == wanted


def test_the_order_never_changes_between_versions_and_machines() -> None:
    assert Shuffled(10, seed=0, epoch=0).at(np.arange(10)).tolist() == GOLDEN_10
    assert Shuffled(60_000, seed=42, epoch=3).at(np.arange(6)).tolist() == GOLDEN_60000
    assert Shuffled(MAX_COUNT, seed=1, epoch=1).at(np.array([0, MAX_COUNT - 1])).tolist() == GOLDEN_MAX


GOLDEN_10 = [1, 5, 7, 6, 9, 2, 3, 8, 0, 4]
GOLDEN_60000 = [14258, 33960, 27314, 26398, 50648, 52702]
GOLDEN_MAX = [2603829409608830277, 983589840007075760]


def test_positions_outside_are_refused() -> None:
    for order in (Shuffled(5, seed=0, epoch=0), InOrder(5)):
        with pytest.raises(IndexError, match="from 0 to 4; given 2 to 5"):
            order.at(np.array([2, 5]))
        with pytest.raises(IndexError, match="given -1 to 4"):
            order.position_of(np.array([4, -1]))
    with pytest.raises(ValueError, match="from 0 to 2\\^62"):
        Shuffled(MAX_COUNT + 1, seed=0, epoch=0)


def test_in_order_is_as_numbered() -> None:
    positions = np.array([3, 0, 2])
    assert InOrder(4).at(positions).tolist() == [3, 0, 2]
    assert InOrder(4).position_of(positions).tolist() == [3, 0, 2]
    assert len(InOrder(4)) == 4
