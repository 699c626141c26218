"""Reading samples: by the native reader where it is built, by plain Python where it is not. Same bytes, same errors.

Legend: N samples in a batch.
"""

from __future__ import annotations

import importlib
import mmap
import os
import sys
from functools import cache
from threading import Lock

from tandem.core.errors import DataError
from tandem.core.light_typing import TYPE_CHECKING, cast
from tandem.data.hashing import xxh3
from tandem.data.space import layout
from tandem.data.space.homes import Folder, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, Protocol, TypeGuard

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from tandem.data.batch import Batch, Coming
    from tandem.data.space.homes import Home
    from tandem.data.space.index import Index

    How = Literal["auto", "mapped", "pread", "uring", "direct", "python"]
    """Ways of reading: what is best for each batch (a mapping for what is in the page cache; io_uring, or else pread,
    for what is not); always a mapping; pread in threads; io_uring; io_uring past the page cache; plain Python."""

    Fault = tuple[str, int, int]
    """What failed, at which place of the batch (or: in which shard), and the system's error number, if it has one."""

    class _Reader(Protocol):
        def attach(self, shard: int, path: str) -> int: ...
        def read(self, numbers_N: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]] | Fault: ...
        def read_one(self, number: int) -> bytes | Fault: ...
        def close(self) -> None: ...


_MOST_THREADS = 4
_ALLOWED_THREADS = 1024
_HOWS = ("auto", "mapped", "pread", "uring", "direct", "python")
_MOST_FILES = 512


def check_terms(how: str, threads: int | None) -> None:
    """Refuse what no reader does.

    Raises:
        ValueError: There is no such way of reading, or number of threads.
    """
    if how not in _HOWS:
        message = f"how={how!r}; allowed: {', '.join(_HOWS)}"
        raise ValueError(message)
    if threads is not None and not (isinstance(threads, int) and 1 <= threads <= _ALLOWED_THREADS):
        message = f"threads={threads!r}; allowed: 1 to {_ALLOWED_THREADS}, or None for one for each core, at most 4"
        raise ValueError(message)


def closed(name: str) -> ValueError:
    """The error for a space that is used after it was closed."""
    return ValueError(f"the space {name} is closed")


class Readers:
    """Reads an index's samples from a home; made at the first read, and made anew by each process."""

    def __init__(self, folder: str, index: Index, how: How, threads: int | None, home: Home | None = None) -> None:
        """Choose nothing yet; without a home, the folder is one."""
        self._name = folder
        self._home: Home = home or Folder(folder)
        self._index = index
        self._how: How = how
        self._threads = threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        self._reader: _Reader | None = None
        self._lock = Lock()

    def close(self) -> None:
        """Close what was opened."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._home.close()

    def read(self, number: int) -> bytes:
        """One sample."""
        reader = self._opened()
        return cast("bytes", self._settled(lambda: reader.read_one(number), [number]))

    def read_batch(self, numbers: ArrayLike) -> Batch:
        """Many samples."""
        from tandem.data.batch import Batch, whole_numbers

        numbers_N = whole_numbers(numbers)
        reader = self._opened()
        done = self._settled(lambda: reader.read(numbers_N), numbers_N)
        data_S, offsets_N1 = cast("tuple[NDArray[np.uint8], NDArray[np.int64]]", done)
        return Batch(numbers_N, data_S, offsets_N1)

    def begin(self, numbers: ArrayLike, threads: int) -> Coming | None:
        """Many samples, by native threads; None where there are none, or a shard has to be opened or fetched first."""
        from tandem.data.batch import whole_numbers

        if not self._home.is_here:
            return None
        reader = self._opened()
        if not isinstance(reader, NativeReader):
            return None
        numbers_N = whole_numbers(numbers)
        begun = reader.begin(numbers_N, threads)
        if not isinstance(begun, tuple):
            return begun
        if begun[0] != "detached":
            self._raise(begun, numbers_N)
        return None

    def _opened(self) -> _Reader:
        if self._index.file < 0:
            raise closed(self._name)
        if self._reader is None:
            with self._lock:
                if self._reader is None:
                    self._reader = _make_reader(self._index, self._how, self._threads)
        return self._reader

    def _settled(self, read: Callable[[], object], numbers: NDArray[np.int64] | list[int]) -> object:
        """What reading gives: shards that are not open yet are opened; what then still is a fault is raised."""

        def once() -> object:
            while _is_fault(done := read()) and done[0] == "detached":
                self._attach(done[1])
            return done

        home = self._home
        done = once() if home.is_here else home.read(cast("NDArray[np.int64]", numbers), once)
        if _is_fault(done):
            self._raise(done, numbers)
        return done

    def _attach(self, shard: int) -> None:
        reader, path = self._opened(), self._home.shard_path(self._index.shards[shard])
        try:
            reader.attach(shard, path)
        except OSError as error:
            raise unreadable(path, error) from error

    def _raise(self, fault: Fault, numbers: NDArray[np.int64] | list[int]) -> None:
        """Raise what a fault means."""
        kind, place, error = fault
        if kind == "unable":
            raise _unable(self._how)
        number = int(numbers[place])
        if kind == "number":
            message = f"sample {number} of a space of {len(self._index)}"
            raise IndexError(message)
        if kind == "index":
            list(map(_raise, self._index.verify()))
        raise self.damaged(kind, number, error)

    def when_here(self, number: int, once: Callable[[], bytes]) -> bytes:
        """What `once` returns, which reads bytes of a sample in its shard's file, once they are on this machine."""
        home = self._home
        if home.is_here:
            return once()

        def tried() -> bytes | Fault:
            try:
                return once()
            except DataError:
                return ("checksum", 0, 0)  # of the cache, perhaps: then it is fetched again

        done = home.read(cast("NDArray[np.int64]", [number]), tried)
        if _is_fault(done):
            self._raise(done, [number])
        return cast("bytes", done)

    def shard_path(self, shard: int) -> str:
        """A file on this machine that holds a shard.

        Raises:
            DataError: There is none; names the shard.
        """
        return self._home.shard_path(self._index.shards[shard])

    def damaged(self, kind: str, number: int, error: int = 0) -> DataError:
        """What to raise for a sample that cannot be read: the kind of a `Fault`, and the system's error number."""
        sample = self._index.sample(number)
        if sample.shard < len(self._index.shards):
            entry = self._index.shards[sample.shard]
            path = self._home.shard_path(entry)  # it may be missing by now
            size = os.stat(path).st_size  # noqa: PTH116 - a Path would be one more import
            where = f"{self._home.shard_name(entry)} at byte {sample.offset:,}"
            if size < entry.size:
                kind, where = "cut", f"{path}, {size:,} bytes instead of {entry.size:,}"
        else:
            kind, where = "index", "a shard that the index does not have"
        what = {
            "checksum": "its bytes are not those that were packed",
            "cut": "its shard is cut short",
            "bounds": "its shard ends before it",
            "vanished": "its shard cannot be read",
            "index": "its place in the index cannot be read",
            "io": f"it cannot be read: {os.strerror(error)}",
        }[kind]
        return DataError(
            given=f"sample {number}, {sample.path!r} of {self._name}: {what} ({where})",
            allowed=f"{sample.size:,} bytes with the checksum {sample.checksum:016x}",
            todo=f"see how much is damaged: tandem data scrub {self._name}",
        )


def _is_fault(done: object) -> TypeGuard[Fault]:
    return isinstance(done, tuple) and len(done) == 3


def _unable(how: How) -> DataError:
    return DataError(
        given=f"how={how!r}, which this kernel or file system does not do, or not for more than {_MOST_FILES} shards",
        allowed="auto, mapped, pread or python",
        todo="use auto",
    )


def _raise(error: Exception) -> None:
    raise error


@cache
def _native() -> Any:  # noqa: ANN401 - the extension, or None
    """The extension, or None where it is not built; says which it is once."""
    try:
        found = importlib.import_module("tandem._native")
    except ImportError:
        _log("spaces are read by plain Python: the native reader is not built (no C++ compiler at installation)")
        return None
    cold = "io_uring" if found.has_io_uring() else "pread: the kernel gives no io_uring"
    _log(f"spaces are read by the native reader, checksums by {found.xxh3_backend()}, what is not cached by {cold}")
    return found


def _log(message: str) -> None:
    """Log it where anybody has set logging up; importing it takes longer than opening a space."""
    if "logging" in sys.modules:
        sys.modules["logging"].getLogger(__name__).info(message)


def _make_reader(index: Index, how: How, threads: int) -> _Reader:
    if how == "python" or (how == "auto" and _native() is None):
        return PlainReader(index)
    if _native() is None:
        raise DataError(
            given=f"how={how!r}, which the native reader does", allowed="auto or python, where it is not built",
            todo="install a C++ compiler and reinstall tandemlab",
        )  # fmt: skip
    return NativeReader(index, how, threads)


class NativeReader:
    """The reader in C++, over a mapping of the index."""

    def __init__(self, index: Index, how: str, threads: int) -> None:
        """Map the index; shards are opened when they are needed."""
        header = index.header
        mapped = mmap.mmap(index.file, index.size, access=mmap.ACCESS_READ)
        blocks = header.checks.size // 8
        self._reader = _native().SpaceReader(
            mapped, bytearray(max(1, blocks)), layout.HEADER_BYTES, header.records.offset, header.samples,
            header.checks.offset, header.shards,
        )  # fmt: skip
        self._how, self._threads = how, threads

    def attach(self, shard: int, path: str) -> int:
        """Open a shard's file; returns its size in bytes."""
        return int(self._reader.attach(shard, path))

    def read(self, numbers_N: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]] | Fault:
        """Data and offsets, or a fault."""
        return cast("tuple[NDArray[Any], NDArray[Any]] | Fault", self._reader.read(numbers_N, self._threads, self._how))

    def read_one(self, number: int) -> bytes | Fault:
        """A sample's bytes, or a fault."""
        return cast("bytes | Fault", self._reader.read_one(number, self._how))

    def begin(self, numbers_N: NDArray[np.int64], threads: int) -> Coming | Fault:
        """Samples that are being read, or a fault."""
        return cast("Coming | Fault", self._reader.begin(self._reader, numbers_N, threads, self._how))

    def close(self) -> None:
        """Unmap and close, once nobody reads any more."""
        self._reader = None


class PlainReader:
    """The same in plain Python: `os.pread` and a checksum for each sample."""

    def __init__(self, index: Index) -> None:
        """Shards are opened when they are needed."""
        self._index = index
        self._files: dict[int, int] = {}
        self._paths: dict[int, str] = {}

    def attach(self, shard: int, path: str) -> int:
        """Open a shard's file; returns its size in bytes. Beyond 512 of them each read opens it."""
        if len(self._files) >= _MOST_FILES:
            self._paths[shard] = path
            return os.stat(path).st_size  # noqa: PTH116 - a Path would be one more import
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        if self._files.setdefault(shard, file) != file:
            os.close(file)  # another thread was first
        return os.fstat(self._files[shard]).st_size

    def read(self, numbers_N: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]] | Fault:
        """Data and offsets, or a fault."""
        import numpy as np

        numbers, parts = numbers_N.tolist(), []
        for number in numbers:  # before anything is read
            shard = self._index.place(number)[1] if 0 <= number < len(self._index) else -1
            if 0 <= shard < len(self._index.shards) and not (shard in self._files or shard in self._paths):
                return ("detached", shard, 0)
        for place, number in enumerate(numbers):
            part = self.read_one(number)
            if isinstance(part, tuple):
                return (part[0], place, part[2])
            parts.append(part)
        offsets_N1 = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets_N1[1:])
        return np.frombuffer(bytearray(b"".join(parts)), np.uint8), offsets_N1

    def read_one(self, number: int) -> bytes | Fault:
        """A sample's bytes, or a fault."""
        if not 0 <= number < len(self._index):
            return ("number", 0, 0)
        checksum, shard, offset, size = self._index.place(number)
        if shard >= len(self._index.shards):
            return ("bounds", 0, 0)
        file = self._files.get(shard)
        if file is None:
            return self._read_once(shard, offset, size, checksum)
        return _read_checked(file, offset, size, checksum)

    def _read_once(self, shard: int, offset: int, size: int, checksum: int) -> bytes | Fault:
        """Read from a file that does not stay open."""
        if shard not in self._paths:
            return ("detached", shard, 0)
        file = os.open(self._paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_checked(file, offset, size, checksum)
        finally:
            os.close(file)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()


def _read_checked(file: int, offset: int, size: int, checksum: int) -> bytes | Fault:
    """Bytes of a file, if they have this checksum."""
    parts = []
    try:
        while size > 0:
            part = os.pread(file, size, offset)
            if not part:
                return ("vanished", 0, 0)
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
    except OSError as error:
        return ("io", 0, error.errno or 0)
    data = b"".join(parts) if len(parts) != 1 else parts[0]
    return data if xxh3(data) == checksum else ("checksum", 0, 0)
