"""Tiny random models of each family, and what generation should give, worked out one row and one token at a time."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.chat.engine.generate import Rollout, Sampling

FAMILIES = ("llama", "qwen2", "gpt2", "opt")
CONTEXT = 48
PAD, EOS = 0, 3


def tiny(family: str, dtype: torch.dtype = torch.float32, vocabulary: int = 13, seed: int = 0) -> PreTrainedModel:
    """Return a model of two layers whose predictions are far from uniform; those of GPT-2 and OPT have dropout."""
    shape = {"vocab_size": vocabulary, "max_position_embeddings": CONTEXT, "hidden_size": 16}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": PAD, "eos_token_id": EOS}
    torch.manual_seed(seed)
    if family in ("llama", "qwen2"):
        of = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
        config_of, model_of = of[family]
        config = config_of(**shape, intermediate_size=24, num_key_value_heads=2, tie_word_embeddings=False)
        model = model_of(config)
    elif family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=1))
    else:
        model = OPTForCausalLM(OPTConfig(**shape, ffn_dim=24, word_embed_proj_dim=16, bos_token_id=1))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                parameter.normal_(std=0.4)
    return model.to(dtype).train()


@functools.cache
def shared(family: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """Return a model that no test changes."""
    return tiny(family, dtype, vocabulary=7)


def prompts_of(lengths: Sequence[int], vocabulary: int = 13, seed: int = 0) -> list[list[int]]:
    """Return random prompts."""
    rng = torch.Generator().manual_seed(seed)
    return [torch.randint(vocabulary, (length,), generator=rng).tolist() for length in lengths]


def next_logits(model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    """Return the logits of the next token by a plain forward pass over all tokens, without a cache."""
    training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0, -1]
    model.train(training)
    return logits


def plain_logps(model: PreTrainedModel, rollout: Rollout, temperature: float) -> Tensor:
    """Return each response token's log-probability by plain forward passes over whole rows; 0 elsewhere."""
    told_BT = torch.zeros_like(rollout.logps_BT)
    training = model.training
    model.eval()
    for row, (start, end) in enumerate(zip(rollout.prompt_lengths_B, rollout.lengths_B, strict=True)):
        tokens_T = rollout.tokens_BT[row, :end]
        with torch.no_grad():
            logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0]
        logps_TV = torch.log_softmax(logits_TV.to(told_BT.dtype) / temperature, dim=-1)
        told_BT[row, start:end] = logps_TV[start - 1 : end - 1].gather(1, tokens_T[start:, None])[:, 0]
    model.train(training)
    return told_BT


def probabilities(logits_V: Tensor, sampling: Sampling) -> list[float]:
    """Return what each token is drawn with, by sorting in plain Python."""
    weights = torch.softmax(logits_V.double() / sampling.temperature, dim=0).tolist()
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    kept = order[: sampling.top_k or len(order)]
    held, whole = 0.0, sum(weights[token] for token in kept)
    for count, token in enumerate(kept):
        if sampling.top_p < 1.0 and held >= sampling.top_p * whole:  # of 1 nothing is left out, however unlikely
            kept = kept[:count]
            break
        held += weights[token]
    whole = sum(weights[token] for token in kept)
    return [weight / whole if token in kept else 0.0 for token, weight in enumerate(weights)]


def one_by_one(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], sampling: Sampling, group: int, numbers: list[list[float]]
) -> list[list[int]]:
    """Return the responses: each row alone, each token from a forward pass over everything before it."""
    responses = []
    for row in range(len(prompts) * group):
        tokens = list(prompts[row // group])
        response: list[int] = []
        while len(response) < sampling.max_new_tokens and response[-1:] != [sampling.eos_id]:
            logits_V = next_logits(model, [*tokens, *response])
            if sampling.temperature == 0.0:
                response.append(int(logits_V.argmax()))
                continue
            sums = list(itertools.accumulate(probabilities(logits_V, sampling)))
            number = numbers[row][len(response)] * sums[-1]
            response.append(next(token for token, passed in enumerate(sums) if passed > number))
        responses.append(response)
    return responses
