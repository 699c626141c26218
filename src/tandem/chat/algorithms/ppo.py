"""PPO: a critic says what was to be expected of each token; the KL to the reference is paid out of the reward.

    r_t = -kl_coefficient (log pi_old - log pi_ref)_t + [t is the last token] clip(score, ±score_clip)
    A, R = GAE(r, V);  A is whitened over the batch
    loss = mean over tokens of -min(ratio A, clip(ratio) A) + value_coefficient · the critic's clipped loss

Source: Ziegler et al., Fine-Tuning Language Models from Human Preferences, 2019; Ouyang et al., InstructGPT, 2022;
Schulman et al., PPO, 2017. Defaults are those of DeepSpeed-Chat (Yao et al., 2023), unless told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tandem.chat.algorithm import Experience, Group, Loss, Need, Ratio, Targets, check_settings, needed
from tandem.learn.advantages import gae
from tandem.learn.bounds import MOST, may_clip
from tandem.learn.kl import kl
from tandem.learn.losses import ppo_clip, value_clip
from tandem.learn.masking import Counts, aggregate, last_index, only, whiten

NEEDS: frozenset[Need] = frozenset({"scores", "reference", "critic"})
GROUP: Group = "none"
RATIO: Ratio = "token"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of PPO.

    Attributes:
        clip: How far the ratio may go from 1 (PPO, section 6.1: 0.2; DeepSpeed-Chat: 0.2).
        value_clip: How far values may go from what they were (DeepSpeed-Chat: 0.2).
        value_coefficient: Of the critic's loss; 1 where the critic has weights of its own (DeepSpeed-Chat).
        gamma: Discount per token (DeepSpeed-Chat, InstructGPT: 1).
        lam: GAE's lambda (DeepSpeed-Chat, InstructGPT: 0.95).
        kl_coefficient: Reward paid per nat away from the reference (DeepSpeed-Chat: 0.1).
        score_clip: Scores are clipped to ±this, the KL is not (DeepSpeed-Chat: 5).
        whiten_advantages: To mean 0, variance 1 (Ziegler et al.'s code; DeepSpeed-Chat does not).
        whiten_rewards: To variance 1 about their mean (Ziegler et al.'s code has it as an option; off).
    """

    clip: float = 0.2
    value_clip: float = 0.2
    value_coefficient: float = 1.0
    gamma: float = 1.0
    lam: float = 0.95
    kl_coefficient: float = 0.1
    score_clip: float = 5.0
    whiten_advantages: bool = True
    whiten_rewards: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        allowed = {
            "clip above 0 and below 1": 0.0 < self.clip < 1.0,
            "value_clip and score_clip above 0, up to 1e18 or infinite": may_clip(self.value_clip)
            and may_clip(self.score_clip),
            "gamma and lam from 0 to 1": 0.0 <= self.gamma <= 1.0 and 0.0 <= self.lam <= 1.0,
            "coefficients from 0 to 1e18": 0.0 <= self.kl_coefficient <= MOST and 0.0 <= self.value_coefficient <= MOST,
        }
        check_settings(self, allowed)


def rewards(experience: Experience, config: Config) -> Tensor:
    """Return each token's reward, 0 outside of the mask."""
    mask_BT = experience.mask_BT
    old_BT = needed(experience.old_logps_BT, "old log-probabilities", mask_BT)
    scores_B = needed(experience.scores_B, "scores").clamp(-config.score_clip, config.score_clip)
    paid_BT = torch.zeros_like(old_BT)
    if config.kl_coefficient:
        reference_BT = needed(experience.reference_logps_BT, "reference log-probabilities", mask_BT)
        paid_BT = -config.kl_coefficient * kl(old_BT, reference_BT, mask_BT, "k1")
    terminal_BT = torch.zeros_like(paid_BT).scatter(1, last_index(mask_BT)[:, None], scores_B.to(paid_BT)[:, None])
    return paid_BT + only(terminal_BT, mask_BT)


def prepare(experience: Experience, config: Config) -> Targets:
    """Return advantages and the critic's targets."""
    mask_BT = experience.mask_BT
    values_BT = needed(experience.values_BT, "values", mask_BT)
    rewards_BT = rewards(experience, config)
    if config.whiten_rewards:
        rewards_BT = whiten(rewards_BT, mask_BT, keep_mean=True)
    advantages_BT, returns_BT = gae(
        rewards_BT, values_BT, mask_BT, gamma=config.gamma, lam=config.lam, bootstrap_B=experience.bootstrap_B
    )
    if config.whiten_advantages:
        advantages_BT = whiten(advantages_BT, mask_BT)
    return Targets(advantages_BT=advantages_BT, returns_BT=returns_BT)


def loss(
    logps_BT: Tensor,
    values_BT: Tensor | None,
    experience: Experience,
    targets: Targets,
    config: Config,
    of: Counts,
) -> Loss:
    """Return the policy's and the critic's loss; see `Algorithm.loss`."""
    mask_BT = experience.mask_BT
    old_BT = needed(experience.old_logps_BT, "old log-probabilities", mask_BT)
    log_ratios_BT = only(logps_BT, mask_BT) - only(old_BT, mask_BT)
    advantages_BT = needed(targets.advantages_BT, "advantages")
    policy_BT = ppo_clip(log_ratios_BT, advantages_BT, clip_low=config.clip, clip_high=config.clip)
    critic_BT = value_clip(
        needed(values_BT, "values of the critic now", mask_BT),
        needed(experience.values_BT, "values", mask_BT),
        needed(targets.returns_BT, "returns"),
        mask_BT,
        config.value_clip,
    )
    policy = aggregate(policy_BT, mask_BT, "token", of)
    critic = aggregate(critic_BT, mask_BT, "token", of)
    clipped = aggregate((log_ratios_BT.exp() - 1.0).abs().gt(config.clip).to(policy), mask_BT, "token", of)
    parts = {"policy": policy.detach(), "critic": critic.detach(), "outside_clip": clipped.detach()}
    return Loss(policy + config.value_coefficient * critic, parts)
