"""Losses of language models: supervised, of preferences, of policies and critics.

Shapes: B rows (responses), T token slots, P pairs. What has a T is one loss a token, to be put together by
`masking.aggregate`; what has a P is one a pair. Log-probabilities are in nats. Nothing outside of a mask counts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tandem.learn.masking import Aggregation, Counts, aggregate, only


def sft(logps_BT: Tensor, mask_BT: Tensor, of: Counts, how: Aggregation = "token") -> Tensor:
    """Return the cross-entropy of the tokens that are masked in, in nats: -log p, a scalar.

    Args:
        logps_BT: Log-probability of each token.
        mask_BT: Tokens to learn, EOS among them.
        of: The counts of the whole batch.
        how: `token` or `sequence`.
    """
    return aggregate(-only(logps_BT, mask_BT), mask_BT, how, of)


def preference(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """Return -log sigmoid(chosen - rejected): a reward model's loss for each pair; log 2 where both score alike.

    Source: Ouyang et al., Training language models to follow instructions with human feedback, 2022, equation 1
    (Bradley, Terry 1952).
    """
    return -logsigmoid(chosen_P - rejected_P)


def dpo(
    chosen_P: Tensor,
    rejected_P: Tensor,
    reference_chosen_P: Tensor,
    reference_rejected_P: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the loss of direct preference optimisation for each pair; log 2 where the policy is the reference.

    With h = beta [(log pi/ref)(chosen) - (log pi/ref)(rejected)]: -(1 - eps) log sigmoid(h) - eps log sigmoid(-h).

    Args:
        chosen_P: Log-probability of the whole preferred response under the policy.
        rejected_P: Of the other one.
        reference_chosen_P: Under the reference.
        reference_rejected_P: Under the reference.
        beta: How dear it is to leave the reference.
        label_smoothing: eps, the share of pairs thought to be labelled the wrong way round, 0 to 0.5.

    Source: Rafailov et al., Direct Preference Optimization, NeurIPS 2023, equation 7; with eps: Mitchell, A note on
    DPO with noisy preferences, 2023.
    """
    h_P = beta * ((chosen_P - reference_chosen_P) - (rejected_P - reference_rejected_P))
    return -(1.0 - label_smoothing) * logsigmoid(h_P) - label_smoothing * logsigmoid(-h_P)


def ppo_clip(log_ratios: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """Return -min(r A, clip(r, 1 - low, 1 + high) A), of any shape: of tokens, or of whole responses.

    Args:
        log_ratios: log r = log pi(new) - log pi(old); 0 outside of the mask.
        advantages: A, of a shape that broadcasts; 0 outside of the mask.
        clip_low: How far r may fall before the gradient stops.
        clip_high: How far it may rise; more than `clip_low` in DAPO ("clip-higher").

    Source: Schulman et al., Proximal Policy Optimization Algorithms, 2017, equation 7; two bounds: Yu et al., DAPO,
    2025, section 3.1.
    """
    ratios = log_ratios.exp()
    return -torch.minimum(ratios * advantages, ratios.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages)


def value_clip(values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, clip: float) -> Tensor:
    """Return a critic's loss at each token, 1/2 max((V - R)², (V_clipped - R)²), V_clipped within `clip` of the old V.

    Source: Schulman et al.'s code of PPO (openai/baselines, ppo2); DeepSpeed-Chat, Yao et al. 2023.
    """
    values_BT, old_BT, returns_BT = (only(x_BT, mask_BT) for x_BT in (values_BT, old_values_BT, returns_BT))
    near_BT = old_BT + (values_BT - old_BT).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_BT - returns_BT).square(), (near_BT - returns_BT).square())
