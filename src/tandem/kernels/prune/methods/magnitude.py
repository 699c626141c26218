"""Magnitude: the smallest weights of a layer go. What every other method has to beat; needs no text.

Source: Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015
(section 3.1; here without its rounds of training). The threshold is one per layer, as in the comparisons of SparseGPT
and Wanda.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.kernels.prune.pattern import keep

if TYPE_CHECKING:
    from torch import Tensor

    from tandem.kernels.prune.inputs import Inputs
    from tandem.kernels.prune.pattern import Pattern

NEEDS_INPUTS = False


def prune(weight_RK: Tensor, inputs: Inputs | None, pattern: Pattern) -> Tensor:
    """Return the weight without its smallest values; what stays is as it was."""
    del inputs
    return weight_RK.masked_fill(~keep(weight_RK.abs(), pattern, "layer"), 0.0)
