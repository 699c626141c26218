"""How a product is computed: which backend, which of its ways, and from how many rows of x on by unpacked blocks.

Few rows of x (decoding): the backend's kernel, which reads compressed weights. Many (prefill): blocks of rows are
unpacked into scratch once and multiplied densely. `tuning` measures where the one begins to be faster, and which layout
a GPU's kernel is fastest with.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import torch

from tandem.kernels.sparse import choosing, tuning
from tandem.kernels.sparse.backends import cpu
from tandem.kernels.sparse.format import TILE, SparseWeight, unpack_strips
from tandem.kernels.sparse.reference import activated

if TYPE_CHECKING:
    from collections.abc import Callable

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
    found = choosing.for_device(name, x_NK.device.type)
    if name == "cpu":
        way = way_for(weight, x_NK)
        if way == "blocks":
            return activated(by_blocks(weight, x_NK), bias_M, activation)
        return cpu.forward(weight, x_NK, bias_M, activation, way=way)
    if name == "portable":
        return activated(found.forward(weight, x_NK), bias_M, activation)
    way = layout_for(name, weight, x_NK)
    if way == "blocks":
        return activated(_blocks_of(name)(weight, x_NK), bias_M, activation)
    if name == "cuda":
        y_NM: torch.Tensor = _module(name).forward(weight, x_NK, bias_M, activation, geometry=way)
        return y_NM
    return activated(_module(name).forward(weight, x_NK, geometry=way), bias_M, activation)


def way_for(weight: SparseWeight, x_NK: torch.Tensor) -> str:
    """Return lanes, lists or blocks: by rule where it is clear, by a measurement that is kept where it is not."""
    count = len(x_NK)
    if count <= ALWAYS_LANES or weight.rows * weight.cols == 0:
        return "lanes"
    if count >= ALWAYS_BLOCKS:
        return "blocks"
    return tuning.chosen(weight, x_NK.dtype, tuning.bucket(count), _candidates, by=cpu.best_path())


def layout_for(name: str, weight: SparseWeight, x_NK: torch.Tensor) -> str:
    """Return blocks, or the name of the layout that a GPU's kernel is fastest with, measured once and kept."""
    count = len(x_NK)
    if count == 0 or weight.rows * weight.cols == 0:
        return ""
    if count >= ALWAYS_BLOCKS:
        return "blocks"
    if x_NK.is_cuda and torch.cuda.is_current_stream_capturing():
        # nothing can be measured within a graph: the usual one, unless another was chosen before
        chosen = tuning.known(weight, x_NK.dtype, tuning.bucket(count), by=name)
        if chosen == "blocks":
            return chosen if name == "cuda" else ""  # others ask the GPU where blocks begin
        return chosen if chosen and chosen in _module(name).geometries(weight) else ""
    candidates = functools.partial(_layouts, name)
    return tuning.chosen(weight, x_NK.dtype, tuning.bucket(count), candidates, by=name)


def by_blocks(weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
    """Return `x_NK @ weight.T` in float32 from blocks of rows, unpacked into scratch one after another."""
    y_NM = torch.empty(len(x_NK), weight.rows, dtype=torch.float32, device=x_NK.device)
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


def _layouts(name: str, weight: SparseWeight, x_NK: torch.Tensor) -> dict[str, tuning.Candidate]:
    module = _module(name)
    found: dict[str, tuning.Candidate] = {
        layout: functools.partial(module.forward, weight, x_NK, geometry=layout) for layout in module.geometries(weight)
    }
    found["blocks"] = functools.partial(_blocks_of(name), weight, x_NK)
    return {layout: functools.partial(_finished, run) for layout, run in found.items()} if x_NK.is_cuda else found


def _finished(run: tuning.Candidate) -> torch.Tensor:
    """Wait for the GPU, so that a clock sees the whole of it."""
    y_NM = run()
    torch.cuda.synchronize()
    return y_NM


def _blocks_of(name: str) -> Callable[[SparseWeight, torch.Tensor], torch.Tensor]:
    return _module("cuda").by_blocks if name == "cuda" else by_blocks


def _module(name: str) -> Any:  # noqa: ANN401 - a backend that runs here, with what it has beyond the protocol
    return importlib.import_module(f"tandem.kernels.sparse.backends.{name}")


def _candidates(weight: SparseWeight, x_NK: torch.Tensor) -> dict[str, tuning.Candidate]:
    ways = cpu.WAYS if cpu.best_path() == "avx2" else cpu.WAYS[:1]
    found: dict[str, tuning.Candidate] = {way: functools.partial(cpu.forward, weight, x_NK, way=way) for way in ways}
    return {**found, "blocks": functools.partial(by_blocks, weight, x_NK)}
