"""Responses that another policy drew than the one that learns, weighed so that the mean is that of the one that learns.

    w = min(pi / mu, cap)        pi the policy as it was when the batch was drawn, mu what drew (a pruned copy of it)

A token's advantage is multiplied by w, and w has no gradient: the clip of an algorithm goes on comparing the policy
with what it was, not with what drew. The ratio is each token's own, or, where an algorithm takes a whole response as
one action, that of the response. Where no ratio is above the cap, the latter leaves the policy gradient without bias; a
token's own ratio leaves out how likely what came before it was, and is without bias for responses of one token. The cap
trades variance for a bias towards what mu draws too often.

Source: Yao et al., Your Efficient RL Framework Secretly Brings You Off-Policy RL Training, 2025 (truncated importance
sampling of tokens); Hilton, Cobbe, Schulman, Batch Size-Invariance for Policy Optimization, NeurIPS 2022 (a behaviour
policy beside the one that is clipped around); Ionides, Truncated Importance Sampling, 2008. Limits: a KL in the loss
and the critic's loss are means over what was drawn, and are not weighed.

Shapes: B responses, T slots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from tandem.chat.algorithm import Experience, Ratio, Targets, needed
from tandem.learn.masking import masked_mean, only


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What drew a batch.

    Attributes:
        logps_BT: Log-probability of each token of a response when it was drawn.
        cap: The most that a ratio counts for, at least 1.
    """

    logps_BT: Tensor
    cap: float


def log_ratios(experience: Experience, behaviour: Behaviour, of: Ratio) -> Tensor:
    """Return log(pi / mu) at each token, [B, T]; 0 outside of the mask.

    Args:
        experience: With the policy's log-probabilities as it was.
        behaviour: What drew its responses.
        of: Whose ratio: each token's own, or that of the response it is of.

    Raises:
        TrainingInputError: A log-probability is missing or not finite.
    """
    mask_BT = experience.mask_BT
    pi_BT = only(needed(experience.old_logps_BT, "old log-probabilities", mask_BT), mask_BT)
    mu_BT = only(needed(behaviour.logps_BT, "log-probabilities of what drew", mask_BT), mask_BT)
    off_BT = pi_BT - mu_BT
    return off_BT if of == "token" else only(off_BT.sum(dim=1, keepdim=True).expand_as(off_BT), mask_BT)


def weighed(
    targets: Targets, experience: Experience, behaviour: Behaviour, of: Ratio
) -> tuple[Targets, dict[str, float]]:
    """Return targets with capped ratios on their advantages, and figures.

    The figures: `rollout_ratio`, the mean of what ratios count for; `rollout_capped`, the share that is above the cap;
    `rollout_kl_nats`, how far the policy is from what drew, nats a response.

    Args:
        targets: What `prepare` returned for the whole batch.
        experience: The same rows.
        behaviour: What drew them.
        of: Whose ratio.

    Raises:
        TrainingInputError: A log-probability is missing or not finite.
    """
    mask_BT = experience.mask_BT
    ratios_BT = log_ratios(experience, behaviour, of).exp()
    weights_BT = ratios_BT.clamp(max=behaviour.cap)
    figures = {
        "rollout_ratio": float(masked_mean(weights_BT, mask_BT)),
        "rollout_capped": float(masked_mean((ratios_BT > behaviour.cap).to(ratios_BT), mask_BT)),
        "rollout_kl_nats": -float(log_ratios(experience, behaviour, "token").sum(dim=1).mean()),
    }
    advantages_BT = needed(targets.advantages_BT, "advantages")
    return replace(targets, advantages_BT=advantages_BT * weights_BT.to(advantages_BT)), figures
