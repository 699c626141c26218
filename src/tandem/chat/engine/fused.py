"""Several weights as one matrix, in the memory in which they train.

    whole_MK = joined([q.weight, k.weight, v.weight])

The first call lays the parameters out one behind the other: each becomes a view of the whole, and stays the parameter
that it was, for optimizers, checkpoints and its own layer. From then on a call only looks whether they still lie there;
what an optimizer changes in place is seen at once. Whoever gives a parameter other memory (`to`, sharding) ends this,
and the next call lays them out anew.

Shapes: M outputs, K inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return parameters, stacked along their first dimension, as one tensor that shares their memory.

    Args:
        parts: Parameters that differ in no other dimension, of one dtype and device.
    """
    if len(parts) == 1:
        return parts[0].detach()
    whole = _lying_together(parts)
    if whole is None:
        # A caller's inference mode would leave parameters that cannot be trained.
        with torch.inference_mode(False), torch.no_grad():
            whole = torch.cat([part.detach() for part in parts])
            for part, piece in zip(parts, torch.split(whole, [len(part) for part in parts]), strict=True):
                part.data = piece
    return whole


def _lying_together(parts: Sequence[Tensor]) -> Tensor | None:
    """Return the whole where the parts already lie one behind the other."""
    first = parts[0]
    storage, offset = first.untyped_storage().data_ptr(), first.storage_offset()
    for part in parts:
        here = part.untyped_storage().data_ptr() == storage and part.storage_offset() == offset
        if not here or not part.is_contiguous() or part.dtype != first.dtype:
            return None
        offset += part.numel()
    rows = sum(len(part) for part in parts)
    return first.detach().as_strided((rows, *first.shape[1:]), first.stride())
