"""Sparse weights in safetensors files, beside dense tensors: bitmaps, nonzeros and scales, checked when they are read.

A weight NAME is stored as `NAME.sparse_masks` (bytes, [S, T, 8]), `NAME.sparse_values` ([Z]) and, for int8,
`NAME.sparse_scales` ([M]); the file's metadata has the format's version, each weight's shape and
checksum, and each dense tensor's checksum.
What backends make of a weight is never stored. docs/reference/sparse-format.md is the full description.
"""

from __future__ import annotations

import functools
import json
import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tandem.core.durable import FULL, written_aside
from tandem.kernels.sparse.format import TAIL, TILE, VALUE_TYPES, SparseWeight, kept_tiles, shape_of_masks, starts_of
from tandem.kernels.sparse.mistakes import SparseFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 2
_READ = (1, VERSION)
_KEY = "tandem_sparse"
_HEADER = "__metadata__"
"""What safetensors calls the metadata, beside tensors' names."""
_PARTS = ("masks", "values", "scales")
_ENDS = tuple(f".sparse_{part}" for part in _PARTS)


def save(
    path: str | os.PathLike[str],
    weights: Mapping[str, SparseWeight],
    dense: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a file: sparse weights by name, and dense tensors beside them.

    Args:
        path: The file; it is written aside and renamed.
        weights: Names end before `.sparse_masks` and the others.
        dense: Tensors that are stored as they are; none named like a part of a sparse weight.

    Raises:
        SparseFormatError: A name of a dense tensor that a part of a sparse weight or of the file would have, dense
            tensors that share memory or that safetensors cannot store, or a file that cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise SparseFormatError(given=f"{path}, a folder", allowed="a file's path", todo="add the file's name")
    if clash := next((name for name in dense or {} if _is_part(name) or name == _HEADER), None):
        raise SparseFormatError(
            given=f"a dense tensor {clash!r}, named like a part of a sparse weight or of the file",
            allowed=f"names that end in none of {', '.join(_ENDS)}, other than {_HEADER}",
            todo="store it under another name",
        )
    tensors = {name: _stored(name, tensor) for name, tensor in (dense or {}).items()}
    told: dict[str, Any] = {
        "version": VERSION,
        "weights": {},
        "dense": {name: _checksum_of_dense(t) for name, t in tensors.items()},
    }
    for name, weight in weights.items():
        parts = _parts(weight.to("cpu"))
        tensors.update({f"{name}.sparse_{part}": tensor for part, tensor in parts.items()})
        told["weights"][name] = {
            "shape": [weight.rows, weight.cols],
            "xxh3": _checksum(parts, _heading(weight.rows, weight.cols, parts)),
        }
    try:
        with written_aside(path) as file:
            save_file(tensors, file.name, metadata={"format": "pt", _KEY: json.dumps(told)})
            _as_opened(file)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error
    except (RuntimeError, KeyError) as error:  # memory that is shared, a type that safetensors does not have
        raise SparseFormatError(
            given=f"tensors that cannot be stored: {error}",
            allowed="tensors that share no memory, of types that safetensors has",
            todo="give each tensor once, and convert those of other types",
        ) from error


def unwritable(path: Path, error: Exception) -> SparseFormatError:
    """What to say of a file or folder that the system does not let be written."""
    told = re.search(r"os error (\d+)", str(error))  # safetensors tells the number in words alone
    number = error.errno if isinstance(error, OSError) else told and int(told[1])
    return SparseFormatError(
        given=f"{path}, which cannot be written: {error}",
        allowed="a file in a folder that is there and may be written to, on a disk with room for it",
        todo="make room, or choose another place" if number in FULL else "make the folder, or choose another place",
    )


def load(path: str | os.PathLike[str]) -> tuple[dict[str, SparseWeight], dict[str, torch.Tensor]]:
    """Read a file: (sparse weights, dense tensors), by name.

    Raises:
        SparseFormatError: No such file, another format or version, a wrong checksum, or parts that do not fit together.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file, path.open("rb") as raw:
            version, told, sums = _told(path, file.metadata() or {})
            mapped = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            read = functools.partial(_read, path, raw, mapped, _places(raw))
            weights = {}
            for name, about in told.items():
                parts = {part: read(whole) for part in _PARTS if (whole := f"{name}.sparse_{part}") in mapped}
                weights[name] = _weight(path, name, about, version, parts)
            if lost := next(filter(_is_part, mapped), None):
                raise _bad(path, f"has {lost}, but its metadata names no such weight")
            if version > 1 and sums.keys() != mapped.keys():
                raise _bad(path, f"has other tensors than when it was written: {min(sums.keys() ^ mapped.keys())}")
            dense = {name: read(name) for name in list(mapped)}
    except (OSError, SafetensorError) as error:
        raise _bad(path, f"cannot be read: {error}") from error
    for name in sums:
        if _checksum_of_dense(dense[name]) != sums[name]:
            raise _bad(path, f"is damaged: {name} has another checksum than when it was written")
    return weights, dense


def is_sparse(path: Path) -> bool:
    """Whether a file says of itself that sparse weights are in it."""
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def _told(path: Path, metadata: Mapping[str, str]) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return (version, what is told of each weight, checksums of dense tensors)."""
    if _KEY not in metadata:
        raise SparseFormatError(
            given=f"{path} has no sparse weights ({_KEY} is missing from its metadata)",
            allowed="files that tandem wrote, not those of a model's own save_pretrained",
            todo="write it with tandem.kernels.sparse.model.save_pretrained(model, folder)",
        )
    try:
        told = json.loads(metadata[_KEY])
        version, weights = told["version"], told["weights"]
        sums = {} if version == 1 else told.get("dense")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _bad(path, f"has metadata that cannot be understood ({error!r})") from error
    if type(version) is not int or version not in _READ:
        raise SparseFormatError(
            given=f"{path} with sparse weights of version {version!r}",
            allowed=f"versions {_READ[0]} to {VERSION}",
            todo="write it again with this version of tandem, or update tandem",
        )
    if not isinstance(weights, dict) or not isinstance(sums, dict):
        raise _bad(path, "has metadata that cannot be understood (weights and dense are objects)")
    return version, weights, sums


def _places(raw: IO[bytes]) -> dict[str, int]:
    """Return where tensors begin in a safetensors file whose header was found to be right."""
    about = json.loads(raw.read(int.from_bytes(raw.read(8), "little")))
    about.pop(_HEADER, None)
    return {name: raw.tell() + one["data_offsets"][0] for name, one in about.items()}


def _read(
    path: Path, raw: IO[bytes], mapped: dict[str, torch.Tensor], places: Mapping[str, int], name: str
) -> torch.Tensor:
    """Take a tensor out of the mapped ones, and read it into memory of its own, which follows no change of the file."""
    tensor = torch.empty_like(mapped.pop(name))
    raw.seek(places[name])
    if raw.readinto(_bytes(tensor)) != tensor.nbytes:  # type: ignore[attr-defined]  # typing's lacks it
        raise _bad(path, f"ends within {name}")
    return tensor


def _weight(path: Path, name: str, about: object, version: int, parts: dict[str, torch.Tensor]) -> SparseWeight:
    """Put a weight together; everything is checked before a kernel sees it."""
    try:
        rows, cols = about["shape"]  # type: ignore[index]  # what is no mapping is refused below
        expected = str(about["xxh3"])  # type: ignore[index]
    except (TypeError, KeyError, ValueError) as error:
        raise _bad(path, f"does not say the shape and checksum of {name}") from error
    if type(rows) is not int or type(cols) is not int:
        raise _bad(path, f"has a shape of {name} that is no two whole numbers")
    if not {"masks", "values"} <= parts.keys() or (parts["values"].dtype == torch.int8) != ("scales" in parts):
        raise _bad(path, f"lacks a part of {name}: it has {', '.join(parts) or 'none'}")
    if _checksum(parts, _heading(rows, cols, parts) if version > 1 else b"") != expected:
        raise _bad(path, f"is damaged: {name} has another checksum than when it was written")
    masks, values, scales = parts["masks"], parts["values"], parts.get("scales")
    strips, tiles = shape_of_masks(rows, cols)
    fits = rows >= 0 and cols >= 0 and masks.dtype == torch.uint8 and tuple(masks.shape) == (strips, tiles, TILE)
    fits &= scales is None or (scales.dtype == torch.float32 and tuple(scales.shape) == (rows,))
    if not fits or values.dtype not in VALUE_TYPES or values.ndim != 1:
        raise _bad(path, f"has parts of {name} that do not fit {rows} x {cols}")
    masks_ST = masks.contiguous().view(-1).view(torch.int64).reshape(strips, tiles)
    keep_ST88 = kept_tiles(masks_ST)
    padding = keep_ST88.permute(0, 2, 1, 3).reshape(strips * TILE, tiles * TILE)
    starts_S = starts_of(masks_ST)
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


def _stored(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a dense tensor as its bytes will lie in the file."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        raise SparseFormatError(
            given=f"a dense tensor {name!r} of type {tensor.dtype} and layout {tensor.layout} on {tensor.device}",
            allowed="tensors that are dense, with values",
            todo="load its values first" if tensor.is_meta else "store a dense one, such as tensor.to_dense()",
        )
    here = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return here.clone(memory_format=torch.contiguous_format) if here.numel() == 1 else here  # of any stride, to torch


def _as_opened(file: IO[bytes]) -> None:
    """Give the file of an open one's name, which safetensors may have put there anew, its rights; make it durable."""
    with Path(file.name).open("rb") as whole:
        os.fchmod(whole.fileno(), os.fstat(file.fileno()).st_mode)
        os.fsync(whole.fileno())


def _is_part(name: str) -> bool:
    return name.endswith(_ENDS)


def _heading(rows: int, cols: int, parts: Mapping[str, torch.Tensor]) -> bytes:
    """What version 2 hashes before a weight's parts: type and shape, by which its bytes are read."""
    return f"{_type_of(parts['values'])} {rows} {cols}\n".encode()


def _checksum(parts: Mapping[str, torch.Tensor], heading: bytes) -> str:
    digest = xxhash.xxh3_64(heading)
    for part in _PARTS:
        if part in parts:
            digest.update(_bytes(parts[part]))
    return digest.hexdigest()


def _checksum_of_dense(tensor: torch.Tensor) -> str:
    digest = xxhash.xxh3_64(" ".join(map(str, (_type_of(tensor), *tensor.shape))).encode() + b"\n")
    digest.update(_bytes(tensor))
    return digest.hexdigest()


def _type_of(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _bytes(tensor: torch.Tensor) -> Any:  # noqa: ANN401 - a numpy array
    """Return a contiguous tensor's memory."""
    return tensor.view(-1).view(torch.uint8).numpy()


def _bad(path: Path, what: str) -> SparseFormatError:
    return SparseFormatError(
        given=f"{path} {what}",
        allowed=f"a whole safetensors file with sparse weights of versions {_READ[0]} to {VERSION}",
        todo="copy or write the file again",
    )
