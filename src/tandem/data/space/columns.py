"""The tables of an index while they are being written: whole columns, joined, cut and published by writers.

Legend: N samples.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tandem.core.errors import SpaceError
from tandem.data.hashing import xxh3
from tandem.data.space import layout
from tandem.data.space.layout import ShardEntry

if TYPE_CHECKING:
    from tandem.data.space.index import Index

_OFFSET_MASK = np.uint64((1 << layout.OFFSET_BITS) - 1)
_SIZE_MASK = np.uint64((1 << layout.SIZE_BITS) - 1)


def _empty_records() -> NDArray[np.uint64]:
    return np.empty((0, 3), np.uint64)


@dataclass(frozen=True, slots=True)
class Columns:
    """What an index will hold.

    Attributes:
        records_N3: Checksum, place and extent of each sample, uint64.
        mtimes_N: Modification times in unix nanoseconds, int64.
        paths: Their paths, as bytes.
        shards: The files they lie in; places refer to this list.
    """

    records_N3: NDArray[np.uint64] = field(default_factory=_empty_records)
    mtimes_N: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    paths: Sequence[bytes] = ()
    shards: Sequence[ShardEntry] = ()

    def __len__(self) -> int:
        """N."""
        return len(self.paths)

    @property
    def shards_N(self) -> NDArray[np.int64]:
        """Which shard each sample lies in."""
        return (self.records_N3[:, 1] >> np.uint64(layout.OFFSET_BITS)).astype(np.int64)

    @property
    def offsets_N(self) -> NDArray[np.uint64]:
        """Where in its shard each sample begins."""
        return self.records_N3[:, 1] & _OFFSET_MASK

    @property
    def sizes_N(self) -> NDArray[np.uint64]:
        """Bytes of each sample."""
        return self.records_N3[:, 2] & _SIZE_MASK

    @classmethod
    def of(cls, index: Index) -> Columns:
        """The tables of an index, all of them checked.

        Raises:
            DataError: A part of it is damaged.
        """
        body, header = index.body(), index.header

        def table(section: layout.Section, kind: str) -> NDArray[np.int64]:
            start = section.offset - layout.HEADER_BYTES
            return np.frombuffer(body[start : start + section.size], kind)

        ends = [0, *table(header.path_ends, "<u8" if header.path_end_bytes == 8 else "<u4").tolist()]
        begin = header.paths.offset - layout.HEADER_BYTES
        paths = [body[begin + start : begin + end] for start, end in itertools.pairwise(ends)]
        records = table(header.records, "<u8").view(np.uint64).reshape(-1, 3)
        return cls(records, table(header.mtimes, "<i8"), paths, list(index.shards))

    def taken(self, keep_N: NDArray[np.bool_]) -> Columns:
        """Only these samples, and only the shards that still have any."""
        kept = Columns(
            self.records_N3[keep_N], self.mtimes_N[keep_N], list(itertools.compress(self.paths, keep_N)), self.shards
        )
        return kept.with_counts()

    def with_counts(self) -> Columns:
        """The same with shards counted anew; those without a sample go."""
        shards_N, count = self.shards_N, len(self.shards)
        samples = np.bincount(shards_N, minlength=count)
        live = np.zeros(count, np.uint64)
        np.add.at(live, shards_N, self.sizes_N)
        places = np.cumsum(samples > 0) - 1
        records = self.records_N3.copy()
        records[:, 1] = self.offsets_N | (places[shards_N].astype(np.uint64) << np.uint64(layout.OFFSET_BITS))
        entries = [
            entry._replace(live_bytes=int(live[i]), live_samples=int(samples[i]))
            for i, entry in enumerate(self.shards)
            if samples[i]
        ]
        return Columns(records, self.mtimes_N, self.paths, entries)

    def encoded(self, *, generation: int, space_id: bytes, parity: int = 0) -> list[bytes]:
        """The bytes of an index, in pieces: header, tables, checksums.

        Raises:
            SpaceError: Two samples have one path, or there is too much of something.
        """
        order = self._order()
        _check_limits(self)
        ends = np.cumsum(np.fromiter(map(len, self.paths), np.uint64, len(self)), dtype=np.uint64)
        wide = len(ends) > 0 and int(ends[-1]) >= 1 << 32
        in_order = bool((order == np.arange(len(order))).all())
        tables = [
            self.records_N3.astype("<u8").tobytes(),
            self.mtimes_N.astype("<i8").tobytes(),
            ends.astype("<u8" if wide else "<u4").tobytes(),
            b"".join(self.paths),
            b"" if in_order else order.astype("<u4").tobytes(),
            b"".join(layout.SHARD.pack(*entry) for entry in self.shards),
        ]
        sections, body, at = [], bytearray(), layout.HEADER_BYTES
        for table in tables:
            sections.append(layout.Section(at + len(body), len(table)))
            body += table + bytes(-len(table) % 8)
        view = memoryview(body)
        checks = np.array(
            [xxh3(view[i : i + layout.CHECK_BYTES]) for i in range(0, len(body), layout.CHECK_BYTES)], "<u8"
        ).tobytes()
        sections.append(layout.Section(at + len(body), len(checks)))
        width, data_bytes = 8 if wide else 4, int(self.sizes_N.sum())
        counts = (generation, len(self), len(self.shards), data_bytes)
        header = layout.IndexHeader._make((*counts, space_id, time.time_ns(), width, parity, *sections, xxh3(checks)))
        return [header.encode(), bytes(body), checks]

    def _order(self) -> NDArray[np.int64]:
        """Sample numbers in the order of paths."""
        paths = self.paths
        order = sorted(range(len(paths)), key=paths.__getitem__)
        for first, second in itertools.pairwise(order):
            if paths[first] == paths[second]:
                raise SpaceError(
                    given=f"the path {paths[first].decode(errors='backslashreplace')!r} comes twice",
                    allowed="one sample for each path",
                    todo="rename one; what is in the space already can be deleted first",
                )
        return np.array(order, np.int64)


def joined(parts: Iterable[Columns]) -> Columns:
    """All samples of all parts, one after another."""
    all_parts = list(parts)
    records: list[NDArray[np.uint64]] = []
    shards: list[ShardEntry] = []
    for part in all_parts:
        moved = part.records_N3.copy()
        moved[:, 1] += np.uint64(len(shards) << layout.OFFSET_BITS)
        records.append(moved)
        shards += part.shards
    return Columns(
        np.concatenate([_empty_records(), *records]),
        np.concatenate([np.empty(0, np.int64), *(part.mtimes_N for part in all_parts)]),
        [path for part in all_parts for path in part.paths],
        shards,
    )


def refuse_files_above_files(present: Columns, added: Columns) -> None:
    """Refuse what is added where one path would be a file and also the folder of another.

    What is present with such paths, as older spaces may be, is not looked at.

    Raises:
        SpaceError: It would be; names both.
    """
    paths = set(added.paths)
    both = _folders(added.paths) & paths.union(present.paths) or _folders(present.paths) & paths
    if not both:
        return
    file = min(both)
    concerned = [*present.paths, *added.paths] if file in paths else added.paths
    below = min(path for path in concerned if path.startswith(file + b"/"))
    raise SpaceError(
        given=f"two samples, {os.fsdecode(file)!r} and {os.fsdecode(below)!r}, of which one would lie below the other",
        allowed="paths that can be files all at once",
        todo="rename one; what is in the space already can be deleted first",
    )


def _folders(paths: Iterable[bytes]) -> set[bytes]:
    """All folders that these paths lie in, and those above them."""
    found: set[bytes] = {b""}
    for path in paths:
        above = path
        while (above := above.rpartition(b"/")[0]) not in found:
            found.add(above)
    return found


def _check_limits(columns: Columns) -> None:
    if len(columns) > layout.MAX_SAMPLES or len(columns.shards) > layout.MAX_SHARDS:
        raise SpaceError(
            given=f"{len(columns):,} samples in {len(columns.shards):,} shards",
            allowed=f"up to {layout.MAX_SAMPLES:,} samples in {layout.MAX_SHARDS:,} shards",
            todo="make several spaces, or larger shards",
        )
