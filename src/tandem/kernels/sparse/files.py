"""Sparse weights in safetensors files, beside dense tensors: bitmaps, nonzeros and scales, checked when they are read.

A weight NAME is stored as `NAME.sparse_masks` (bytes, [S, T, 8]), `NAME.sparse_values` ([Z]) and, for int8,
`NAME.sparse_scales` ([M]); the file's metadata has the format's version and, for each weight, shape and checksum.
What backends make of a weight is never stored. docs/reference/sparse-format.md is the full description.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tandem.kernels.sparse.format import TAIL, TILE, VALUE_TYPES, SparseWeight, kept_tiles, shape_of_masks
from tandem.kernels.sparse.mistakes import SparseFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VERSION = 1
_KEY = "tandem_sparse"
_PARTS = ("masks", "values", "scales")


def save(path: Path, weights: Mapping[str, SparseWeight], dense: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write a file: sparse weights by name, and dense tensors beside them.

    Args:
        path: The file; it is written aside and renamed.
        weights: Names end before `.sparse_masks` and the others.
        dense: Tensors that are stored as they are.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in (dense or {}).items()}
    told: dict[str, Any] = {"version": VERSION, "weights": {}}
    for name, weight in weights.items():
        parts = _parts(weight.to("cpu"))
        tensors.update({f"{name}.sparse_{part}": tensor for part, tensor in parts.items()})
        told["weights"][name] = {"shape": [weight.rows, weight.cols], "xxh3": _checksum(parts)}
    aside = path.with_name(f".{path.name}.part")
    save_file(tensors, aside, metadata={"format": "pt", _KEY: json.dumps(told)})
    aside.replace(path)


def load(path: Path) -> tuple[dict[str, SparseWeight], dict[str, torch.Tensor]]:
    """Read a file: (sparse weights, dense tensors), by name.

    Raises:
        SparseFormatError: No such file, another format or version, a wrong checksum, or parts that do not fit together.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = _told(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError) as error:
        raise _bad(path, f"cannot be read: {error}") from error
    weights = {}
    for name, about in told.items():
        parts = {part: tensors.pop(f"{name}.sparse_{part}", None) for part in _PARTS}
        weights[name] = _weight(path, name, about, {part: t for part, t in parts.items() if t is not None})
    return weights, tensors


def _told(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise _bad(path, f"has no sparse weights ({_KEY} is missing from its metadata)")
    try:
        told = json.loads(metadata[_KEY])
        version, weights = told["version"], dict(told["weights"])
    except (ValueError, TypeError, KeyError) as error:
        raise _bad(path, f"has metadata that cannot be understood ({error!r})") from error
    if version != VERSION:
        raise SparseFormatError(
            given=f"{path} with sparse weights of version {version!r}",
            allowed=f"version {VERSION}",
            todo="write it again with this version of tandem, or update tandem",
        )
    return weights


def _weight(path: Path, name: str, about: object, parts: dict[str, torch.Tensor]) -> SparseWeight:
    """Put a weight together; everything is checked before a kernel sees it."""
    try:
        rows, cols = (int(n) for n in about["shape"])  # type: ignore[index]  # what is no mapping is refused below
        expected = str(about["xxh3"])  # type: ignore[index]
    except (TypeError, KeyError, ValueError) as error:
        raise _bad(path, f"does not say the shape and checksum of {name}") from error
    if not {"masks", "values"} <= parts.keys() or (parts["values"].dtype == torch.int8) != ("scales" in parts):
        raise _bad(path, f"lacks a part of {name}: it has {', '.join(parts) or 'none'}")
    if _checksum(parts) != expected:
        raise _bad(path, f"is damaged: {name} has another checksum than when it was written")
    masks, values, scales = parts["masks"], parts["values"], parts.get("scales")
    strips, tiles = shape_of_masks(rows, cols)
    fits = rows >= 0 and cols >= 0 and masks.dtype == torch.uint8 and tuple(masks.shape) == (strips, tiles, TILE)
    if not fits or values.dtype not in VALUE_TYPES or values.ndim != 1 or (scales is not None and len(scales) != rows):
        raise _bad(path, f"has parts of {name} that do not fit {rows} x {cols}")
    masks_ST = masks.contiguous().view(-1).view(torch.int64).reshape(strips, tiles)
    keep_ST88 = kept_tiles(masks_ST)
    padding = keep_ST88.permute(0, 2, 1, 3).reshape(strips * TILE, tiles * TILE)
    starts_S = torch.zeros(strips + 1, dtype=torch.int64)
    starts_S[1:] = keep_ST88.sum((1, 2, 3)).cumsum(0)
    if int(starts_S[-1]) != len(values) or padding[rows:].any() or padding[:, cols:].any():
        raise _bad(path, f"has a bitmap of {name} that does not fit its values")
    values_P = torch.cat([values, values.new_zeros(TAIL)])
    return SparseWeight(rows, cols, masks_ST, values_P, starts_S, scales)


def _parts(weight: SparseWeight) -> dict[str, torch.Tensor]:
    strips, tiles = weight.masks_ST.shape
    parts = {
        "masks": weight.masks_ST.contiguous().view(-1).view(torch.uint8).reshape(strips, tiles, TILE),
        "values": weight.values_P[: weight.kept].clone(),
    }
    if weight.scales_M is not None:
        parts["scales"] = weight.scales_M.float()
    return parts


def _checksum(parts: Mapping[str, torch.Tensor]) -> str:
    digest = xxhash.xxh3_64()
    for part in _PARTS:
        if part in parts:
            digest.update(parts[part].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _bad(path: Path, what: str) -> SparseFormatError:
    return SparseFormatError(
        given=f"{path} {what}",
        allowed=f"a whole safetensors file with sparse weights of version {VERSION}",
        todo="copy or write the file again",
    )
