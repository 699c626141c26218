"""A folder with all files below it.

Links to files are read as files. Links to folders, sockets, pipes and devices are left out; so are empty folders, which
are all those without a file in or below them.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from tandem.core.errors import DataError, SpaceError
from tandem.data.pack.source import EMPTY_FOLDER, Entry, Item, empty_folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_WHOLE_BYTES = 64 << 20
"""Files up to this size are read whole, larger ones in pieces."""
_PIECE_BYTES = 4 << 20


def accepts(text: str) -> bool:
    """Whether it is a folder."""
    return os.path.isdir(text)  # noqa: PTH112 - bytes that are no UTF-8 may be in it


class Source:
    """The files of a folder."""

    def __init__(self, text: str) -> None:
        """Look at nothing yet."""
        self._root = os.path.abspath(text)  # noqa: PTH100 - links in it stay
        self._left_out: Counter[str] = Counter()

    def entries(self) -> Sequence[Entry]:
        """All files, in the order of their paths by bytes."""
        self._left_out.clear()
        found: list[Entry] = []
        folders, all_folders = [b""], []
        while folders:
            below = folders.pop()
            with os.scandir(os.path.join(os.fsencode(self._root), below)) as listing:  # noqa: PTH118 - bytes
                for one in listing:
                    path = below + b"/" + one.name if below else one.name
                    if one.is_dir(follow_symlinks=False):
                        folders.append(path)
                        all_folders.append(path)
                    else:
                        self._add(one, path, found)
        found.sort()
        if empty := empty_folders(all_folders, (entry.path for entry in found)):
            self._left_out[EMPTY_FOLDER] = empty
        return found

    def items(self, run: Sequence[Entry]) -> Iterator[Item]:
        """Read files."""
        root = os.fsencode(self._root)
        for entry in run:
            try:
                file = os.open(root + b"/" + entry.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise DataError(
                    given=f"{os.fsdecode(entry.path)!r} vanished while its folder was packed",
                    allowed="files at rest",
                    todo="run it again: what is packed by now stays",
                ) from None
            try:
                status = os.fstat(file)
                size = status.st_size
                data = _read(file, size) if size <= _WHOLE_BYTES else partial(os.read, file, _PIECE_BYTES)
                yield Item(entry.path, data, size, status.st_mtime_ns, status.st_mode)
            finally:
                os.close(file)

    def left_out(self) -> Mapping[str, int]:
        """Links to folders, sockets, ..."""
        return self._left_out

    def _add(self, one: os.DirEntry[bytes], path: bytes, found: list[Entry]) -> None:
        try:
            status = one.stat()
        except FileNotFoundError:
            self._left_out["link to nothing"] += 1
            return
        if stat.S_ISREG(status.st_mode):
            found.append(Entry(path, status.st_size, status.st_mtime_ns, 0))
        else:
            self._left_out["link to a folder" if stat.S_ISDIR(status.st_mode) else "socket, pipe or device"] += 1


def _read(file: int, size: int) -> bytes:
    """All bytes of an open file that had `size` a moment ago."""
    data = os.read(file, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while part := os.read(file, _PIECE_BYTES):
        parts.append(part)
    whole = b"".join(parts)
    if len(whole) > _WHOLE_BYTES:
        raise SpaceError(given="a file that grows while it is packed", allowed="files at rest", todo="pack it later")
    return whole
