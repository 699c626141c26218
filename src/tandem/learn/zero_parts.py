"""How DeepSpeed's ZeRO lays parameters and their moments out, and how they are put together and taken apart.

Stage 2 leaves a parameter whole on each rank; its moments are cut wherever a rank's share of all of them ends. Stage 3
cuts each parameter into as many equal pieces as there are ranks, flat, the last ones filled up, and its moments alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from deepspeed import utils
from deepspeed.runtime.zero import GatheredParameters

from tandem.learn.sharding import laid_out_by

if TYPE_CHECKING:
    from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Of AdamW, as torch calls them."""


@dataclass(frozen=True, slots=True)
class CutMoment:
    """A moment of stage 2: all that is known of it is how it is put together."""

    parameter: Any
    name: str

    def whole(self, tensor: Tensor) -> Tensor:
        """Return all of it."""
        del tensor
        found: Tensor = utils.safe_get_full_optimizer_state(self.parameter, self.name)
        return found


@dataclass(frozen=True, slots=True)
class WholeParts:
    """A parameter of stage 2."""

    parameter: Any

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return int(self.parameter.numel())

    def own(self) -> Tensor:
        """Return it: each rank holds all of it."""
        found: Tensor = self.parameter.detach()
        return found

    def part(self, value: Tensor) -> Tensor:
        """Return a whole tensor as it is."""
        return value

    def whole(self, tensor: Tensor) -> Tensor:
        """Return a tensor as it is."""
        return tensor.detach()

    def put(self, value: Tensor) -> None:
        """Make it that, and this rank's share of what the optimiser steps with."""
        self.parameter.copy_(value)
        utils.safe_set_full_fp32_param(self.parameter, value)

    def moment(self, name: str) -> Tensor:
        """Return a moment; it holds nothing before it is put together."""
        return laid_out_by(CutMoment(self.parameter, name), self.parameter.new_empty(0))

    def put_moment(self, name: str, value: Tensor) -> None:
        """Make a moment that."""
        utils.safe_set_full_optimizer_state(self.parameter, value, name)


@dataclass(frozen=True, slots=True)
class EqualParts:
    """A parameter of stage 3: between passes its own memory is empty, and a piece lies beside it."""

    parameter: Any

    @property
    def numel(self) -> int:
        """How many numbers all pieces have, but for what fills up the last."""
        return int(self.parameter.ds_numel)

    def own(self) -> Tensor:
        """Return this rank's piece."""
        found: Tensor = self.parameter.ds_tensor.detach()
        return found

    def part(self, value: Tensor) -> Tensor:
        """Return this rank's piece of a whole tensor."""
        size, start = self.own().numel(), dist.get_rank() * self.own().numel()
        piece = value.new_zeros(size)
        held = value.flatten()[start : start + size]
        piece[: len(held)] = held
        return piece

    def whole(self, tensor: Tensor) -> Tensor:
        """Return all of the parameter, or of pieces of another tensor."""
        piece = self.own() if tensor is self.parameter else tensor.detach().contiguous()
        pieces = piece.new_empty(dist.get_world_size(), len(piece))
        dist.all_gather(list(pieces), piece)
        return pieces.flatten()[: self.numel].view(self.parameter.ds_shape)

    def put(self, value: Tensor) -> None:
        """Make it that, and this rank's piece of what the optimiser steps with."""
        with GatheredParameters([self.parameter], modifier_rank=0):
            self.parameter.copy_(value)
        if self.parameter.requires_grad:
            utils.safe_set_local_fp32_param(self.parameter, self.part(value))

    def moment(self, name: str) -> Tensor:
        """Return this rank's piece of a moment."""
        return laid_out_by(self, utils.safe_get_local_optimizer_state(self.parameter, name))

    def put_moment(self, name: str, value: Tensor) -> None:
        """Make a moment that."""
        utils.safe_set_local_optimizer_state(self.parameter, self.part(value), name)
