"""Losses against closed forms, and autograd's gradients against those derived by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tandem.learn.logprobs import token_logprobs
from tandem.learn.losses import dpo, ppo_clip, preference, sft, value_clip
from tandem.learn.masking import Counts, at_last

number = st.floats(-4.0, 4.0)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


@given(st.integers(0, 10_000))
def test_sft_is_torchs_cross_entropy_over_what_is_masked_in(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits_BTV = torch.randn(3, 4, 6, generator=rng, dtype=torch.float64)
    tokens_BT = torch.randint(6, (3, 4), generator=rng)
    mask_BT = torch.rand(3, 4, generator=rng) < 0.7
    mask_BT[0, 0] = True
    told = torch.nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1), tokens_BT.masked_fill(~mask_BT, -100).flatten(), ignore_index=-100
    )
    loss = sft(token_logprobs(logits_BTV, tokens_BT, mask_BT), mask_BT, Counts.of(mask_BT))
    assert float(loss) == pytest.approx(float(told), abs=1e-12)


@given(number, number)
def test_a_preference_costs_what_bradley_and_terry_say(chosen: float, rejected: float) -> None:
    chosen_P, rejected_P = f64(chosen), f64(rejected)
    loss_P = preference(chosen_P, rejected_P)
    assert loss_P.item() == pytest.approx(-math.log(sigmoid(chosen - rejected)), abs=1e-12)
    slope = sigmoid(rejected - chosen)
    grads = torch.autograd.grad(loss_P.sum(), (chosen_P, rejected_P))
    assert [g.item() for g in grads] == pytest.approx([-slope, slope], abs=1e-12)


@given(st.integers(0, 10_000), st.integers(0, 4))
def test_a_reward_models_loss_knows_neither_padding_nor_order_and_is_log_2_on_identical_pairs(
    seed: int, width: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    scores_BT = torch.randn(6, 5, generator=rng, dtype=torch.float64)
    mask_BT = torch.arange(5) < torch.randint(1, 6, (6, 1), generator=rng)
    loss_P = preference(*at_last(scores_BT, mask_BT).view(3, 2).unbind(1))
    wide_BT = torch.nn.functional.pad(scores_BT, (width, width), value=math.nan)
    wide_mask_BT = torch.nn.functional.pad(mask_BT, (width, width))
    order_P = torch.randperm(3, generator=rng)
    chosen_P, rejected_P = at_last(wide_BT, wide_mask_BT).view(3, 2)[order_P].unbind(1)
    assert torch.equal(preference(chosen_P, rejected_P), loss_P[order_P])
    assert preference(chosen_P, chosen_P).tolist() == pytest.approx([math.log(2.0)] * 3, abs=1e-15)


@given(number, number, number, number, st.floats(0.01, 1.0), st.floats(0.0, 0.49))
def test_dpos_value_and_gradient(
    chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float, smoothing: float
) -> None:
    chosen_P, rejected_P = f64(chosen), f64(rejected)
    loss_P = dpo(chosen_P, rejected_P, f64(ref_chosen), f64(ref_rejected), beta=beta, label_smoothing=smoothing)
    h = beta * (chosen - ref_chosen - rejected + ref_rejected)
    told = -(1 - smoothing) * math.log(sigmoid(h)) - smoothing * math.log(sigmoid(-h))
    assert loss_P.item() == pytest.approx(told, abs=1e-10)
    slope = beta * (sigmoid(h) - (1 - smoothing))  # d loss / d h = sigmoid(h) - (1 - eps), by hand
    grads = torch.autograd.grad(loss_P.sum(), (chosen_P, rejected_P))
    assert [g.item() for g in grads] == pytest.approx([slope, -slope], abs=1e-10)


def test_smoothed_dpo_is_least_where_the_model_is_as_sure_as_the_labels() -> None:
    beta, smoothing = 0.1, 0.2
    best = math.log((1 - smoothing) / smoothing) / beta
    chosen_P = f64(best)
    dpo(chosen_P, f64(0.0), f64(0.0), f64(0.0), beta=beta, label_smoothing=smoothing).sum().backward()
    assert chosen_P.grad is not None
    assert chosen_P.grad.item() == pytest.approx(0.0, abs=1e-12)


@given(st.floats(-1.5, 1.5), number, st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_ppos_gradient_stops_where_the_ratio_has_gone_far_enough(
    log_ratio: float, a: float, low: float, high: float
) -> None:
    log_ratio_N, advantage_N = f64(log_ratio), f64(a)
    loss_N = ppo_clip(log_ratio_N, advantage_N.detach(), clip_low=low, clip_high=high)
    ratio = math.exp(log_ratio)
    assert loss_N.item() == pytest.approx(-min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a), abs=1e-12)
    stopped = (a > 0 and ratio > 1 + high) or (a < 0 and ratio < 1 - low)
    (grad_N,) = torch.autograd.grad(loss_N.sum(), log_ratio_N)
    assert grad_N.item() == pytest.approx(0.0 if stopped else -ratio * a, abs=1e-12)


def test_at_ratio_1_the_gradient_is_the_policy_gradient_whole_and_not_half() -> None:
    log_ratio_N = f64(0.0, 0.0)
    ppo_clip(log_ratio_N, f64(3.0, -2.0).detach(), clip_low=0.2, clip_high=0.2).sum().backward()
    assert log_ratio_N.grad is not None
    assert log_ratio_N.grad.tolist() == [-3.0, 2.0]


@given(number, number, number, st.floats(0.05, 1.0))
def test_the_value_clip_is_centred_on_the_old_value(value: float, old: float, target: float, clip: float) -> None:
    value_BT = f64(value)[None]
    mask_BT = torch.ones(1, 1, dtype=torch.bool)
    loss_BT = value_clip(value_BT, f64(old)[None], f64(target)[None], mask_BT, clip)
    near = min(max(value, old - clip), old + clip)
    plain, clipped = (value - target) ** 2 / 2, (near - target) ** 2 / 2
    assert loss_BT.item() == pytest.approx(max(plain, clipped), abs=1e-12)
    (grad_BT,) = torch.autograd.grad(loss_BT.sum(), value_BT)
    if abs(plain - clipped) > 1e-9:
        assert grad_BT.item() == pytest.approx(value - target if plain > clipped else 0.0, abs=1e-12)


def test_a_critic_learns_nothing_outside_of_its_mask() -> None:
    values_BT = torch.tensor([[1.0, math.nan]], requires_grad=True)
    junk_BT = torch.tensor([[0.5, math.inf]])
    loss_BT = value_clip(values_BT, junk_BT, junk_BT, torch.tensor([[True, False]]), 0.2)
    loss_BT.sum().backward()
    assert values_BT.grad is not None
    assert loss_BT.tolist() == [[0.125, 0.0]]
    assert values_BT.grad.tolist() == [[0.5, 0.0]]
