"""One file of a remote in the cache: its bytes in a sparse file, and a map that says which blocks are there.

    NAME.blocks   as long as the file itself; holes where a block is not there
    NAME.map      header (magic, version, bytes of a block, bytes of the file, checksum), the state of each block (a
                  byte), when each was used last (8 bytes each, from the next multiple of 8)

A block is written first and then said to be there: whoever is killed in between leaves a block that counts as absent.
What the map says is not trusted either: every sample that is read is verified, and fetched again where it is not what
was packed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time
from typing import TYPE_CHECKING

import numpy as np

from tandem.core.durable import FULL
from tandem.data.cache.locks import BLOCK_BITS, runs
from tandem.data.cache.settings import RemoteError
from tandem.data.hashing import xxh3

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

ABSENT, COMING, THERE = 0, 1, 2
"""States of a block; one that is coming counts as held, and is left so by whoever is killed while fetching it."""

_MAGIC = b"TNDMCMAP"
_HEADER = struct.Struct("<8sIIQ32x")
_CHECK = struct.Struct("<Q")
_HEADER_BYTES = _HEADER.size + _CHECK.size
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


class CachedFile:
    """A file of a remote.

    Args:
        folder: Where it is cached.
        name: Its name there; a file with this name has these bytes for ever.
        size: Its bytes.
        block_bytes: Those of a block.
        source: Its name at the remote.
    """

    def __init__(self, folder: str, name: str, size: int, block_bytes: int, source: str = "") -> None:
        self.name, self.size, self.block_bytes, self.source = name, size, block_bytes, source
        self.blocks = -(-size // block_bytes)
        self.key = xxh3(f"{folder.rpartition('/')[2]}/{name}".encode()) & 0xFFFFFFFF
        self.data_path, self.map_path = f"{folder}/{name}.blocks", f"{folder}/{name}.map"
        self._made = False
        self._stamps_at = _HEADER_BYTES + -(-self.blocks // 8) * 8

    @property
    def first_key(self) -> int:
        """What the first block is called among those of all files; the others are counted from it."""
        return self.key << BLOCK_BITS

    def bounds(self, first: int, count: int = 1) -> tuple[int, int]:
        """Where in the file blocks begin and end."""
        return first * self.block_bytes, min(self.size, (first + count) * self.block_bytes)

    def bytes_of(self, blocks_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many bytes each of these blocks has."""
        return np.minimum(self.size - blocks_N * self.block_bytes, self.block_bytes)

    def make(self) -> None:
        """Make the files where they are not there, or are of no use; several processes may do so at once."""
        if self._made:
            return
        header = _HEADER.pack(_MAGIC, 1, self.block_bytes, self.size)
        header += _CHECK.pack(xxh3(header))
        file = os.open(self.map_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            is_right = os.pread(file, _HEADER_BYTES, 0) == header
            if not is_right:
                os.ftruncate(file, 0)  # nothing in it can be believed
            self._make_data(empty=not is_right)
            os.pwrite(file, header, 0)
            os.ftruncate(file, self._stamps_at + 8 * self.blocks)
        finally:
            os.close(file)
        self._made = True

    def states(self) -> NDArray[np.uint8]:
        """The state of every block."""
        read = self._read_map(_HEADER_BYTES, self.blocks)
        return np.frombuffer(read.ljust(self.blocks, b"\0"), np.uint8)

    def set_states(self, blocks: Iterable[int], state: int) -> None:
        """Change the state of some blocks."""
        self._write_map((_HEADER_BYTES + first, bytes([state]) * count) for first, count in runs(blocks))

    def used_ns(self) -> NDArray[np.uint64]:
        """When each block was used last; 0 for never."""
        read = self._read_map(self._stamps_at, 8 * self.blocks)
        return np.frombuffer(read.ljust(8 * self.blocks, b"\0"), np.uint64)

    def note_used(self, used_ns_N: NDArray[np.uint64]) -> None:
        """Put down when blocks were used last, where that is later than what stands there."""
        later = np.maximum(used_ns_N, self.used_ns())
        self._write_map([(self._stamps_at, later.tobytes())])

    def write(self, first: int, data: bytes) -> None:
        """Write the bytes of blocks from `first` on, and say that they are there.

        Raises:
            RemoteError: The disk is full.
        """
        file = os.open(self.data_path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            view, at = memoryview(data), first * self.block_bytes
            while view:
                done = os.pwrite(file, view, at)
                view, at = view[done:], at + done
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise RemoteError(
                given=f"no room is left on the disk of {self.data_path}",
                allowed="a cache that its disk can hold",
                todo="set a lower limit (tandem data cache --limit SIZE); where it is low, read less at once: smaller "
                "batches, or the smaller blocks (TANDEM_DATA_CACHE_BLOCK) of a new cache",
            ) from error
        finally:
            os.close(file)
        count = -(-len(data) // self.block_bytes)
        fetched_ns = np.full(count, time.time_ns(), np.uint64).tobytes()
        self._write_map([(self._stamps_at + 8 * first, fetched_ns), (_HEADER_BYTES + first, bytes([THERE]) * count)])

    def drop(self, blocks: Iterable[int]) -> None:
        """Let blocks go: say first that they are not there, then free their room.

        Raises:
            RemoteError: The file system frees no room within a file.
        """
        found = list(blocks)
        self.set_states(found, ABSENT)
        file = os.open(self.data_path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for first, count in runs(found):
                begin, end = self.bounds(first, count)
                punch(file, begin, end - begin)
        finally:
            os.close(file)

    def _make_data(self, *, empty: bool) -> None:
        file = os.open(self.data_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if empty:
                punch(file, 0, max(self.size, 1))
            os.ftruncate(file, self.size)
        finally:
            os.close(file)

    def _read_map(self, at: int, size: int) -> bytes:
        try:
            file = os.open(self.map_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(file, size, at)
        finally:
            os.close(file)

    def _write_map(self, parts: Iterable[tuple[int, bytes]]) -> None:
        file = os.open(self.map_path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for at, data in parts:
                os.pwrite(file, data, at)
        finally:
            os.close(file)


def found_file(folder: str, name: str) -> CachedFile | None:
    """A file that is in a cache already, whoever has put it there; None where its map is of no use."""
    try:
        file = os.open(f"{folder}/{name}.map", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        packed = os.pread(file, _HEADER_BYTES, 0)
    finally:
        os.close(file)
    if len(packed) < _HEADER_BYTES or _CHECK.unpack_from(packed, _HEADER.size)[0] != xxh3(packed[: _HEADER.size]):
        return None
    magic, version, block_bytes, size = _HEADER.unpack_from(packed)
    return CachedFile(folder, name, size, block_bytes) if (magic, version) == (_MAGIC, 1) else None


def punch(file: int, offset: int, size: int) -> None:
    """Free the room of bytes within a file; they read as zeros then.

    Raises:
        RemoteError: The file system cannot do that.
    """
    long = ctypes.c_longlong
    while _libc.fallocate(file, _KEEP_SIZE | _PUNCH_HOLE, long(offset), long(size)) != 0:
        error = ctypes.get_errno()
        if error != errno.EINTR:
            raise RemoteError(
                given=f"a cache on a file system that frees no room within files ({os.strerror(error)})",
                allowed="a folder on a disk of this node: ext4, xfs, btrfs, tmpfs, ...",
                todo="name one: TANDEM_DATA_CACHE=/local/cache",
            )
