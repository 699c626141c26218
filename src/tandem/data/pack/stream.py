"""A large file at a URL, piece by piece; where it breaks off it goes on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tandem.core.errors import DataError
from tandem.data.cache.settings import is_web
from tandem.data.pack.urls import attempted, failures_said, file_system

if TYPE_CHECKING:
    from typing import Self

PIECE_BYTES = 4 << 20
_PARTIAL = 206


class BrokenOffError(Exception):
    """Of a file other bytes came than were told."""

    def __init__(self, size: int, told: int) -> None:
        super().__init__(f"{size:,} bytes came, where {told:,} were told")


class WrongRangeError(Exception):
    """A web server sends another part of a file than was asked for."""

    def __init__(self, begin: int, came: str) -> None:
        super().__init__(f"bytes from {begin:,} on were asked for, and {came or 'none that are told'} came")


def refuse_other_size(size: int, told: int) -> None:
    """What came is to be as large as was told.

    Raises:
        BrokenOffError: It is not.
    """
    if size != told:
        raise BrokenOffError(size, told)


def fetched(url: str, path: str) -> None:
    """Copy a file at a URL to one on this machine.

    Raises:
        RemoteError: It cannot be read.
        DataError: It changed meanwhile.
        OSError: There is no room for it.
    """
    files, name = file_system(url)
    size = attempted(url, partial(files.info, name)).get("size")
    if not size:
        attempted(url, partial(files.get_file, name, path))
        return
    stream = Stream(files, name, int(size), is_web=is_web(url))
    with failures_said(url), open(path, "wb") as file, stream:  # noqa: PTH123 - names are texts here
        while piece := stream.piece():
            file.write(piece)


class Stream:
    """A file that is read from its beginning to its end; a web server sends it in one request, as not all know ranges.

    Args:
        files: fsspec's file system.
        name: The file.
        size: Its bytes, as was told.
        is_web: Whether a web server has it.
    """

    def __init__(self, files: Any, name: str, size: int, *, is_web: bool) -> None:  # noqa: ANN401 - fsspec ships no types
        self._files, self._name, self._size, self._is_web = files, name, size, is_web
        self._at = 0
        self._file: Any = None
        self._version: tuple[str | None, ...] = ()

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open."""
        self._close()

    def piece(self) -> bytes:
        """The next bytes; none at the end.

        Raises:
            RemoteError: It broke off at one place at every try, or has another size.
            DataError: A web server has another file there than at the beginning.
        """
        data: bytes = attempted(self._name, self._next)
        self._at += len(data)
        return data

    def _next(self) -> bytes:
        try:
            if self._file is None:
                self._open()
            data: bytes = self._file.read(PIECE_BYTES)
            if not data or self._at + len(data) > self._size:
                refuse_other_size(self._at + len(data), self._size)
        except BaseException:
            self._close()
            raise
        return data

    def _open(self) -> None:
        """Open it where it broke off."""
        if not self._is_web:
            self._file = self._files.open(self._name, "rb")
            self._file.seek(self._at)
            return
        rest = {"headers": {"Range": f"bytes={self._at}-"}} if self._at else {}
        self._file = self._files.open(self._name, "rb", block_size=0, size=self._size, **rest)
        version = tuple(self._file.r.headers.get(name) for name in ("ETag", "Last-Modified"))
        if self._at and version != self._version:
            raise DataError(
                given=f"{self._name}, which changed while it was packed",
                allowed="files at rest",
                todo="run it again",
            )
        self._version = version
        left = self._at
        if self._at and self._file.r.status == _PARTIAL:
            came = self._file.r.headers.get("Content-Range", "")
            if not came.startswith(f"bytes {self._at}-"):
                raise WrongRangeError(self._at, came)
            left = 0
        while left:
            skipped = len(self._file.read(min(left, PIECE_BYTES)))
            if not skipped:
                refuse_other_size(self._at - left, self._size)
            left -= skipped

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
