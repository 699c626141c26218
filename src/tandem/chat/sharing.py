"""Batches and rollouts on several ranks: each has its share of the rows, and all get what all found.

Every rank runs a model as often as the others, since what shards a model waits for all of them at each of its blocks. A
rank without rows runs it on a row with nothing masked in, which adds nothing.

Shapes: B rows, T slots.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tandem.chat.engine.generate import Rollout

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tandem.chat.data.batches import Batch
    from tandem.learn.ranks import Ranks


def share(batch: Batch, ranks: Ranks, unit: int = 1) -> Batch:
    """Return this rank's rows of a batch, of which so many stay together; never none.

    Args:
        batch: The same on all ranks.
        ranks: Who shares it.
        unit: A divisor of its rows.
    """
    if ranks.size == 1:
        return batch
    rows = ranks.share(len(batch.mask_BT), unit)
    return batch.rows(rows) if rows.stop > rows.start else idle(batch, unit)


def idle(batch: Batch, unit: int = 1) -> Batch:
    """Return the first rows of a batch with nothing masked in."""
    first = batch.rows(slice(unit))
    return replace(first, mask_BT=torch.zeros_like(first.mask_BT))


def by_share(function: Callable[[Batch], Tensor], batch: Batch, ranks: Ranks) -> Tensor:
    """Return what a function says of each row, [B, ...], each rank having asked it of its share."""
    if ranks.size == 1:
        return function(batch)
    found = function(share(batch, ranks, batch.group))
    rows = ranks.share(len(batch.mask_BT), batch.group)
    return ranks.rows(found[: rows.stop - rows.start])


def rollout(own: Rollout, ranks: Ranks, pad_id: int) -> Rollout:
    """Return the rows that all ranks drew."""
    if ranks.size == 1:
        return own
    return Rollout(
        tokens_BT=ranks.rows(own.tokens_BT, fill=pad_id),
        prompt_lengths_B=ranks.rows(own.prompt_lengths_B),
        lengths_B=ranks.rows(own.lengths_B),
        logps_BT=ranks.rows(own.logps_BT),
        ended_B=ranks.rows(own.ended_B),
    )
