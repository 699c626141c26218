"""Sparse weights in memory: a bitmap of 8x8 tiles and the nonzeros in the bitmap's order.

A matrix of M rows and K columns is padded by zeros to S strips of 8 rows and T tiles of 8 columns. A tile's bitmap is
one 64-bit word: bit ``8 * row + column``. The nonzeros follow one another strip by strip, tile by tile, row by row. It
is the order in which a CPU reads; backends for other machines rearrange it when a weight is loaded. Values are bf16,
fp16, or int8 with one scale a row. docs/reference/sparse-format.md has the form on disk.

    weight = pack(linear.weight, torch.bfloat16)
    weight.bits_per_weight, unpack(weight)

Shapes: M rows, K columns, S strips, T tiles in a strip, Z kept weights, P padding behind them. Everything is
vectorised and runs on the device where the matrix is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import torch

from tandem.kernels.sparse.mistakes import SparseShapeError

if TYPE_CHECKING:
    from collections.abc import Callable

TILE = 8
TAIL = 64
"""Values behind the last: kernels read a whole vector wherever a nonzero begins."""

_GATHERS_BITS = sum(1 << 56 - 7 * i for i in range(TILE))

VALUE_TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.int8: "int8"}
_DENSE_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True, eq=False)
class SparseWeight:
    """A packed matrix.

    Attributes:
        rows: M, the outputs.
        cols: K, the inputs.
        masks_ST: One 64-bit word a tile, as int64.
        values_P: Z kept weights and `TAIL` zeros, bf16, fp16 or int8.
        starts_S: Where each strip's nonzeros begin, and where the last one's end: S + 1 int64.
        scales_M: What a row of int8 values is multiplied by, float32; None for the other types.
    """

    rows: int
    cols: int
    masks_ST: torch.Tensor
    values_P: torch.Tensor
    starts_S: torch.Tensor
    scales_M: torch.Tensor | None = None

    @property
    def kept(self) -> int:
        """Z, how many weights are stored."""
        return self.values_P.numel() - TAIL

    @property
    def density(self) -> float:
        """The share of weights that are stored; 0 for an empty matrix."""
        return self.kept / max(1, self.rows * self.cols)

    @property
    def size_bytes(self) -> int:
        """Bytes that this weight holds in memory."""
        parts = (self.masks_ST, self.values_P, self.starts_S, self.scales_M)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    @property
    def bits_per_weight(self) -> float:
        """Bits in memory per weight of the dense matrix; 0 for an empty one."""
        weights = self.rows * self.cols
        return 8 * self.size_bytes / weights if weights else 0.0

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.values_P.device

    @classmethod
    def __torch_function__(cls, func: Callable[..., object], *_: object, **__: object) -> NoReturn:
        """Refuse what reads it as a tensor.

        Raises:
            SparseShapeError: Always.
        """
        raise SparseShapeError(
            given=f"a packed weight as an operand of {getattr(func, '__name__', func)}, which takes tensors",
            allowed="products by its layer, layer(x)",
            todo="leave dense the layer whose weight is used so: sparsify(model, skip=('lm_head', 'ITS_NAME')); "
            "or pass unpack(weight)",
        )

    def to(self, device: torch.device | str) -> SparseWeight:
        """Return it on another device."""
        return replace(
            self,
            masks_ST=self.masks_ST.to(device),
            values_P=self.values_P.to(device),
            starts_S=self.starts_S.to(device),
            scales_M=None if self.scales_M is None else self.scales_M.to(device),
        )


def pack(
    dense_MK: torch.Tensor, dtype: torch.dtype = torch.bfloat16, *, mask_MK: torch.Tensor | None = None
) -> SparseWeight:
    """Pack a matrix; zeros of either sign are left out, NaN and infinities are kept.

    Args:
        dense_MK: The matrix, of any strides and any size, empty ones included.
        dtype: What values are rounded to: `torch.bfloat16`, `torch.float16` or `torch.int8`, the last by rows:
            the largest absolute value of a row becomes 127 (fewer below 1.5e-36, where scales have no more digits).
        mask_MK: Which weights to keep, zero or not, instead of those that are not zero (bool).

    Raises:
        SparseShapeError: Not a matrix, a type that cannot be packed, a mask of another shape or type, finite weights
            that would become infinite in that type (int8: in float32), or NaN or infinities where int8 is asked for.
    """
    check(dense_MK, dtype, mask_MK)
    rows, cols = dense_MK.shape
    scales_M = None
    values_MK = dense_MK.detach()
    if dtype == torch.int8:
        values_MK, scales_M = _quantised(values_MK.float())
    values_MK = values_MK.to(dtype)
    keep_ST88 = _tiles(values_MK != 0 if mask_MK is None else mask_MK).contiguous()
    places_Z = keep_ST88.view(-1).nonzero().squeeze(1)
    values_Z = _tiles(values_MK).reshape(-1)[places_Z]
    values_P = torch.cat([values_Z, values_Z.new_zeros(TAIL)])
    ends_S = torch.arange(len(keep_ST88) + 1, device=dense_MK.device) * keep_ST88[:1].numel()
    starts_S = torch.searchsorted(places_Z, ends_S)
    masks_ST = _bytes_of(keep_ST88).view(torch.int64).view(keep_ST88.shape[:2])
    return SparseWeight(rows, cols, masks_ST, values_P, starts_S, scales_M)


def check(dense_MK: torch.Tensor, dtype: torch.dtype, mask_MK: torch.Tensor | None = None) -> None:
    """Refuse what `pack` cannot pack; arguments and errors as there."""
    if not isinstance(dense_MK, torch.Tensor):
        raise SparseShapeError(
            given=f"a {type(dense_MK).__name__} to pack",
            allowed="tensors",
            todo="pass torch.as_tensor(it)",
        )
    if dense_MK.is_meta or dense_MK.layout != torch.strided:
        raise SparseShapeError(
            given="a tensor on device meta, which has no values,"
            if dense_MK.is_meta
            else f"a {dense_MK.layout} tensor",
            allowed="dense matrices with values",
            todo="load the weights first" if dense_MK.is_meta else "pass tensor.to_dense()",
        )
    if dense_MK.ndim != 2 or dense_MK.dtype not in _DENSE_TYPES:
        raise SparseShapeError(
            given=f"a tensor of shape {tuple(dense_MK.shape)} and type {dense_MK.dtype} to pack",
            allowed="matrices of float32, float64, bfloat16 or float16",
            todo="pass a linear layer's weight",
        )
    if dtype not in VALUE_TYPES:
        raise SparseShapeError(
            given=f"values of type {dtype}",
            allowed=", ".join(map(str, VALUE_TYPES)),
            todo="choose one of these types",
        )
    if mask_MK is not None and (mask_MK.shape != dense_MK.shape or mask_MK.dtype != torch.bool):
        raise SparseShapeError(
            given=f"a mask of shape {tuple(mask_MK.shape)} and type {mask_MK.dtype}",
            allowed=f"shape {tuple(dense_MK.shape)} and type torch.bool",
            todo="make the mask from the weight itself, such as weight != 0",
        )
    if mask_MK is not None and mask_MK.device != dense_MK.device:
        raise SparseShapeError(
            given=f"a mask on {mask_MK.device} for a matrix on {dense_MK.device}",
            allowed="both on one device",
            todo="move the mask",
        )
    if dtype == torch.int8 and not bool(torch.isfinite(dense_MK).all()):
        raise SparseShapeError(
            given="NaN or infinite weights to be rounded to int8",
            allowed="finite weights; bf16 and fp16 keep the others",
            todo="pack as torch.bfloat16, or look where the model went wrong",
        )
    held = torch.float32 if dtype == torch.int8 else dtype
    if dense_MK.dtype != held and bool((dense_MK.to(held).isinf() & dense_MK.isfinite()).any()):
        raise SparseShapeError(
            given=f"a finite weight of size {_largest_finite(dense_MK):.3g} to be packed as {VALUE_TYPES[dtype]}",
            allowed=f"finite weights up to {torch.finfo(held).max:.5g}",
            todo="scale the matrix down" + ("" if held != torch.float16 else ", or pack as torch.bfloat16"),
        )


def unpack(weight: SparseWeight, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return the dense matrix, `[M, K]`: exactly what was packed (int8: values times scales).

    Args:
        weight: A packed matrix.
        dtype: The type of the result; None is the values' own, and float32 for int8.
    """
    return unpack_strips(weight, 0, len(weight.masks_ST), dtype)


def unpack_strips(weight: SparseWeight, first: int, last: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return the rows of strips `first` to `last` (excluded) as a dense matrix.

    Args:
        weight: A packed matrix.
        first: A strip.
        last: The strip behind the last one wanted.
        dtype: As for `unpack`.
    """
    keep_ST88 = kept_tiles(weight.masks_ST[first:last])
    begin, end = weight.starts_S[[first, last]].tolist()
    tiles_ST88 = torch.zeros(keep_ST88.shape, dtype=weight.values_P.dtype, device=weight.device)
    tiles_ST88[keep_ST88] = weight.values_P[begin:end]
    strips, tiles = keep_ST88.shape[:2]
    rows = min(last * TILE, weight.rows) - first * TILE
    dense_MK = tiles_ST88.permute(0, 2, 1, 3).reshape(strips * TILE, tiles * TILE)[:rows, : weight.cols]
    if weight.scales_M is None:
        return dense_MK.to(dtype or dense_MK.dtype).contiguous()
    scales_M = weight.scales_M[first * TILE : first * TILE + rows]
    return (dense_MK * scales_M[:, None]).to(dtype or torch.float32).contiguous()


def kept_tiles(masks_ST: torch.Tensor) -> torch.Tensor:
    """Return which weights are kept, `[S, T, 8, 8]` bool, from tiles' bitmaps."""
    bytes_ST8 = masks_ST.contiguous().view(torch.uint8).reshape(*masks_ST.shape, TILE)
    return (bytes_ST8.unsqueeze(-1) >> _bit_numbers(masks_ST.device) & 1).bool()


def starts_of(masks_ST: torch.Tensor) -> torch.Tensor:
    """Return where each strip's nonzeros begin, by tiles' bitmaps, and the last one's end, `[S + 1]` int64."""
    twos_ST = masks_ST - ((masks_ST >> 1) & 0x5555555555555555)
    fours_ST = (twos_ST & 0x3333333333333333) + ((twos_ST >> 2) & 0x3333333333333333)
    bytes_ST = (fours_ST + (fours_ST >> 4)) & 0x0F0F0F0F0F0F0F0F
    kept_ST = (bytes_ST * 0x0101010101010101) >> 56
    return torch.nn.functional.pad(kept_ST.sum(1).cumsum(0), (1, 0))


def kept_of(dense_MK: torch.Tensor, masks_ST: torch.Tensor) -> torch.Tensor:
    """Return a dense matrix's elements at the kept places, in the format's order, `[Z]`."""
    return _tiles(dense_MK)[kept_tiles(masks_ST)]


def shape_of_masks(rows: int, cols: int) -> tuple[int, int]:
    """Return S and T of a matrix.

    >>> shape_of_masks(9, 16)
    (2, 2)
    """
    return -(-rows // TILE), -(-cols // TILE)


def _tiles(dense_MK: torch.Tensor) -> torch.Tensor:
    """Cut a matrix into its tiles, `[S, T, 8, 8]`, padded by zeros."""
    rows, cols = dense_MK.shape
    strips, tiles = shape_of_masks(rows, cols)
    padded = torch.nn.functional.pad(dense_MK, (0, tiles * TILE - cols, 0, strips * TILE - rows))
    return padded.reshape(strips, TILE, tiles, TILE).permute(0, 2, 1, 3)


def _bytes_of(keep_ST88: torch.Tensor) -> torch.Tensor:
    """Return every eight bools as the bits of a byte, all in a row: one multiplication moves byte i to bit 56 + i."""
    return (keep_ST88.view(-1).view(torch.int64) * _GATHERS_BITS >> 56).to(torch.uint8)


def _largest_finite(dense_MK: torch.Tensor) -> float:
    return float(dense_MK.detach()[dense_MK.isfinite()].abs().max())


def _quantised(dense_MK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round every row to -127..127; returns values and the scales, 127 times which holds the row and is finite."""
    largest_M = dense_MK.abs().amax(1) if dense_MK.numel() else dense_MK.new_zeros(len(dense_MK))
    scales_M = torch.where(largest_M > 0, largest_M / 127, 1.0)
    has_few_digits = scales_M < torch.finfo(torch.float32).tiny
    above_M, below_M = scales_M.nextafter(scales_M + 1), scales_M.nextafter(torch.zeros_like(scales_M))
    scales_M = torch.where(has_few_digits & (127 * scales_M < largest_M), above_M, scales_M)
    scales_M = torch.where((127 * scales_M).isinf(), below_M, scales_M)
    return (dense_MK / scales_M[:, None]).round().clamp(-127, 127), scales_M


def _bit_numbers(device: torch.device) -> torch.Tensor:
    """Not kept: one that was made while a model is traced would be no numbers for those who come later."""
    return torch.arange(TILE, dtype=torch.uint8, device=device)
