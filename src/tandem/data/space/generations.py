"""Generations: how a space changes all at once, and how readers keep the one they opened.

    SPACE/current                      which generation is the present one; replaced whole
    SPACE/generations/00000003.index   an index, never changed once it is there
    SPACE/shards/*.shard               samples, never changed once an index names them
    SPACE/pending/                     what writers have not published yet
    SPACE/lock                         held while a generation is published

A reader holds a shared lock on the index it opened; whoever removes an index, and the shards that only it names, takes
that lock alone first. Limits: on file systems without `flock` nothing old is ever removed.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tandem.core.errors import DataError, SpaceError
from tandem.data.space import layout
from tandem.data.space.durable import make_folder, sync_folder, written_aside
from tandem.data.space.index import Index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tandem.data.space.columns import Columns

_INDEX_NAME = re.compile(r"(\d{8,})\.index")


def index_path(folder: Path, generation: int) -> Path:
    """Where the index of a generation lies."""
    return folder / "generations" / f"{generation:08d}.index"


def is_space(folder: Path) -> bool:
    """Whether a folder is a space."""
    return (folder / "current").is_file()


def read_current(folder: Path) -> layout.Current:
    """What the present generation is.

    Raises:
        SpaceError: The folder is no space, or one of a newer version.
        DataError: The file that says it is damaged.
    """
    path = folder / "current"
    try:
        with path.open("rb") as file:
            packed = file.read(layout.CURRENT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_space(folder) from error
    return layout.Current.decode(packed, str(path))


def open_snapshot(folder: Path, generation: int | None = None) -> Index:
    """Open the index of the present generation, or of an earlier one that is still there, and keep it from removal.

    Raises:
        SpaceError: The folder is no space, has no such generation, or is of a newer version.
        DataError: What says which generation is present, or the index, is damaged or missing.
    """
    while True:
        current = read_current(folder)
        wanted = current.generation if generation is None else generation
        path = index_path(folder, wanted)
        try:
            index = Index(str(path))
        except FileNotFoundError as error:
            if generation is None and read_current(folder) != current:
                continue  # it was replaced, and the old one removed, just now
            raise _no_generation(folder, wanted, current) from error
        _try_lock(index.file, fcntl.LOCK_SH)
        if os.fstat(index.file).st_nlink:
            return _matching(index, current, folder, wanted)
        index.close()  # removed between opening and locking


def publish(folder: Path, columns: Columns, space_id: bytes, generation: int) -> layout.IndexHeader:
    """Make this the present generation; the caller holds the lock, and all shards are durable and in their place.

    Raises:
        SpaceError: Two samples have one path.
        OSError: It cannot be written; the generation before stays.
    """
    make_folder(folder / "generations")
    path = index_path(folder, generation)
    with written_aside(path) as file:
        header = columns.write(file, generation=generation, space_id=space_id)
    with path.open("rb") as file:
        packed = file.read(layout.HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    checksum = int.from_bytes(packed[-8:], "little")
    with written_aside(folder / "current") as file:
        file.write(layout.Current(generation, space_id, size, checksum).encode())
    return header


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The right to publish, one writer at a time; waits for it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def generations(folder: Path) -> list[int]:
    """All generations whose index is there, oldest first."""
    try:
        names = [path.name for path in (folder / "generations").iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for name in names if (match := _INDEX_NAME.fullmatch(name)))


def remove_unused(folder: Path) -> int:
    """Remove old generations that no reader holds, and shards that no generation names; returns the bytes freed.

    The caller holds the lock.

    Raises:
        DataError: An index that stays is damaged, so that nobody knows which shards it needs.
    """
    present = read_current(folder).generation
    freed, named = 0, set()
    for generation in generations(folder):
        path = index_path(folder, generation)
        if generation != present and _removed(path):
            continue
        index = Index(str(path))
        named |= {entry.file_name for entry in index.shards}
        index.close()
    for path in (folder / "shards").iterdir():
        if path.name not in named:
            freed += path.stat().st_size
            path.unlink()
    sync_folder(folder / "shards")
    return freed


def _removed(path: Path) -> bool:
    """Remove an index unless a reader has it open."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not _try_lock(descriptor, fcntl.LOCK_EX):
            return False
        path.unlink()
        sync_folder(path.parent)
    finally:
        os.close(descriptor)
    return True


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _matching(index: Index, current: layout.Current, folder: Path, generation: int) -> Index:
    header = index.header
    same = header.generation == generation and header.space_id == current.space_id
    if same and (generation != current.generation or index.size == current.index_bytes):
        return index
    index.close()
    raise DataError(
        given=f"{index.name} is not the index that {folder / 'current'} speaks of",
        allowed="files of one space, whole",
        todo="put the index back from a copy",
    )


def _no_space(folder: Path) -> SpaceError:
    what = "has no file `current`" if folder.is_dir() else "is no folder"
    return SpaceError(
        given=f"{folder} is not a space: it {what}",
        allowed="a folder that `tandem data pack` made",
        todo=f"run: tandem data pack SOURCE {folder}",
    )


def _no_generation(folder: Path, wanted: int, current: layout.Current) -> SpaceError | DataError:
    there = ", ".join(map(str, generations(folder))) or "none"
    if wanted == current.generation:
        return DataError(
            given=f"{index_path(folder, wanted)} is missing", allowed="all files of the space",
            todo="put it back from a copy",
        )  # fmt: skip
    return SpaceError(given=f"{folder} has no generation {wanted}", allowed=there, todo="choose one of these")
