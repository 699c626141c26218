"""At ratio 1 each algorithm's gradient is the policy gradient, against bandits whose every outcome is enumerated.

A bandit: one token, K arms with rewards r, the policy softmax(theta). J = sum of pi r has the gradient
pi (r - J), written out by hand. An algorithm's gradient is its mean over all batches that could be drawn, weighed by
their probability; no sampling, so that equality is exact.
"""

import itertools

import pytest
import torch
from torch import Tensor

from tandem.chat import algorithm
from tandem.chat.algorithm import Experience
from tandem.chat.algorithms import grpo, ppo, rloo
from tandem.learn.advantages import group_relative, leave_one_out
from tandem.learn.masking import Counts

REWARDS_K = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
THETA_K = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)


def true_gradient() -> Tensor:
    pi_K = THETA_K.softmax(0)
    return pi_K * (REWARDS_K - pi_K @ REWARDS_K)


def mean_step(name: str, config: object, draws: int) -> Tensor:
    """Minus the mean gradient over all batches of `draws` arms: the mean direction of a step of descent."""
    how = algorithm.load(name)
    mean_K = torch.zeros_like(THETA_K)
    for arms in itertools.product(range(len(THETA_K)), repeat=draws):
        theta_K = THETA_K.clone().requires_grad_()
        arms_B = torch.tensor(arms)
        logps_BT = theta_K.log_softmax(0)[arms_B][:, None]
        old_BT = logps_BT.detach()
        mask_BT = torch.ones(draws, 1, dtype=torch.bool)
        experience = Experience(
            mask_BT=mask_BT,
            old_logps_BT=old_BT,
            reference_logps_BT=old_BT,
            scores_B=REWARDS_K[arms_B],
            values_BT=torch.full_like(old_BT, 0.7),
        )
        targets = how.prepare(experience, config)
        loss = how.loss(logps_BT, experience.values_BT, experience, targets, config, Counts.of(mask_BT))
        (gradient_K,) = torch.autograd.grad(loss.total, theta_K)
        mean_K -= old_BT.sum().exp() * gradient_K
    return mean_K


@pytest.mark.parametrize("draws", [2, 3])
def test_rloo_is_the_policy_gradient_without_bias(draws: int) -> None:
    step_K = mean_step("rloo", rloo.Config(group_size=draws), draws)
    assert torch.allclose(step_K, true_gradient(), atol=1e-12)


@pytest.mark.parametrize("draws", [2, 3])
def test_dr_grpo_is_it_but_for_self_in_its_baseline(draws: int) -> None:
    step_K = mean_step("grpo", grpo.Config.dr_grpo(1, group_size=draws), draws)
    assert torch.allclose(step_K, (1.0 - 1.0 / draws) * true_gradient(), atol=1e-12)


def test_ppo_is_it_whatever_the_critic_says() -> None:
    step_K = mean_step("ppo", ppo.Config(whiten_advantages=False), 1)
    assert torch.allclose(step_K, true_gradient(), atol=1e-12)


def test_grpo_is_reinforce_with_its_own_advantages() -> None:
    """DeepSeekMath's equation 3 at ratio 1 and no KL: each token of response i weighs -A_i / (len_i B)."""
    mask_BT = torch.tensor([[True, True, False], [True, False, False], [True, True, True], [True, True, False]])
    scores_B = torch.tensor([1.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    logps_BT = torch.full((4, 3), -2.0, dtype=torch.float64, requires_grad=True)
    old_BT = logps_BT.detach()
    experience = Experience(mask_BT=mask_BT, old_logps_BT=old_BT, reference_logps_BT=old_BT, scores_B=scores_B)
    config = grpo.Config(group_size=4)
    loss = grpo.loss(logps_BT, None, experience, grpo.prepare(experience, config), config, Counts.of(mask_BT))
    loss.total.backward()
    told_BT = -group_relative(scores_B, 4, scale=True)[:, None] * mask_BT / mask_BT.sum(dim=1, keepdim=True) / 4
    assert logps_BT.grad is not None
    assert torch.allclose(logps_BT.grad, told_BT, atol=1e-15)


def test_rloo_weighs_each_token_of_a_response_alike_whatever_its_length() -> None:
    """REINFORCE on whole responses: the gradient at every token of response i is -A_i / B."""
    mask_BT = torch.tensor([[True, True, False], [True, False, False], [True, True, True], [True, True, False]])
    scores_B = torch.tensor([1.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    logps_BT = torch.full((4, 3), -2.0, dtype=torch.float64, requires_grad=True)
    old_BT = logps_BT.detach()
    experience = Experience(mask_BT=mask_BT, old_logps_BT=old_BT, reference_logps_BT=old_BT, scores_B=scores_B)
    config = rloo.Config(group_size=4)
    loss = rloo.loss(logps_BT, None, experience, rloo.prepare(experience, config), config, Counts.of(mask_BT))
    loss.total.backward()
    told_BT = -leave_one_out(scores_B, 4)[:, None] * mask_BT / 4
    assert logps_BT.grad is not None
    assert torch.allclose(logps_BT.grad, told_BT, atol=1e-15)
