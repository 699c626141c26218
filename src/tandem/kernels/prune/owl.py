"""OWL: blocks with more outliers keep more of their weights.

Source: Yin and others: Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to High
Sparsity, ICML 2024. A weight's outlier score is Wanda's, A_ij = ||X_j||₂ · |W_ij|; a block's share of outliers is (its
equation 2)

    D_l = sum_ij 1(A_ij > M · mean(A)) / (R K)

over all layers of the block together. Shares of zeros are S_l proportional to 1 - D_l, within S ± λ, with mean S
(section 3.2): D is stretched over a range of 2 λ and moved until the mean is right, as the authors' programme does. M
= 5 and λ = 0.08 are the paper's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tandem.kernels.prune.methods.wanda import scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from tandem.kernels.prune.blocks import Block
    from tandem.kernels.prune.inputs import Inputs

OUTLIER = 5.0
"""M: an outlier's score is more than this many times the mean."""

REACH = 0.08
"""λ: how far a block's share of zeros may be from the whole's."""


def outliers(block: Block, inputs: Mapping[str, Inputs]) -> float:
    """Return D, the share of a block's weights whose score is an outlier."""
    return outlier_share([scores(layer.weight_RK, inputs[name]) for name, layer in block.layers.items()])


def outlier_share(scores_of: Sequence[Tensor]) -> float:
    """The share of scores above `OUTLIER` times the mean of all."""
    total = sum(s.numel() for s in scores_of)
    mean = sum(float(s.sum(dtype=torch.float64)) for s in scores_of) / total
    return sum(int((s > OUTLIER * mean).sum()) for s in scores_of) / total


def allocate(shares: Sequence[float], weights: Sequence[int], sparsity: float, reach: float = REACH) -> list[float]:
    """Return each block's share of zeros.

    Args:
        shares: D of each block.
        weights: How many weights each block has; the mean over weights is `sparsity` exactly.
        sparsity: Share of zeros of the whole.
        reach: λ; made smaller where `sparsity` leaves no room for it.

    Returns:
        Shares within `sparsity` ± 2 `reach` and within 0 and 1, falling with D; all equal where D is.

    >>> [round(s, 4) for s in allocate([0.01, 0.02, 0.03], [1, 1, 1], 0.6)]
    [0.68, 0.6, 0.52]
    """
    low, high = min(shares), max(shares)
    if high == low:
        return [sparsity] * len(shares)
    reach = min(reach, sparsity / 2, (1.0 - sparsity) / 2.01)  # never all zeros
    stretched = [2.0 * reach * (share - low) / (high - low) for share in shares]
    mean = sum(s * w for s, w in zip(stretched, weights, strict=True)) / sum(weights)
    return [sparsity + mean - s for s in stretched]
