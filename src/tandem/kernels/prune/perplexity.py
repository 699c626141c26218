"""Perplexity: how many tokens the model wavers between, on average.

exp of the mean negative log-likelihood of each token given those before it in its window; windows do not overlap, and
the first token of each is not predicted. That is how SparseGPT and Wanda report it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from tandem.kernels.prune.text import BATCH_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Attributes: the perplexity, and how many tokens were predicted for it."""

    value: float
    tokens: int


@torch.no_grad()
def perplexity(
    model: nn.Module, ids_N: Tensor, length: int, tell: Callable[[int, int], None] = lambda done, of: None
) -> Perplexity:
    """Return the model's perplexity on a text.

    Args:
        model: A causal language model of Hugging Face, in evaluation mode.
        ids_N: At least two tokens.
        length: Tokens of a window, at least two; the last one may be shorter.
        tell: Is told how many tokens are done, of how many.
    """
    whole = len(ids_N) // length * length
    windows = list(torch.split(ids_N[:whole].view(-1, length), max(1, BATCH_TOKENS // length))) if whole else []
    if len(ids_N) - whole > 1:
        windows.append(ids_N[whole:].unsqueeze(0))
    loss, tokens, passed = 0.0, 0, 0
    device = next((one.device for one in model.parameters()), ids_N.device)
    for ids_BT in (window.to(device) for window in windows):
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        nats = functional.cross_entropy(
            logits_BTV[:, :-1].float().flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none"
        )
        loss += float(nats.sum(dtype=torch.float64))
        tokens += ids_BT[:, 1:].numel()
        passed += ids_BT.numel()
        tell(passed, len(ids_N))
    return Perplexity(math.exp(loss / tokens) if loss / tokens < 700.0 else math.inf, tokens)
