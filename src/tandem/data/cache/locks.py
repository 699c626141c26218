"""Locks on single blocks, held by an open file of the whole cache: gone with the process that holds them.

Two kinds. A block that is *kept* is not evicted: many may keep it. A block that is *fetched* is fetched by nobody
else. They are Linux's open-file-description locks: threads of one process exclude each other too.

Limits: which bytes of the lock file stand for a block is a hash of its file's name. Where two agree, one waits for the
other for nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Literal

from tandem.data.cache.settings import RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

Kind = Literal["keep", "fetch"]

BLOCK_BITS = 28
_KIND_AT = {"keep": 0, "fetch": 1 << 61}
_FLOCK = "hhqqi4x"


def runs(blocks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive numbers, first and count, of numbers in order.

    >>> list(runs([1, 2, 3, 7, 9, 10]))
    [(1, 3), (7, 1), (9, 2)]
    """
    first = count = 0
    for block in blocks:
        if count and block == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = block, 1
    if count:
        yield first, count


class BlockLocks:
    """One holder of locks: what it holds does not exclude itself."""

    def __init__(self, path: str) -> None:
        """Hold nothing yet."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def keep(self, key: int, blocks: Iterable[int]) -> None:
        """Keep blocks of a file from being evicted; waits for an eviction that is going on."""
        for first, count in runs(blocks):
            self._set(fcntl.F_OFD_SETLKW, fcntl.F_RDLCK, "keep", key, first, count)

    def try_alone(self, kind: Kind, key: int, block: int) -> bool:
        """Lock one block for this holder alone, if nobody else has it."""
        try:
            self._set(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, kind, key, block, 1)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise _no_locks(error) from error
            return False
        return True

    def release(self, kind: Kind, key: int, first: int, count: int = 1) -> None:
        """Let blocks go."""
        self._set(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, kind, key, first, count)

    def close(self) -> None:
        """Let all go; also where a fork has left a copy of the open file in another process."""
        if self._file >= 0:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let all go."""
        self.close()

    def _set(self, command: int, what: int, kind: Kind, key: int, first: int, count: int) -> None:
        at = _KIND_AT[kind] + (key << BLOCK_BITS) + first
        fcntl.fcntl(self._file, command, struct.pack(_FLOCK, what, os.SEEK_SET, at, count, 0))


def _no_locks(error: OSError) -> RemoteError:
    return RemoteError(
        given=f"a cache on a file system that gives no locks ({error.strerror})",
        allowed="a folder on a disk of this node",
        todo="name one: TANDEM_DATA_CACHE=/local/cache",
    )
