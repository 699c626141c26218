"""Parts of samples, each verified: what reads large samples piece by piece never gets a byte that was not checked.

A sample of one piece (1 MiB) or less is read whole and compared with its checksum. A larger one is gone through once,
when a part of it is first asked for: its checksum is compared, and a checksum of every piece is kept. From then on the
pieces that are needed are read, and each is compared with the checksum that it had then.

Limits: the first part of a large sample costs the reading of all of it.
"""

from __future__ import annotations

import os
from array import array
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

import xxhash

from tandem.data.hashing import xxh3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tandem.data.space.index import Index
    from tandem.data.space.reading import Readers

PIECE_BYTES = 1 << 20
_KEPT_BYTES = 64 << 20
_KEPT_CHECKS = 1024


class Pieces:
    """Reads parts of an index's samples. Safe to use from several threads."""

    def __init__(self, index: Index, readers: Readers) -> None:
        """Read nothing yet."""
        self._index, self._readers = index, readers
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._checks: OrderedDict[int, array[int]] = OrderedDict()
        self._going_through: dict[int, Lock] = {}
        self._lock = Lock()

    def read(self, number: int, start: int, size: int) -> bytes:
        """These bytes of a sample, or as many of them as there are.

        Raises:
            ValueError: `start` or `size` is negative.
            DataError: The sample is damaged; names it.
        """
        if start < 0 or size < 0:
            message = f"{size} bytes from {start}"
            raise ValueError(message)
        end = min(start + size, self._index.place(number)[3])
        if start >= end:
            return b""
        first, last = start // PIECE_BYTES, (end - 1) // PIECE_BYTES
        begin = first * PIECE_BYTES
        if first == last:
            return self._piece(number, first)[start - begin : end - begin]
        joined = b"".join(self._piece(number, piece) for piece in range(first, last + 1))
        return joined[start - begin : end - begin]

    def _piece(self, number: int, piece: int) -> bytes:
        with self._lock:
            found = self._kept.get((number, piece))
            if found is not None:
                self._kept.move_to_end((number, piece))
                return found
        if self._index.place(number)[3] <= PIECE_BYTES:
            found = self._readers.read(number)
        else:
            found = self._readers.when_here(number, lambda: self._of_a_large_one(number, piece))
        self._keep(number, piece, found)
        return found

    def _of_a_large_one(self, number: int, piece: int) -> bytes:
        expected = self._checks_of(number)[piece]
        (found,) = self._read(number, range(piece, piece + 1))
        if xxh3(found) != expected:
            raise self._readers.damaged(kind="checksum", number=number)
        return found

    def _keep(self, number: int, piece: int, data: bytes) -> None:
        with self._lock:
            self._kept_bytes += len(data) - len(self._kept.pop((number, piece), b""))
            self._kept[number, piece] = data
            while self._kept_bytes > _KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def _checks_of(self, number: int) -> array[int]:
        """The checksum of every piece of a large sample that is, as a whole, what was packed."""
        with self._lock:
            found = self._checks.get(number)
            going_through = self._going_through.setdefault(number, Lock())
        if found is not None:
            return found
        with going_through:  # others who want the same sample wait for the first
            with self._lock:
                found = self._checks.get(number)
            if found is None:
                found = self._go_through(number)
        with self._lock:
            self._checks[number] = found
            self._going_through.pop(number, None)
            if len(self._checks) > _KEPT_CHECKS:
                self._checks.popitem(last=False)
        return found

    def _go_through(self, number: int) -> array[int]:
        checksum, _, _, size = self._index.place(number)
        whole, checks = xxhash.xxh3_64(), array("Q")
        for data in self._read(number, range(-(-size // PIECE_BYTES))):
            whole.update(data)
            checks.append(xxh3(data))
        if whole.intdigest() != checksum:
            raise self._readers.damaged(kind="checksum", number=number)
        return checks

    def _read(self, number: int, pieces: range) -> Iterator[bytes]:
        """Pieces as they lie in their shard, unchecked.

        Raises:
            DataError: They cannot be read, or their shard ends before they do.
        """
        _, shard, offset, size = self._index.place(number)
        if shard >= len(self._index.shards):
            raise self._readers.damaged(kind="bounds", number=number)
        try:
            with open(self._readers.shard_path(shard), "rb", buffering=0) as file:  # noqa: PTH123 - as `Readers` does
                for piece in pieces:
                    begin = piece * PIECE_BYTES
                    yield self._exactly(file.fileno(), number, offset + begin, min(PIECE_BYTES, size - begin))
        except OSError as error:
            raise self._readers.damaged(kind="io", number=number, error=error.errno or 0) from error

    def _exactly(self, file: int, number: int, begin: int, size: int) -> bytes:
        parts = []
        while size > 0:
            part = os.pread(file, size, begin)
            if not part:
                raise self._readers.damaged(kind="vanished", number=number)
            parts.append(part)
            begin, size = begin + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
