"""An average of a policy's weights over training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


class Averaged:
    """An exponential moving average of a module's parameters.

    Args:
        module: Whose; the average begins as its weights.
        decay: Share of the old average that is kept at each step (DeepSpeed-Chat, Yao et al. 2023: 0.992).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._mean = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take a step towards the module's weights."""
        for name, parameter in module.named_parameters():
            self._mean[name].lerp_(parameter.detach(), 1.0 - self._decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Put the average in the place of a module's weights."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self._mean[name])

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return self._mean

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self._mean = {name: mean.clone() for name, mean in state.items()}
