"""Triton: bitmaps are decoded into tiles that `tl.dot` multiplies. Runs on GPUs, and slowly anywhere for tests.

`TRITON_INTERPRET=1` in the environment, set before triton is imported, plays the kernel on the processor. A nonzero's
place is found by sums along the bitmap (scans), no weight needs a popc. The columns are cut into parts where there are
too few rows to fill the GPU; into how many is measured once for each kind of product (`geometries`, `running`). Parts
are added in a fixed order. Needs the extra `gpu`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from tandem.kernels.sparse.format import SparseWeight

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if _INTERPRETED else "cuda"
TOLERANCE = 2e-6
_STRIPS, _TILES = 4, 8
_LEAST_COUNT = 16
_MOST_COUNT = 64
_ENOUGH_PROGRAMS = 264


def supported() -> str:
    """Needs a GPU, or the interpreter."""
    if _INTERPRETED or torch.cuda.is_available():
        return ""
    return "torch sees no NVIDIA GPU (TRITON_INTERPRET=1 plays the kernel on the processor)"


def geometries(weight: SparseWeight) -> list[str]:
    """Return into how many parts it is worth trying to cut a weight's columns, the usual number first.

    >>> from tandem.kernels.sparse.format import pack
    >>> geometries(pack(torch.ones(8, 200)))
    ['4 splits', '2 splits', '1 splits']
    """
    strips, tiles = weight.masks_ST.shape
    turns, blocks = max(1, triton.cdiv(tiles, _TILES)), max(1, triton.cdiv(strips, _STRIPS))
    usual = max(1, min(turns, _ENOUGH_PROGRAMS // blocks))
    return [f"{splits} splits" for splits in dict.fromkeys((usual, max(1, usual // 2), min(turns, 2 * usual), 1))]


def forward(weight: SparseWeight, x_NK: torch.Tensor, *, geometry: str = "") -> torch.Tensor:
    """Return `x_NK @ weight.T` in float32, `[N, M]`, at most 64 rows of x in one launch.

    Args:
        weight: On the same device as x.
        x_NK: Any floating type; float64 becomes float32.
        geometry: The name of one of `geometries()`; empty for the first of them.
    """
    count = len(x_NK)
    if 0 in (count, weight.rows, weight.cols):
        return torch.zeros(count, weight.rows, dtype=torch.float32, device=x_NK.device)
    kind = x_NK.dtype if weight.values_P.dtype in (torch.int8, x_NK.dtype) else torch.float32
    if kind == torch.float64 or (_INTERPRETED and kind == torch.bfloat16):
        kind = torch.float32  # the interpreter's dot takes a bf16's bits for an integer
    splits = int((geometry or geometries(weight)[0]).split()[0])
    x_NK = x_NK.to(kind).contiguous()
    some = [_some(weight, x_NK[first : first + _MOST_COUNT], splits) for first in range(0, count, _MOST_COUNT)]
    y_NM = some[0] if len(some) == 1 else torch.cat(some)
    return y_NM if weight.scales_M is None else y_NM * weight.scales_M


def _some(weight: SparseWeight, x_NK: torch.Tensor, splits: int) -> torch.Tensor:
    count, (strips, tiles) = len(x_NK), weight.masks_ST.shape
    parts_SNM = torch.empty(splits, count, weight.rows, dtype=torch.float32, device=x_NK.device)
    _product[(triton.cdiv(strips, _STRIPS), splits)](
        weight.masks_ST,
        weight.values_P,
        weight.starts_S,
        x_NK,
        parts_SNM,
        weight.rows,
        weight.cols,
        count,
        strips,
        tiles,
        triton.cdiv(triton.cdiv(tiles, _TILES), splits),
        STRIPS=_STRIPS,
        TILES=_TILES,
        COUNT=max(_LEAST_COUNT, triton.next_power_of_2(count)),
    )
    y_NM = parts_SNM[0]
    for part_NM in parts_SNM[1:]:
        y_NM = y_NM + part_NM
    return y_NM


@triton.jit  # type: ignore[untyped-decorator]
def _product(  # type: ignore[no-untyped-def]  # Triton reads annotations as its own
    masks,
    values,
    starts,
    x,
    parts,
    rows,
    cols,
    count,
    strips,
    tiles,
    turns,
    STRIPS: tl.constexpr,
    TILES: tl.constexpr,
    COUNT: tl.constexpr,
):
    """One block of strips, one part of the columns: `TILES` tiles of each strip in a turn."""
    strip = tl.program_id(0) * STRIPS + tl.arange(0, STRIPS)
    first = tl.program_id(1) * turns * TILES
    at = tl.load(starts + strip, mask=strip < strips, other=0)
    bit = tl.arange(0, 64)
    for before in range(0, first, TILES):
        tile = before + tl.arange(0, TILES)
        there = (strip < strips)[:, None] & (tile < tiles)[None, :]
        word = tl.load(masks + strip[:, None] * tiles + tile[None, :], mask=there, other=0)
        at += tl.sum(tl.sum((word[:, :, None] >> bit[None, None, :]) & 1, 2), 1)
    n = tl.arange(0, COUNT)
    column = tl.arange(0, TILES * 8)
    sums = tl.zeros((STRIPS * 8, COUNT), dtype=tl.float32)
    for turn in range(0, turns):
        tile = first + turn * TILES + tl.arange(0, TILES)
        there = (strip < strips)[:, None] & (tile < tiles)[None, :]
        word = tl.load(masks + strip[:, None] * tiles + tile[None, :], mask=there, other=0)
        kept = (word[:, :, None] >> bit[None, None, :]) & 1
        in_tile = tl.sum(kept, 2)
        tile_at = at[:, None] + tl.cumsum(in_tile, 1) - in_tile
        place = tile_at[:, :, None] + tl.cumsum(kept, 2) - kept
        dense = tl.load(values + place, mask=kept != 0, other=0)
        at += tl.sum(in_tile, 1)
        dense = tl.reshape(dense, (STRIPS, TILES, 8, 8))
        dense = tl.reshape(tl.permute(dense, (0, 2, 1, 3)), (STRIPS * 8, TILES * 8))
        k = (first + turn * TILES) * 8 + column
        inside = (k < cols)[:, None] & (n < count)[None, :]
        eight = tl.load(x + n[None, :] * cols + k[:, None], mask=inside, other=0.0)
        sums = tl.dot(dense.to(eight.dtype), eight, sums, input_precision="ieee")
    row = tl.program_id(0) * STRIPS * 8 + tl.arange(0, STRIPS * 8)
    to = parts + (tl.program_id(1) * count + n[None, :]) * rows + row[:, None]
    tl.store(to, sums, mask=(row < rows)[:, None] & (n < count)[None, :])
