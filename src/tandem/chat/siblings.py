"""Responses to one prompt behind one another in one row, so that their prompt goes through the model once.

    prompt | response 1 | response 2 | ...

Each response sees the prompt and itself, at the positions it would have behind a prompt of its own; what follows the
prompt is predicted from the prompt's last slot for all of them. Groups of GRPO and RLOO, and pairs, save most of what
their prompts would cost. Since attention over a longer row costs more, so many go into a row as cost least.

Shapes: B responses, T slots, R rows of joined responses, W slots of these, N response tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tandem.learn.sharding import numel

if TYPE_CHECKING:
    from tandem.chat.data.batches import Batch


@dataclass(frozen=True, slots=True)
class Joined:
    """Rows of joined responses.

    Attributes:
        tokens_RW: What the model reads.
        positions_RW: Of each token in its own turn.
        sees_RWW: Which slots (last axis) each slot looks at.
        before_N: Of each response token, in the order of the batch's mask, the slot before it, as row · W + slot.
    """

    tokens_RW: Tensor
    positions_RW: Tensor
    sees_RWW: Tensor
    before_N: Tensor


def join(batch: Batch, together: int) -> Joined:
    """Return the batch's rows, so many neighbours in one.

    Args:
        batch: Padded to the right, neighbours with one prompt, every response behind its prompt without a gap.
        together: A divisor of `batch.group`.
    """
    mask_BT = batch.mask_BT
    counts_B = mask_BT.sum(dim=1)
    prompts_B = batch.real_BT.sum(dim=1) - counts_B
    counts_Rc = counts_B.view(-1, together)
    starts_B = prompts_B + (counts_Rc.cumsum(dim=1) - counts_Rc).flatten()
    prompts_R = prompts_B[::together]
    width = int((prompts_R + counts_Rc.sum(dim=1)).max())
    rows, slots = mask_BT.nonzero(as_tuple=True)
    into, places = rows // together, starts_B[rows] + slots - prompts_B[rows]
    tokens_RW = batch.tokens_BT[::together, :1].expand(-1, width).clone()  # padding is any token: nobody looks at it
    positions_RW = torch.zeros_like(tokens_RW)
    whose_RW = torch.full_like(tokens_RW, -1)  # 0 is the prompt, -1 padding
    asks, at = (batch.real_BT & ~mask_BT)[::together].nonzero(as_tuple=True)
    tokens_RW[asks, at] = batch.tokens_BT[::together][asks, at]
    positions_RW[asks, at] = at
    whose_RW[asks, at] = 0
    tokens_RW[into, places] = batch.tokens_BT[rows, slots]
    positions_RW[into, places] = slots
    whose_RW[into, places] = rows % together + 1
    before_N = into * width + torch.where(slots == prompts_B[rows], slots, places) - 1
    slots_W = torch.arange(width, device=tokens_RW.device)
    of_it_RWW = (whose_RW[:, None, :] == 0) | (whose_RW[:, None, :] == whose_RW[:, :, None])
    return Joined(tokens_RW, positions_RW, of_it_RWW & (slots_W[:, None] >= slots_W), before_N)


def best_together(model: Any, batch: Batch) -> int:  # noqa: ANN401 - transformers has no types
    """Return how many neighbours in one row cost least, 1 for each in a row of its own.

    A token costs two operations for each weight of the body, a pair of slots that attention looks at four for each
    layer and unit of width; alone rows look at half of their pairs, since attention then knows that it is causal.
    """
    if batch.group == 1 or batch.positions_BT is not None or not bool(batch.real_BT[:, 0].all()):
        return 1
    body, config = model.base_model, model.config
    embedding = sum(map(numel, model.get_input_embeddings().parameters()))
    per_token: float = 2.0 * (sum(map(numel, body.parameters())) - embedding)
    per_pair = 4.0 * int(config.hidden_size) * int(config.num_hidden_layers)
    response = float(batch.mask_BT.sum()) / len(batch.mask_BT)
    prompt = float(batch.real_BT.sum()) / len(batch.mask_BT) - response

    def cost(together: int) -> float:
        width = prompt + together * response
        pairs = width * width * (0.5 if together == 1 else 1.0)
        return (width * per_token + pairs * per_pair) / together

    return min((n for n in range(1, batch.group + 1) if batch.group % n == 0), key=cost)
