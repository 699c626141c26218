"""Advantages against sums written out, Monte Carlo, and what must not matter."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tandem.learn.advantages import gae, group_relative, leave_one_out
from tandem.learn.errors import TrainingInputError

unit = st.floats(0.0, 1.0)
seeds = st.integers(0, 10_000)


def case(seed: int, rows: int = 3, slots: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    rewards_BT, values_BT = torch.randn(2, rows, slots, generator=rng, dtype=torch.float64)
    mask_BT = torch.rand(rows, slots, generator=rng) < 0.6
    return rewards_BT, values_BT, mask_BT, torch.randn(rows, generator=rng, dtype=torch.float64)


def written_out(rewards: list[float], values: list[float], after: float, gamma: float, lam: float) -> list[float]:
    """The double sum of the paper's equation 16 over one row's tokens, without a recursion."""
    nexts = [*values[1:], after]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, nexts, values, strict=True)]
    return [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(deltas))) for t in range(len(deltas))]


@settings(max_examples=40)
@given(seeds, unit, unit)
def test_gae_is_the_sum_written_out_over_the_tokens_that_are_masked_in(seed: int, gamma: float, lam: float) -> None:
    rewards_BT, values_BT, mask_BT, bootstrap_B = case(seed)
    advantages_BT, returns_BT = gae(rewards_BT, values_BT, mask_BT, gamma=gamma, lam=lam, bootstrap_B=bootstrap_B)
    for b, mask_T in enumerate(mask_BT):
        rewards, values = rewards_BT[b, mask_T].tolist(), values_BT[b, mask_T].tolist()
        told = written_out(rewards, values, float(bootstrap_B[b]), gamma, lam) if rewards else []
        assert advantages_BT[b, mask_T].tolist() == pytest.approx(told, abs=1e-12)
        assert returns_BT[b, mask_T].tolist() == pytest.approx(
            [a + v for a, v in zip(told, values, strict=True)], abs=1e-12
        )
    assert not advantages_BT[~mask_BT].any()
    assert not returns_BT[~mask_BT].any()


@given(seeds, unit)
def test_lambda_1_is_monte_carlo_and_a_cut_response_goes_on_with_its_bootstrap(seed: int, gamma: float) -> None:
    rewards_BT, values_BT, _, bootstrap_B = case(seed)
    mask_BT = torch.ones_like(rewards_BT, dtype=torch.bool)
    _, returns_BT = gae(rewards_BT, values_BT, mask_BT, gamma=gamma, lam=1.0, bootstrap_B=bootstrap_B)
    slots = rewards_BT.shape[1]
    for t in range(slots):
        powers = torch.tensor([gamma**k for k in range(slots - t)], dtype=torch.float64)
        told_B = (rewards_BT[:, t:] * powers).sum(dim=1) + gamma ** (slots - t) * bootstrap_B
        assert torch.allclose(returns_BT[:, t], told_B, atol=1e-12)


def test_an_ended_response_has_nothing_after_it() -> None:
    ones_BT = torch.ones(1, 3)
    mask_BT = torch.tensor([[True, True, False]])
    advantages_BT, _ = gae(ones_BT, 0 * ones_BT, mask_BT, gamma=0.5, lam=1.0)
    assert advantages_BT.tolist() == [[1.5, 1.0, 0.0]]


@given(seeds, st.sampled_from([math.nan, math.inf, -1e30]))
def test_what_a_masked_slot_holds_changes_nothing(seed: int, junk: float) -> None:
    rewards_BT, values_BT, mask_BT, bootstrap_B = case(seed)
    clean = gae(rewards_BT, values_BT, mask_BT, gamma=0.9, lam=0.8, bootstrap_B=bootstrap_B)
    dirty = (x_BT.masked_fill(~mask_BT, junk) for x_BT in (rewards_BT, values_BT))
    again = gae(*dirty, mask_BT, gamma=0.9, lam=0.8, bootstrap_B=bootstrap_B)
    assert torch.equal(clean[0], again[0])
    assert torch.equal(clean[1], again[1])


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=4))
def test_groups_are_compared_with_their_own_mean_and_spread(groups: list[list[float]]) -> None:
    scores_B = torch.tensor(groups, dtype=torch.float64).view(-1)
    plain_B = group_relative(scores_B, 3, scale=False)
    scaled_B = group_relative(scores_B, 3, scale=True)
    for n, group in enumerate(groups):
        mean, spread = statistics.fmean(group), statistics.stdev(group)
        told = [score - mean for score in group]
        assert plain_B[3 * n : 3 * n + 3].tolist() == pytest.approx(told, abs=1e-9)
        assert scaled_B[3 * n : 3 * n + 3].tolist() == pytest.approx([a / (spread + 1e-4) for a in told], abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_the_baseline_of_leave_one_out_leaves_self_out(scores: list[float]) -> None:
    told = [s - statistics.fmean(scores[:i] + scores[i + 1 :]) for i, s in enumerate(scores)]
    assert leave_one_out(torch.tensor(scores, dtype=torch.float64), 4).tolist() == pytest.approx(told, abs=1e-9)


@given(st.floats(-1e6, 1e6, width=32), st.integers(2, 9))
def test_a_group_whose_scores_are_alike_has_exactly_no_advantage(score: float, size: int) -> None:
    scores_B = torch.full((2 * size,), score)
    for advantages_B in (
        group_relative(scores_B, size, scale=True),
        group_relative(scores_B, size, scale=False),
        leave_one_out(scores_B, size),
    ):
        assert advantages_B.tolist() == [0.0] * (2 * size)


@pytest.mark.parametrize("size", [1, 4])
def test_groups_that_are_not_whole_are_refused(size: int) -> None:
    with pytest.raises(TrainingInputError, match=f"6 responses in groups of {size}"):
        group_relative(torch.zeros(6), size, scale=True)
    with pytest.raises(TrainingInputError, match="whole groups of 2 or more"):
        leave_one_out(torch.zeros(6), size)
