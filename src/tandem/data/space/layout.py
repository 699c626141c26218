"""The bytes of a space's files: headers and tables, as docs/reference/space-format.md describes them.

All numbers are little-endian. Every header ends in the XXH3-64 of what stands before it in the header.
"""

from __future__ import annotations

import errno
import os
import struct
from stat import S_ISREG

from tandem.core.errors import DataError, NewerVersionError, SpaceError
from tandem.core.light_typing import NamedTuple
from tandem.data.hashing import xxh3

VERSION = 1
"""What this program writes; it reads this and all before."""

INDEX_MAGIC = b"TNDMINDX"
SHARD_MAGIC = b"TNDMSHRD"
CURRENT_MAGIC = b"TNDMSPCE"

HEADER_BYTES = 256
"""Of an index; the body begins here."""
SHARD_HEADER_BYTES = 64
"""Of a shard; the samples begin here."""

CHECK_BYTES = 24576
"""Each run of so many bytes of an index's body has a checksum: 1,024 records of 24 bytes."""

RECORD = struct.Struct("<QQQ")
"""Checksum, place (shard << 40 | offset), extent (mode << 48 | size)."""
SHARD = struct.Struct("<QQQQQ")
"""Number in its name, bytes of the file, checksum of the file, live bytes, live samples."""

OFFSET_BITS = 40
SIZE_BITS = 48
MAX_SHARDS = 1 << 24
MAX_SAMPLES = (1 << 32) - 1
MAX_PATH_BYTES = 65535
MTIMES_NS = -(1 << 63), (1 << 63) - 1
"""The first and the last time that can be stored."""

_START = struct.Struct("<8sI")
_INDEX = struct.Struct("<8sIIQQQQ16sQII14Q")
_SHARD = struct.Struct("<8sIIQ16sQ8x")
_CURRENT = struct.Struct("<8sIIQ16sQQ")
_CHECK = struct.Struct("<Q")
CURRENT_BYTES = _CURRENT.size + _CHECK.size


class Section(NamedTuple):
    """Where a table lies in its file."""

    offset: int
    size: int


class IndexHeader(NamedTuple):
    """The head of an index.

    Attributes:
        generation: Which generation of the space this is, from 1; 0 in the index of a part that is not published.
        samples: How many there are.
        shards: How many files they lie in.
        data_bytes: Bytes of all samples.
        space_id: 16 bytes that all files of a space carry.
        created_ns: When it was written, in unix nanoseconds.
        path_end_bytes: Width of the numbers that say where paths end, 4 or 8.
        parity: How many parity blocks to a row the space has, its level; -1 where it is not told, as indexes of
            earlier versions of this program do not.
        records, mtimes, path_ends, paths, order, shard_table, checks: The tables; `order` is empty where the samples
            are in the order of their paths.
    """

    generation: int
    samples: int
    shards: int
    data_bytes: int
    space_id: bytes
    created_ns: int
    path_end_bytes: int
    parity: int
    records: Section
    mtimes: Section
    path_ends: Section
    paths: Section
    order: Section
    shard_table: Section
    checks: Section
    checks_xxh3: int

    def encode(self) -> bytes:
        """Return the header as it stands in the file."""
        places = [number for section in self[8:15] for number in section]
        packed = _INDEX.pack(
            INDEX_MAGIC,
            VERSION,
            HEADER_BYTES,
            *self[:4],
            self.space_id,
            self.created_ns,
            self.path_end_bytes,
            self.parity + 1,
            *places,
        )
        packed += _CHECK.pack(self.checks_xxh3)
        return sealed(packed.ljust(HEADER_BYTES - _CHECK.size, b"\0"))

    @classmethod
    def decode(cls, packed: bytes, name: str) -> IndexHeader:
        """Read it again; `name` is the file's, for the messages.

        Raises:
            NewerVersionError: It is of a newer version.
            DataError: It is damaged.
        """
        opened(packed, INDEX_MAGIC, HEADER_BYTES, name, "an index of a space")
        fields = _INDEX.unpack_from(packed)
        (checks_xxh3,) = _CHECK.unpack_from(packed, _INDEX.size)
        sections = (Section(*fields[i : i + 2]) for i in range(11, 25, 2))
        return cls._make([*fields[3:10], fields[10] - 1, *sections, checks_xxh3])


class ShardHeader(NamedTuple):
    """The head of a shard."""

    shard_id: int
    space_id: bytes
    created_ns: int

    def encode(self) -> bytes:
        """Return the header as it stands in the file."""
        return sealed(_SHARD.pack(SHARD_MAGIC, VERSION, SHARD_HEADER_BYTES, *self))

    @classmethod
    def decode(cls, packed: bytes, name: str) -> ShardHeader:
        """Read it again; `name` is the file's, for the messages.

        Raises:
            NewerVersionError: It is of a newer version.
            DataError: It is damaged.
        """
        opened(packed, SHARD_MAGIC, SHARD_HEADER_BYTES, name, "a shard of a space")
        return cls(*_SHARD.unpack_from(packed)[3:])


class Current(NamedTuple):
    """What the file `current` says: which generation is the present one."""

    generation: int
    space_id: bytes
    index_bytes: int
    index_xxh3: int
    """Of the index's header, which has the checksums of all else."""

    def encode(self) -> bytes:
        """Return the file's bytes."""
        return sealed(_CURRENT.pack(CURRENT_MAGIC, VERSION, CURRENT_BYTES, *self))

    @classmethod
    def decode(cls, packed: bytes, name: str) -> Current:
        """Read it again; `name` is the file's, for the messages.

        Raises:
            SpaceError: It does not belong to a space, or to one of a newer version.
            DataError: It is damaged.
        """
        what = "the file `current` of a space"
        strange = sum(a != b for a, b in zip(packed, CURRENT_MAGIC, strict=False))
        if strange > len(CURRENT_MAGIC) // 2 and any(packed[: len(CURRENT_MAGIC)]):
            raise SpaceError(
                given=f"{name} is not {what}", allowed=what, todo="name the folder that `tandem data pack` made"
            )
        opened(packed, CURRENT_MAGIC, CURRENT_BYTES, name, what)
        return cls(*_CURRENT.unpack_from(packed)[3:])


class ShardEntry(NamedTuple):
    """What an index knows of a shard."""

    shard_id: int
    size: int
    checksum: int
    live_bytes: int
    live_samples: int

    @property
    def file_name(self) -> str:
        """The name of its file in the folder `shards`."""
        return shard_file_name(self.shard_id)


def shard_file_name(shard_id: int) -> str:
    """The name of a shard's file."""
    return f"{shard_id:016x}.shard"


def sealed(packed: bytes) -> bytes:
    """A header with its checksum."""
    return packed + _CHECK.pack(xxh3(packed))


def opened(packed: bytes, magic: bytes, size: int, name: str, what: str) -> None:
    """Check a header's magic, checksum and version.

    The version is believed once the checksum is right: both stay where they are in all versions.

    Raises:
        NewerVersionError: It is of a newer version.
        DataError: It is damaged, or something else.
    """
    whole = len(packed) >= size and _CHECK.unpack_from(packed, size - 8)[0] == xxh3(packed[: size - 8])
    if whole and packed[:8] == magic:
        _, version = _START.unpack_from(packed)
        if version <= VERSION:
            return
        raise newer_version(given=f"{name} was written in version {version} of the format")
    raise DataError(given=f"{name}: its header is damaged", allowed=what, todo=f"put {name} back from a copy")


def open_file(name: str | os.PathLike[str]) -> int:
    """Open a file for reading, without waiting: a pipe in its place would keep us until somebody writes to it.

    Raises:
        IsADirectoryError: What lies there is no file: a folder, a pipe, a socket, a device, a link to itself.
        OSError: It cannot be opened.
    """
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        why = error.strerror
    else:
        if S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
        why = "Not a regular file"
    raise IsADirectoryError(errno.EISDIR, why, os.fspath(name))


def read_start(name: str | os.PathLike[str], size: int) -> bytes:
    """The first bytes of a file, opened like this; fewer where it has fewer."""
    file = open_file(name)
    try:
        return os.read(file, size)
    finally:
        os.close(file)


def newer_version(*, given: str) -> NewerVersionError:
    """The error for a file of a newer version, which `given` names."""
    return NewerVersionError(given=given, allowed=f"versions up to {VERSION}", todo="install a newer tandemlab")


def refuse_newer(name: str) -> None:
    """Refuse a file of a newer version; one whose header is damaged is of any.

    Raises:
        NewerVersionError: It is of a newer version.
        OSError: It cannot be read.
    """
    packed = read_start(name, HEADER_BYTES)
    for decode in (IndexHeader.decode, ShardHeader.decode):
        try:
            decode(packed, name)
        except DataError:
            continue
