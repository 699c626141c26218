"""Zip archives: files or URLs. Times are taken as UTC, two seconds apart, unless the archive has them as unix times.

As when it is unpacked, `a//b` and `./a/b` are `a/b`, and of two members with one name the later counts. Links and
devices are left out.
"""

from __future__ import annotations

import calendar
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from functools import partial
from typing import IO, TYPE_CHECKING

from tandem.core.errors import SpaceError
from tandem.data.pack.archives import ZIP, Archive, Fetched, content, is_called
from tandem.data.pack.source import EARLIER_MEMBER, EMPTY_FOLDER, NO_FILE, Entry, Item, empty_folders, member_path
from tandem.data.pack.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_WHOLE_BYTES = 64 << 20
_PIECE_BYTES = 4 << 20
_UNIX_TIMES = 0x5455
_ENCRYPTED = 0x1


def accepts(text: str) -> bool:
    """Whether it is a zip archive that exists, or the URL of one."""
    return is_called(text, ZIP) and (is_url(text) or os.path.isfile(text))  # noqa: PTH113 - names are texts here


class Source:
    """The members of a zip archive."""

    def __init__(self, text: str) -> None:
        """Look at nothing yet."""
        name = text if is_url(text) else os.path.abspath(text)  # noqa: PTH100 - names are texts here
        self._archive, self._fetched = Archive(name, name), Fetched()
        self._left_out: Counter[str] = Counter()

    def entries(self) -> Sequence[Entry]:
        """All files in it, in the order of their paths; fetches it where it is at a URL."""
        self._archive = self._fetched.here(self._archive.name)
        if (kind := content(self._archive.place)) not in ("zip", ""):
            raise SpaceError(
                given=f"{self._archive.name}, which is {'a tar archive' if kind == 'tar' else f'compressed by {kind}'}",
                allowed="zip archives by this name",
                todo="if it is a tar archive, rename it to end in .tar",
            )
        try:
            with zipfile.ZipFile(self._archive.place) as archive:
                listed = archive.infolist()
        except zipfile.BadZipFile as error:
            raise self._unread(error) from error
        members = [member for member in listed if not member.is_dir()]
        found = {member_path(member.filename): member for member in members}
        folders = [member_path(member.filename) for member in listed if member.is_dir()]
        earlier = len(members) - len(found)
        found = {path: member for path, member in found.items() if _is_file(member)}
        no_files = len(members) - earlier - len(found)
        kinds = {EARLIER_MEMBER: earlier, NO_FILE: no_files, EMPTY_FOLDER: empty_folders(folders, found)}
        self._left_out = +Counter(kinds)
        return sorted(
            Entry(path, member.file_size, _mtime_ns(member), member.filename) for path, member in found.items()
        )

    def items(self, run: Sequence[Entry]) -> Iterator[Item]:
        """Read members; zip's own checksum of each is checked."""
        try:
            with zipfile.ZipFile(self._archive.place) as archive:
                for entry in run:
                    yield from self._item(archive, entry)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise self._unread(error) from error

    def left_out(self) -> Mapping[str, int]:
        """Folders without files, links, and members that others follow."""
        return self._left_out

    def _read(self, file: IO[bytes], name: str, size: int) -> bytes:
        """Bytes of a member; at its end, its checksum is checked."""
        try:
            return file.read(size)
        except (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
            raise SpaceError(
                given=f"{name!r} in {self._archive.name}, which is damaged ({error})",
                allowed="whole zip archives",
                todo="check that it was copied completely, or leave this file out of it",
            ) from error

    def _item(self, archive: zipfile.ZipFile, entry: Entry) -> Iterator[Item]:
        member = archive.getinfo(str(entry.place))
        if member.flag_bits & _ENCRYPTED:
            raise SpaceError(
                given=f"{member.filename!r} in {self._archive.name}, which is encrypted",
                allowed="archives without a password",
                todo="unpack it, and pack the folder",
            )
        mode = 0o100000 | (member.external_attr >> 16 & 0o777 or 0o644)
        with archive.open(member) as file:
            whole = member.file_size <= _WHOLE_BYTES
            read = partial(self._read, file, member.filename)
            data = read(-1) if whole else partial(read, _PIECE_BYTES)
            yield Item(entry.path, data, member.file_size, entry.mtime_ns, mode)

    def _unread(self, error: Exception) -> SpaceError:
        return SpaceError(
            given=f"{self._archive.name}, which cannot be read as a zip archive ({error})",
            allowed="whole zip archives",
            todo="check that it was copied completely",
        )


def _is_file(member: zipfile.ZipInfo) -> bool:
    """Whether it is no link or device; an archive that was not made on Unix does not tell."""
    return stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)


def _mtime_ns(member: zipfile.ZipInfo) -> int:
    extra = member.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == _UNIX_TIMES and size >= 5 and extra[4] & 1:
            return int(struct.unpack_from("<i", extra, 5)[0]) * 10**9
        extra = extra[4 + size :]
    year, month, *rest = member.date_time  # in 4 bits, so that the month may be 0 or 15
    return calendar.timegm((year, max(1, min(12, month)), *rest, 0, 0, 0)) * 10**9
