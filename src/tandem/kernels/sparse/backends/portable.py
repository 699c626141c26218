"""Plain torch: some rows at a time are unpacked and multiplied. Runs wherever torch does; faster for nobody."""

from __future__ import annotations

import torch

from tandem.kernels.sparse.format import TILE, SparseWeight, unpack_strips

DEVICE = "any"
TOLERANCE = 1e-6
_BLOCK_ROWS = 512


def supported() -> str:
    """Nothing is needed."""
    return ""


def forward(weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
    """Return `x_NK @ weight.T` in float32, `[N, M]`, from blocks of rows unpacked one after another."""
    y_NM = torch.empty(len(x_NK), weight.rows, dtype=torch.float32, device=x_NK.device)
    x_KN = x_NK.float().T
    for first in range(0, len(weight.masks_ST), _BLOCK_ROWS // TILE):
        last = min(first + _BLOCK_ROWS // TILE, len(weight.masks_ST))
        block_MK = unpack_strips(weight, first, last, torch.float32)
        y_NM[:, first * TILE : first * TILE + len(block_MK)] = (block_MK @ x_KN).T
    return y_NM
