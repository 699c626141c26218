"""Tensors of which each rank holds a part: put together, taken apart, and called through the module that owns them.

A plain tensor is its own whole, so that code which may meet parts is the same for one process and for many. Parts are
DTensors of torch, or tensors with a `Parts` of their own, as the strategies that need one leave it on them.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

PARTS, THROUGH = "tandem_parts", "tandem_through"


class Pieces(Protocol):
    """How a tensor that is no DTensor is put together."""

    def whole(self, tensor: Tensor) -> Tensor:
        """Return all of a tensor that lies on the ranks like this. Collective."""
        ...


class Parts(Pieces, Protocol):
    """How a parameter lies on the ranks. What is computed from it may lie so too, and then has the same."""

    @property
    def numel(self) -> int:
        """How many numbers all ranks hold of it together."""
        ...

    def own(self) -> Tensor:
        """Return what this rank holds of the parameter, in the parameter's memory."""
        ...

    def part(self, value: Tensor) -> Tensor:
        """Return what this rank holds of a whole tensor."""
        ...

    def put(self, value: Tensor) -> None:
        """Make the parameter a whole tensor's values. Collective."""
        ...


class Through(nn.Module):
    """A module that runs functions of the model it holds: what shards it sees when they begin and when they end."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Return what the function says of the model."""
        return function(self.model, *args, **kwargs)


def through(model: Any, function: Callable[..., T], *args: object, **kwargs: object) -> T:  # noqa: ANN401
    """Call a function of a model, and of parts of it, through what shards it; directly where nothing does."""
    owner = getattr(model, THROUGH, None)
    return function(model, *args, **kwargs) if owner is None else cast("T", owner(function, *args, **kwargs))


def set_through(model: nn.Module, owner: Callable[..., Any]) -> None:
    """Let functions of a model be called through its owner, which is no part of it."""
    object.__setattr__(model, THROUGH, owner)


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all ranks' parts, a plain one as it is. Collective."""
    if (parts := parts_of(tensor)) is not None:
        return parts.whole(tensor)
    gather = getattr(tensor, "full_tensor", None)
    return tensor.detach() if gather is None else cast("Tensor", gather())


def own(parameter: Tensor) -> Tensor:
    """Return what this rank holds of a parameter, in the parameter's memory and without its graph."""
    parts = parts_of(parameter)
    return parameter.detach() if parts is None else laid_out_by(parts, parts.own())


def copied(parameter: Tensor) -> Tensor:
    """Return a copy of what this rank holds of a parameter, which lies on the ranks as that does."""
    return laid_out_by(parts_of(parameter), own(parameter).clone())


def numel(parameter: Tensor) -> int:
    """Return how many numbers all ranks hold of a parameter together."""
    parts = parts_of(parameter)
    return parameter.numel() if parts is None else parts.numel


def parts_of(tensor: Tensor) -> Parts | None:
    """Return how a tensor lies on the ranks, where it is no DTensor and not whole on each."""
    return cast("Parts | None", getattr(tensor, PARTS, None))


def laid_out_by(parts: Pieces | None, tensor: Tensor) -> Tensor:
    """Note on a tensor how it lies on the ranks, and return it."""
    if parts is not None:
        setattr(tensor, PARTS, parts)
    return tensor


@torch.no_grad()
def like(value: Tensor, laid_out: Tensor) -> Tensor:
    """Return a whole tensor as another is laid out: this rank's part of it, or itself. Nothing is sent."""
    if (parts := parts_of(laid_out)) is not None:
        return laid_out_by(parts, parts.part(value))
    if not hasattr(laid_out, "full_tensor") or hasattr(value, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(laid_out, DTensor)
    return distribute_tensor(value, laid_out.device_mesh, laid_out.placements, src_data_rank=None)


@torch.no_grad()
def put(parameter: Tensor, value: Tensor) -> None:
    """Make a parameter, sharded or not, a whole tensor's values. Collective."""
    if (parts := parts_of(parameter)) is not None:
        parts.put(value)
    else:
        parameter.copy_(like(value, parameter))


def gathered(state: T, *, keep: bool) -> T:
    """Return a state (tables and lists of tensors and plain values) with whole tensors on the processor. Collective.

    Args:
        state: The same names on every rank.
        keep: Whether this rank wants it; one that does not gets empty tensors, and holds one whole at a time.
    """
    if isinstance(state, Tensor):
        full = whole(state)
        return cast("T", full.cpu() if keep else full.new_empty(0))
    if isinstance(state, dict):
        return cast("T", {name: gathered(value, keep=keep) for name, value in state.items()})
    if isinstance(state, list | tuple):
        return cast("T", type(state)(gathered(value, keep=keep) for value in state))
    return state


def is_sharded(model: nn.Module) -> bool:
    """Whether a rank holds but parts of a model."""
    return any(hasattr(value, "full_tensor") or hasattr(value, PARTS) for value in model.parameters())


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put whole tensors into a model, sharded or not. Collective.

    Raises:
        RuntimeError: They are another model's.
    """
    if not is_sharded(model):
        model.load_state_dict(state)
        return
    own = model.state_dict(keep_vars=True)
    if own.keys() != state.keys():
        message = f"tensors that differ from the model's: {', '.join(sorted(own.keys() ^ state.keys())[:4])}"
        raise RuntimeError(message)
    for name, value in own.items():
        put(value, state[name])


def shell(model: nn.Module) -> nn.Module:
    """Return a copy of a model without its weights: every parameter is there, and empty."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().new_empty(0), requires_grad=False) for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


@contextmanager
def filled(empty: nn.Module, model: nn.Module) -> Iterator[nn.Module]:
    """Put a sharded model's whole weights into its shell while the block runs. Collective."""
    places = dict(empty.named_parameters())
    try:
        for name, parameter in model.named_parameters():
            places[name].data = whole(parameter)
        yield empty
    finally:
        for place in places.values():
            place.data = place.new_empty(0)
