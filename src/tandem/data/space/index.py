"""An index as readers see it: nothing is parsed, what a look-up needs is read in checked blocks.

Limits: it needs neither numpy nor a mapping, so that opening a space of a million samples takes milliseconds.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import OrderedDict
from threading import Lock

from tandem.core.errors import DataError
from tandem.core.light_typing import TYPE_CHECKING, NamedTuple
from tandem.data.hashing import xxh3
from tandem.data.space import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tandem.data.space.layout import IndexHeader, Section, ShardEntry

_KEPT_BLOCKS = 512


class Sample(NamedTuple):
    """What an index knows of a sample."""

    number: int
    path: str
    size: int
    mtime_ns: int
    mode: int
    checksum: int
    shard: int
    offset: int


class Index:
    """The tables of one generation, or of a part that is not published yet.

    Safe to use from several threads. The file stays open, so it can be read even after it was deleted.
    """

    def __init__(self, name: str) -> None:
        """Open an index.

        Raises:
            NewerVersionError: It is of a newer version.
            DataError: It is damaged or cut short.
            OSError: It cannot be opened.
        """
        self.name = name
        self.file = layout.open_file(name)
        try:
            packed = os.pread(self.file, layout.HEADER_BYTES, 0)
            self.header: IndexHeader = layout.IndexHeader.decode(packed, name)
            self.header_xxh3 = int.from_bytes(packed[-8:], "little")
            self.size = os.fstat(self.file).st_size
            self._checks = self._table_of_checks()
            self._blocks: OrderedDict[int, bytes] = OrderedDict()
            self._lock = Lock()
            table = self._bytes(self.header.shard_table, 0, self.header.shard_table.size)
            self.shards: list[ShardEntry] = [layout.ShardEntry(*row) for row in layout.SHARD.iter_unpack(table)]
        except BaseException:
            os.close(self.file)
            raise
        self._path_code = "Q" if self.header.path_end_bytes == 8 else "I"

    def close(self) -> None:
        """Close the file."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def __len__(self) -> int:
        """How many samples there are."""
        return self.header.samples

    def path_bytes(self, number: int) -> bytes:
        """The path of a sample as it was packed."""
        start = self._number(self.header.path_ends, number - 1, self._path_code) if number else 0
        end = self._number(self.header.path_ends, number, self._path_code)
        return self._bytes(self.header.paths, start, end)

    def path(self, number: int) -> str:
        """The path of a sample; bytes that are no UTF-8 are escaped as Python does in file names."""
        return os.fsdecode(self.path_bytes(number))

    def sample(self, number: int) -> Sample:
        """All about a sample."""
        checksum, place, extent = self._record(number)
        return Sample(
            number=number,
            path=self.path(number),
            size=extent & ((1 << layout.SIZE_BITS) - 1),
            mtime_ns=self._number(self.header.mtimes, number, "q"),
            mode=extent >> layout.SIZE_BITS,
            checksum=checksum,
            shard=place >> layout.OFFSET_BITS,
            offset=place & ((1 << layout.OFFSET_BITS) - 1),
        )

    def place(self, number: int) -> tuple[int, int, int, int]:
        """Checksum, shard, offset and size of a sample."""
        checksum, place, extent = self._record(number)
        offset, size = place & ((1 << layout.OFFSET_BITS) - 1), extent & ((1 << layout.SIZE_BITS) - 1)
        return checksum, place >> layout.OFFSET_BITS, offset, size

    def find(self, path: str | bytes) -> int | None:
        """The number of the sample with this path, or None."""
        try:
            wanted = os.fsencode(path)
        except UnicodeEncodeError:
            return None  # half a character: no path can have it
        place = self._rank(wanted)
        if place < len(self) and self.path_bytes(number := self.in_order(place)) == wanted:
            return number
        return None

    def under(self, prefix: str | bytes) -> range:
        """The places, in the order of paths, of all samples whose paths begin so."""
        try:
            wanted = os.fsencode(prefix)
        except UnicodeEncodeError:
            return range(0)
        if not wanted:
            return range(len(self))
        begin = self._rank(wanted)
        end = bisect_left(
            range(len(self)),
            True,
            begin,
            key=lambda place: self.path_bytes(self.in_order(place))[: len(wanted)] > wanted,
        )
        return range(begin, end)

    def in_order(self, place: int) -> int:
        """The number of the sample at a place in the order of paths, by bytes."""
        return self._number(self.header.order, place, "I") if self.header.order.size else place

    def rank_after(self, path: bytes) -> int:
        """How many samples have paths that sort before this one."""
        return self._rank(path)

    def verify(self) -> Iterator[DataError]:
        """Check every block, and that nothing was added; yields what is damaged."""
        end = self.header.checks.offset + self.header.checks.size
        if self.size > end:
            yield self._unlike(
                given=f"{self.name} is longer than it was written: {self.size:,} bytes instead of {end:,}"
            )
        for block in range(len(self._checks)):
            try:
                self._block(block, keep=False)
            except DataError as error:
                yield error

    def body(self) -> bytes:
        """All tables, checked: the file from the header's end to the checksums.

        Raises:
            DataError: A block is damaged.
        """
        return b"".join(self._block(block, keep=False) for block in range(len(self._checks)))

    def _table_of_checks(self) -> memoryview:
        checks = self._exactly(*self.header.checks)
        if xxh3(checks) != self.header.checks_xxh3:
            raise self._damaged(what="its table of checksums")
        return memoryview(checks).cast("Q")

    def _rank(self, wanted: bytes) -> int:
        return bisect_left(range(len(self)), wanted, key=lambda place: self.path_bytes(self.in_order(place)))

    def _record(self, number: int) -> tuple[int, int, int]:
        start = number * layout.RECORD.size
        return layout.RECORD.unpack(self._bytes(self.header.records, start, start + layout.RECORD.size))

    def _number(self, section: Section, place: int, code: str) -> int:
        width = 4 if code == "I" else 8
        raw = self._bytes(section, place * width, (place + 1) * width)
        return int.from_bytes(raw, "little", signed=code == "q")

    def _bytes(self, section: Section, start: int, end: int) -> bytes:
        """Bytes of a table, through the blocks they lie in."""
        begin, end = (section.offset - layout.HEADER_BYTES + place for place in (start, end))
        first, last = begin // layout.CHECK_BYTES, max(begin, end - 1) // layout.CHECK_BYTES
        if begin == end:
            return b""
        if not 0 <= start <= section.size or last >= len(self._checks):
            raise self._damaged(what="a number in it")
        if first == last:
            return self._block(first)[begin - first * layout.CHECK_BYTES : end - first * layout.CHECK_BYTES]
        joined = b"".join(self._block(block) for block in range(first, last + 1))
        return joined[begin - first * layout.CHECK_BYTES : end - first * layout.CHECK_BYTES]

    def _block(self, block: int, *, keep: bool = True) -> bytes:
        with self._lock:
            kept = self._blocks.get(block)
        if kept is not None and keep:
            return kept
        at = layout.HEADER_BYTES + block * layout.CHECK_BYTES
        read = self._exactly(at, min(layout.CHECK_BYTES, self.header.checks.offset - at))
        if xxh3(read) != self._checks[block]:
            raise self._damaged(what=f"bytes {at:,} to {at + len(read):,}")
        if keep:
            with self._lock:
                self._blocks[block] = read
                if len(self._blocks) > _KEPT_BLOCKS:
                    self._blocks.popitem(last=False)
        return read

    def _exactly(self, offset: int, size: int) -> bytes:
        parts = []
        while size > 0:
            part = os.pread(self.file, size, offset)
            if not part:
                raise DataError(
                    given=f"{self.name} is cut short", allowed="the whole index", todo="put it back from a copy"
                )
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def _damaged(self, *, what: str) -> DataError:
        return self._unlike(given=f"{self.name}: {what} is damaged")

    @staticmethod
    def _unlike(*, given: str) -> DataError:
        return DataError(given=given, allowed="an index as it was written", todo="put it back from a copy")
