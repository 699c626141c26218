"""An average of a policy's weights over training."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from tandem.learn import sharding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn


class Averaged:
    """An exponential moving average of a module's parameters, of those that learn; of shards on their own ranks.

    Args:
        module: Whose; the average begins as its weights.
        decay: Share of the old average that is kept at each step (DeepSpeed-Chat, Yao et al. 2023: 0.992).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        learnt = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._mean = {name: _wide(sharding.copied(p)) for name, p in learnt.items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take a step towards the module's weights."""
        for name, parameter in module.named_parameters():
            if name in self._mean:
                self._mean[name].lerp_(_wide(sharding.own(parameter)), 1.0 - self._decay)

    @contextmanager
    def in_place_of(self, module: nn.Module) -> Iterator[None]:
        """Put the average in the place of a plain module's weights while the block runs. Collective."""
        parameters = {name: p for name, p in module.named_parameters() if name in self._mean}
        own = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = sharding.whole(self._mean[name]).to(parameter.dtype)
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = own[name]

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return self._mean

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, mean in state.items():
            self._mean[name].copy_(sharding.like(mean, self._mean[name]))


def _wide(values: Tensor) -> Tensor:
    """At least float32: a share of 0.008 of a step is less than bfloat16 tells apart."""
    wide = torch.promote_types(values.dtype, torch.float32)
    return values if values.dtype == wide else values.to(wide)
