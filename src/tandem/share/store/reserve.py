"""Room that the database has for certain: blocks of the write-ahead log beyond its end.

A job that fills the disk would take any space that is merely free, also what a reserve file gives back. Blocks that
belong to the log already cannot be taken by anybody. They are never used while more can be had: once they
cannot be renewed, or hardly anything is free, the store is short of room, and only what ends or cancels jobs should
be written; so it is where hardly any more files can be made, of which each start needs some. Where the file system
cannot allocate ahead there is no reserve, and a full disk is noticed by the first write that fails.
"""

import contextlib
import ctypes
import errno
import logging
import math
import os
from pathlib import Path

from tandem.core.durable import FULL
from tandem.core.units import human_size

RESERVE_BYTES = 4 << 20
"""Blocks held ready: for a few hundred steps, each of some pages."""

LEAST_FREE_BYTES = 1 << 20
"""With less than this free on the disk it counts as full, ..."""

LEAST_FREE_FILES = 64
"""... and where fewer files than this can be made: a job takes some, before it is started and by itself."""

KEPT = f"{human_size(RESERVE_BYTES + LEAST_FREE_BYTES)} and {LEAST_FREE_FILES} files"
"""What is kept free, in words."""

_LATE_BYTES = 4 << 20
"""SQLite brings a log of so much (1,000 pages) into the database by itself."""

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
        fd = self._opened()
        return fd is None or (self._has_renewed(fd) and _is_roomy(fd))

    def room_bytes(self) -> float:
        """What may be taken of the disk until that counts as full, the reserve aside; infinite if nobody knows.

        What the log may have yet to bring into the database counts as taken.
        """
        fd = self._opened()
        if fd is None:
            return math.inf
        return max(0.0, free_bytes(os.fstatvfs(fd)) - LEAST_FREE_BYTES - min(self.log_bytes(), _LATE_BYTES))

    def log_bytes(self) -> int:
        """How long the log is."""
        fd = self._opened()
        return 0 if fd is None else os.fstat(fd).st_size

    def cut(self, size_bytes: int) -> None:
        """Give back what a transaction that failed added to the log, but for the reserve.

        The database itself would write over it, and keep its blocks. Nobody reads it: the log counts up to its last
        commit, which lies before.
        """
        fd = self._opened()
        if fd is not None and os.fstat(fd).st_size > size_bytes:
            os.ftruncate(fd, size_bytes)
            if self._held_to:
                self._held_to = size_bytes
                self._has_renewed(fd)

    def close(self) -> None:
        """Let the log go; the database removes it, and its blocks with it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _opened(self) -> int | None:
        if self._fd is None:
            with contextlib.suppress(FileNotFoundError):  # nothing was written yet
                self._fd = os.open(self._log, os.O_RDWR | os.O_CLOEXEC)
        return self._fd

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


def left(folder: Path) -> str:
    """What a full disk lacks, in words; "" where nobody can say."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return ""
    files = free_files(disk)
    return f" ({files} files more)" if files < LEAST_FREE_FILES else f" ({human_size(free_bytes(disk))} free)"


def free_bytes(disk: os.statvfs_result) -> float:
    """What this user may still take of a disk; infinite for one that does not say how large it is."""
    free = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
    return free * disk.f_frsize if disk.f_blocks else math.inf


def free_files(disk: os.statvfs_result) -> float:
    """How many files this user may still make on a disk; infinite for one that does not count them."""
    free = disk.f_ffree if os.geteuid() == 0 else disk.f_favail
    return free if disk.f_files else math.inf


def _is_roomy(fd: int) -> bool:
    disk = os.fstatvfs(fd)
    return free_bytes(disk) >= LEAST_FREE_BYTES and free_files(disk) >= LEAST_FREE_FILES
