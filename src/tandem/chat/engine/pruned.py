"""A pruned copy of a model for decoding: its linear layers without their smallest weights, stored compressed.

    with pruned(model, zeros=0.6):                # anew whenever weights have changed: once a rollout
        rollout = generate(model, ...)            # log-probabilities are those of the pruned copy

The copy is of the linear layers alone, and takes what their packed weights take. Embeddings, norms and the head are the
model's own. Parameters are where they were, with the same numbers, when the block ends. What is drawn so is not drawn
from the model: `tandem.chat.off_policy` weighs it.

Source: magnitude pruning, Han et al., Learning both Weights and Connections, NeurIPS 2015, section 3.1, a threshold for
each layer; no text is needed, and no pass over the model. Limits: values are bf16; a model that shares a linear weight
with another layer (a tied head) keeps that one dense, as it does layers with hooks or a weight that is computed.

Shapes: M rows and K columns of a layer's weight, W = M K.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from tandem.chat.engine.errors import GenerationError
from tandem.kernels.prune.pattern import Pattern, keep
from tandem.kernels.sparse.layers import changed
from tandem.kernels.sparse.linear import SparseLinear

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@contextmanager
def pruned(model: nn.Module, zeros: float) -> Iterator[None]:
    """Put sparse layers in the places of a model's linear ones while the block runs.

    Args:
        model: A causal language model whose adapters, if any, are merged.
        zeros: Share of each layer's weights that are left out, those nearest to 0; at 0 nothing is copied.

    Raises:
        GenerationError: There is no linear layer to prune.
    """
    places = linear_layers(model) if zeros else []
    try:
        for parent, name, linear in places:
            mask_MK = largest(linear.weight.detach(), zeros)
            setattr(parent, name, SparseLinear.from_dense(linear, mask_MK=mask_MK))
        yield
    finally:
        for parent, name, linear in places:
            setattr(parent, name, linear)


def largest(weight_MK: Tensor, zeros: float) -> Tensor:
    """Return which weights stay, as `pattern.keep` does among all of a layer, but without sorting them.

    Args:
        weight_MK: Any floating type.
        zeros: Share that goes, at least 0 and below 1.
    """
    sizes_MK, going = weight_MK.abs(), round(zeros * weight_MK.numel())
    if not going:
        return torch.ones_like(weight_MK, dtype=torch.bool)
    mask_MK = sizes_MK > _smallest(sizes_MK.flatten(), going)
    if int(mask_MK.sum()) == weight_MK.numel() - going:
        return mask_MK
    return keep(sizes_MK, Pattern(zeros), "layer")  # several are as large as the last that goes


def _smallest(sizes_W: Tensor, number: int) -> float:
    """Return the largest of so many smallest sizes; on a processor numpy selects ten times as fast as torch."""
    if sizes_W.device.type == "cpu" and sizes_W.dtype in (torch.float32, torch.float64):
        return float(np.partition(sizes_W.numpy(), number - 1)[number - 1])
    return float(sizes_W.kthvalue(number).values)


def linear_layers(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Return what can be pruned: plain, unchanged linear layers with their parents and names there.

    The head is none of them, nor what shares its weight.

    Raises:
        GenerationError: There are none.
    """
    seen: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    head = getattr(model, "get_output_embeddings", lambda: None)()
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and not changed(child) and child is not head and seen[id(child.weight)] == 1
    ]
    if not places:
        raise GenerationError(
            given=f"a {type(model).__name__} to prune, of which no layer but the head is an unhooked torch.nn.Linear",
            allowed="models of linear layers, such as Llama, Qwen2 and OPT",
            todo="leave the sparse rollouts out",
        )
    return places
