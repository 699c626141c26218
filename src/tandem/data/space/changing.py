"""Changing a space without packing: deleting samples, and compacting what that leaves.

Both publish a new generation; readers of the one before keep it, and its bytes, until they close it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tandem.core.durable import FULL
from tandem.core.errors import SpaceError
from tandem.core.units import counted, human_size
from tandem.data.space import generations, layout
from tandem.data.space.columns import Columns
from tandem.data.space.guarding import highest
from tandem.data.space.snapshot import refuse_misplaced_in, refuse_url
from tandem.data.space.space import Space
from tandem.data.space.writer import SHARD_BYTES, PartWriter, Target, clear_abandoned

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from tandem.data.space.generations import Removal

_BATCH_BYTES = 16 << 20

Tell = Callable[[int, int], None]
"""Told how many of how many bytes are done."""


def delete(folder: str, paths: Iterable[str] = (), prefix: str | None = None) -> int:
    """Delete samples; returns how many.

    The numbers of those that stay close up, in the same order. Their bytes go when the space is compacted.

    Args:
        folder: The space.
        paths: Samples to delete.
        prefix: Also all samples whose paths begin so.

    Raises:
        SpaceError: There is no space, no sample with one of the paths, or none with the prefix.
        DataError: The index is damaged.
    """
    refuse_url(folder)
    with Space.open(folder) as space:
        wanted = {space.path(space.number(path)) for path in paths}
        if prefix is not None:
            below = {space.path(number) for number in space.under(prefix)}
            if not below:
                raise SpaceError(
                    given=f"no path in {folder} begins with {prefix!r}",
                    allowed=f"{len(space):,} paths",
                    todo=f"see them: tandem data ls {folder}",
                )
            wanted |= below
    gone = {path.encode(errors="surrogateescape") for path in wanted}
    Target(folder).commit([], lambda present, _: present.taken(np.array([p not in gone for p in present.paths], bool)))
    return len(gone)


def compact(folder: str, *, shard_bytes: int = SHARD_BYTES, tell: Tell = lambda done, of: None) -> Removal:
    """Write shards anew that hold deleted samples, join small ones, and remove what nothing refers to.

    Where there is no room for all of it, shards with deleted samples are written anew one by one, and small ones are
    joined after that if there is room then. What is moved keeps its parity: a new shard has the highest level of those
    that were moved, and of the space.

    Returns:
        The bytes by which the space is smaller now; those that older generations still need since readers have them
        open; and how many small shards were not joined for want of room.

    Raises:
        SpaceError: There is no space; or no room for one shard while readers hold older generations.
        DataError: A sample that would be moved is damaged; or a file lies in the place of a folder.
        OSError: Something cannot be written, for want of room for one shard, say; what was written anew by then stays.
    """
    refuse_url(folder)
    refuse_misplaced_in(folder)
    generations.refuse_later(Path(folder))
    before = _bytes(Path(folder))
    with Space.open(folder) as space:
        dead, small = _worth_moving(space.index.shards, shard_bytes)
    try:
        _move(folder, {*dead, *small}, shard_bytes, tell)
    except OSError as error:
        if error.errno not in FULL:
            raise
        unjoined = _moved_in_turn(folder, dead, shard_bytes, tell)
    else:
        unjoined = 0
    removed = _remove_unused(folder)
    return removed._replace(freed_bytes=max(0, before - _bytes(Path(folder))), unjoined=unjoined)


def _moved_in_turn(folder: str, dead: Sequence[int], shard_bytes: int, tell: Tell) -> int:
    """Write shards with deleted samples anew one by one, then join small ones; how many there was no room to join."""
    removed = _remove_unused(folder)
    for shard_id in dead:  # each frees what the next one needs
        try:
            _move(folder, {shard_id}, shard_bytes, tell)
        except OSError as error:
            if error.errno not in FULL or not removed.held_bytes:
                raise
            raise SpaceError(
                given=f"no room on the disk of {folder} to write a shard anew, while {human_size(removed.held_bytes)} "
                "are kept that only readers of older generations need",
                allowed="room for one shard",
                todo=f"close what has {counted(len(removed.held), 'older generation')} open "
                f"({', '.join(map(str, removed.held))}), and run this again",
            ) from error
        removed = _remove_unused(folder)
    with Space.open(folder) as space:
        _, small = _worth_moving(space.index.shards, shard_bytes)
    try:
        _move(folder, small, shard_bytes, tell)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return len(small)
    return 0


def _remove_unused(folder: str) -> Removal:
    clear_abandoned(Path(folder), time.time())
    with generations.publishing(Path(folder)):
        return generations.remove_unused(Path(folder))


def _move(folder: str, shard_ids: Collection[int], shard_bytes: int, tell: Tell) -> None:
    """Write the samples of some shards anew."""
    with Space.open(folder) as space:
        columns = Columns.of(space.index)
        chosen = [place for place, entry in enumerate(columns.shards) if entry.shard_id in shard_ids]
        moving_N = np.flatnonzero(np.isin(columns.shards_N, chosen))
        if not moving_N.size:
            return
        target = Target(folder)
        try:
            moved = _rewritten(space, columns, moving_N, target, shard_bytes, tell)
            moved_level = highest(space.index, np.unique(columns.shards_N[moving_N]).tolist())
            target.commit(
                [moved],
                lambda present, added: relocated(present, added, columns, moving_N),
                moved_level=moved_level,
            )
        finally:
            target.discard()


def _bytes(root: Path) -> int:
    """Of all files that generations need, or needed."""
    kept = (path for place in ("shards", "generations", "parity") for path in (root / place).glob("*"))
    return sum(map(generations.size_bytes, kept))


def _worth_moving(shards: Sequence[layout.ShardEntry], shard_bytes: int) -> tuple[list[int], list[int]]:
    """The shards with dead bytes, those with the least to move first; and the small ones, if there are several."""
    dead = sorted((entry for entry in shards if _dead_bytes(entry) > 0), key=lambda entry: entry.live_bytes)
    small = [entry.shard_id for entry in shards if entry.size < shard_bytes // 4]
    return [entry.shard_id for entry in dead], small if len(small) > 1 else []


def _dead_bytes(entry: layout.ShardEntry) -> int:
    return entry.size - layout.SHARD_HEADER_BYTES - entry.live_bytes


def _rewritten(
    space: Space, columns: Columns, moving_N: NDArray[np.int64], target: Target, shard_bytes: int, tell: Tell
) -> Columns:
    """The samples in new shards, in the same order."""
    writer = PartWriter(target.pending, target.space_id, shard_bytes)
    sizes_N = columns.sizes_N[moving_N].astype(np.int64)
    ends = np.cumsum(sizes_N)
    start = done = 0
    try:
        while start < len(moving_N):
            end = max(start + 1, int(np.searchsorted(ends, done + _BATCH_BYTES, "right")))
            batch = space.read_batch(moving_N[start:end])
            for number, data in zip(moving_N[start:end].tolist(), batch, strict=True):
                mode = int(columns.records_N3[number, 2]) >> layout.SIZE_BITS
                writer.add(columns.paths[number], bytes(data), int(columns.mtimes_N[number]), mode)
            start, done = end, int(ends[end - 1])
            tell(done, int(ends[-1]))
        return writer.finish()
    except BaseException:
        writer.abandon()  # its room, too
        raise


def relocated(present: Columns, added: Columns, old: Columns, moving_N: NDArray[np.int64]) -> Columns:
    """What is present now, with samples that were moved at their new places; some may be gone, others new meanwhile."""
    moved = dict(zip(_keys(old, moving_N), range(len(moving_N)), strict=True))
    records = present.records_N3.copy()
    first_new = len(present.shards)
    for number, key in enumerate(_keys(present, np.arange(len(present)))):
        if (place := moved.get(key)) is not None:
            records[number, 1] = added.records_N3[place, 1] + np.uint64(first_new << layout.OFFSET_BITS)
    return Columns(records, present.mtimes_N, present.paths, [*present.shards, *added.shards])


def _keys(columns: Columns, numbers_N: NDArray[np.int64]) -> list[tuple[int, bytes]]:
    """What tells samples apart: the names of their shards, and their paths. An empty one lies where the next begins."""
    shards = columns.shards_N[numbers_N].tolist()
    return [
        (columns.shards[shard].shard_id, columns.paths[number])
        for shard, number in zip(shards, numbers_N.tolist(), strict=True)
    ]
