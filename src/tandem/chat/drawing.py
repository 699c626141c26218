"""Responses that are drawn and scored: what reinforcement learning learns from.

Shapes: B responses, T slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tandem.chat import heads
from tandem.chat.data.batches import Batch
from tandem.chat.data.turns import Prompt
from tandem.chat.engine.generate import Sampling, generate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.chat.engine.generate import Rollout
    from tandem.chat.scoring import Rewarded
    from tandem.chat.template import Template


@dataclass(frozen=True, slots=True)
class Drawn:
    """Responses to prompts.

    Attributes:
        prompts: One for each response.
        texts: What the responses say, cut at EOS.
        batch: Their tokens.
        ended_B: Whether they ended by themselves.
        logps_BT: Log-probabilities as generation had them.
    """

    prompts: list[Prompt]
    texts: list[str]
    batch: Batch
    ended_B: Tensor
    logps_BT: Tensor


def draw(
    model: Any,  # noqa: ANN401 - transformers has no types
    template: Template,
    prompts: Sequence[Prompt],
    *,
    response_tokens: int,
    temperature: float,
    group: int,
    seed: int,
) -> Drawn:
    """Let a model respond.

    Args:
        model: The language model.
        template: Its tokens.
        prompts: What to respond to.
        response_tokens: How long a response may get.
        temperature: At which tokens are drawn; 0 takes the likeliest.
        group: Responses to each prompt, next to each other.
        seed: Of chance.
    """
    sampling = Sampling(max_new_tokens=response_tokens, temperature=temperature, eos_id=template.eos_id)
    generator = torch.Generator().manual_seed(seed)
    tokens = [prompt.tokens for prompt in prompts]
    rollout = generate(model, tokens, sampling, group=group, generator=generator, pad_id=template.pad_id)
    batch = batch_of(rollout, group)
    rows = zip(rollout.tokens_BT.tolist(), rollout.prompt_lengths_B.tolist(), rollout.lengths_B.tolist(), strict=True)
    texts = [template.text(row[start:end]) for row, start, end in rows]
    return Drawn([prompt for prompt in prompts for _ in range(group)], texts, batch, rollout.ended_B, rollout.logps_BT)


def batch_of(rollout: Rollout, group: int = 1) -> Batch:
    """Return a rollout's tokens with the masks of training: EOS belongs to the response, nothing after it does."""
    slots_T = torch.arange(rollout.tokens_BT.shape[1])
    real_BT = slots_T < rollout.lengths_B[:, None]
    return Batch(rollout.tokens_BT, real_BT, real_BT & (slots_T >= rollout.prompt_lengths_B[:, None]), group=group)


@torch.no_grad()
def score(drawn: Drawn, reward: Rewarded | Any, missing_eos_penalty: float) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return what each response earns, and the reward without the penalty, both [B].

    Args:
        drawn: The responses.
        reward: A function, or a reward model.
        missing_eos_penalty: Taken off where a response was cut short.

    Raises:
        RewardError: The function raises, or returns what is no scores.
    """
    if isinstance(reward, torch.nn.Module):
        plain_B = heads.scores(reward, drawn.batch)
    else:
        rows = [prompt.row for prompt in drawn.prompts]
        plain_B = reward([row.prompt for row in rows], drawn.texts, [row.answer for row in rows])
    return plain_B - missing_eos_penalty * (~drawn.ended_B).to(plain_B), plain_B
