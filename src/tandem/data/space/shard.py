"""Shards: files in which samples lie one after another."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import xxhash

from tandem.core.durable import naming
from tandem.core.errors import SpaceError
from tandem.data.hashing import file_xxh3, xxh3
from tandem.data.space import layout

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from tandem.data.space.layout import ShardEntry

_WRITE_BYTES = 4 << 20
_ZEROS = bytes(_WRITE_BYTES)

CHANGED = "holds other bytes than were written, outside of any sample"

Written = tuple[int, int, int]
"""Checksum, offset and size of a sample."""


class ShardWriter:
    """Writes one shard. The file is there from the beginning; it counts once a published index names it."""

    def __init__(self, folder: Path, space_id: bytes) -> None:
        """Begin a shard with a name of its own.

        Raises:
            OSError: The file cannot be made.
        """
        self.shard_id = int.from_bytes(os.urandom(8), "little")
        self.path = folder / layout.shard_file_name(self.shard_id)
        self.size = 0
        self.samples = 0
        self._hash = xxhash.xxh3_64()
        self._waiting: list[bytes | memoryview] = []
        self._waiting_bytes = 0
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._put(layout.ShardHeader(self.shard_id, space_id, time.time_ns()).encode())

    def add(self, data: bytes | memoryview) -> Written:
        """Add a sample's bytes, which must not change afterwards."""
        written = (xxh3(data), self.size, len(data))
        self.samples += 1
        self._put(data)
        return written

    def begin(self) -> GrowingSample:
        """Add a sample piece by piece."""
        return GrowingSample(self)

    def finish(self) -> layout.ShardEntry:
        """Make all of it durable.

        Raises:
            OSError: It cannot be written; the disk may be full.
        """
        self._flush()
        with naming(self.path):
            os.fsync(self._file)
        os.close(self._file)
        self._file = -1
        live = self.size - layout.SHARD_HEADER_BYTES
        return layout.ShardEntry(self.shard_id, self.size, self._hash.intdigest(), live, self.samples)

    def abandon(self) -> None:
        """Remove what there is of it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it, unless it was finished."""
        self.abandon()

    def put_piece(self, data: bytes) -> None:
        """Add bytes of a growing sample."""
        if len(data) == len(_ZEROS) and data == _ZEROS:
            self._flush()
            self._hash.update(data)
            self.size += len(data)
            with naming(self.path):
                os.ftruncate(self._file, self.size)
            os.lseek(self._file, 0, os.SEEK_END)
        else:
            self._put(data)

    def _put(self, data: bytes | memoryview) -> None:
        if self.size + len(data) >= 1 << layout.OFFSET_BITS:
            raise SpaceError(
                given=f"a shard of {self.size + len(data):,} bytes",
                allowed=f"less than {1 << layout.OFFSET_BITS:,} bytes",
                todo="split the file",
            )
        self._hash.update(data)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self.size += len(data)
        if self._waiting_bytes >= _WRITE_BYTES or len(self._waiting) >= 4096:
            self._flush()

    def _flush(self) -> None:
        view = memoryview(b"".join(self._waiting))
        with naming(self.path):
            while view:
                view = view[os.write(self._file, view) :]
        self._waiting.clear()
        self._waiting_bytes = 0


class GrowingSample:
    """A sample that is too large to hold in memory at once."""

    def __init__(self, shard: ShardWriter) -> None:
        """Begin where the shard ends now."""
        self._shard = shard
        self._offset = shard.size
        self._hash = xxhash.xxh3_64()

    def add(self, data: bytes) -> None:
        """Add the next bytes; long runs of zeros become holes in the file."""
        self._hash.update(data)
        self._shard.put_piece(data)

    def finish(self) -> Written:
        """All was added."""
        self._shard.samples += 1
        return self._hash.intdigest(), self._offset, self._shard.size - self._offset


def damage(path: str, entry: ShardEntry) -> str | None:
    """What is wrong with a shard as a file, in words; None where nothing is.

    Raises:
        NewerVersionError: It is of a newer version.
        OSError: It cannot be read.
    """
    layout.refuse_newer(path)
    size, checksum = file_xxh3(path)
    if size < entry.size:
        return f"the shard {path} is cut short: {size:,} bytes instead of {entry.size:,}"
    if size > entry.size:
        return f"the shard {path} is longer than it was written: {size:,} bytes instead of {entry.size:,}"
    return None if checksum == entry.checksum else f"the shard {path} {CHANGED}"
