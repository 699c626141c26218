"""The processor's vector instructions: AVX-512 (VBMI2, VNNI), also with BF16, AVX2, or plain C++: the best that it has.

`avx512_bf16` multiplies pairs of bf16 by vdpbf16ps, `avx512` by two vfmadd. The faster one comes first, as measured:
on AMD's Zen 4 vdpbf16ps takes half as long as the two, on Intel's Xeons of the fifth generation twice as long.

Weights are decoded in registers, eight columns of a row or a whole tile at a time, and multiplied as if they were
dense; where there are many columns of x and many zeros, nonzeros are multiplied one by one (`way`). Sums are float32
in an order that depends on neither the number of threads nor their speed: a result is the same every time.

int8 weights on AVX-512 take x rounded to 16 bits of each row's largest value; elsewhere x is taken as it is.
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING, Any

import torch

from tandem.kernels.sparse.format import TAIL, TILE, VALUE_TYPES, SparseWeight
from tandem.kernels.sparse.mistakes import BackendError, SparseShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

DEVICE = "cpu"
TOLERANCE = 2e-6
WAYS = ("lanes", "lists")
_log = logging.getLogger(__name__)


def supported() -> str:
    """Needs the extension, any processor."""
    return "" if _native() is not None else "tandem was installed without its native parts (a C++ compiler was missing)"


def paths() -> Sequence[str]:
    """Return the instruction sets that can be used here, best first; `scalar` is always among them."""
    native = _native()
    return native.sparse_paths() if native is not None else []


@functools.cache
def best_path() -> str:
    """Return the first of `paths()`, and log which ones this processor lacks."""
    found = paths()
    lacking = [name for name in ("avx512", "avx2") if name not in found]
    _log.info(
        "sparse products use %s%s", found[0], f"; this processor lacks {' and '.join(lacking)}" if lacking else ""
    )
    return found[0]


def forward(
    weight: SparseWeight,
    x_NK: torch.Tensor,
    bias_M: torch.Tensor | None = None,
    activation: str = "none",
    *,
    way: str = "automatic",
    path: str | None = None,
) -> torch.Tensor:
    """Return `activation(x_NK @ weight.T + bias_M)` in float32, `[N, M]`.

    Args:
        weight: On the CPU, as are all others.
        x_NK: Any floating type.
        bias_M: float32, or None.
        activation: none, relu, silu, gelu or gelu_tanh.
        way: lanes (multiplies zeros too), lists (leaves them out) or automatic.
        path: One of `paths()`, or `emulated`, which plays AVX-512; None takes the best.

    Raises:
        BackendError: This processor cannot run `path`.
        SparseShapeError: x or the bias does not fit the weight, or the weight has fewer values than its strips.
    """
    native = _native()
    chosen = path or best_path()
    if path is not None and path not in [*paths(), "emulated"]:
        raise BackendError(
            given=f"path {path!r}, which this processor cannot run",
            allowed=", ".join(paths()),
            todo="leave the path out",
        )
    _check(weight, x_NK, bias_M)
    x = (x_NK if x_NK.dtype == torch.bfloat16 else x_NK.float()).contiguous().resolve_neg()
    bias = None if bias_M is None else bias_M.float().contiguous().resolve_neg()
    y_NM = torch.empty(len(x), weight.rows, dtype=torch.float32)
    native.sparse_product(
        chosen,
        *_addresses(weight),
        x.data_ptr(),
        len(x),
        x.dtype == torch.bfloat16,
        0 if bias is None else bias.data_ptr(),
        activation,
        way,
        torch.get_num_threads(),
        y_NM.data_ptr(),
    )
    return y_NM


def _check(weight: SparseWeight, x_NK: torch.Tensor, bias_M: torch.Tensor | None) -> None:
    """Refuse what would have a kernel read beyond an end."""
    _check_values(weight)
    if x_NK.ndim != 2 or x_NK.shape[1] != weight.cols or (bias_M is not None and bias_M.shape != (weight.rows,)):
        bias = "" if bias_M is None else f" and a bias of shape {tuple(bias_M.shape)}"
        raise SparseShapeError(
            given=f"x of shape {tuple(x_NK.shape)}{bias} for a weight of {weight.rows} x {weight.cols}",
            allowed=f"(N, {weight.cols}), and ({weight.rows},) for a bias",
            todo="pass rows of x that are as long as the weight's",
        )


def _check_values(weight: SparseWeight) -> None:
    """Refuse a weight of fewer values than its strips have; whether its bitmap has as many is not looked at."""
    values, kept = weight.values_P.numel() - TAIL, int(weight.starts_S[-1])
    if kept > values:
        raise SparseShapeError(
            given=f"a sparse weight of {values} values whose strips have {kept}",
            allowed="as many as the bitmap keeps",
            todo="load or make all parts of a weight together",
        )


def decode(weight: SparseWeight, first: int, last: int) -> torch.Tensor:
    """Return the rows of strips `first` to `last` (excluded) as a dense float32 matrix (a view)."""
    _check_values(weight)
    rows = min(TILE * last, weight.rows) - TILE * first
    padded_MK = torch.empty(TILE * (last - first), TILE * weight.masks_ST.shape[1], dtype=torch.float32)
    _native().sparse_decode(
        *_addresses(weight), first, last, torch.get_num_threads(), padded_MK.data_ptr(), padded_MK.shape[1]
    )
    return padded_MK[:rows, : weight.cols]


def _addresses(weight: SparseWeight) -> tuple[int, int, int, int, int, int, str]:
    return (
        weight.masks_ST.data_ptr(),
        weight.values_P.data_ptr(),
        weight.starts_S.data_ptr(),
        0 if weight.scales_M is None else weight.scales_M.data_ptr(),
        weight.rows,
        weight.cols,
        VALUE_TYPES[weight.values_P.dtype],
    )


@functools.cache
def _native() -> Any:  # noqa: ANN401 - a module, or None where it was not built
    try:
        return importlib.import_module("tandem._native")
    except ImportError:
        return None
