"""The static cache of keys and values: one slot a row, allocated once, rows packed at the front.

Shapes: L layers, 2 keys and values, N slots, H heads of keys, S tokens of room, D numbers a head, P tokens of a prompt.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor


@final
class KeyValues:
    """Keys and values of up to N rows.

    Args:
        like_L2HPD: A prompt's keys and values: what shape, dtype and device those of all rows have.
        slots: N.
        capacity: S, the most tokens that a row can keep.
    """

    def __init__(self, like_L2HPD: Tensor, *, slots: int, capacity: int) -> None:
        layers, _, heads, _, size = like_L2HPD.shape
        # Zeros and not whatever memory holds: a NaN that a mask multiplies by 0 is still NaN.
        self.kv_L2NHSD = like_L2HPD.new_zeros((layers, 2, slots, heads, capacity, size))

    @property
    def capacity(self) -> int:
        """The most tokens that a row can keep."""
        return self.kv_L2NHSD.shape[4]

    def seat(self, slot: int, prompt_L2HPD: Tensor) -> None:
        """Begin a row in a slot with a prompt's keys and values."""
        self.kv_L2NHSD[:, :, slot, :, : prompt_L2HPD.shape[3]] = prompt_L2HPD

    def move(self, source: int, target: int, tokens: int) -> None:
        """Move a row of so many tokens to another slot."""
        self.kv_L2NHSD[:, :, target, :, :tokens] = self.kv_L2NHSD[:, :, source, :, :tokens]

    def places(self, slots_N: Tensor, positions_N: Tensor) -> Tensor:
        """Return where the next token's keys and values go in `flat_layer`, in the order (row, key or value, head)."""
        _, _, slots, heads, capacity, _ = self.kv_L2NHSD.shape
        device = slots_N.device
        sides_2 = torch.arange(2, device=device)[None, :, None]
        heads_H = torch.arange(heads, device=device)[None, None, :]
        rows_N2H = (sides_2 * slots + slots_N[:, None, None]) * heads + heads_H
        return (rows_N2H * capacity + positions_N[:, None, None]).reshape(-1)

    def flat_layer(self, layer: int) -> Tensor:
        """Return a layer as one list of vectors, [2 N H S, D]; the same memory."""
        return self.kv_L2NHSD[layer].view(-1, self.kv_L2NHSD.shape[-1])


def masked_scores(positions_N: Tensor, seen: int, dtype: torch.dtype) -> Tensor:
    """Return what to add to attention's scores, [N, 1, 1, seen]: 0 for a row's own tokens, the least number beyond.

    Args:
        positions_N: Where each row's newest token stands.
        seen: How many tokens are looked at.
        dtype: The model's.
    """
    beyond_NS = torch.arange(seen, device=positions_N.device) > positions_N[:, None]
    return torch.zeros_like(beyond_NS, dtype=dtype).masked_fill_(beyond_NS, torch.finfo(dtype).min)[:, None, None]
