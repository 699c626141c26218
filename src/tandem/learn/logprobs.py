"""Log-probabilities of tokens from logits, without a second tensor of the logits' size in the forward pass.

Shapes: B rows, T token slots, V vocabulary, N the slots that are asked for, C of them at a time.

log p(y) = z_y - logsumexp(z), in float32 or wider whatever the logits are in: in bfloat16 a log-probability of -8 has
steps of 1/32. Only C x V numbers are widened at a time, forward and backward. The gradient, onehot(y) - softmax(z), is
made anew from the logits and one logsumexp a slot, where `log_softmax` keeps its whole result.

Limits: differentiable once. The gradient itself is as large as the logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tandem.learn.errors import TrainingInputError

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_TOKENS = 1024


def token_logprobs(
    logits_BTV: Tensor,
    tokens_BT: Tensor,
    mask_BT: Tensor | None = None,
    *,
    temperature: float = 1.0,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """Return log p(tokens) in float32 or the logits' wider dtype, [B, T]; 0 outside of the mask.

    Args:
        logits_BTV: What the model says of each slot's token: already shifted, so that `logits[:, t]` predicts
            `tokens[:, t]`.
        tokens_BT: The tokens. Outside of the mask they may be anything, such as -100.
        mask_BT: The slots to compute. What the logits hold elsewhere is never read, and gets no gradient. None: all.
        temperature: The logits are divided by it; the one that the tokens were drawn at.
        chunk_tokens: Slots at a time.

    Raises:
        TrainingInputError: A temperature that is not positive, or a token outside of the vocabulary.

    >>> token_logprobs(torch.zeros(1, 2, 4), torch.tensor([[3, 0]])).exp()
    tensor([[0.2500, 0.2500]])
    """
    if not temperature > 0.0:
        raise TrainingInputError(
            given=f"temperature {temperature}",
            allowed="above 0: a greedy choice has no log-probability to learn from",
            todo="draw and train at the same positive temperature",
        )
    if mask_BT is None:
        mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
    slots_N = mask_BT.reshape(-1).nonzero().squeeze(1)
    tokens_N = tokens_BT.reshape(-1)[slots_N]
    vocabulary = logits_BTV.shape[-1]
    if tokens_N.numel() and not 0 <= int(tokens_N.min()) <= int(tokens_N.max()) < vocabulary:
        raise TrainingInputError(
            given=f"tokens from {int(tokens_N.min())} to {int(tokens_N.max())} with a vocabulary of {vocabulary}",
            allowed=f"0 to {vocabulary - 1} where the mask is set",
            todo="use the model's own tokenizer, and leave padding out of the mask",
        )
    logits_SV = logits_BTV.reshape(-1, vocabulary)
    apply = cast("Callable[..., Tensor]", _Logprobs.apply)
    logps_N = apply(logits_SV, slots_N, tokens_N, temperature, chunk_tokens)
    return logps_N.new_zeros(mask_BT.numel()).index_put((slots_N,), logps_N).view(mask_BT.shape)


class _Logprobs(Function):
    """log p of `tokens_N` at rows `slots_N` of the logits."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # torch's own context, untyped
        logits_SV: Tensor,
        slots_N: Tensor,
        tokens_N: Tensor,
        temperature: float,
        chunk_tokens: int,
    ) -> Tensor:
        wide = torch.promote_types(logits_SV.dtype, torch.float32)
        logps_N = torch.empty(slots_N.shape, dtype=wide, device=logits_SV.device)
        norms_N = torch.empty_like(logps_N)
        for start in range(0, len(slots_N), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            scaled_CV = _scaled(logits_SV, slots_N, chunk, temperature, wide)
            norms_N[chunk] = scaled_CV.logsumexp(dim=1)
            logps_N[chunk] = scaled_CV.gather(1, tokens_N[chunk, None]).squeeze(1) - norms_N[chunk]
        ctx.save_for_backward(logits_SV, slots_N, tokens_N, norms_N)
        ctx.temperature, ctx.chunk_tokens = temperature, chunk_tokens
        return logps_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # torch's own context
        logits_SV, slots_N, tokens_N, norms_N = ctx.saved_tensors
        all_slots = len(slots_N) == len(logits_SV)
        grad_SV = torch.empty_like(logits_SV) if all_slots else torch.zeros_like(logits_SV)
        for start in range(0, len(slots_N), ctx.chunk_tokens):
            chunk = slice(start, start + ctx.chunk_tokens)
            scaled_CV = _scaled(logits_SV, slots_N, chunk, ctx.temperature, norms_N.dtype)
            rise_C1 = grad_N[chunk, None] / ctx.temperature
            into_CV = grad_SV[chunk] if all_slots and grad_SV.dtype == norms_N.dtype else torch.empty_like(scaled_CV)
            torch.sub(scaled_CV, norms_N[chunk, None], out=into_CV)
            into_CV.exp_().mul_(-rise_C1).scatter_add_(1, tokens_N[chunk, None], rise_C1)
            if not all_slots:
                grad_SV[slots_N[chunk]] = into_CV.to(grad_SV.dtype)
            elif grad_SV.dtype != norms_N.dtype:
                grad_SV[chunk] = into_CV
        return grad_SV, None, None, None, None


def _scaled(logits_SV: Tensor, slots_N: Tensor, chunk: slice, temperature: float, wide: torch.dtype) -> Tensor:
    """Logits over the temperature, widened; a view of them where that is what they are."""
    picked_CV = logits_SV[chunk] if len(slots_N) == len(logits_SV) else logits_SV[slots_N[chunk]]
    scaled_CV = picked_CV.to(wide)
    return scaled_CV if temperature == 1.0 else scaled_CV / temperature
