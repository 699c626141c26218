"""The blocks of a language model, and the linear layers in each.

Nothing here knows an architecture by name: the blocks are the list of modules that holds most linear weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from tandem.kernels.prune.errors import PruneError
from tandem.kernels.sparse.layers import is_conv1d

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer.

    Attributes:
        name: Its path in the model.
        module: The module; its weight is stored as K x R where `transposed` (GPT-2's `Conv1D`).
        transposed: Whether its weight is stored the other way round.
    """

    name: str
    module: nn.Module
    transposed: bool = False

    @property
    def weight_RK(self) -> Tensor:
        """A view of its weight, R outputs by K inputs, without its gradient."""
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight.data.T if self.transposed else weight.data

    def set_weight(self, weight_RK: Tensor) -> None:
        """Put a weight in the place of the one it has."""
        self.weight_RK.copy_(weight_RK)


@dataclass(frozen=True, slots=True)
class Block:
    """One of the model's blocks.

    Attributes:
        name: Its path in the model.
        module: The module.
        layers: Its linear layers by their path within the block.
    """

    name: str
    module: nn.Module
    layers: Mapping[str, Layer]

    @property
    def weights(self) -> int:
        """How many weights its linear layers have."""
        return sum(layer.weight_RK.numel() for layer in self.layers.values())


def blocks_of(model: nn.Module) -> list[Block]:
    """Return the model's blocks in order.

    Raises:
        PruneError: There is no list of modules with a linear layer in it.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    sizes = [sum(layer.weight_RK.numel() for layer in _layers(module, name)) for name, module in lists]
    if not any(sizes):
        raise PruneError(
            given=f"{type(model).__name__} has no list of blocks with linear layers",
            allowed="a causal language model made of blocks of nn.Linear (or GPT-2's Conv1D)",
            todo="check that the folder holds such a model",
        )
    name, found = lists[sizes.index(max(sizes))]  # the outermost of equals comes first
    return [_block(f"{name}.{place}", module) for place, module in enumerate(found)]


def left_dense(model: nn.Module, blocks: list[Block]) -> dict[str, int]:
    """Return what stays dense: module's path -> weights. Vectors (norms, biases) are not counted."""
    pruned = {id(layer.module.weight) for block in blocks for layer in block.layers.values()}
    return {
        name.removesuffix(".weight"): parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and id(parameter) not in pruned
    }


def check_weights(blocks: list[Block]) -> None:
    """Refuse a model that is not whole.

    Raises:
        PruneError: A weight is NaN or infinite.
    """
    for block in blocks:
        for layer in block.layers.values():
            bad = int((~layer.weight_RK.isfinite()).sum())
            if bad:
                raise PruneError(
                    given=f"{layer.name} holds {bad:,} values that are NaN or infinite",
                    allowed="finite weights",
                    todo="take a checkpoint from before its training went wrong",
                )


def _block(name: str, module: nn.Module) -> Block:
    return Block(name, module, {layer.name[len(name) + 1 :]: layer for layer in _layers(module, name)})


def _layers(module: nn.Module, path: str) -> list[Layer]:
    found = []
    for name, inner in module.named_modules():
        transposed = is_conv1d(inner)
        if (transposed or isinstance(inner, nn.Linear)) and isinstance(inner.weight, nn.Parameter):
            found.append(Layer(f"{path}.{name}" if name else path, inner, transposed))
    return found
