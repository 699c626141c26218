"""XXH3-64, the checksum of everything in a space: by the extension, or by the package `xxhash` where that is absent."""

from __future__ import annotations

import importlib

from tandem.core.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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
