"""`tandem://` for fsspec: what reads files through fsspec (pandas, xarray, datasets, ...) reads them out of a space.

Either the path of the space is part of the URL, or it follows as in other chained URLs:

>>> import pandas  # doctest: +SKIP
>>> pandas.read_csv("tandem:///data/tables.space/2024/jan.csv")  # doctest: +SKIP
>>> pandas.read_csv("tandem://2024/jan.csv::file:///data/tables.space")  # doctest: +SKIP
>>> pandas.read_csv("tandem://2024/jan.csv::https://example.org/tables.space")  # doctest: +SKIP

Limits: it reads only, and a file is read whole when it is opened, since its checksum is that of the whole. A file
system object keeps the generation that was present when it first looked.
"""

from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

from tandem.data.space import Space
from tandem.data.space.snapshot import is_space
from tandem.data.tree import entries, is_folder

if TYPE_CHECKING:
    from typing import Never

    from tandem.data.space.index import Sample

_LOCAL = (None, "file", "local")


class SpaceFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """The samples of spaces as files, and what their paths have in common as folders."""

    protocol = "tandem"
    cachable = False  # a new object sees the present generation
    root_marker = ""

    def __init__(self, fo: str = "", target_protocol: str | None = None, **options: Any) -> None:  # noqa: ANN401
        """Open nothing yet.

        Args:
            fo: The space; if empty, it is looked for in each path.
            target_protocol: How the space is reached.
            options: What fsspec passes on.
        """
        super().__init__(**options)
        self._space_name = fo if target_protocol in _LOCAL or "://" in fo else f"{target_protocol}://{fo}"
        self._spaces: dict[str, Space] = {}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ANN401 - as fsspec has it
        """Files and folders in a folder.

        Raises:
            FileNotFoundError: There is no such folder or file.
        """
        first = self.info(path)
        name, space, inner = self._found(path)
        below = f"{name}{inner}/" if inner else name
        found = [first] if first["type"] == "file" else []  # in older spaces, with files below it all the same
        found += [
            _folder(f"{below}{entry.name}") if entry.number is None else _file(name, space.stat(entry.number))
            for entry in entries(space.index, inner)
        ]
        return found if detail else [one["name"] for one in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - as fsspec has it
        """Name, size, type, time and mode.

        Raises:
            FileNotFoundError: There is no such file or folder.
        """
        name, space, inner = self._found(path)
        number = space.index.find(inner)
        if number is not None:
            return _file(name, space.stat(number))
        if is_folder(space.index, inner):
            return _folder(f"{name}{inner}".rstrip("/"))
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:  # noqa: ANN401
        """The bytes of a file, or a part of them.

        Raises:
            FileNotFoundError: There is no such file.
            IsADirectoryError: It is a folder.
            DataError: It is damaged.
        """
        _name, space, inner = self._found(path)
        number = space.index.find(inner)
        if number is None:
            if is_folder(space.index, inner):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return space.read(number)[start:end]

    def modified(self, path: str) -> datetime:
        """When a file was last changed before it was packed; of a folder, when its generation was written.

        Raises:
            FileNotFoundError: There is no such file.
        """
        _name, space, _inner = self._found(path)
        return datetime.fromtimestamp(self.info(path).get("mtime", space.index.header.created_ns / 1e9), UTC)

    def created(self, path: str) -> datetime:
        """The same: a space keeps no other time."""
        return self.modified(path)

    def rm_file(self, path: str) -> Never:
        """Refuse it, as all changes that follow.

        Raises:
            OSError: The file system is read-only.
        """
        raise _read_only(path)

    def cp_file(self, path1: str, path2: str, **_: object) -> Never:
        """Refuse it."""
        raise _read_only(path2)

    def mv(self, path1: str, path2: str, **_: object) -> Never:
        """Refuse it."""
        raise _read_only(path1)

    def mkdir(self, path: str, create_parents: bool = True, **_: object) -> Never:
        """Refuse it."""
        raise _read_only(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> Never:
        """Refuse it."""
        raise _read_only(path)

    def rmdir(self, path: str) -> Never:
        """Refuse it."""
        raise _read_only(path)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BytesIO:  # noqa: ANN401 - as fsspec has it
        if mode != "rb":
            raise _read_only(path)
        return BytesIO(self.cat_file(path))

    def _found(self, path: str) -> tuple[str, Space, str]:
        """The beginning of all names in the space, the space, and the path in it."""
        inner = str(self._strip_protocol(path)).rstrip("/")
        if self._space_name:
            return "", self._opened(self._space_name), inner.lstrip("/")
        head, tail = inner, ""
        while head not in ("", "/"):
            if head in self._spaces or is_space(head):
                return f"{head}/", self._opened(head), tail
            head, _, part = head.rpartition("/")
            tail = f"{part}/{tail}" if tail else part
        chained = "; the files of a space at a URL are tandem://PATH::URL" if "://" in inner else ""
        raise FileNotFoundError(errno.ENOENT, f"no part of the path is a space{chained}", path)

    def _opened(self, name: str) -> Space:
        if name not in self._spaces:
            self._spaces[name] = Space.open(name)
        return self._spaces[name]


def _read_only(path: str) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def _file(before: str, sample: Sample) -> dict[str, Any]:
    return {
        "name": f"{before}{sample.path}",
        "size": sample.size,
        "type": "file",
        "mtime": sample.mtime_ns / 1e9,
        "mode": sample.mode,
        "xxh3": sample.checksum,
    }


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory", "mode": stat.S_IFDIR | 0o555}
