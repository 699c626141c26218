"""What is right: unpack, multiply in float64, round once. Slow, obvious, and what every backend is compared with."""

from __future__ import annotations

import torch

from tandem.kernels.sparse.format import SparseWeight, unpack


def forward(weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
    """Return `x_NK @ weight.T` in float32, `[N, M]`."""
    return (x_NK.double() @ unpack(weight, torch.float64).T).float()


def magnitude(weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
    """Return the sums of the products' absolute values, `[N, M]`: errors are judged relative to them."""
    return (x_NK.double().abs() @ unpack(weight, torch.float64).abs().T).float()


def activated(y_NM: torch.Tensor, bias_M: torch.Tensor | None, activation: str) -> torch.Tensor:
    """Return the result with a bias added and an activation applied.

    Args:
        y_NM: Products.
        bias_M: One number a row of the weight, or None.
        activation: none, relu, silu, gelu (by the error function) or gelu_tanh.
    """
    if bias_M is not None:
        y_NM = y_NM + bias_M.float()
    match activation:
        case "none":
            return y_NM
        case "relu":
            return torch.relu(y_NM)
        case "silu":
            return torch.nn.functional.silu(y_NM)
        case "gelu":
            return torch.nn.functional.gelu(y_NM)
        case "gelu_tanh":
            return torch.nn.functional.gelu(y_NM, approximate="tanh")
        case _:
            message = f"an activation is one of {ACTIVATIONS}"
            raise ValueError(message)


ACTIVATIONS = ("none", "relu", "silu", "gelu", "gelu_tanh")
