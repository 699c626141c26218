"""Any URL that fsspec reads (`s3://`, `https://`, `memory://`, ...): all files below it, or the one file."""

from __future__ import annotations

import datetime
import posixpath
from functools import partial
from typing import TYPE_CHECKING, Any

from tandem.core.errors import MissingPackageError, SpaceError
from tandem.data.pack.source import Entry, Item

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_AT_ONCE = 64
_AT_ONCE_BYTES = 32 << 20
_WHOLE_BYTES = 64 << 20
_PIECE_BYTES = 4 << 20
_MODE = 0o100644
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


def accepts(text: str) -> bool:
    """Whether it is a URL."""
    return "://" in text


class Source:
    """The files below a URL."""

    def __init__(self, text: str) -> None:
        """Look at nothing yet."""
        self._url = text

    def entries(self) -> Sequence[Entry]:
        """All files, in the order of their paths."""
        files, root = self._opened()
        found = files.find(root, detail=True)
        if not found:
            raise SpaceError(
                given=f"{self._url}, below which there is no file", allowed="a URL with files", todo="check it"
            )
        return sorted(
            Entry(_relative(name, root).encode(errors="surrogateescape"), int(info["size"] or 0), _mtime_ns(info), name)
            for name, info in found.items()
        )

    def items(self, run: Sequence[Entry]) -> Iterator[Item]:
        """Read files, small ones many at a time."""
        files, _ = self._opened()
        group: list[Entry] = []
        for entry in [*run, None]:
            full = len(group) == _AT_ONCE or sum(one.size for one in group) > _AT_ONCE_BYTES
            if group and (entry is None or full or entry.size > _WHOLE_BYTES):
                names = [str(one.place) for one in group]
                read = files.cat(names)
                for one, name in zip(group, names, strict=True):
                    yield Item(one.path, read[name], len(read[name]), one.mtime_ns, _MODE)
                group = []
            if entry is not None and entry.size > _WHOLE_BYTES:
                with files.open(entry.place, "rb") as file:
                    yield Item(entry.path, partial(file.read, _PIECE_BYTES), entry.size, entry.mtime_ns, _MODE)
            elif entry is not None:
                group.append(entry)

    def left_out(self) -> Mapping[str, int]:
        """Nothing."""
        return {}

    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            files, root = url_to_fs(self._url)
        except ImportError as error:
            raise MissingPackageError(
                given=f"{self._url}: {error}", allowed="URLs whose packages are installed", todo="install the package"
            ) from error
        except ValueError as error:
            raise SpaceError(
                given=f"{self._url}: {error}", allowed="URLs that fsspec reads", todo="check it"
            ) from error
        return files, root


def _relative(name: str, root: str) -> str:
    return posixpath.basename(name) if name == root else name.removeprefix(root.rstrip("/") + "/")


def _mtime_ns(info: Mapping[str, Any]) -> int:
    for key in _TIMES:
        value = info.get(key)
        if isinstance(value, datetime.datetime):
            return int(value.timestamp() * 10**9)
        if isinstance(value, int | float):
            return int(value * 10**9)
    return 0
