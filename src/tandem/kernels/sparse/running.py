"""How a product is computed: which backend, which of its ways, and from how many rows of x on by unpacked blocks.

Few rows of x (decoding): the backend's kernel, which reads compressed weights. Many (prefill): blocks of rows are
unpacked into scratch once and multiplied densely. `tuning` measures where the one begins to be faster.
"""

from __future__ import annotations

import functools

import torch

from tandem.kernels.sparse import choosing, tuning
from tandem.kernels.sparse.backends import cpu
from tandem.kernels.sparse.format import TILE, SparseWeight, unpack_strips
from tandem.kernels.sparse.reference import activated

_SCRATCH_BYTES = 8 << 20
ALWAYS_LANES = 2
"""Up to so many rows of x, every weight is read once and nothing but `lanes` is worth trying."""

ALWAYS_BLOCKS = 256
"""From so many rows of x on, a dense product dwarfs the unpacking."""


def multiply(
    weight: SparseWeight, x_NK: torch.Tensor, bias_M: torch.Tensor | None, activation: str, backend: str
) -> torch.Tensor:
    """Return `activation(x_NK @ weight.T + bias_M)`, `[N, M]` in float32.

    Args:
        weight: On the same device as all others.
        x_NK: A floating type.
        bias_M: Or None.
        activation: One of `reference.ACTIVATIONS`.
        backend: A name; empty for the best that runs here.
    """
    name = backend or choosing.best(x_NK.device.type)
    if name != "cpu":
        return activated(choosing.backend(name).forward(weight, x_NK), bias_M, activation)
    choosing.backend(name)
    way = way_for(weight, x_NK)
    if way == "blocks":
        return activated(by_blocks(weight, x_NK), bias_M, activation)
    return cpu.forward(weight, x_NK, bias_M, activation, way=way)


def way_for(weight: SparseWeight, x_NK: torch.Tensor) -> str:
    """Return lanes, lists or blocks: by rule where it is clear, by a measurement that is kept where it is not."""
    count = len(x_NK)
    if count <= ALWAYS_LANES or weight.rows * weight.cols == 0:
        return "lanes"
    if count >= ALWAYS_BLOCKS:
        return "blocks"
    return tuning.chosen(weight, x_NK.dtype, tuning.bucket(count), _candidates)


def by_blocks(weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
    """Return `x_NK @ weight.T` in float32 from blocks of rows, unpacked into scratch one after another."""
    y_NM = torch.empty(len(x_NK), weight.rows, device=x_NK.device)
    x_KN = x_NK.float().T
    strips = len(weight.masks_ST)
    step = max(1, _SCRATCH_BYTES // (4 * TILE * max(1, weight.cols)))
    for first in range(0, strips, step):
        block_MK = unpacked(weight, first, min(first + step, strips))
        y_NM[:, first * TILE : first * TILE + len(block_MK)] = (block_MK @ x_KN).T
    return y_NM


def unpacked(weight: SparseWeight, first: int, last: int) -> torch.Tensor:
    """Return the rows of some strips, float32: by the extension where it can."""
    if weight.device.type == "cpu" and not cpu.supported():
        return cpu.decode(weight, first, last)
    return unpack_strips(weight, first, last, torch.float32)


def _candidates(weight: SparseWeight, x_NK: torch.Tensor) -> dict[str, tuning.Candidate]:
    ways = cpu.WAYS if cpu.best_path() == "avx2" else cpu.WAYS[:1]
    found: dict[str, tuning.Candidate] = {way: functools.partial(cpu.forward, weight, x_NK, way=way) for way in ways}
    return {**found, "blocks": functools.partial(by_blocks, weight, x_NK)}
