"""SparseGPT: columns are pruned from left to right, and each loss is made up for by the columns that come after.

Source: Frantar, Alistarh: SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot, ICML 2023,
algorithm 1. The loss of a layer is tr(D H Dᵀ) with D the change of its weight and H the Gram matrix of its inputs.
Among the columns not yet passed, taking out weight w_p of a row costs w_p² / [H⁻¹]_pp at least, and the change of the
others that costs no more is -w_p / [H⁻¹]_pp · H⁻¹[:, p] (Optimal Brain Surgeon, Hassibi, Stork, Wolff 1993; the
paper's equation 3). The inverses for all sets of columns are the rows of one upper triangular factor U, H⁻¹ = Uᵀ U:
[H⁻¹]_pp is U[p, p]², and the row of the inverse is U[p, p] · U[p, p:].

Which weights go is decided block by block of columns (`MASK_COLUMNS`, 128 in the paper; M under N:M), over all rows at
once, so that rows differ in their share of zeros. Updates within a block of `BLOCK_COLUMNS` are applied one by one,
those to the right of it in one product.

Limits: H must be inverted; `DAMPING` of its mean diagonal is added (section 3, "dampening"), and ten times more where
that is not enough, which is logged. Takes K³ operations a layer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from tandem.kernels.prune.inputs import working_dtype
from tandem.kernels.prune.pattern import keep, without_least

if TYPE_CHECKING:
    from torch import Tensor

    from tandem.kernels.prune.inputs import Inputs
    from tandem.kernels.prune.pattern import Pattern

NEEDS_INPUTS = True

BLOCK_COLUMNS = 128
MASK_COLUMNS = 128
DAMPING = 0.01

_MOST_DAMPING = 100.0

_log = logging.getLogger(__name__)


def prune(weight_RK: Tensor, inputs: Inputs | None, pattern: Pattern) -> Tensor:
    """Return the weight with its zeros, the others changed to make up for them."""
    assert inputs is not None
    work_RK = weight_RK.to(working_dtype(weight_RK), copy=True)
    gram_KK = inputs.gram_KK.to(work_RK.dtype, copy=True)
    dead_K = gram_KK.diagonal() == 0.0
    gram_KK.diagonal()[dead_K] = 1.0  # an input that is always zero: its weights do nothing, and the rest stays regular
    work_RK[:, dead_K] = 0.0
    mask_RK = torch.ones_like(work_RK, dtype=torch.bool)
    _sweep(work_RK, mask_RK, upper_factor(gram_KK), pattern)
    return work_RK.to(weight_RK.dtype).masked_fill_(~mask_RK, 0.0)


def upper_factor(gram_KK: Tensor) -> Tensor:
    """Return the upper triangular U with Uᵀ U = (H + damping)⁻¹.

    Raises:
        torch.linalg.LinAlgError: H is not positive definite even with its own size added.
    """
    mean = gram_KK.diagonal().mean()
    damping = DAMPING
    while True:
        damped_KK = gram_KK.clone()
        damped_KK.diagonal().add_(damping * mean)
        try:
            inverse_KK = torch.cholesky_inverse(torch.linalg.cholesky(damped_KK))
            upper_KK: Tensor = torch.linalg.cholesky(inverse_KK, upper=True)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # it is public all the same
            if damping >= _MOST_DAMPING:
                raise
            damping *= 10.0
            _log.warning("the Gram matrix is not positive definite: damping of %g of its mean diagonal", damping)
        else:
            return upper_KK


def _sweep(work_RK: Tensor, mask_RK: Tensor, upper_KK: Tensor, pattern: Pattern) -> None:
    """Prune in place, block by block from the left; `mask_RK` learns what stayed."""
    columns = work_RK.shape[1]
    step = BLOCK_COLUMNS if not pattern.of else max(1, BLOCK_COLUMNS // pattern.of) * pattern.of
    for start in range(0, columns, step):
        end = min(start + step, columns)
        errors_RB = _block(work_RK, mask_RK, upper_KK, start, end, pattern)
        work_RK[:, end:] -= errors_RB @ upper_KK[start:end, end:]


def _block(work_RK: Tensor, mask_RK: Tensor, upper_KK: Tensor, start: int, end: int, pattern: Pattern) -> Tensor:
    """Prune the columns of one block one after another; returns each one's error over its U[p, p]."""
    errors_RB = torch.zeros_like(work_RK[:, start:end])
    chosen_at = pattern.of or MASK_COLUMNS
    for column in range(start, end):
        if column % chosen_at == 0:
            _choose(work_RK, mask_RK, upper_KK, column, chosen_at, pattern)
        here_R = work_RK[:, column]
        kept_R = here_R * mask_RK[:, column]
        error_R = (here_R - kept_R) / upper_KK[column, column]
        work_RK[:, column + 1 : end] -= torch.outer(error_R, upper_KK[column, column + 1 : end])
        work_RK[:, column] = kept_R
        errors_RB[:, column - start] = error_R
    return errors_RB


def _choose(work_RK: Tensor, mask_RK: Tensor, upper_KK: Tensor, first: int, width: int, pattern: Pattern) -> None:
    """Decide what stays in the next columns by what taking it out would cost, w² / [H⁻¹]_pp."""
    last = min(first + width, work_RK.shape[1])
    costs_RW = work_RK[:, first:last].square() / upper_KK.diagonal()[first:last].square()
    if pattern.of:
        mask_RK[:, first:last] = keep(costs_RW, pattern, "row")
        return
    rows = work_RK.shape[0]
    due = round(pattern.sparsity * rows * last) - round(pattern.sparsity * rows * first)  # sums up over the layer
    mask_RK[:, first:last] = without_least(costs_RW.reshape(1, -1), due).view(costs_RW.shape)
