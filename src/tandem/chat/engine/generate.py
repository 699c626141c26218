"""Generation: prompts in, responses with their log-probabilities out.

    rollout = generate(model, prompts, Sampling(max_new_tokens=64, eos_id=2), group=8, generator=rng, pad_id=0)

The model decodes with the weights it trains with; `generate` may be called between any two optimizer steps. What a row
draws depends on the generator's state, its own number and its position alone: numbers are drawn for all rows and
positions at once, before the first token. So neither `slots` nor what other rows do changes a response, but for
rounding, where a product of many rows and one of few differ in their last bits.

Shapes: B rows (prompt by prompt, `group` neighbours each), T tokens of a prompt and its response.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tandem.chat.engine.choosing import Way, decoder_for
from tandem.chat.engine.decoder import evaluating
from tandem.chat.engine.errors import GenerationError
from tandem.chat.engine.sampling import Sampling, draw, uniforms
from tandem.chat.engine.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

__all__ = ["Rollout", "Sampling", "generate"]

SLOTS = 64
"""Rows at a time: on CPUs a product of 64 rows costs little more than one of 16."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Prompts and responses, on the processor wherever the model is.

    Attributes:
        tokens_BT: Prompt, response, padding; T is the longest row's length.
        prompt_lengths_B: Tokens of each prompt.
        lengths_B: Of prompt and response, EOS included.
        logps_BT: Log-probability of each token of a response under what it was drawn from: at the sampling temperature,
            renormalised under top-k and top-p; at temperature 0 the model's own. 0 elsewhere.
        ended_B: Whether EOS was drawn; else the response was cut short.
    """

    tokens_BT: Tensor
    prompt_lengths_B: Tensor
    lengths_B: Tensor
    logps_BT: Tensor
    ended_B: Tensor


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    group: int = 1,
    generator: torch.Generator,
    pad_id: int,
    on_tokens: Callable[[list[int], list[int]], None] | None = None,
    between: Callable[[], None] = lambda: None,
    slots: int = SLOTS,
    way: Way = "auto",
    before: int = 0,
) -> Rollout:
    """Write `group` responses to each prompt.

    Args:
        model: A causal language model of Hugging Face. Its mode is put back afterwards; dropout is off meanwhile.
        prompts: Their tokens.
        sampling: How tokens are drawn, and when a response ends.
        group: Responses a prompt; the prompt is computed once for all of them.
        generator: Where random numbers come from; untouched at temperature 0.
        pad_id: What to pad with on the right; not EOS.
        on_tokens: Called after each step with the rows that got a token, and the tokens.
        between: Called before each step; what it raises ends all.
        slots: The most rows that run at a time; others wait until one of these is done.
        way: How to run the model.
        before: Rows of the same draw that others run, and that come before these: they have the first numbers.

    Raises:
        GenerationError: Prompts or settings that cannot be, a model that cannot be run in this way, or logits that are
            NaN or infinite; the message names the row.
    """
    _check(model, prompts, sampling, group, pad_id, slots)
    device = next(model.parameters()).device
    rows = len(prompts) * group
    longest = max((len(prompt) for prompt in prompts), default=0) + sampling.max_new_tokens
    with torch.inference_mode(False):  # what trains on these may save them for its backward pass
        result = _blank(prompts, group, longest, pad_id, model)
    if not rows:
        return _cut(result)
    numbers_BT = None
    if sampling.temperature:
        numbers_BT = uniforms(before + rows, sampling.max_new_tokens, generator)[before:].to(device)
    with evaluating(model):
        decoder = decoder_for(model, longest, way)
        with torch.inference_mode():
            running = Slots(decoder, prompts, group=group, limit=min(slots, rows), capacity=longest, device=device)
            while running.running:
                between()
                logits_NV = decoder.step(running.step(), running.cache)
                _take(logits_NV, running, result, numbers_BT, sampling, on_tokens)
    return _cut(result)


def _take(
    logits_NV: Tensor,
    running: Slots,
    result: Rollout,
    numbers_BT: Tensor | None,
    sampling: Sampling,
    on_tokens: Callable[[list[int], list[int]], None] | None,
) -> None:
    """Draw a token for each running row, write it down, and let rows that are done go."""
    n = running.running
    rows_N, places_N = running.rows_N[:n], running.positions_N[:n] + 1
    drawn_N = places_N - result.prompt_lengths_B[rows_N]
    numbers_N = None if numbers_BT is None else numbers_BT[rows_N, drawn_N]
    tokens_N, logps_N = draw(logits_NV, numbers_N, sampling)
    if not bool(torch.isfinite(logps_N).all()):
        raise _not_finite(logps_N, rows_N, drawn_N)
    result.tokens_BT[rows_N, places_N] = tokens_N
    result.logps_BT[rows_N, places_N] = logps_N.to(result.logps_BT.dtype)
    ended_N = tokens_N == sampling.eos_id
    done_N = ended_N | (drawn_N + 1 >= sampling.max_new_tokens)
    result.ended_B[rows_N] = ended_N
    result.lengths_B[rows_N] = places_N + 1
    if on_tokens is not None:
        on_tokens(rows_N.tolist(), tokens_N.tolist())
    running.advance(tokens_N, done_N)


def _blank(prompts: Sequence[Sequence[int]], group: int, longest: int, pad_id: int, model: nn.Module) -> Rollout:
    """Return a rollout that holds prompts alone, with room for responses."""
    parameter = next(model.parameters())
    device, wide = parameter.device, torch.promote_types(parameter.dtype, torch.float32)
    padded = [[*prompt, *[pad_id] * (longest - len(prompt))] for prompt in prompts]
    tokens_BT = torch.tensor(padded, dtype=torch.long).reshape(len(prompts), longest).repeat_interleave(group, dim=0)
    lengths_B = torch.tensor([len(prompt) for prompt in prompts], dtype=torch.long).repeat_interleave(group)
    return Rollout(
        tokens_BT=tokens_BT.to(device),
        prompt_lengths_B=lengths_B.to(device),
        lengths_B=lengths_B.to(device, copy=True),
        logps_BT=torch.zeros(tokens_BT.shape, dtype=wide, device=device),
        ended_B=torch.zeros(len(lengths_B), dtype=torch.bool, device=device),
    )


def _cut(result: Rollout) -> Rollout:
    """Return the rollout on the processor, without columns that no row reaches."""
    with torch.inference_mode(False):
        end = int(result.lengths_B.max()) if len(result.lengths_B) else 0
        tokens_BT, logps_BT = result.tokens_BT[:, :end].contiguous(), result.logps_BT[:, :end].contiguous()
        of_rows = (result.prompt_lengths_B.cpu(), result.lengths_B.cpu(), logps_BT.cpu(), result.ended_B.cpu())
        return Rollout(tokens_BT.cpu(), *of_rows)


def _check(
    model: nn.Module, prompts: Sequence[Sequence[int]], sampling: Sampling, group: int, pad_id: int, slots: int
) -> None:
    """Refuse what nothing can be generated from."""
    config: Any = model.config
    vocabulary = config.vocab_size
    context = getattr(config, "max_position_embeddings", None)
    if pad_id == sampling.eos_id:
        raise GenerationError(
            given=f"token {pad_id} for padding and for the end of a response",
            allowed="two tokens: else the end could not be told from what comes after it",
            todo="add a padding token to the tokenizer",
        )
    outside = {"pad_id": pad_id, "eos_id": sampling.eos_id}
    for name, token in outside.items():
        if not 0 <= token < vocabulary:
            raise GenerationError(
                given=f"{name} {token}", allowed=f"0 to {vocabulary - 1}, the model's vocabulary", todo=f"change {name}"
            )
    if group < 1 or slots < 1:
        raise GenerationError(
            given=f"group {group} and slots {slots}", allowed="at least 1 of each", todo="change the setting"
        )
    for index, prompt in enumerate(prompts):
        _check_prompt(index, prompt, vocabulary, context, sampling.max_new_tokens)


def _check_prompt(index: int, prompt: Sequence[int], vocabulary: int, context: int | None, max_new_tokens: int) -> None:
    if not len(prompt):
        raise GenerationError(
            given=f"prompt {index}, which is empty",
            allowed="at least one token",
            todo="begin prompts with the tokenizer's BOS or a chat template",
        )
    if context is not None and len(prompt) + max_new_tokens > context:
        raise GenerationError(
            given=f"prompt {index} of {len(prompt)} tokens, to be followed by up to {max_new_tokens}",
            allowed=f"{context} tokens in all, the model's context",
            todo="shorten the prompt, or lower max_new_tokens",
        )
    if not 0 <= min(prompt) <= max(prompt) < vocabulary:
        raise GenerationError(
            given=f"prompt {index} with tokens from {min(prompt)} to {max(prompt)}",
            allowed=f"0 to {vocabulary - 1}, the model's vocabulary",
            todo="use the model's own tokenizer",
        )


def _not_finite(logps_N: Tensor, rows_N: Tensor, drawn_N: Tensor) -> GenerationError:
    bad = int((~torch.isfinite(logps_N)).nonzero()[0, 0])
    row, place = int(rows_N[bad]), int(drawn_N[bad])
    return GenerationError(
        given=f"logits of row {row} that are NaN or infinite, at token {place} of its response",
        allowed="finite logits",
        todo="look at the model's weights: training may have diverged",
    )
