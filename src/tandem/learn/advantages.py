"""Advantages: how much better a token or a response did than was to be expected.

Shapes: B rows (responses), T token slots, N groups of G neighbouring rows that answer the same prompt.
All are for the data, not the graph: call them without gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tandem.learn.errors import TrainingInputError
from tandem.learn.masking import only


def gae(
    rewards_BT: Tensor,
    values_BT: Tensor,
    mask_BT: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return generalised advantages and the returns that a critic is to learn, both 0 outside of the mask.

    A_t = sum over l >= 0 of (gamma lam)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t. Slots outside of the mask
    take no time: the token after a gap follows the one before it. Lam 1 is Monte Carlo, lam 0 one-step TD.

    Args:
        rewards_BT: Reward of each token.
        values_BT: What the critic said before it.
        mask_BT: Tokens of responses.
        gamma: Discount per token, 0 to 1.
        lam: Weight of longer looks ahead, 0 to 1.
        bootstrap_B: Value after a row's last token: 0 where the response ended, the critic's word where it was cut
            short and would have gone on. None: all ended.

    Source: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation, ICLR 2016,
    equation 16; truncation: Pardo et al., Time Limits in Reinforcement Learning, ICML 2018.
    """
    rewards_BT, values_BT = only(rewards_BT, mask_BT), only(values_BT, mask_BT)
    next_value_B = torch.zeros_like(values_BT[:, 0]) if bootstrap_B is None else bootstrap_B.to(values_BT.dtype)
    carried_B = torch.zeros_like(next_value_B)
    advantages_BT = torch.zeros_like(values_BT)
    for t in reversed(range(values_BT.shape[1])):
        here_B = mask_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        carried_B = torch.where(here_B, delta_B + gamma * lam * carried_B, carried_B)
        next_value_B = torch.where(here_B, values_BT[:, t], next_value_B)
        advantages_BT[:, t] = torch.where(here_B, carried_B, 0.0)
    return advantages_BT, advantages_BT + values_BT


def group_relative(scores_B: Tensor, group_size: int, *, scale: bool, eps: float = 1e-4) -> Tensor:
    """Return each response's score less its group's mean, A_B; exactly 0 where all of a group score alike.

    Args:
        scores_B: One score a response, groups next to each other.
        group_size: G, at least 2.
        scale: Divide by the group's standard deviation (unbiased) plus `eps`, as GRPO does; Dr. GRPO does not.
        eps: Keeps near-equal groups finite; TRL's value.

    Raises:
        TrainingInputError: Fewer than 2 in a group, or rows left over.

    Source: Shao et al., DeepSeekMath, 2024, section 4.1.2; without scale: Liu et al., Understanding R1-Zero-Like
    Training, 2025, section 3.
    """
    scores_NG = _grouped(scores_B, group_size)
    advantages_NG = scores_NG - scores_NG.mean(dim=1, keepdim=True)
    if scale:
        advantages_NG = advantages_NG / (scores_NG.std(dim=1, keepdim=True) + eps)
    return advantages_NG.masked_fill(_alike(scores_NG), 0.0).reshape(-1)


def leave_one_out(scores_B: Tensor, group_size: int) -> Tensor:
    """Return each response's score less the mean of the others of its group; exactly 0 where all score alike.

    Args:
        scores_B: One score a response, groups next to each other.
        group_size: G, at least 2.

    Raises:
        TrainingInputError: Fewer than 2 in a group, or rows left over.

    Source: Ahmadian et al., Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback
    in LLMs, ACL 2024; Kool et al., Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019.
    """
    scores_NG = _grouped(scores_B, group_size)
    others_NG = (scores_NG.sum(dim=1, keepdim=True) - scores_NG) / (group_size - 1)
    return (scores_NG - others_NG).masked_fill(_alike(scores_NG), 0.0).reshape(-1)


def _grouped(scores_B: Tensor, group_size: int) -> Tensor:
    if group_size < 2 or scores_B.shape[0] % group_size:
        raise TrainingInputError(
            given=f"{scores_B.shape[0]} responses in groups of {group_size}",
            allowed="whole groups of 2 or more: what a response is compared with are the others of its group",
            todo="draw as many responses to each prompt as group_size says",
        )
    return scores_B.view(-1, group_size)


def _alike(scores_NG: Tensor) -> Tensor:
    """Say which groups' scores are all equal: their mean is not, to the last bit."""
    return (scores_NG == scores_NG[:, :1]).all(dim=1, keepdim=True)
