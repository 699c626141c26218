"""What a cache holds, and what it has done, in one small file; changed by one process at a time.

`held_bytes` is an upper bound: it is raised before blocks are taken and lowered after they went, so that a process
that is killed in between leaves it too high, never too low. Whoever finds the cache full counts, and puts it right.
"""

from __future__ import annotations

import logging
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tandem.core.durable import locked
from tandem.data.hashing import xxh3

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOG = logging.getLogger(__name__)

_MAGIC = b"TNDMCLGR"
_FIELDS = struct.Struct("<8sI4x7Q")
_CHECK = struct.Struct("<Q")


class Ledger(NamedTuple):
    """The state of a cache.

    Attributes:
        limit_bytes: What was set for it; 0 where nothing was.
        held_bytes: An upper bound of the bytes of blocks that are held or coming; -1 where nobody knows.
        fetched_bytes: What was fetched since it was made.
        hits: Samples that were read without fetching anything for them.
        misses: Blocks that were fetched because a read needed them just then.
        evicted: Blocks that went for others.
        refetched: Blocks that were fetched again because they were not what was packed.
    """

    limit_bytes: int = 0
    held_bytes: int = -1
    fetched_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evicted: int = 0
    refetched: int = 0


class LedgerFile:
    """The ledger of a cache's folder."""

    def __init__(self, folder: str) -> None:
        """Open nothing yet."""
        self._path, self._lock = f"{folder}/ledger", Path(folder) / "lock"
        self._is_told = False

    def read(self) -> Ledger:
        """What stands in it; an empty one where it is not there, or damaged, which is logged once."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return Ledger()
        try:
            packed = os.pread(file, _FIELDS.size + _CHECK.size, 0)
        finally:
            os.close(file)
        if len(packed) < _FIELDS.size + _CHECK.size or xxh3(packed[: _FIELDS.size]) != _CHECK.unpack(packed[-8:])[0]:
            return self._damaged()
        magic, version, *fields = _FIELDS.unpack_from(packed)
        if (magic, version) != (_MAGIC, 1):
            return self._damaged()
        held = Ledger._make(fields)
        return held._replace(held_bytes=-1) if held.held_bytes >= 1 << 63 else held

    def _damaged(self) -> Ledger:
        if not self._is_told:
            self._is_told = True
            _LOG.warning(
                "%s is damaged: what it counted is lost, and the limit if one was set; set it again: "
                "tandem data cache --limit SIZE",
                self._path,
            )
        return Ledger()

    @contextmanager
    def changing(self) -> Iterator[OpenLedger]:
        """The right to change it, for one process at a time; waits for it."""
        with locked(self._lock):
            yield OpenLedger(self)

    def put(self, ledger: Ledger) -> None:
        """Write it; only within `changing`."""
        held = ledger.held_bytes % (1 << 64)
        packed = _FIELDS.pack(_MAGIC, 1, *ledger._replace(held_bytes=held))
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.pwrite(file, packed + _CHECK.pack(xxh3(packed)), 0)
        finally:
            os.close(file)


class OpenLedger:
    """A ledger that nobody else changes meanwhile."""

    def __init__(self, file: LedgerFile) -> None:
        """Read it."""
        self._file = file
        self.now = file.read()

    def set(self, **fields: int) -> None:
        """Set some fields."""
        self.now = self.now._replace(**fields)
        self._file.put(self.now)

    def add(self, **fields: int) -> None:
        """Add to some fields."""
        self.set(**{name: getattr(self.now, name) + more for name, more in fields.items()})
