"""Turns as tensors, padded to the right or packed one after the other, so many at a time as a token budget allows.

Shapes: B rows, T slots. In a packed row positions begin anew with each turn; a turn sees itself alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tandem.chat.data.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.chat.data.blend import Blend

PACKED_TOKENS = 128
"""A packed row is as long as this, or as its longest turn."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens for a model.

    Attributes:
        tokens_BT: What it reads.
        real_BT: Where they are no padding.
        mask_BT: Where they are a response's.
        positions_BT: Places within each turn; None where every row is one turn from slot 0 on.
        group: So many neighbouring rows have one prompt, which is computed once where that is cheaper.
    """

    tokens_BT: Tensor
    real_BT: Tensor
    mask_BT: Tensor
    positions_BT: Tensor | None = None
    group: int = 1

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        if self.tokens_BT.device == device:
            return self
        places_BT = None if self.positions_BT is None else self.positions_BT.to(device)
        return Batch(self.tokens_BT.to(device), self.real_BT.to(device), self.mask_BT.to(device), places_BT, self.group)

    def rows(self, rows: slice) -> Batch:
        """Return some neighbours; where they tear a group apart, as rows of their own."""
        count = len(self.mask_BT[rows])
        whole_groups = (rows.start or 0) % self.group == 0 and count % self.group == 0
        return Batch(
            self.tokens_BT[rows],
            self.real_BT[rows],
            self.mask_BT[rows],
            None if self.positions_BT is None else self.positions_BT[rows],
            group=self.group if whole_groups else 1,
        )


def padded(turns: Sequence[Turn], pad_id: int, group: int = 1) -> Batch:
    """Return a row for each turn, of which so many neighbours have one prompt."""
    lengths_B = torch.tensor([len(turn.tokens) for turn in turns])
    prompts_B = torch.tensor([turn.prompt_tokens for turn in turns])
    width = int(lengths_B.max())
    tokens_BT = torch.tensor([[*turn.tokens, *[pad_id] * (width - len(turn.tokens))] for turn in turns])
    slots_T = torch.arange(width)
    real_BT = slots_T < lengths_B[:, None]
    return Batch(tokens_BT, real_BT, real_BT & (slots_T >= prompts_B[:, None]), group=group)


def packed(turns: Sequence[Turn], pad_id: int) -> Batch:
    """Return rows that hold several turns each, the longest placed first where it fits first."""
    width = max(PACKED_TOKENS, max(len(turn.tokens) for turn in turns))
    rows: list[list[Turn]] = []
    room: list[int] = []
    for turn in sorted(turns, key=lambda turn: -len(turn.tokens)):
        at = next((i for i, left in enumerate(room) if left >= len(turn.tokens)), None)
        if at is None:
            at = len(rows)
            rows.append([])
            room.append(width)
        rows[at].append(turn)
        room[at] -= len(turn.tokens)
    tokens, masks, places = [], [], []
    for row, left in zip(rows, room, strict=True):
        tokens.append([token for turn in row for token in turn.tokens] + [pad_id] * left)
        masks.append([i >= turn.prompt_tokens for turn in row for i in range(len(turn.tokens))] + [False] * left)
        places.append([i for turn in row for i in range(len(turn.tokens))] + [0] * left)  # each alone
    tokens_BT = torch.tensor(tokens)
    real_BT = torch.arange(width) < width - torch.tensor(room)[:, None]
    return Batch(tokens_BT, real_BT, torch.tensor(masks), torch.tensor(places))


class Budgeted:
    """Turns in a blend's order, so many a step as fit a budget; the step alone says which.

    Args:
        blend: The turns.
        budget_tokens: Of a step. A longer turn is a step of its own.
        packing: Whether tokens count alone, or with the padding of equal lengths.
    """

    def __init__(self, blend: Blend[Turn], budget_tokens: int, *, packing: bool) -> None:
        self._blend, self._budget, self._packing = blend, budget_tokens, packing
        self._steps: list[int] = []  # of each epoch so far
        self._epoch, self._batches = -1, list[list[Turn]]()

    def at(self, step: int) -> list[Turn]:
        """Return the turns of a step."""
        epoch, before = 0, 0
        while True:
            if epoch == len(self._steps):
                self._steps.append(len(self._plan(epoch)))
            if step < before + self._steps[epoch]:
                return self._plan(epoch)[step - before]
            before += self._steps[epoch]
            epoch += 1

    def _plan(self, epoch: int) -> list[list[Turn]]:
        """Cut an epoch where the budget is full.

        Nothing is sorted by length, which would save padding: what a batch teaches would then depend on lengths, and
        a model would forget between batches of long and of short responses. Packing saves the padding without that.
        """
        if epoch == self._epoch:
            return self._batches
        batches: list[list[Turn]] = []
        tokens = longest = 0
        for turn in self._blend.at(epoch * len(self._blend), len(self._blend)):
            longest = max(longest, len(turn.tokens))
            tokens += len(turn.tokens)
            cost = tokens if self._packing else longest * (len(batches[-1]) + 1 if batches else 1)
            if not batches or cost > self._budget:
                batches.append([])
                tokens = longest = len(turn.tokens)
            batches[-1].append(turn)
        self._epoch, self._batches = epoch, batches
        return batches
