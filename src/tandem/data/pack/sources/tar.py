"""Tar archives, WebDataset shards among them: one, or several by a pattern (`'shards/*.tar'`), in files or at URLs.

Its bytes tell whether an archive is compressed, not its name. One that is not is read at any place by any process, a
compressed one from its beginning; of several joined into one file only the first is, as by tar. Hard links to files of
the same archive are read as files. Symbolic links, devices and folders without files are left out. As when the archive
is unpacked, `a//b` and `./a/b` are `a/b`, and of two members with one name the later counts.
"""

from __future__ import annotations

import glob
import lzma
import os
import tarfile
import zlib
from collections import Counter
from decimal import Decimal, InvalidOperation
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from tandem.core.errors import SpaceError
from tandem.data.pack.archives import COMPRESSED_TAR, PLAIN_TAR, Archive, Fetched, content, is_called
from tandem.data.pack.listing import matching
from tandem.data.pack.source import EARLIER_MEMBER, EMPTY_FOLDER, NO_FILE, Entry, Item, empty_folders, member_path
from tandem.data.pack.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)
_WHOLE_BYTES = 64 << 20
_PIECE_BYTES = 4 << 20
_BEHIND_END = "byte behind the end marker of a tar archive (of joined archives only the first is read)"
_MOST_S = Decimal(10**10)
"""Times beyond it are beyond what a space can hold too."""


def accepts(text: str) -> bool:
    """Whether it is a tar archive that exists, a pattern of some, or the URL of either."""
    return is_called(text, PLAIN_TAR + COMPRESSED_TAR) and bool(_names(text))


class Source:
    """The members of archives."""

    def __init__(self, text: str) -> None:
        """Look at nothing yet."""
        self._archives = [Archive(name, name) for name in _names(text)]
        self._fetched = Fetched()
        self._left_out: Counter[str] = Counter()

    def entries(self) -> Sequence[Entry]:
        """Members of archives that can be read at any place, and whole compressed archives; fetches those at URLs."""
        self._left_out.clear()
        self._archives = [self._fetched.here(archive.name) for archive in self._archives]
        found: list[Entry] = []
        for number, archive in enumerate(self._archives):
            if _is_compressed(archive):
                status = os.stat(archive.place)  # noqa: PTH116 - names are texts here
                mtime_ns = 0 if is_url(archive.name) else status.st_mtime_ns  # not that of the fetching
                found.append(Entry(os.fsencode(archive.name), status.st_size, mtime_ns, number, True))
            else:
                found += self._members(archive, number)
        return found

    def items(self, run: Sequence[Entry]) -> Iterator[Item]:
        """Read members."""
        for entry in run:
            if isinstance(entry.place, int):
                yield from self._all_of(self._archives[entry.place])
                continue
            number, offset, mode = map(int, entry.place.split())
            with open(self._archives[number].place, "rb") as file:  # noqa: PTH123 - names are texts here
                file.seek(offset)
                yield _item(entry.path, _Rest(file, entry.size), entry.size, entry.mtime_ns, mode)

    def left_out(self) -> Mapping[str, int]:
        """Symbolic links, devices, members that others follow, ...; of compressed archives once they were read."""
        return self._left_out

    def _members(self, archive: Archive, number: int) -> list[Entry]:
        """The files in an archive."""
        members, kinds = _surveyed(archive)
        self._left_out += kinds
        return [Entry(one.path, one.size, one.mtime_ns, f"{number} {one.data_at} {one.mode}") for one in members]

    def _all_of(self, packed: Archive) -> Iterator[Item]:
        """The files in a compressed archive."""
        members, kinds = _surveyed(packed)
        self._left_out += kinds
        wanted = {one.header_at: one for one in members}
        with tarfile.open(packed.place) as archive:
            for member in archive:
                one = wanted.get(member.offset)
                if one is not None:
                    file = archive.extractfile(member)  # of a link, what it leads to
                    assert file is not None
                    yield _item(one.path, file, one.size, one.mtime_ns, one.mode)


class _Member(NamedTuple):
    """A file in an archive; of a hard link the bytes are those of the file it leads to."""

    path: bytes
    header_at: int
    data_at: int
    size: int
    mtime_ns: int
    mode: int


def _surveyed(archive: Archive) -> tuple[list[_Member], Counter[str]]:
    """The files that are there once an archive is unpacked, and what is left out, by kind."""
    found: dict[bytes, _Member] = {}
    folders: list[bytes] = []
    kinds: Counter[str] = Counter()
    for member in _opened(archive, kinds):
        path = member_path(member.name)
        if member.isdir():
            folders.append(path)
            continue
        target = found.get(member_path(member.linkname)) if member.islnk() else None
        kinds[EARLIER_MEMBER] += found.pop(path, None) is not None
        if target is not None:
            data_at, size = target.data_at, target.size
        elif member.isreg() and not member.issparse():
            data_at, size = member.offset_data, member.size
        else:
            kinds[NO_FILE] += 1
            continue
        found[path] = _Member(path, member.offset, data_at, size, _mtime_ns(member), _mode(member))
    kinds[EMPTY_FOLDER] += empty_folders(folders, found)
    return list(found.values()), +kinds


class _Rest:
    """The next `size` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, most: int) -> bytes:
        data = self._file.read(min(most, self._left))
        self._left -= len(data)
        return data


def _item(path: bytes, file: IO[bytes] | _Rest, size: int, mtime_ns: int, mode: int) -> Item:
    if size > _WHOLE_BYTES:
        return Item(path, lambda: file.read(_PIECE_BYTES), size, mtime_ns, mode)
    data = file.read(size)
    if len(data) != size:
        raise SpaceError(
            given=f"an archive that ends within {os.fsdecode(path)!r}", allowed="whole archives", todo="copy it again"
        )
    return Item(path, data, size, mtime_ns, mode)


def _names(text: str) -> list[str]:
    if is_url(text):
        return matching(text) if "*" in text else [text]  # a `?` begins the terms of a URL
    alone = os.path.isfile(text)  # noqa: PTH113
    return [text] if alone else sorted(filter(os.path.isfile, glob.glob(text)))  # noqa: PTH207


def _is_compressed(archive: Archive) -> bool:
    """Whether it is, by what tarfile knows.

    Raises:
        SpaceError: By something else, or it is a zip archive.
    """
    kind = content(archive.place)
    if kind in ("zip", "zstd"):
        raise SpaceError(
            given=f"{archive.name}, which is {'a zip archive' if kind == 'zip' else 'compressed by zstd'}",
            allowed="tar archives, plain or compressed by gzip, bzip2 or xz",
            todo="rename it to end in .zip" if kind == "zip" else "decompress it first: zstd -d",
        )
    return kind in ("gzip", "bzip2", "xz")


def _opened(packed: Archive, kinds: Counter[str]) -> Iterator[tarfile.TarInfo]:
    """The members of an archive; counts what is behind them.

    Raises:
        SpaceError: It is damaged, or no archive.
    """
    try:
        compressed = _is_compressed(packed)
        with tarfile.open(packed.place, "r:*" if compressed else "r:") as archive:
            yield from archive
            _refuse_cut_short(archive, packed.name)
            kinds[_BEHIND_END] += _behind_end(archive, to_the_end=compressed)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system; what bz2 and gzip say of damage has no number
        why = str(error).partition("\n")[0].rstrip(":")  # tarfile tells of every compression it tried, line by line
        raise SpaceError(
            given=f"{packed.name}, which cannot be read as a tar archive ({why})",
            allowed="whole tar archives",
            todo="check that it was copied completely",
        ) from error


def _refuse_cut_short(archive: tarfile.TarFile, name: str) -> None:
    """Refuse an archive, all read, that does not end in a block of zeros; `tarfile` takes any end for a good one."""
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)  # where a further header could not be read
    block = file.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        cut = len(block) < tarfile.BLOCKSIZE
        raise SpaceError(
            given=f"{name}: the archive is {'cut short' if cut else 'damaged'} at byte {archive.offset:,}",
            allowed="whole tar archives, with a block of zeros at their end",
            todo="check that it was copied completely",
        )


def _behind_end(archive: tarfile.TarFile, *, to_the_end: bool) -> int:
    """How many bytes follow an archive, all read, and the zeros behind it.

    Args:
        archive: The archive.
        to_the_end: Whether to read them all: only at the end of all is a checksum of the compression checked.
    """
    file = cast("IO[bytes]", archive.fileobj)
    behind = 0
    while piece := file.read(_PIECE_BYTES):
        behind += len(piece if behind else piece.lstrip(b"\0"))
        if behind and not to_the_end:
            return behind - file.tell() + file.seek(0, os.SEEK_END)
    return behind


def _mode(member: tarfile.TarInfo) -> int:
    return 0o100000 | member.mode & 0o7777


def _mtime_ns(member: tarfile.TarInfo) -> int:
    text = member.pax_headers.get("mtime")
    try:
        time_s = Decimal(text or member.mtime)
    except InvalidOperation:  # no number
        return 0
    return 0 if time_s.is_nan() else int(max(-_MOST_S, min(_MOST_S, time_s)) * 10**9)
