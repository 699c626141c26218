"""Any URL that fsspec reads (`s3://`, `https://`, `memory://`, ...): all files below it, or the one file.

Modes are kept where fsspec tells them (of `tandem://` for one); others are 0644. Archives at URLs are what
`tar.py` and `zip.py` read, folders at `file://` are what `folder.py` does.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import partial
from glob import has_magic
from typing import TYPE_CHECKING, Any

from tandem.core.errors import SpaceError
from tandem.data.cache.settings import is_web
from tandem.data.pack.archives import is_at_url
from tandem.data.pack.listing import all_below
from tandem.data.pack.source import Entry, Item
from tandem.data.pack.stream import Stream, refuse_other_size
from tandem.data.pack.urls import WEB_REQUESTS, attempted, failures_said, file_system, is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tandem.data.pack.listing import Found

_AT_ONCE = 64
_AT_ONCE_BYTES = 32 << 20
_WHOLE_BYTES = 64 << 20
_UNTOLD_BYTES = 4 << 20
_MODE = 0o644
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created", "Last-Modified")


def accepts(text: str) -> bool:
    """Whether it is a URL, of anything but an archive."""
    return is_url(text) and not is_at_url(text)


class Source:
    """The files below a URL."""

    def __init__(self, text: str) -> None:
        """Look at nothing yet."""
        self._url = text
        self._left_out: Counter[str] = Counter()

    def entries(self) -> Sequence[Entry]:
        """All files, in the order of their paths."""
        files, _ = file_system(self._url)
        listed = list(all_below(self._url))
        found = [one for one in listed if _is_file(files, one)]
        self._left_out = +Counter({"what is no file": len(listed) - len(found)})
        if not found:
            raise SpaceError(
                given=f"{self._url}, below which there is no file", allowed="a URL with files", todo="check it"
            )
        return sorted(
            Entry(one.path, int(one.info.get("size") or 0), _mtime_ns(one.info), _place(one.name, one.info))
            for one in found
        )

    def items(self, run: Sequence[Entry]) -> Iterator[Item]:
        """Read files, small ones many at a time."""
        files, _ = file_system(self._url)
        for group in _groups(run):
            if group[0].size > _WHOLE_BYTES:
                (entry,) = group
                with Stream(files, _name(entry), entry.size, is_web=is_web(self._url)) as stream:
                    yield Item(entry.path, stream.piece, entry.size, entry.mtime_ns, _mode(entry))
                continue
            for entry, data in zip(group, self._read(files, group), strict=True):
                yield Item(entry.path, data, len(data), entry.mtime_ns, _mode(entry))

    def _read(self, files: Any, group: Sequence[Entry]) -> Iterator[bytes]:  # noqa: ANN401 - fsspec ships no types
        plain = [_name(one) for one in group if not has_magic(_name(one))]  # others would be taken for patterns
        limit = {"batch_size": WEB_REQUESTS} if is_web(self._url) else {}
        with failures_said(self._url):
            read = files.cat(plain, on_error="return", **limit) if plain else {}
        for entry in group:
            name = _name(entry)
            data = read.get(name)
            if not isinstance(data, bytes) or len(data) != (entry.size or len(data)):
                data = attempted(name, partial(_whole, files, name, entry.size))
            yield data

    def left_out(self) -> Mapping[str, int]:
        """Links to nothing, pipes, ..., where fsspec tells them from files."""
        return self._left_out


def _whole(files: Any, name: str, size: int) -> bytes:  # noqa: ANN401 - fsspec ships no types
    data: bytes = files.cat_file(name)
    if size:
        refuse_other_size(len(data), size)
    return data


def _groups(run: Sequence[Entry]) -> Iterator[list[Entry]]:
    """What is read at once: many small files, one large one."""
    group: list[Entry] = []
    size = 0
    for entry in run:
        large = entry.size or _UNTOLD_BYTES
        if group and (len(group) == _AT_ONCE or size + large > _AT_ONCE_BYTES):
            yield group
            group, size = [], 0
        group.append(entry)
        size += large
    if group:
        yield group


def _is_file(files: Any, found: Found) -> bool:  # noqa: ANN401 - fsspec ships no types
    """Whether it is a file, or a link to one; object stores have empty ones in the place of folders."""
    kind = found.info.get("type", "file")
    if kind == "link":
        try:
            kind = files.info(found.name)["type"]
        except FileNotFoundError:
            return False
    return bool(kind == "file") and not found.path.endswith(b"/") and found.path != b""


def _place(name: str, info: Mapping[str, Any]) -> str:
    """Mode and name of a file."""
    mode = info.get("mode")
    return f"{mode & 0o7777 if isinstance(mode, int) else _MODE:o} {name}"


def _mode(entry: Entry) -> int:
    return 0o100000 | int(str(entry.place).partition(" ")[0], 8)


def _name(entry: Entry) -> str:
    return str(entry.place).partition(" ")[2]


def _mtime_ns(info: Mapping[str, Any]) -> int:
    for key in _TIMES:
        value = info.get(key)
        if key == "Last-Modified" and isinstance(value, str):
            with suppress(ValueError):
                value = parsedate_to_datetime(value)
        if isinstance(value, datetime.datetime):
            return int(value.timestamp() * 10**9)
        if isinstance(value, int | float) and math.isfinite(value):
            return int(value * 10**9)
    return 0
