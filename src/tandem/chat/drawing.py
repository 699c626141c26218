"""Responses that are drawn and scored: what reinforcement learning learns from.

Shapes: B responses, T slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tandem.chat import heads, sharing
from tandem.chat.data.batches import Batch
from tandem.chat.data.turns import Prompt
from tandem.chat.engine.generate import Sampling, generate
from tandem.learn.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tandem.chat.engine.generate import Rollout
    from tandem.chat.scoring import Rewarded
    from tandem.chat.template import Template


ALONE = Ranks()


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
    ranks: Ranks = ALONE,
    between: Callable[[], None] = lambda: None,
) -> Drawn:
    """Let a model respond, each rank to its share of the prompts; all get all responses.

    Args:
        model: The language model, whole.
        template: Its tokens.
        prompts: What to respond to.
        response_tokens: How long a response may get.
        temperature: At which tokens are drawn; 0 takes the likeliest.
        group: Responses to each prompt, next to each other.
        seed: Of chance: what a prompt is answered does not depend on which rank does it.
        ranks: Who draws together.
        between: Called before each of generation's steps; what it raises ends all.
    """
    sampling = Sampling(max_new_tokens=response_tokens, temperature=temperature, eos_id=template.eos_id)
    generator = torch.Generator().manual_seed(seed)
    own = ranks.share(len(prompts))
    tokens = [prompt.tokens for prompt in prompts[own]]
    numbers = {"generator": generator, "before": own.start * group}
    mine = generate(model, tokens, sampling, group=group, pad_id=template.pad_id, between=between, **numbers)
    rollout = sharing.rollout(mine, ranks, template.pad_id)
    batch = batch_of(rollout, group)
    rows = zip(rollout.tokens_BT.tolist(), rollout.prompt_lengths_B.tolist(), rollout.lengths_B.tolist(), strict=True)
    texts = [template.text(row[start:end]) for row, start, end in rows]
    return Drawn([prompt for prompt in prompts for _ in range(group)], texts, batch, rollout.ended_B, rollout.logps_BT)


def batch_of(rollout: Rollout, group: int = 1) -> Batch:
    """Return a rollout's tokens with the masks of training: EOS belongs to the response, nothing after it does."""
    slots_T = torch.arange(rollout.tokens_BT.shape[1])
    real_BT = slots_T < rollout.lengths_B[:, None]
    return Batch(rollout.tokens_BT, real_BT, real_BT & (slots_T >= rollout.prompt_lengths_B[:, None]), group=group)


def joined(parts: Sequence[Drawn], kept: Sequence[Sequence[int]], pad_id: int) -> Drawn:
    """Return some rows of several draws as one.

    Args:
        parts: The draws.
        kept: Which rows of each; whole groups.
        pad_id: What fills up the shorter ones.
    """
    width = max(part.batch.tokens_BT.shape[1] for part in parts)

    def wide(values: Sequence[Tensor], fill: float) -> Tensor:
        pads = (torch.nn.functional.pad(value, (0, width - value.shape[1]), value=fill) for value in values)
        return torch.cat([value[list(rows)] for value, rows in zip(pads, kept, strict=True)])

    return Drawn(
        [part.prompts[i] for part, rows in zip(parts, kept, strict=True) for i in rows],
        [part.texts[i] for part, rows in zip(parts, kept, strict=True) for i in rows],
        Batch(
            wide([part.batch.tokens_BT for part in parts], pad_id),
            wide([part.batch.real_BT for part in parts], False),
            wide([part.batch.mask_BT for part in parts], False),
            group=parts[0].batch.group,
        ),
        torch.cat([part.ended_B[list(rows)] for part, rows in zip(parts, kept, strict=True)]),
        wide([part.logps_BT for part in parts], 0.0),
    )


def overlong(lengths_B: Tensor, response_tokens: int, overlong_tokens: int) -> Tensor:
    """Return what lengths cost: nothing up to the last `overlong_tokens`, there evenly more, 1 at the end.

    Source: Yu et al., DAPO, 2025, equation 13 (soft overlong punishment).
    """
    if not overlong_tokens:
        return torch.zeros_like(lengths_B, dtype=torch.float32)
    beyond_B = lengths_B - (response_tokens - overlong_tokens)
    return (beyond_B / overlong_tokens).clamp(min=0.0, max=1.0)


@torch.no_grad()
def score(
    drawn: Drawn,
    reward: Rewarded | Any,  # noqa: ANN401
    missing_eos_penalty: float,
    *,
    response_tokens: int = 0,
    overlong_tokens: int = 0,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor]:
    """Return what each response earns, and the reward without penalties, both [B]; each rank scores its share.

    Args:
        drawn: The responses.
        reward: A function, or a reward model.
        missing_eos_penalty: Taken off where a response was cut short.
        response_tokens: How long a response could get.
        overlong_tokens: Where before that a length begins to cost.
        ranks: Who scores together.

    Raises:
        RewardError: The function raises, or returns what is no scores.
    """
    if isinstance(reward, torch.nn.Module):
        plain_B = sharing.by_share(lambda part: heads.scores(reward, part), drawn.batch, ranks)
    else:
        own = ranks.share(len(drawn.texts))
        rows = [prompt.row for prompt in drawn.prompts[own]]
        asked = ([row.prompt for row in rows], drawn.texts[own], [row.answer for row in rows])
        plain_B = ranks.rows(reward(*asked) if rows or ranks.size == 1 else torch.zeros(0))
    costs_B = overlong(drawn.batch.mask_BT.sum(dim=1), response_tokens, overlong_tokens)
    return plain_B - missing_eos_penalty * (~drawn.ended_B).to(plain_B) - costs_B.to(plain_B), plain_B
