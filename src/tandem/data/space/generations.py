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

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tandem.core.durable import locked, make_folder, sync_folder, written_aside
from tandem.core.errors import DataError
from tandem.data.space import layout, parity
from tandem.data.space.guarding import parity_path
from tandem.data.space.index import Index
from tandem.data.space.snapshot import index_path, read_current, refuse_misplaced, try_lock_alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

_INDEX_NAME = re.compile(r"(\d{8,})\.index", re.ASCII)
_SHARD_NAME = re.compile(r"[0-9a-f]{16}\.shard")


def publish(folder: Path, packed: Sequence[bytes], space_id: bytes, generation: int, level: int) -> None:
    """Make an index the present generation; the caller holds the lock, and all shards are durable and in their place.

    Args:
        folder: The space.
        packed: The index, as `Columns.encoded` returns it.
        space_id: Whose it is.
        generation: Its number, one more than the present one's.
        level: The level of parity that it tells.

    Raises:
        OSError: It cannot be written; the generation before stays.
    """
    make_folder(folder / "generations")
    path = Path(index_path(folder, generation))
    with written_aside(path) as file:
        file.writelines(packed)
    if level:
        parity.protect(path, parity_path(folder, path), level)
    else:
        parity_path(folder, path).unlink(missing_ok=True)  # of one that was written but never published
    current = layout.Current(generation, space_id, sum(map(len, packed)), int.from_bytes(packed[0][-8:], "little"))
    with written_aside(folder / "current") as file:
        file.write(current.encode())


def publishing(folder: Path) -> AbstractContextManager[None]:
    """The right to publish, one writer at a time; waits for it."""
    return locked(folder / "lock")


def generations(folder: Path) -> list[int]:
    """All generations whose index is there, oldest first."""
    try:
        names = [path.name for path in (folder / "generations").iterdir()]
    except FileNotFoundError:
        return []
    found = (int(match[1]) for name in names if (match := _INDEX_NAME.fullmatch(name)))
    return sorted(one for one in set(found) if f"{one:08d}.index" in names)


def later(folder: Path) -> Iterator[tuple[Path, DataError]]:
    """What lies where later indexes do, and is none of the next generation's, which a killed writer may leave.

    They are strays; or the file `current` is an old copy, and what came later is not to be lost for that.
    """
    found = generations(folder)  # first: others may publish meanwhile
    present = read_current(folder).generation
    for path in (Path(index_path(folder, one)) for one in found if one > present):
        try:
            refuse_misplaced(path, is_folder=False)
        except DataError as error:
            yield path, error
            continue
        if path != Path(index_path(folder, present + 1)):
            yield (
                path,
                DataError(
                    given=f"{path} is later than generation {present}, of which {folder}/current tells",
                    allowed="indexes up to the present generation",
                    todo=f"move it out of {folder}; or, if it is of the latest generation, move {folder}/current out, "
                    f"and run: tandem data repair {folder}",
                ),
            )


def refuse_later(folder: Path) -> None:
    """Refuse a space in which there is such a thing.

    Raises:
        DataError: There is; names the first.
    """
    for _, error in later(folder):
        raise error


def size_bytes(file: Path) -> int:
    """A file's size; 0 for one that others have just removed, or a link to nothing or to itself."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


class Removal(NamedTuple):
    """What was removed, and what was not since readers have it open.

    Attributes:
        freed_bytes: Of shards and parity that are gone.
        held: Old generations that are still open.
        held_bytes: Of shards that only these need.
        unjoined: Small shards that there was no room to join.
    """

    freed_bytes: int
    held: list[int]
    held_bytes: int
    unjoined: int = 0


def remove_unused(folder: Path) -> Removal:
    """Remove old generations that no reader holds, and shards that no generation names.

    The caller holds the lock.

    Raises:
        DataError: An index that stays is damaged, so that nobody knows which shards it needs; or in the place of one
            lies a folder.
    """
    present = read_current(folder).generation
    freed, held = 0, []
    named: dict[str, int] = {}
    for generation in sorted(generations(folder), key=lambda one: one == present):  # the present one last
        path = index_path(folder, generation)
        if generation != present:
            refuse_misplaced(path, is_folder=False)
            if _removed(Path(path)):
                continue
            held.append(generation)
        index = _opened(path, is_held=generation != present)
        named |= {entry.file_name: generation for entry in index.shards}
        index.close()
    held_bytes = 0
    for file in (folder / "shards").iterdir():
        needed_by = named.get(file.name)
        if needed_by is None and _SHARD_NAME.fullmatch(file.name) and not file.is_dir():
            freed += size_bytes(file)
            file.unlink()
        elif needed_by not in (None, present):
            held_bytes += size_bytes(file)
    for file in (folder / "parity").glob("*.parity"):
        if not (
            file.is_dir() or (folder / "shards" / file.stem).exists() or (folder / "generations" / file.stem).exists()
        ):
            freed += size_bytes(file)
            file.unlink()
    for place in (folder, folder / "generations", folder / "pending", folder / "parity", folder / "shards"):
        for file in place.glob(".*.aside"):  # left by a writer or a repair that was killed
            freed += size_bytes(file)
            file.unlink()
    sync_folder(folder / "shards")
    return Removal(freed, held, held_bytes)


def _opened(path: str, *, is_held: bool) -> Index:
    try:
        return Index(path)
    except DataError as error:
        if not is_held:
            raise
        todo = "run this again once its readers have closed it: it is removed then"
        raise DataError(given=error.given, allowed=error.allowed, todo=todo) from error


def _removed(path: Path) -> bool:
    """Remove an index unless a reader has it open."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not try_lock_alone(descriptor):
            return False
        path.unlink()
        sync_folder(path.parent)
    finally:
        os.close(descriptor)
    return True
