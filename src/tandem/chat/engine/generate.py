"""Drawing responses: all rows of a batch together, with a cache of keys and values.

Shapes: B rows, T slots, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        max_new_tokens: How long a response may get, EOS included.
        temperature: Logits are divided by it; 0 takes the likeliest token.
        top_k: Only the k likeliest; 0 for all.
        top_p: Only the likeliest that together have this share; 1 for all.
        eos_id: What ends a response.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    eos_id: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """Prompts with their responses.

    Attributes:
        tokens_BT: The prompt, the response, then padding.
        prompt_lengths_B: Tokens of the prompt.
        lengths_B: Of both, EOS included.
        logps_BT: Log-probability of each response token at the temperature it was drawn at, 0 elsewhere.
        ended_B: Whether EOS was drawn.
    """

    tokens_BT: Tensor
    prompt_lengths_B: Tensor
    lengths_B: Tensor
    logps_BT: Tensor
    ended_B: Tensor


@torch.no_grad()
def generate(
    model: Any,  # noqa: ANN401 - transformers has no types
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    group: int = 1,
    generator: torch.Generator,
    pad_id: int,
    on_tokens: Callable[[list[int], list[int]], None] | None = None,
) -> Rollout:
    """Draw responses; `group` neighbours for each prompt.

    Args:
        model: A causal language model of transformers.
        prompts: Token lists, none empty.
        sampling: How.
        group: Responses to each prompt.
        generator: Where chance comes from.
        pad_id: What fills up.
        on_tokens: Called after each step with the rows that got a token, and the tokens.
    """
    rows = [list(prompt) for prompt in prompts for _ in range(group)]
    starts_B = torch.tensor([len(row) for row in rows])
    width = int(starts_B.max())
    tokens_BT = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows])
    mask_BT = torch.arange(width) >= width - starts_B[:, None]
    positions_BT = (mask_BT.long().cumsum(1) - 1).clamp(min=0)
    live_B = torch.ones(len(rows), dtype=torch.bool)
    cache, feed_BT = None, tokens_BT
    drawn: list[Tensor] = []
    logps: list[Tensor] = []
    lives: list[Tensor] = []
    for _ in range(sampling.max_new_tokens):
        out = model(
            input_ids=feed_BT,
            attention_mask=mask_BT.long(),
            position_ids=positions_BT,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.cache
        next_B, logp_B = _draw(out.logits[:, -1].float(), sampling, generator)
        next_B = torch.where(live_B, next_B, pad_id)
        drawn.append(next_B)
        logps.append(logp_B)
        lives.append(live_B)
        if on_tokens is not None:
            running = live_B.nonzero().squeeze(1)
            on_tokens(running.tolist(), next_B[running].tolist())
        live_B = live_B & (next_B != sampling.eos_id)
        if not bool(live_B.any()):
            break
        feed_BT = next_B[:, None]
        mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], dim=1)
        positions_BT = positions_BT[:, -1:] + 1
    return _to_the_left(
        rows, starts_B, torch.stack(drawn, 1), torch.stack(logps, 1), torch.stack(lives, 1), ~live_B, pad_id
    )


def _draw(logits_BV: Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if sampling.temperature == 0.0:
        logps_BV = logits_BV.log_softmax(-1)
        next_B = logps_BV.argmax(-1)
    else:
        logits_BV = logits_BV / sampling.temperature
        if sampling.top_k:
            least_B1 = logits_BV.topk(min(sampling.top_k, logits_BV.shape[1])).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        if sampling.top_p < 1.0:
            sorted_BV, order_BV = logits_BV.softmax(-1).sort(descending=True)
            drop_BV = sorted_BV.cumsum(-1) - sorted_BV >= sampling.top_p
            logits_BV = logits_BV.masked_fill(drop_BV.gather(1, order_BV.argsort(-1)), -torch.inf)
        logps_BV = logits_BV.log_softmax(-1)
        next_B = torch.multinomial(logps_BV.exp(), 1, generator=generator).squeeze(1)
    return next_B, logps_BV.gather(1, next_B[:, None]).squeeze(1)


def _to_the_left(
    rows: list[list[int]],
    starts_B: Tensor,
    drawn_BN: Tensor,
    logps_BN: Tensor,
    live_BN: Tensor,
    ended_B: Tensor,
    pad_id: int,
) -> Rollout:
    """Put each response right behind its prompt."""
    lengths_B = starts_B + live_BN.sum(1)
    width = int(lengths_B.max())
    tokens_BT = torch.full((len(rows), width), pad_id)
    logps_BT = logps_BN.new_zeros(len(rows), width)
    for i, row in enumerate(rows):
        count = int(lengths_B[i]) - len(row)
        tokens_BT[i, : len(row)] = torch.tensor(row)
        tokens_BT[i, len(row) : len(row) + count] = drawn_BN[i, :count]
        logps_BT[i, len(row) : len(row) + count] = logps_BN[i, :count]
    return Rollout(tokens_BT, starts_B, lengths_B, logps_BT, ended_B)
