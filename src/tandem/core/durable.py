"""Files that are complete or not there at all, also after a power failure; and one writer of them at a time."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or of what a user may have of it, that is full."""

_OF_WRITING = (*FULL, errno.EFBIG)
_BETWEEN_TRIES_S = 0.01


def sync_folder(folder: Path | str) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_below(folder: Path | str) -> None:
    """Make a folder durable, with all files and folders in it."""
    for path, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(os.path.join(path, name), os.O_RDONLY)  # noqa: PTH118 - names may be no UTF-8
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(path)


@contextmanager
def naming(path: Path | str, only: Collection[int] = ()) -> Iterator[None]:
    """Errors of the system that name no file, as those of writing to an open one, name this.

    Args:
        path: The file.
        only: The error numbers that must be of this file; all if empty.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None and (not only or error.errno in only):
            error.filename = os.fspath(path)
        raise


@contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of `path` once it is complete and durable; on an error it goes away."""
    aside = path.with_name(f".{os.getpid()}-{threading.get_native_id()}.aside")  # path's own name may be the longest
    try:
        with naming(path, only=_OF_WRITING), aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def room(folder: Path, size_bytes: int) -> IO[bytes]:
    """A file without a name that holds room on a folder's disk until it is closed, or its process has ended."""
    held = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
    try:
        held.write(bytes(size_bytes))
        held.flush()
        os.fsync(held.fileno())
    except BaseException:
        with suppress(OSError):  # closing flushes once more
            held.close()
        raise
    return held


@contextmanager
def locked(file: Path, *, patience_s: float = math.inf) -> Iterator[None]:
    """The lock of a file that is there for it alone, made if it has to be; waits for it.

    Only who holds it may remove the file; who waited for it meanwhile takes the lock of the file that is there then.

    Args:
        file: The file.
        patience_s: How long it waits.

    Raises:
        TimeoutError: Somebody held it all that time.
    """
    until_s = time.monotonic() + patience_s
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor, file, until_s)
            if os.fstat(descriptor).st_nlink:
                yield
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, file: Path, until_s: float) -> None:
    if until_s == math.inf:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds it", str(file)) from None
            time.sleep(_BETWEEN_TRIES_S)
        else:
            return


def make_folder(folder: Path) -> None:
    """Make a folder, where it is not there, and make its name durable."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    sync_folder(folder.parent)
