"""What a linear layer gets to see: the second moments of its inputs, summed over the calibration text.

Shapes: N tokens, K inputs, R outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tandem.kernels.prune.errors import PruneError


@dataclass(slots=True)
class Inputs:
    """Sums over tokens of the inputs x of one layer.

    Attributes:
        gram_KK: Sum of x xᵀ; its diagonal holds the squared norms of the inputs.
        tokens: How many there were; 0 where the text never reached the layer (an expert that was not chosen).
    """

    gram_KK: Tensor
    tokens: int = 0

    @classmethod
    def none(cls, inputs: int, like: Tensor) -> Inputs:
        """Nothing seen yet by a layer of so many inputs, on the device of `like`; in float64 where it is."""
        return cls(torch.zeros(inputs, inputs, dtype=working_dtype(like), device=like.device))

    @classmethod
    def of(cls, x_NK: Tensor) -> Inputs:
        """The sums of these inputs."""
        inputs = cls.none(x_NK.shape[1], x_NK)
        inputs.add(product(x_NK), len(x_NK))
        return inputs

    @property
    def norms_K(self) -> Tensor:
        """Norm of each input over all tokens, ||X_k||₂."""
        return self.gram_KK.diagonal().clamp_min(0.0).sqrt()

    def add(self, product_KK: Tensor, tokens: int) -> None:
        """Add the product X ᵀX of so many tokens."""
        self.gram_KK += product_KK
        self.tokens += tokens

    def check(self, layer: str) -> None:
        """Refuse sums that no score can be made of.

        Raises:
            PruneError: An activation was not finite.
        """
        if not bool(torch.isfinite(self.gram_KK.diagonal()).all()):
            raise PruneError(
                given=f"the inputs of {layer} are not finite on the calibration text",
                allowed="a model whose activations are finite",
                todo="check the model's perplexity; load it in bfloat16 or float32 if it overflows in float16",
            )

    def relative_error(self, dense_RK: Tensor, pruned_RK: Tensor) -> float:
        """||(W - W') X|| / ||W X|| over the calibration text (Frobenius norms); NaN where the output is zero."""
        dense = _energy(dense_RK.to(self.gram_KK.dtype), self.gram_KK)
        lost = _energy((dense_RK - pruned_RK).to(self.gram_KK.dtype), self.gram_KK)
        return math.sqrt(max(lost, 0.0) / dense) if dense > 0.0 else math.nan


def product(x_NK: Tensor) -> Tensor:
    """X ᵀX in the precision that sums are kept in."""
    x_NK = x_NK.to(working_dtype(x_NK))
    return x_NK.T @ x_NK


def working_dtype(like: Tensor) -> torch.dtype:
    """What is computed in: float64 for float64, else float32."""
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def _energy(weight_RK: Tensor, gram_KK: Tensor) -> float:
    return float(((weight_RK @ gram_KK) * weight_RK).sum())
