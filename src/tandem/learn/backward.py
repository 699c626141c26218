"""The backward pass, so that it gives the same bits each time on a GPU too."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def backward(loss: Tensor) -> None:
    """Add a loss's gradients to its parameters'.

    On a GPU attention adds up gradients in any order unless it is told not to, and a run that goes on would then not
    end with the bits of one that was never stopped. Operations that have no such way are left to theirs.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        loss.backward()  # type: ignore[no-untyped-call]
        return
    before, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deterministic.*")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            torch.use_deterministic_algorithms(before, warn_only=only_warned)
