"""Parity of a file: from it, what is damaged in the file is computed again.

The file is cut into 28 columns of blocks; a row is one block of each column, and has N parity blocks (Reed-Solomon
with a Cauchy matrix over GF(256), by the package `pyeclib`). Every block has a checksum, so it is known which are bad;
as many as N in each row can be restored. A column is one run of the file: damage of up to N/28 of the file in one place
is N blocks a row. docs/reference/space-format.md has the layout.

It names the file that it guards, by its name and checksum: what would not become that one is not written.

Limits: it restores a damaged or truncated file, not one that is gone. N is at most 4. Parity of earlier versions of
this program does not name its file.
"""

from __future__ import annotations

import errno
import importlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tandem.core.durable import make_folder, written_aside
from tandem.core.errors import DataError, MissingPackageError, NewerVersionError, TandemError
from tandem.data.hashing import file_xxh3, xxh3
from tandem.data.space import layout

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 4
"""Parity blocks to a row."""
COLUMNS = 28

_MAGIC = b"TNDMPRTY"
_HEADER = struct.Struct("<8sIIQIHHQQQ")
_HEADER_BYTES = 64
_LEAST_BLOCK, _MOST_BLOCK = 64, 16384
_CHUNK_BYTES = 1 << 18
"""Of each column, at once."""
_LIBRARY_HEADER = 80
"""What pyeclib writes before each fragment."""


class _Shape(NamedTuple):
    """How a file is cut."""

    size: int
    block: int
    parity: int
    rows: int
    checks_xxh3: int
    whose: int
    """`identity` of the file; 0 where it is not told."""

    @property
    def checks_at(self) -> int:
        return _HEADER_BYTES

    @property
    def parity_at(self) -> int:
        return _HEADER_BYTES + 8 * self.rows * (COLUMNS + self.parity)

    def encode(self) -> bytes:
        fields = (self.size, self.block, COLUMNS, self.parity, self.rows, self.checks_xxh3, self.whose)
        packed = _HEADER.pack(_MAGIC, layout.VERSION, _HEADER_BYTES, *fields)
        return layout.sealed(packed.ljust(_HEADER_BYTES - 8, b"\0"))


def identity(name: str, checksum: int) -> int:
    """What parity says of whose it is: of a file's name and its checksum as a whole."""
    return xxh3(name.encode() + checksum.to_bytes(8, "little")) or 1


def protect(path: Path, parity_path: Path, count: int) -> None:
    """Write the parity of a file, durably.

    Args:
        path: The file.
        parity_path: Where its parity goes.
        count: How many blocks of each row can be restored, 1 to 4.

    Raises:
        MissingPackageError: The package pyeclib is not installed.
        OSError: Something cannot be read or written.
    """
    size = path.stat().st_size
    block = min(_MOST_BLOCK, max(_LEAST_BLOCK, -(-size // COLUMNS // 64) * 64))
    rows = max(1, -(-size // (COLUMNS * block)))
    encoder = coder(count)
    checks: list[list[bytes]] = [[] for _ in range(COLUMNS + count)]
    parities: list[list[bytes]] = [[] for _ in range(count)]
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for first, some in _chunks(rows, block):
            columns = [_read(file, (column * rows + first) * block, some * block) for column in range(COLUMNS)]
            fragments = encoder.encode(b"".join(columns))[COLUMNS:]
            for place, fragment in enumerate(fragments):
                parities[place].append(fragment[_LIBRARY_HEADER:])
            for place, column in enumerate([*columns, *(one[-1] for one in parities)]):
                checks[place] += _checks_of(column, block)
    finally:
        os.close(file)
    table = b"".join(check for column in checks for check in column)
    whose = identity(path.name, file_xxh3(path)[1])
    shape = _Shape(size, block, count, rows, xxh3(table), whose)
    make_folder(parity_path.parent)
    with written_aside(parity_path) as out:
        out.writelines([shape.encode(), table, *(piece for column in parities for piece in column)])


def restore(path: Path, parity_path: Path, right: Callable[[Path], bool] = lambda made: True) -> int:
    """Put a file right by its parity; returns how many blocks were bad.

    One that is missing is like one that was cut to nothing: it comes back where it was so small that it filled no more
    blocks of a row than can be restored.

    Readers that have the damaged file open keep that one.

    Args:
        path: The file.
        parity_path: Its parity.
        right: Asked of what was made, which lies aside, whether it is what the file was.

    Raises:
        DataError: More is damaged than the parity can restore, or the parity is damaged or that of another file; the
            file stays as it is.
        MissingPackageError: The package pyeclib is not installed.
        OSError: Something cannot be read or written, the parity is not there.
    """
    there = path.exists()
    file = os.open(path if there else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    parity_file = layout.open_file(parity_path)
    try:
        shape, table = _shape(parity_file, parity_path)
        repairer = _Repairer(path, file, parity_file, shape, table)
        chunks = _chunks(shape.rows, shape.block)
        bad = sum(repairer.count(first, some) for first, some in chunks)
        if there and not bad and os.fstat(file).st_size == shape.size:
            return 0  # readers hold locks on the file: it stays the same one
        make_folder(path.parent)
        with written_aside(path) as out:
            for first, some in chunks:
                for number, column in enumerate(repairer.rows(first, some)):
                    start = (number * shape.rows + first) * shape.block
                    out.seek(start)
                    out.write(column[: max(0, min(len(column), shape.size - start))])
            out.truncate(shape.size)
            out.flush()
            made = Path(out.name)
            if shape.whose not in (0, identity(path.name, file_xxh3(made)[1])) or not right(made):
                raise DataError(
                    given=_of_another(parity_path), allowed=f"that of {path}", todo="run: tandem data repair SPACE"
                )
        return bad
    finally:
        os.close(file)
        os.close(parity_file)


def damage(parity_path: Path, name: str, size: int, checksum: int) -> str | None:
    """What is wrong with the parity of a file, in words; None where nothing is.

    Args:
        parity_path: The parity.
        name: The file's, that it is to guard.
        size: The file's when it is whole, in bytes.
        checksum: The file's when it is whole.

    Raises:
        NewerVersionError: It is of a newer version.
        OSError: It cannot be read.
    """
    try:
        parity_file = layout.open_file(parity_path)
    except FileNotFoundError:
        return f"the parity {parity_path} is missing"
    try:
        shape, table = _shape(parity_file, parity_path)
        if shape.size != size or shape.whose not in (0, identity(name, checksum)):
            return _of_another(parity_path)
        checks = memoryview(table).cast("Q")[COLUMNS * shape.rows :]
        for place, check in enumerate(checks):
            if xxh3(_read(parity_file, shape.parity_at + place * shape.block, shape.block)) != check:
                return f"the parity {parity_path} holds other bytes than were written"
        wanted = shape.parity_at + len(checks) * shape.block
        if os.fstat(parity_file).st_size != wanted:
            return f"the parity {parity_path} is not of the {wanted:,} bytes that were written"
    except NewerVersionError:
        raise
    except TandemError as error:
        return error.given
    finally:
        os.close(parity_file)
    return None


def _of_another(parity_path: Path) -> str:
    return f"{parity_path} is the parity of another file"


def level_of(parity_path: Path) -> int:
    """How many blocks of each row a file's parity can restore; 0 where its header is damaged or it is not there.

    Raises:
        NewerVersionError: A later version has written it.
    """
    try:
        packed = layout.read_start(parity_path, _HEADER_BYTES)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return 0
    try:
        layout.opened(packed, _MAGIC, _HEADER_BYTES, str(parity_path), "the parity of a file")
    except NewerVersionError:
        raise
    except TandemError:
        return 0
    return int(_HEADER.unpack_from(packed)[6])


class _Repairer:
    """Gives rows of a file, restored where they are damaged."""

    def __init__(self, path: Path, file: int, parity_file: int, shape: _Shape, table: bytes) -> None:
        self._path, self._file, self._parity_file, self._shape = path, file, parity_file, shape
        self._checks = memoryview(table).cast("Q")
        self._coder = coder(shape.parity)
        zeros = self._coder.encode(bytes(COLUMNS * shape.block))
        self._headers = [fragment[:_LIBRARY_HEADER] for fragment in zeros]

    def count(self, first: int, some: int) -> int:
        """How many blocks in some rows are bad."""
        columns = self._columns(first, some)
        return sum(len(self._wrong(columns, first, row)) for row in range(some))

    def rows(self, first: int, some: int) -> list[bytearray]:
        """The columns' parts in some rows, restored."""
        columns, block = self._columns(first, some), self._shape.block
        for row in range(some):
            wrong = self._wrong(columns, first, row)
            if wrong:
                for column, restored in self._restored(columns, row, first + row, wrong):
                    columns[column][row * block : (row + 1) * block] = restored
        return columns

    def _columns(self, first: int, some: int) -> list[bytearray]:
        rows, block = self._shape.rows, self._shape.block
        starts = ((column * rows + first) * block for column in range(COLUMNS))
        return [bytearray(_read(self._file, start, some * block)) for start in starts]

    def _wrong(self, columns: list[bytearray], first: int, row: int) -> list[int]:
        return [c for c in range(COLUMNS) if not self._right(c, first + row, self._block(columns[c], row))]

    def _restored(
        self, columns: list[bytearray], row: int, row_in_file: int, wrong: list[int]
    ) -> list[tuple[int, bytes]]:
        shape = self._shape
        whole = [self._headers[c] + self._block(columns[c], row) for c in range(COLUMNS) if c not in wrong]
        for place in range(shape.parity):
            at = shape.parity_at + (place * shape.rows + row_in_file) * shape.block
            block = _read(self._parity_file, at, shape.block)
            if self._right(COLUMNS + place, row_in_file, block):
                whole.append(self._headers[COLUMNS + place] + block)
        if len(whole) < COLUMNS:
            raise DataError(
                given=f"{self._path}: more is damaged than its parity can restore",
                allowed=f"{shape.parity} of {COLUMNS} blocks of {shape.block:,} bytes in each row",
                todo="repair it from its source, or put it back from a copy",
            )
        made = [fragment[_LIBRARY_HEADER:] for fragment in self._coder.reconstruct(whole, wrong)]
        assert all(self._right(c, row_in_file, block) for c, block in zip(wrong, made, strict=True))
        return list(zip(wrong, made, strict=True))

    def _block(self, column: bytearray, row: int) -> bytes:
        return bytes(column[row * self._shape.block : (row + 1) * self._shape.block])

    def _right(self, column: int, row: int, block: bytes) -> bool:
        return self._checks[column * self._shape.rows + row] == xxh3(block)


def _shape(parity_file: int, path: Path) -> tuple[_Shape, bytes]:
    packed = os.pread(parity_file, _HEADER_BYTES, 0)
    layout.opened(packed, _MAGIC, _HEADER_BYTES, str(path), "the parity of a file")
    size, block, _columns, parity, rows, checks_xxh3, whose = _HEADER.unpack_from(packed)[3:]
    shape = _Shape(size, block, parity, rows, checks_xxh3, whose)
    table = os.pread(parity_file, shape.parity_at - shape.checks_at, shape.checks_at)
    if xxh3(table) != checks_xxh3:
        raise DataError(given=f"{path}: its checksums are damaged", allowed="parity as it was written", todo="none")
    return shape, table


def _chunks(rows: int, block: int) -> list[tuple[int, int]]:
    some = max(1, _CHUNK_BYTES // block)
    return [(first, min(some, rows - first)) for first in range(0, rows, some)]


def _read(file: int, offset: int, size: int) -> bytes:
    """Bytes of a file, zeros beyond its end and where it cannot be read."""
    parts = []
    left = size
    while left:
        try:
            part = os.pread(file, left, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            break
        if not part:
            break
        parts.append(part)
        offset, left = offset + len(part), left - len(part)
    return b"".join(parts) + bytes(left)


def _checks_of(column: bytes, block: int) -> list[bytes]:
    view = memoryview(column)
    return [xxh3(view[start : start + block]).to_bytes(8, "little") for start in range(0, len(view), block)]


def coder(parity: int) -> Any:  # noqa: ANN401 - of the package
    """What computes so many parity blocks of a row.

    Raises:
        MissingPackageError: The package pyeclib is not installed.
    """
    try:
        interface = importlib.import_module("pyeclib.ec_iface")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            given="parity needs the package 'pyeclib', which is not installed",
            allowed="spaces without parity",
            todo="run: pip install 'tandemlab[parity]'",
        ) from error
    return interface.ECDriver(k=COLUMNS, m=parity, ec_type="isa_l_rs_cauchy")
