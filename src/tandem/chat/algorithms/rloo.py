"""RLOO: REINFORCE on whole responses, the others to the same prompt as the baseline; the KL is paid out of the score.

    R_i = score_i - kl_coefficient · sum over tokens of (log pi_old - log pi_ref)
    A_i = R_i - mean of the other R of the group
    loss = mean over responses of -min(ratio A, clip(ratio) A), ratio = pi(response) / pi_old(response)

On the first step after drawing the ratio is 1 and the gradient is REINFORCE's; with more steps it is clipped as in PPO.

Source: Ahmadian et al., Back to Basics, ACL 2024 (the response is one action; no clipping there, since there is one
step a batch). Limits: the ratio of a whole response leaves the clip quickly; for several steps a batch use few tokens
or small steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.chat.algorithm import Experience, Group, Loss, Need, Ratio, Targets, check_settings, needed
from tandem.learn.advantages import leave_one_out
from tandem.learn.bounds import MOST, MOST_AT_ONCE
from tandem.learn.kl import kl
from tandem.learn.losses import ppo_clip
from tandem.learn.masking import Counts, only

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[Need] = frozenset({"scores", "reference"})
GROUP: Group = "same prompt"
RATIO: Ratio = "response"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of RLOO.

    Attributes:
        group_size: Responses to each prompt (Ahmadian et al. compare 2 and 4; 4).
        kl_coefficient: Score paid per nat away from the reference (TRL's RLOOConfig: 0.05).
        clip: How far the ratio of a whole response may go from 1 (TRL's RLOOConfig: 0.2).
    """

    group_size: int = 4
    kl_coefficient: float = 0.05
    clip: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        allowed = {
            "group_size from 2 to 1e6": 2 <= self.group_size <= MOST_AT_ONCE,
            "clip above 0 and below 1": 0.0 < self.clip < 1.0,
            "kl_coefficient from 0 to 1e18": 0.0 <= self.kl_coefficient <= MOST,
        }
        check_settings(self, allowed)


def prepare(experience: Experience, config: Config) -> Targets:
    """Return each response's advantage at all of its tokens."""
    mask_BT = experience.mask_BT
    rewards_B = needed(experience.scores_B, "scores")
    if config.kl_coefficient:
        old_BT = needed(experience.old_logps_BT, "old log-probabilities", mask_BT)
        reference_BT = needed(experience.reference_logps_BT, "reference log-probabilities", mask_BT)
        rewards_B = rewards_B - config.kl_coefficient * kl(old_BT, reference_BT, mask_BT, "k1").sum(dim=1)
    return Targets(advantages_BT=leave_one_out(rewards_B, config.group_size)[:, None] * mask_BT)


def loss(
    logps_BT: Tensor,
    values_BT: Tensor | None,
    experience: Experience,
    targets: Targets,
    config: Config,
    of: Counts,
) -> Loss:
    """Return the policy's loss; see `Algorithm.loss`."""
    del values_BT
    mask_BT = experience.mask_BT
    old_BT = needed(experience.old_logps_BT, "old log-probabilities", mask_BT)
    log_ratios_BT = only(logps_BT, mask_BT) - only(old_BT, mask_BT)
    advantages_B = needed(targets.advantages_BT, "advantages").sum(dim=1) / mask_BT.sum(dim=1).clamp(min=1)
    policy_B = ppo_clip(log_ratios_BT.sum(dim=1), advantages_B, clip_low=config.clip, clip_high=config.clip)
    policy = policy_B.sum() / max(of.rows, 1)
    return Loss(policy, {"policy": policy.detach()})
