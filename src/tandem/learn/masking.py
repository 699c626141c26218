"""Masks of responses, and sums and means that see only what is masked in.

Shapes: B rows (responses), T token slots. `mask_BT` is boolean, True where a token of the response stands. Whatever a
slot outside of the mask holds, NaN and infinity included, neither changes a value nor reaches a gradient.

A loss over a batch is a sum over what `Counts` counts. Give each part of a batch the counts of the whole, and the
parts' losses and gradients add up to the whole's, however it is split over microbatches or ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tandem.learn.bounds import MOST_COUNTED
from tandem.learn.errors import TrainingInputError

Aggregation = Literal["token", "sequence", "fixed"]
"""How per-token losses become one number: the mean over all tokens; the mean over responses of each one's mean; the
sum over `length_tokens` per response, whatever its length (Dr. GRPO)."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a loss is divided by.

    Attributes:
        tokens: Slots that are masked in.
        rows: Responses with at least one token; a row without any counts as padding of the batch.
    """

    tokens: int
    rows: int

    @classmethod
    def of(cls, mask_BT: Tensor) -> Counts:
        """Count a batch."""
        return cls(int(mask_BT.sum()), int(mask_BT.any(dim=1).sum()))

    def __add__(self, other: Counts) -> Counts:
        """Count two parts as one batch."""
        return Counts(self.tokens + other.tokens, self.rows + other.rows)


def only(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return x with zeros outside of the mask; no gradient passes there."""
    return x_BT.masked_fill(~mask_BT, 0.0)


def aggregate(
    losses_BT: Tensor, mask_BT: Tensor, how: Aggregation, of: Counts, length_tokens: int | None = None
) -> Tensor:
    """Return the sum of per-token losses over the batch's count, a scalar; 0 where nothing is masked in.

    Args:
        losses_BT: A loss for each token.
        mask_BT: Which of them count.
        how: `token`: DAPO (Yu et al. 2025, section 3.3). `sequence`: GRPO (Shao et al. 2024, equation 3). `fixed`:
            Dr. GRPO (Liu et al. 2025, section 3).
        of: The counts of the whole batch that this is a part of.
        length_tokens: For `fixed` alone: what each response's sum is divided by, such as the longest allowed.

    Raises:
        TrainingInputError: `fixed` without a positive length, or a length with another way.
    """
    check_length(how, length_tokens)
    losses_BT = only(losses_BT, mask_BT)
    if how == "token":
        return losses_BT.sum() / max(of.tokens, 1)
    sums_B = losses_BT.sum(dim=1)
    lengths_B = mask_BT.sum(dim=1).clamp(min=1) if length_tokens is None else length_tokens
    return (sums_B / lengths_B).sum() / max(of.rows, 1)


def check_length(how: Aggregation, length_tokens: int | None) -> None:
    """Refuse a fixed length that is missing, out of range, or of no use.

    Raises:
        TrainingInputError: As told.
    """
    fits = length_tokens is None if how != "fixed" else length_tokens is not None and 0 < length_tokens <= MOST_COUNTED
    if not fits:
        raise TrainingInputError(
            given=f"aggregation {how!r} with length_tokens = {length_tokens}",
            allowed="'fixed' with a length from 1 to 1e9; 'token' and 'sequence' without one",
            todo="set length_tokens to the longest response, or choose another aggregation",
        )


def masked_mean(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the mean over what is masked in; 0 where nothing is."""
    return only(x_BT, mask_BT).sum() / mask_BT.sum().clamp(min=1)


def whiten(x_BT: Tensor, mask_BT: Tensor, *, keep_mean: bool = False, eps: float = 1e-8) -> Tensor:
    """Return x scaled to unit variance and shifted to mean 0 over the mask, zeros elsewhere.

    Args:
        x_BT: All of the batch: whitening part by part is something else.
        mask_BT: What is looked at.
        keep_mean: Only scale about the mean, which stays. For rewards: moving them would change what is best.
        eps: Added to the variance, so that equal values become zeros.

    Source: Huang et al., The N+ Implementation Details of RLHF with PPO, 2024, on whitening;
    the variance is the unbiased one, as in OpenAI's code.
    """
    mean = masked_mean(x_BT, mask_BT)
    centred_BT = only(x_BT, mask_BT) - mean
    variance = only(centred_BT.square(), mask_BT).sum() / (mask_BT.sum() - 1).clamp(min=1)
    white_BT = centred_BT * torch.rsqrt(variance + eps)
    return only(white_BT + mean if keep_mean else white_BT, mask_BT)


def through_eos(tokens_BT: Tensor, eos_id: int) -> Tensor:
    """Return the mask of generated tokens up to the first EOS, which is a token of the response like any other.

    A row without EOS was cut short and is all response. Padding needs no id of its own here: nothing after the first
    EOS is masked in, whatever it is.
    """
    is_eos_BT = (tokens_BT == eos_id).long()
    return is_eos_BT.cumsum(dim=1) - is_eos_BT == 0


def last_index(mask_BT: Tensor) -> Tensor:
    """Return the slot of each row's last token, 0 where it has none."""
    slots_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return torch.where(mask_BT, slots_T, 0).amax(dim=1)


def at_last(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return x at each row's last token, such as a reward model's score; 0 for a row without tokens."""
    return only(x_BT, mask_BT).gather(1, last_index(mask_BT)[:, None]).squeeze(1)
