"""Room that the database has for certain: blocks of the write-ahead log beyond its end.

A job that fills the disk would take any space that is merely free, also what a reserve file gives back. Blocks that
belong to the log already cannot be taken by anybody. They are never used while more can be had: once they
cannot be renewed, or hardly anything is free, the store is short of room, and only what ends or cancels jobs should
be written. Where the file system cannot allocate ahead there is no reserve, and a full disk is noticed by
the first write that fails.
"""

import ctypes
import errno
import logging
import math
import os
from pathlib import Path

from tandem.core.durable import FULL

RESERVE_BYTES = 4 << 20
"""Blocks held ready: for a few hundred steps, each of some pages."""

LEAST_FREE_BYTES = 1 << 20
"""With less than this free on the disk it counts as full."""

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of linux/falloc.h

_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Reserve:
    """The reserve of one write-ahead log."""

    def __init__(self, log: Path) -> None:
        """Watch over `log`, which the database makes when it first needs it."""
        self._log = log
        self._fd: int | None = None
        self._held_to = 0  # blocks are allocated up to here
        self._can = True

    def is_whole(self) -> bool:
        """Renew the reserve where the log has grown into it; returns whether it is whole and the disk has room."""
        if self._fd is None:
            try:
                self._fd = os.open(self._log, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # nothing was written yet
                return True
        return self._has_renewed(self._fd) and _is_roomy(self._fd)

    def room_bytes(self) -> float:
        """What the log may take of the disk until that counts as full, its reserve aside; infinite if nobody knows."""
        return math.inf if self._fd is None else max(0.0, _free_bytes(self._fd) - LEAST_FREE_BYTES)

    def log_bytes(self) -> int:
        """How long the log is."""
        return 0 if self._fd is None else os.fstat(self._fd).st_size

    def cut(self, size_bytes: int) -> None:
        """Give back what a transaction that failed added to the log, but for the reserve.

        The database itself would write over it, and keep its blocks. Nobody reads it: the log counts up to its last
        commit, which lies before.
        """
        if self._fd is not None and os.fstat(self._fd).st_size > size_bytes:
            os.ftruncate(self._fd, size_bytes)
            self._held_to = size_bytes
            self._has_renewed(self._fd)

    def close(self) -> None:
        """Let the log go; the database removes it, and its blocks with it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _has_renewed(self, fd: int) -> bool:
        wanted = os.fstat(fd).st_size + RESERVE_BYTES
        if not self._can or wanted <= self._held_to:
            return True
        begin = max(self._held_to, wanted - RESERVE_BYTES)
        if _libc.fallocate(fd, _KEEP_SIZE, begin, wanted - begin) == 0:
            self._held_to = wanted
            return True
        number = ctypes.get_errno()
        if number in FULL:
            return False
        if number != errno.EINTR:
            self._can = False
            _log.warning("no room can be set aside in %s (%s)", self._log, os.strerror(number))
        return True


def _is_roomy(fd: int) -> bool:
    return _free_bytes(fd) >= LEAST_FREE_BYTES


def _free_bytes(fd: int) -> float:
    """What this user may still take of a disk; infinite for one that does not say how large it is."""
    disk = os.fstatvfs(fd)
    free = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
    return free * disk.f_frsize if disk.f_blocks else math.inf
