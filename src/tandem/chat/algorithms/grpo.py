"""GRPO: a response is compared with the others to the same prompt, so that no critic is needed; the KL is in the loss.

    A_i = (score_i - mean of the group) / (standard deviation of the group + 1e-4), the same for all tokens of i
    loss = aggregate(-min(ratio A, clip(ratio) A) + kl_coefficient · k3)

`Config()` is GRPO, `Config.dr_grpo(length_tokens)` and `Config.dapo()` are its two best-known variants.

Source: Shao et al., DeepSeekMath, 2024, equations 3 and 4; Liu et al., Understanding R1-Zero-Like Training (Dr. GRPO),
2025; Yu et al., DAPO, 2025. Limits: DAPO's dynamic sampling and overlong penalty concern what is drawn and scored,
before anything here: they are the recipe's `rl.dynamic_sampling` and `rl.overlong_tokens`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.chat.algorithm import Experience, Group, Loss, Need, Ratio, Targets, check_settings, needed
from tandem.learn.advantages import group_relative
from tandem.learn.bounds import MOST, MOST_AT_ONCE, may_clip
from tandem.learn.kl import kl
from tandem.learn.losses import ppo_clip
from tandem.learn.masking import Aggregation, Counts, aggregate, check_length, only

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[Need] = frozenset({"scores", "reference"})
GROUP: Group = "same prompt"
RATIO: Ratio = "token"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of GRPO.

    Attributes:
        group_size: Responses to each prompt (DeepSeekMath, section 4.2: 64; DAPO: 16; TRL: 8, taken here).
        clip_low: How far the ratio may fall below 1 (PPO: 0.2; DeepSeekMath does not say).
        clip_high: How far it may rise above 1 (PPO: 0.2).
        kl_coefficient: Of k3 in the loss (DeepSeekMath, section 4.2: 0.04); at 0 no reference is needed.
        scale: Divide by the group's standard deviation (DeepSeekMath, section 4.1.2).
        aggregation: How tokens become one loss (DeepSeekMath, equation 3: each response's mean).
        length_tokens: What sums are divided by under `fixed`.
    """

    group_size: int = 8
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coefficient: float = 0.04
    scale: bool = True
    aggregation: Aggregation = "sequence"
    length_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        allowed = {
            "group_size from 2 to 1e6": 2 <= self.group_size <= MOST_AT_ONCE,
            "clip_low above 0 and below 1": 0.0 < self.clip_low < 1.0,
            "clip_high above 0, up to 1e18 or infinite": may_clip(self.clip_high),
            "kl_coefficient from 0 to 1e18": 0.0 <= self.kl_coefficient <= MOST,
        }
        check_settings(self, allowed)
        check_length(self.aggregation, self.length_tokens)

    @classmethod
    def dr_grpo(cls, length_tokens: int, *, group_size: int = 8) -> Config:
        """Neither lengths nor spreads change a response's weight, and there is no KL (Liu et al., sections 3 and 4)."""
        return cls(
            group_size=group_size, kl_coefficient=0.0, scale=False, aggregation="fixed", length_tokens=length_tokens
        )

    @classmethod
    def dapo(cls, *, group_size: int = 16) -> Config:
        """All tokens weigh the same, ratios may rise further than fall, no KL (Yu et al., sections 2.3, 3 and 4.1)."""
        return cls(group_size=group_size, clip_high=0.28, kl_coefficient=0.0, aggregation="token")


def prepare(experience: Experience, config: Config) -> Targets:
    """Return each response's advantage at all of its tokens."""
    advantages_B = group_relative(needed(experience.scores_B, "scores"), config.group_size, scale=config.scale)
    return Targets(advantages_BT=advantages_B[:, None] * experience.mask_BT)


def loss(
    logps_BT: Tensor,
    values_BT: Tensor | None,
    experience: Experience,
    targets: Targets,
    config: Config,
    of: Counts,
) -> Loss:
    """Return the policy's loss with its KL; see `Algorithm.loss`."""
    del values_BT
    mask_BT = experience.mask_BT
    old_BT = needed(experience.old_logps_BT, "old log-probabilities", mask_BT)
    log_ratios_BT = only(logps_BT, mask_BT) - only(old_BT, mask_BT)
    advantages_BT = needed(targets.advantages_BT, "advantages")
    policy_BT = ppo_clip(log_ratios_BT, advantages_BT, clip_low=config.clip_low, clip_high=config.clip_high)
    total = policy = aggregate(policy_BT, mask_BT, config.aggregation, of, config.length_tokens)
    parts = {"policy": policy.detach()}
    if config.kl_coefficient:
        reference_BT = needed(experience.reference_logps_BT, "reference log-probabilities", mask_BT)
        kl_BT = kl(logps_BT, reference_BT, mask_BT, "k3")
        divergence = aggregate(kl_BT, mask_BT, config.aggregation, of, config.length_tokens)
        parts["kl"] = divergence.detach()
        total = policy + config.kl_coefficient * divergence
    return Loss(total, parts)
