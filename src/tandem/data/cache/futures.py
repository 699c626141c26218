"""What loaders are going to read: each lays it down in a file that every process of the node evicts by.

    CACHE/futures/NAME.future     how far the loader is, how fast, and which blocks it reads at which positions

A file is locked by its loader. One that is not was left by a loader that was killed; whoever finds it removes it.

Legend: P uses, in the order of blocks; V blocks that are held.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tandem.data.cache.policy import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_MAGIC = b"TNDMFTRE"
_HEADER = struct.Struct("<8sQdQ")
_ASIDE_S = 600.0
_PROGRESS = struct.Struct("<Qd")


class Future:
    """The uses that one loader lays down.

    Args:
        folder: The folder of futures.
    """

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / f"{uuid.uuid4().hex}.future"
        self._file = -1

    def lay_down(self, keys_P: NDArray[np.uint64], positions_P: NDArray[np.int64], progress: tuple[int, float]) -> None:
        """Replace what is laid down.

        Args:
            keys_P: Blocks, as the cache numbers them.
            positions_P: At which position each is used.
            progress: How far the loader is, and how many positions a second it goes.
        """
        order = np.lexsort((positions_P, keys_P))
        _sweep(self._path.parent)
        aside = self._path.with_suffix(".aside")
        file = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # before it can be seen
            parts = [_HEADER.pack(_MAGIC, *progress, len(order)), keys_P[order].tobytes(), positions_P[order].tobytes()]
            with os.fdopen(os.dup(file), "wb") as stream:
                stream.writelines(parts)
            aside.replace(self._path)
        except BaseException:
            os.close(file)
            aside.unlink(missing_ok=True)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file = file

    def go_on(self, position: int, rate_per_s: float) -> None:
        """Tell how far the loader is, and how fast."""
        if self._file >= 0:
            os.pwrite(self._file, _PROGRESS.pack(position, rate_per_s), len(_MAGIC))

    def close(self) -> None:
        """Take it back."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def next_uses_s(folder: str, keys_V: NDArray[np.uint64]) -> NDArray[np.float64]:
    """In how many seconds each of these blocks is needed next, by any loader; `NEVER` where none needs it."""
    soonest_V = np.full(len(keys_V), NEVER)
    for position, rate_per_s, keys_P, positions_P in _living(Path(folder)):
        coming = positions_P >= position
        keys_F, positions_F = keys_P[coming], positions_P[coming]  # the first of each key is its next use
        if not len(keys_F):
            continue
        places_V = np.minimum(np.searchsorted(keys_F, keys_V), len(keys_F) - 1)
        wait_s_V = (positions_F[places_V] - position) / rate_per_s
        soonest_V = np.where(keys_F[places_V] == keys_V, np.minimum(soonest_V, wait_s_V), soonest_V)
    return soonest_V


def _living(folder: Path) -> Iterator[tuple[int, float, NDArray[np.uint64], NDArray[np.int64]]]:
    """The futures of loaders that are there; others are removed."""
    for path in folder.glob("*.future"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if _is_left(file.fileno()):
                path.unlink()
                continue
            packed = file.read()
            if len(packed) < _HEADER.size or packed[:8] != _MAGIC:
                continue
            _, position, rate_per_s, count = _HEADER.unpack_from(packed)
            if len(packed) == _HEADER.size + 16 * count and rate_per_s > 0:
                keys_P = np.frombuffer(packed, np.uint64, count, _HEADER.size)
                yield position, rate_per_s, keys_P, np.frombuffer(packed, np.int64, count, _HEADER.size + 8 * count)


def _sweep(folder: Path) -> None:
    """Remove what loaders that were killed were about to lay down."""
    for path in folder.glob("*.aside"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ASIDE_S:
                path.unlink()


def _is_left(file: int) -> bool:
    """Whether its loader is gone (a file that was just replaced is gone by itself)."""
    if not os.fstat(file).st_nlink:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True
