"""Writing to a space: samples go into shards of one's own, which count all at once when they are committed.

Several writers may work on one space at once; each commits when it is ready, one after another.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tandem.core.durable import make_folder, sync_folder, written_aside
from tandem.core.errors import DataError, NewerVersionError, SpaceError, TandemError
from tandem.core.interrupts import unbroken
from tandem.data.space import generations, layout, parity, snapshot
from tandem.data.space.columns import Columns, joined, refuse_files_above_files
from tandem.data.space.guarding import check_level, level, parity_path
from tandem.data.space.index import Index
from tandem.data.space.shard import ShardWriter, damage
from tandem.data.space.snapshot import try_lock_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from tandem.data.space.shard import Written

PACKING = "pack-"
"""How the folders of writers begin that can go on after they were killed."""

KEPT_S = 7 * 86400.0
"""How long what they left is kept for them; in seconds since anything was written to it."""

SHARD_BYTES = 256 << 20
"""About how large shards become."""

_DEFAULT_MODE = 0o100644
_TRIES = 1000
_NEW_ID = "space-id"


def checked_path(path: str | bytes) -> bytes:
    """A sample's path as it is stored.

    Raises:
        SpaceError: It is empty, absolute, too long, or leads out of the space.
    """
    raw = os.fsencode(path)
    parts = raw.split(b"/")
    if raw and len(raw) <= layout.MAX_PATH_BYTES and not {b"", b".", b".."} & set(parts) and b"\0" not in raw:
        return raw
    shown = os.fsdecode(raw)
    raise SpaceError(
        given=f"the path {shown if len(shown) < 200 else shown[:200] + '...'!r}",
        allowed=f"relative paths without '.', '..' and empty parts, up to {layout.MAX_PATH_BYTES:,} bytes",
        todo="rename it in the source",
    )


class PartWriter:
    """Collects samples in shards of one size in a folder; what it made is found there again after a crash."""

    def __init__(self, folder: Path, space_id: bytes, shard_bytes: int = SHARD_BYTES) -> None:
        """Write shards into a folder."""
        self._folder, self._space_id, self._shard_bytes = folder, space_id, shard_bytes
        self._shard: ShardWriter | None = None
        self._entries: list[layout.ShardEntry] = []
        self._records: list[tuple[int, int, int]] = []
        self._mtimes: list[int] = []
        self._paths: list[bytes] = []

    def __len__(self) -> int:
        """How many samples were added."""
        return len(self._paths)

    def add(self, path: str | bytes, data: bytes | memoryview, mtime_ns: int = 0, mode: int = _DEFAULT_MODE) -> None:
        """Add a sample; its bytes must not change afterwards.

        Raises:
            SpaceError: The path cannot be stored.
        """
        raw = checked_path(path)
        self._note(raw, self._room_for(len(data)).add(data), mtime_ns, mode)

    def add_stream(
        self, path: str | bytes, read: Callable[[], bytes], size: int, mtime_ns: int = 0, mode: int = _DEFAULT_MODE
    ) -> None:
        """Add a sample of about `size` bytes from `read`, called until it returns nothing.

        Raises:
            SpaceError: The path cannot be stored.
        """
        raw = checked_path(path)
        growing = self._room_for(size).begin()
        while piece := read():
            growing.add(piece)
        self._note(raw, growing.finish(), mtime_ns, mode)

    def finish(self) -> Columns:
        """Make all shards durable and return what lies in them."""
        self._end_shard()
        sync_folder(self._folder)
        records = np.array(self._records, np.uint64).reshape(-1, 3)
        return Columns(records, np.array(self._mtimes, np.int64), self._paths, self._entries)

    def abandon(self) -> None:
        """Remove everything."""
        if self._shard is not None:
            self._shard.abandon()
            self._shard = None
        for entry in self._entries:
            (self._folder / entry.file_name).unlink(missing_ok=True)

    def _note(self, raw: bytes, written: Written, mtime_ns: int, mode: int) -> None:
        checksum, offset, size = written
        place = len(self._entries) << layout.OFFSET_BITS | offset
        self._records.append((checksum, place, (mode & 0xFFFF) << layout.SIZE_BITS | size))
        first_ns, last_ns = layout.MTIMES_NS
        self._mtimes.append(max(first_ns, min(last_ns, mtime_ns)))
        self._paths.append(raw)

    def _room_for(self, size: int) -> ShardWriter:
        if self._shard is not None and self._shard.samples and self._shard.size + size > self._shard_bytes:
            self._end_shard()
        if self._shard is None:
            self._shard = ShardWriter(self._folder, self._space_id)
        return self._shard

    def _end_shard(self) -> None:
        if self._shard is not None:
            self._entries.append(self._shard.finish())
            self._shard = None


class Target:
    """A space that is written to, made if it is not there: where a writer's files go, and how they are published."""

    def __init__(self, folder: str | os.PathLike[str], name: str | None = None, *, lock: bool = True) -> None:
        """Prepare a folder of the writer's own within the space.

        Args:
            folder: The space.
            name: What the writer's folder is called, for those that go on where they were; a new name if None.
            lock: Whether to take it alone; False for processes that work for a writer which has.

        Raises:
            SpaceError: It holds something else, lies in another space, or another writer of this name is at work.
            DataError: A file lies where a folder of the space has to be, or a folder where a file has to.
        """
        snapshot.refuse_url(folder)
        self.folder = Path(folder)
        refuse_other(self.folder)
        snapshot.refuse_within(self.folder)
        snapshot.refuse_misplaced_in(self.folder)
        _refuse_lost(self.folder)
        if snapshot.is_space(self.folder):
            generations.refuse_later(self.folder)
        self._made = not self.folder.exists()
        self.published = 0  # which generation was, 0 for none
        self.pending = self.folder / "pending" / (name or uuid.uuid4().hex)
        self._lock = self._alone() if lock else -1  # first, so that nobody removes what follows
        try:
            with generations.publishing(self.folder):
                for part in ("shards", "generations"):
                    make_folder(self.folder / part)
                self.space_id = self._space_id()
        except BaseException:
            self.close()
            raise

    def commit(
        self,
        parts: Sequence[Columns],
        change: Callable[[Columns, Columns], Columns] | None = None,
        parity_level: int = 0,
        moved_level: int = 0,
    ) -> int:
        """Publish what lies in shards in the writer's folder, all or nothing; returns the new generation.

        Args:
            parts: What was written.
            change: Makes the new tables from the present ones and what was written; if None, it is added behind.
            parity_level: The level of parity that the space has from this generation on; what is there and has less
                gets it before, what has more keeps that. 0 keeps the one it has.
            moved_level: What was written gets this level where the space's is lower: it was moved, and had it before.

        Raises:
            SpaceError: Two samples have one path, or one lies below another; or there is no such level.
            MissingPackageError: The space has a level, and the package pyeclib is not installed.
            OSError: It cannot be written; the generation before stays.
        """
        if parity_level:
            check_level(parity_level)
        added = joined(parts)
        self._guard(added, parity_level, moved_level)  # it takes long, and nobody is to wait for it
        with generations.publishing(self.folder):
            count = self._guard(added, parity_level, moved_level)  # others may have raised it meanwhile
            present, number = self._present()
            after = (change or _behind)(present, added).with_counts()
            packed = after.encoded(generation=number + 1, space_id=self.space_id, parity=count)
            self._take_in(added)
            with unbroken():  # whoever breaks it off is to know whether it is there
                generations.publish(self.folder, packed, self.space_id, number + 1, count)
                self.published = number + 1
                (self.folder / "pending" / _NEW_ID).unlink(missing_ok=True)
        self.discard()
        return number + 1

    def shard_path(self, entry: layout.ShardEntry) -> Path:
        """Where a shard of this writer lies: in its own folder until it is published."""
        own = self.pending / entry.file_name
        return own if own.exists() else self.folder / "shards" / entry.file_name

    def discard(self) -> None:
        """Remove the writer's own folder with all that was not published, and a space in which nothing ever was."""
        shutil.rmtree(self.pending, ignore_errors=True)
        self.close()
        if self.folder.exists() and not snapshot.is_space(self.folder):
            with suppress(OSError), generations.publishing(self.folder):
                _remove_unbegun(self.folder, whole=self._made)

    def give_up(self) -> None:
        """Keep what was completed, for the next run; remove everything if that is nothing, or published.

        Parity is made anew: where the disk is full, its room is given back.
        """
        if not self.published and any(self.kept_part(path.stem) for path in self.pending.glob("*.index")):
            for aside in self.pending.glob("*.parity"):
                aside.unlink(missing_ok=True)
            self.close()
        else:
            self.discard()

    def close(self) -> None:
        """Let others have the writer's folder; what is in it stays."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def keep_part(self, name: str, columns: Columns) -> None:
        """Note durably that a part is complete, for `kept_part`."""
        with written_aside(self.pending / f"{name}.index") as file:
            file.writelines(columns.encoded(generation=0, space_id=self.space_id))

    def kept_part(self, name: str) -> Columns | None:
        """A part that was completed before, with all its shards; None if there is none."""
        path = self.pending / f"{name}.index"
        if not path.exists():
            return None
        try:
            index = Index(str(path))
        except TandemError:
            return None  # what is damaged is made again
        try:
            columns = Columns.of(index)
        except DataError:
            return None
        finally:
            index.close()
        places = (self.pending, self.folder / "shards")
        whole = all(any(_has_size(place / entry.file_name, entry.size) for place in places) for entry in columns.shards)
        return columns if whole and index.header.space_id == self.space_id else None

    def drop_half_done(self) -> None:
        """Remove shards, and files set aside, of parts that were never completed."""
        named = {"lock"}
        for path in self.pending.glob("*.index"):
            columns = self.kept_part(path.stem)
            if columns is not None:
                named |= {path.name, *(entry.file_name for entry in columns.shards)}
        for path in self.pending.iterdir():
            if path.name not in named:
                path.unlink()

    def _alone(self) -> int:
        """Take the writer's folder; returns the open lock."""
        for left in reversed(range(_TRIES)):
            try:
                make_folder(self.pending)
                descriptor = os.open(self.pending / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                if not left:
                    raise
                continue  # somebody just cleared it away
            if not try_lock_alone(descriptor):
                os.close(descriptor)
                break
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)
        raise SpaceError(
            given=f"{self.pending}, where another process is at work",
            allowed="one process for the same source and space",
            todo="wait until it has ended",
        )

    def _space_id(self) -> bytes:
        """The space's own, or for a new space one that all its first writers share; the caller holds the lock."""
        if snapshot.is_space(self.folder):
            return snapshot.read_current(self.folder).space_id
        path = self.folder / "pending" / _NEW_ID
        if not path.exists():
            with written_aside(path) as file:
                file.write(uuid.uuid4().bytes)
        return path.read_bytes()

    def _present(self) -> tuple[Columns, int]:
        if not snapshot.is_space(self.folder):
            _refuse_lost(self.folder)
            return Columns(), 0
        index = snapshot.open_snapshot(self.folder)
        try:
            return Columns.of(index), index.header.generation
        finally:
            index.close()

    def _guard(self, added: Columns, asked: int, moved_level: int) -> int:
        """Write parity beside the writer's shards, where they have none or a lower one; returns the space's level.

        Where a level is asked for, also that of published shards which have less.
        """
        had, published = self._level_and_shards()
        count = asked or had
        own = max(count, moved_level)
        for entry in added.shards:
            shard = self.shard_path(entry)
            aside = self._parity_aside(entry)
            if max(map(parity.level_of, (aside, parity_path(self.folder, shard)))) < own:
                parity.protect(shard, aside, own)
        for entry in published if asked else ():
            self._guard_published(entry, had, count)
        return count

    def _guard_published(self, entry: layout.ShardEntry, had: int, count: int) -> None:
        """The same for a shard that others published; what is damaged is left: its parity would guard the damage.

        Parity of a higher level stays, and what a later version has written. In a space that has no level, parity is
        what a run that was broken off has left, and has to be whole.
        """
        shard, aside = self.folder / "shards" / entry.file_name, self._parity_aside(entry)
        there = parity_path(self.folder, shard)
        try:
            has = parity.level_of(there)
        except NewerVersionError:
            return
        if has >= count and (had or _is_parity_of(there, entry)):
            aside.unlink(missing_ok=True)  # others have just written it, too
        elif parity.level_of(aside) < count:
            # it may be gone, or compacted away just now; or something else in its place: `scrub` names it
            with suppress(NewerVersionError, FileNotFoundError, IsADirectoryError):
                if damage(str(shard), entry) is None:
                    parity.protect(shard, aside, count)

    def _level_and_shards(self) -> tuple[int, list[layout.ShardEntry]]:
        if not snapshot.is_space(self.folder):
            return 0, []
        index = snapshot.open_snapshot(self.folder)
        try:
            return level(index), index.shards
        finally:
            index.close()

    def _parity_aside(self, entry: layout.ShardEntry) -> Path:
        return self.pending / f"{entry.file_name}.parity"

    def _take_in(self, columns: Columns) -> None:
        """Move shards, and all parity that was written, where readers look; until an index is published, none does."""
        for aside in sorted(self.pending.glob("*.parity")):
            make_folder(self.folder / "parity")
            aside.rename(self.folder / "parity" / aside.name)
            sync_folder(self.folder / "parity")
        shards = self.folder / "shards"
        for entry in columns.shards:
            if (self.pending / entry.file_name).exists():
                (self.pending / entry.file_name).rename(shards / entry.file_name)
        sync_folder(shards)


def _is_parity_of(path: Path, entry: layout.ShardEntry) -> bool:
    try:
        return parity.damage(path, entry.file_name, entry.size, entry.checksum) is None
    except (NewerVersionError, OSError):
        return False


def _refuse_lost(folder: Path) -> None:
    """Refuse what is to be put right first: a space that has lost its `current` would be begun anew over its indexes.

    An index without `current` is also what a first pack leaves that was broken off within its last moment.

    Raises:
        SpaceError: It has lost `current`, or is of a newer version.
        DataError: `current` is damaged.
    """
    if snapshot.is_space(folder):
        snapshot.read_current(folder)
        return
    own = None
    with suppress(FileNotFoundError):  # nobody has begun here, or who had gives up just now
        own = (folder / "pending" / _NEW_ID).read_bytes()
    for path in (folder / "generations").glob("*.index"):
        lost = own is None or _space_id_in(path) != own
        if lost and not snapshot.is_space(folder):  # another first writer may just have published
            raise snapshot.no_space(str(folder))


def _space_id_in(path: Path) -> bytes | None:
    try:
        index = Index(str(path))
    except TandemError:
        return None
    try:
        return index.header.space_id
    finally:
        index.close()


class SpaceWriter:
    """Adds samples to a space; they are in it once `commit` returns, and leave no trace if it is not called.

    >>> with SpaceWriter("train.space") as writer:  # doctest: +SKIP
    ...     writer.add("cats/1.png", data)
    ...     writer.commit()
    """

    def __init__(self, folder: str | os.PathLike[str], *, shard_bytes: int = SHARD_BYTES) -> None:
        """Open a space for adding, or make it.

        Raises:
            SpaceError: The folder holds something else.
        """
        self._target = Target(folder)
        self._part = PartWriter(self._target.pending, self._target.space_id, shard_bytes)

    def add(
        self, path: str, data: bytes | memoryview, *, mtime_ns: int | None = None, mode: int = _DEFAULT_MODE
    ) -> None:
        """Add a sample; a time before 1677 or after 2262 becomes the nearest that can be stored.

        Raises:
            SpaceError: The path cannot be stored.
        """
        self._part.add(path, bytes(data), time.time_ns() if mtime_ns is None else mtime_ns, mode)

    def commit(self, *, parity: int = 0) -> int:
        """Publish all that was added as a new generation; returns its number.

        Args:
            parity: The level of parity that the space has from now on, 1 to 4; what it has with less gets it, too. 0
                keeps the one it has.

        Raises:
            SpaceError: A path was added twice, is in the space already, or lies below another; or there is no such
                level.
            MissingPackageError: The space has a level, and the package pyeclib is not installed.
            OSError: It cannot be written; the generation before stays.
        """
        return self._target.commit([self._part.finish()], parity_level=parity)

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what was not committed."""
        self._part.abandon()
        self._target.discard()


def strays(folder: Path) -> list[Path]:
    """What lies in a folder and is no part of a space."""
    ours = {name for name in snapshot.PARTS if "/" not in name}
    return sorted(path for path in folder.iterdir() if path.name not in ours and path.suffix != ".aside")


def refuse_other(folder: Path) -> None:
    """Refuse a folder that holds something else than a space, or beside one.

    Raises:
        SpaceError: It does, or it is no folder.
    """
    found: list[Path] = []
    try:
        found += strays(folder)
        if not found:
            return
    except FileNotFoundError:
        return
    except NotADirectoryError:
        pass
    if found and snapshot.begins_as_space(folder):
        raise SpaceError(
            given=f"{found[0]}, which is no part of the space it lies in",
            allowed="nothing beside a space's own files",
            todo=f"move it out of {folder}",
        )
    raise SpaceError(
        given=f"{folder}, which holds something else than a space",
        allowed="a space, an empty folder, or a name that is not taken",
        todo="choose another name",
    )


def clear_abandoned(folder: Path, now_s: float) -> None:
    """Remove what writers left that were killed; packing, which can still go on, only after a week.

    Args:
        folder: The space.
        now_s: The time, in unix seconds.
    """
    for path in (folder / "pending").glob("*/"):
        if path.name.startswith(PACKING) and now_s - _last_written_s(path) < KEPT_S:
            continue
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            with suppress(OSError):  # it is just being removed, or was just being made: its maker makes it again
                path.rmdir()
            continue
        try:
            if try_lock_alone(lock):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)


def _remove_unbegun(folder: Path, *, whole: bool) -> None:
    """Remove all that is made for a space before anything is in it, unless something is, or another writer is at work.

    The caller holds the lock. A writer has its own folder before it waits for the lock, so that it is seen here.

    Args:
        folder: The space that is none.
        whole: Whether to remove the folder itself.

    Raises:
        OSError: Something else is in the way; what is there stays.
    """
    new_id = folder / "pending" / _NEW_ID
    if snapshot.is_space(folder) or any(path != new_id for path in folder.glob("*/*")):
        return
    new_id.unlink(missing_ok=True)
    for part in ("pending", "generations", "shards"):
        with suppress(FileNotFoundError):
            (folder / part).rmdir()
    (folder / "lock").unlink()
    if whole:
        folder.rmdir()


def _last_written_s(folder: Path) -> float:
    """When anything in a folder was written last; in unix seconds."""
    newest = 0.0
    for path in [folder, *folder.iterdir()]:
        with suppress(FileNotFoundError):  # its writer is at work
            newest = max(newest, path.stat().st_mtime)
    return newest


def _behind(present: Columns, added: Columns) -> Columns:
    refuse_files_above_files(present, added)
    return joined([present, added])


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
