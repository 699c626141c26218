"""Batches in page-locked memory, from which a GPU copies while the program goes on. Needs torch and a GPU."""

from __future__ import annotations

import numpy as np

from tandem.core.errors import MissingPackageError
from tandem.data.steps import LoaderError


def require_cuda() -> None:
    """Refuse to pin where nothing can be pinned.

    Raises:
        MissingPackageError: torch is not installed.
        LoaderError: torch finds no GPU.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            given="pin=True without torch", allowed="pinned memory through torch", todo="pip install tandemlab[learn]"
        ) from error
    if not torch.cuda.is_available():
        raise LoaderError(given="pin=True, but torch finds no GPU", allowed="a GPU", todo="leave pin out")


def pinned(value: object) -> object:
    """The same with every array, tensor, bytes and view in it as a tensor in page-locked memory (bytes as uint8).

    Lists, tuples and dictionaries are gone through; anything else stays what it is.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if isinstance(value, bytes | bytearray | memoryview):
        value = np.frombuffer(value, dtype=np.uint8)
    if isinstance(value, np.ndarray):
        kind = torch.from_numpy(np.empty(0, value.dtype)).dtype
        tensor = torch.empty(value.shape, dtype=kind, pin_memory=True)
        tensor.numpy()[...] = value
        return tensor
    if isinstance(value, dict):
        return {key: pinned(part) for key, part in value.items()}
    if isinstance(value, list):
        return [pinned(part) for part in value]
    if isinstance(value, tuple):
        parts = tuple(pinned(part) for part in value)
        make = getattr(type(value), "_make", tuple)  # of a named tuple
        return make(parts)
    return value
