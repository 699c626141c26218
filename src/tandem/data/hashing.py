"""XXH3-64, the checksum of everything in a space: by the extension, or by the package `xxhash` where that is absent."""

from __future__ import annotations

import importlib
import os

from tandem.core.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


_PIECE_BYTES = 4 << 20


def _chosen() -> Callable[[bytes | bytearray | memoryview], int]:
    try:
        native = importlib.import_module("tandem._native")
    except ImportError:
        by_package: Callable[[bytes | bytearray | memoryview], int] = importlib.import_module(
            "xxhash"
        ).xxh3_64_intdigest
        return by_package
    by_native: Callable[[bytes | bytearray | memoryview], int] = native.xxh3
    return by_native


xxh3 = _chosen()
"""The 64-bit XXH3 of a buffer's bytes, seed 0."""


def file_xxh3(path: str | os.PathLike[str]) -> tuple[int, int]:
    """A file's size in bytes and its checksum.

    Raises:
        OSError: It cannot be read.
    """
    state, size = importlib.import_module("xxhash").xxh3_64(), 0
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := os.read(file, _PIECE_BYTES):
            state.update(piece)
            size += len(piece)
    finally:
        os.close(file)
    return size, state.intdigest()
