"""Masks, aggregation and whitening: against loops in plain Python, and what must not matter."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tandem.learn.errors import TrainingInputError
from tandem.learn.masking import Aggregation, Counts, aggregate, at_last, last_index, only, through_eos, whiten

seeds = st.integers(0, 10_000)
ways = st.sampled_from([("token", None), ("sequence", None), ("fixed", 7)])


def case(seed: int, rows: int = 6, slots: int = 5) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, slots, generator=rng, dtype=torch.float64), torch.rand(rows, slots, generator=rng) < 0.6


@given(seeds)
def test_each_aggregation_is_what_it_says(seed: int) -> None:
    x_BT, mask_BT = case(seed)
    rows = [x_T[mask_T].tolist() for x_T, mask_T in zip(x_BT, mask_BT, strict=True)]
    filled = [row for row in rows if row]
    tokens = [x for row in filled for x in row]
    of = Counts.of(mask_BT)
    assert (of.tokens, of.rows) == (len(tokens), len(filled))
    means = [statistics.fmean(row) for row in filled]
    assert float(aggregate(x_BT, mask_BT, "token", of)) == pytest.approx(statistics.fmean(tokens), abs=1e-12)
    assert float(aggregate(x_BT, mask_BT, "sequence", of)) == pytest.approx(statistics.fmean(means), abs=1e-12)
    assert float(aggregate(x_BT, mask_BT, "fixed", of, 7)) == pytest.approx(sum(tokens) / 7 / len(filled), abs=1e-12)


@given(seeds, ways, st.integers(1, 5))
def test_parts_of_a_batch_add_up_to_it(seed: int, way: tuple[Aggregation, int | None], size: int) -> None:
    x_BT, mask_BT = case(seed)
    parts = list(zip(x_BT.split(size), mask_BT.split(size), strict=True))
    of = sum((Counts.of(m) for _, m in parts), Counts(0, 0))
    assert of == Counts.of(mask_BT)
    summed = sum(float(aggregate(x, m, way[0], of, way[1])) for x, m in parts)
    assert summed == pytest.approx(float(aggregate(x_BT, mask_BT, way[0], of, way[1])), abs=1e-12)


@given(seeds, ways, st.integers(1, 4), st.sampled_from([math.nan, math.inf]))
def test_padding_on_either_side_and_empty_rows_change_nothing(
    seed: int, way: tuple[Aggregation, int | None], width: int, junk: float
) -> None:
    x_BT, mask_BT = case(seed)
    told = aggregate(x_BT, mask_BT, way[0], Counts.of(mask_BT), way[1])
    pad = (width, width, 0, 2)
    wide_BT, wide_mask_BT = (torch.nn.functional.pad(a, pad, value=v) for a, v in ((x_BT, junk), (mask_BT, False)))
    again = aggregate(wide_BT, wide_mask_BT, way[0], Counts.of(wide_mask_BT), way[1])
    assert float(again) == pytest.approx(float(told), abs=1e-13)


def test_a_part_without_tokens_has_a_loss_of_0_that_can_be_differentiated() -> None:
    x_BT = torch.full((2, 3), math.nan, requires_grad=True)
    mask_BT = torch.zeros(2, 3, dtype=torch.bool)
    loss = aggregate(x_BT, mask_BT, "token", Counts.of(mask_BT))
    loss.backward()
    assert loss.item() == 0.0
    assert x_BT.grad is not None
    assert not x_BT.grad.any()


@pytest.mark.parametrize(("how", "length"), [("fixed", None), ("fixed", 0), ("fixed", 10**23), ("token", 5)])
def test_a_length_goes_with_the_fixed_aggregation_alone(how: Aggregation, length: int | None) -> None:
    with pytest.raises(TrainingInputError, match="length_tokens"):
        aggregate(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), how, Counts(1, 1), length)


@given(seeds)
def test_whitening_looks_at_what_is_masked_in_and_rewards_keep_their_mean(seed: int) -> None:
    x_BT, mask_BT = case(seed)
    values = x_BT[mask_BT].tolist()
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    dirty_BT = x_BT.masked_fill(~mask_BT, math.nan)
    told = [(x - mean) / spread for x in values]
    assert whiten(dirty_BT, mask_BT)[mask_BT].tolist() == pytest.approx(told, abs=1e-6)
    kept_BT = whiten(dirty_BT, mask_BT, keep_mean=True)
    assert kept_BT[mask_BT].tolist() == pytest.approx([t + mean for t in told], abs=1e-6)
    assert not kept_BT[~mask_BT].any()


def test_whitening_equal_or_single_values_gives_zeros() -> None:
    mask_BT = torch.tensor([[True, True, False]])
    assert whiten(torch.tensor([[2.0, 2.0, 9.0]]), mask_BT).tolist() == [[0.0, 0.0, 0.0]]
    assert whiten(torch.tensor([[2.0, 2.0, 9.0]]), torch.tensor([[False, True, False]])).tolist() == [[0.0, 0.0, 0.0]]


def test_eos_is_in_the_response_and_nothing_after_it_even_where_padding_is_eos() -> None:
    tokens_BT = torch.tensor([[5, 2, 2, 2], [2, 5, 5, 2], [5, 5, 5, 5], [5, 5, 5, 2]])
    assert through_eos(tokens_BT, 2).long().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_the_score_is_read_at_the_last_token_wherever_the_padding_is() -> None:
    x_BT = torch.tensor([[1.0, 2.0, math.nan], [math.nan, 4.0, 5.0], [7.0, 8.0, 9.0]])
    mask_BT = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])
    assert last_index(mask_BT).tolist() == [1, 2, 0]
    assert at_last(x_BT, mask_BT).tolist() == [2.0, 5.0, 0.0]


def test_no_gradient_passes_a_mask() -> None:
    x_BT = torch.tensor([[1.0, math.nan]], requires_grad=True)
    (only(x_BT, torch.tensor([[True, False]])) ** 2).sum().backward()
    assert x_BT.grad is not None
    assert x_BT.grad.tolist() == [[2.0, 0.0]]
