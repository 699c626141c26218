"""Low-rank adapters (PEFT's LoRA) merged for decoding, into matrices of their own.

The base weights are not touched: adding an adapter and taking it away again would round them a little at every switch.
A merged matrix is made anew at each switch; layers without an adapter stay where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable


def inner_model(model: nn.Module) -> nn.Module:
    """Return the model that adapters are put into; a model without any is its own."""
    unwrap = getattr(model, "get_base_model", None)
    return model if unwrap is None else cast("nn.Module", unwrap())


def merged_weight(layer: nn.Module) -> Tensor | None:
    """Return a layer's weight with its active adapters; None where it is no linear layer or no plain one.

    A `Linear` gives the parameter itself, and so does a layer whose adapters are switched off or merged already.
    """
    if type(layer) is nn.Linear:
        return layer.weight
    base = getattr(layer, "base_layer", None)
    if type(base) is not nn.Linear or not hasattr(layer, "get_delta_weight"):
        return None
    adapters = _active(layer)
    if not _is_plain(layer, adapters):
        return None
    with torch.inference_mode(False), torch.no_grad():
        weight: Tensor = base.weight
        for adapter in adapters:
            weight = weight + cast("Any", layer).get_delta_weight(adapter).to(weight.dtype)
    return weight


def bias_of(layer: nn.Module) -> Tensor | None:
    """Return the bias of a layer that `merged_weight` knows; None where it has none."""
    return cast("Tensor | None", getattr(getattr(layer, "base_layer", layer), "bias", None))


def _active(layer: Any) -> list[str]:  # noqa: ANN401  # one of PEFT's layers
    if layer.disable_adapters or layer.merged:
        return []
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _is_plain(layer: Any, adapters: Iterable[str]) -> bool:  # noqa: ANN401  # one of PEFT's layers
    """Whether its adapters are products of two matrices, added to the weight, and nothing else."""
    return not any(
        getattr(layer, "use_dora", {}).get(name, False) or getattr(layer, "lora_bias", {}).get(name, False)
        for name in adapters
    )
