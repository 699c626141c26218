"""Wanda: a weight is worth its magnitude times the norm of the input that it multiplies.

Source: Sun, Liu, Bair, Kolter: A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024. The score
is its equation 1, S_ij = |W_ij| · ||X_j||₂; weights are compared within one output (section 3), and nothing is
updated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.kernels.prune.pattern import keep

if TYPE_CHECKING:
    from torch import Tensor

    from tandem.kernels.prune.inputs import Inputs
    from tandem.kernels.prune.pattern import Pattern

NEEDS_INPUTS = True


def scores(weight_RK: Tensor, inputs: Inputs) -> Tensor:
    """What each weight is worth, S_RK."""
    return weight_RK.abs().to(inputs.gram_KK.dtype) * inputs.norms_K


def prune(weight_RK: Tensor, inputs: Inputs | None, pattern: Pattern) -> Tensor:
    """Return the weight without what is worth least in each row; what stays is as it was."""
    assert inputs is not None
    return weight_RK.masked_fill(~keep(scores(weight_RK, inputs), pattern, "row"), 0.0)
