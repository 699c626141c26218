"""Drawing tokens by inverse CDF: one uniform number a row, a running sum of unnormalised weights, one search.

    tokens_B, logps_B = draw(logits_BV, uniforms_B, Sampling(max_new_tokens=64, temperature=0.7, eos_id=2))

Numbers are drawn once for a whole rollout, by row and position (`uniforms`). So what a row draws does not depend on
which rows run beside it, in which slot, or when.

Shapes: B rows, V tokens of the vocabulary, T positions of a response.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tandem.chat.engine.errors import GenerationError

_SMALL = 1e-6
"""Below this temperature a quotient might overflow, and its rounding be as large as what tells logits apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn, and when a response ends.

    Attributes:
        max_new_tokens: How long a response may get, EOS included.
        temperature: What logits are divided by; 0 takes the likeliest token.
        top_k: Draw among the k likeliest tokens; 0 for all. Tokens as likely as the last one stay in.
        top_p: Draw among the fewest tokens that hold this share of the probability; 1 for all. After `top_k`.
        eos_id: The token that ends a response.

    Raises:
        GenerationError: A setting outside of what is allowed.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    eos_id: int

    def __post_init__(self) -> None:
        """Check the settings."""
        allowed = {
            "max_new_tokens of at least 1": self.max_new_tokens >= 1,
            "a finite temperature of at least 0": 0.0 <= self.temperature < math.inf,
            "top_k of at least 0": self.top_k >= 0,
            "top_p above 0 and at most 1": 0.0 < self.top_p <= 1.0,
            "an eos_id of at least 0": self.eos_id >= 0,
        }
        broken = [text for text, holds in allowed.items() if not holds]
        if broken:
            raise GenerationError(given=str(self), allowed="; ".join(broken), todo="change the setting")


def uniforms(rows: int, positions: int, generator: torch.Generator) -> Tensor:
    """Return the numbers in [0, 1) that rows draw their tokens with, [rows, positions], in float64."""
    return torch.rand(rows, positions, generator=generator, dtype=torch.float64, device=generator.device)


def draw(logits_BV: Tensor, uniforms_B: Tensor | None, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw a token a row; return the tokens and their log-probabilities, in float32 or the logits' wider dtype.

    A log-probability is that of the distribution drawn from: at the temperature, renormalised over what `top_k` and
    `top_p` leave. Greedily, it is the model's own, at temperature 1. Where logits hold NaN or plus infinity it is not
    finite, and the token means nothing.

    Args:
        logits_BV: What the model says.
        uniforms_B: Numbers in [0, 1); None is for temperature 0 alone.
        sampling: The settings.

    Source: Devroye, Non-Uniform Random Variate Generation, 1986, section III.2 (inversion by sequential search).
    """
    logits_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))
    if sampling.temperature == 0.0 or uniforms_B is None:
        tops_B, tokens_B = logits_BV.max(dim=1)
        return tokens_B, tops_B - logits_BV.logsumexp(dim=1)
    scaled_BV = _scaled(logits_BV, sampling.temperature)
    tops_B1 = scaled_BV.amax(dim=1, keepdim=True)
    weights_BV = (scaled_BV - tops_B1).exp_()
    if 0 < sampling.top_k < weights_BV.shape[1]:
        weights_BV = _most_likely(weights_BV, sampling.top_k)
    if sampling.top_p < 1.0:
        weights_BV = _nucleus(weights_BV, sampling.top_p)
    sums_BV = weights_BV.cumsum(dim=1)
    totals_B1 = sums_BV[:, -1:]
    # Rounded up to the total, a number would lie behind the last token.
    below_B1 = torch.nextafter(totals_B1, torch.zeros_like(totals_B1))
    marks_B1 = torch.minimum(uniforms_B[:, None].to(totals_B1.dtype) * totals_B1, below_B1)
    tokens_B1 = torch.searchsorted(sums_BV, marks_B1, right=True).clamp_(max=sums_BV.shape[1] - 1)
    logps_B1 = scaled_BV.gather(1, tokens_B1) - tops_B1 - totals_B1.log()
    return tokens_B1[:, 0], logps_B1[:, 0]


def _scaled(logits_BV: Tensor, temperature: float) -> Tensor:
    """Logits over the temperature; where that might overflow, less the row's largest."""
    if temperature < _SMALL:
        logits_BV = logits_BV - logits_BV.amax(dim=1, keepdim=True)
        temperature = max(temperature, torch.finfo(logits_BV.dtype).tiny)
    return logits_BV if temperature == 1.0 else logits_BV / temperature


def _most_likely(weights_BV: Tensor, k: int) -> Tensor:
    least_B1 = weights_BV.topk(k, dim=1).values[:, -1:]
    return weights_BV.masked_fill(weights_BV < least_B1, 0.0)


def _nucleus(weights_BV: Tensor, p: float) -> Tensor:
    """Leave out the tokens before which, from the likeliest on, a share of p is reached.

    Source: Holtzman et al., The Curious Case of Neural Text Degeneration, ICLR 2020, section 3.1.
    """
    sorted_BV = weights_BV.sort(dim=1, descending=True).values
    before_BV = sorted_BV.cumsum(dim=1)
    limits_B1 = p * before_BV[:, -1:]
    before_BV = before_BV - sorted_BV
    counts_B1 = (before_BV < limits_B1).sum(dim=1, keepdim=True).clamp_(min=1)
    return weights_BV.masked_fill(weights_BV < sorted_BV.gather(1, counts_B1 - 1), 0.0)
