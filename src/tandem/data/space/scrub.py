"""Checking everything in a space: the index, every shard from end to end, every sample, and the parity of all these.

So is whether anything lies there over which whoever changes the space would trip.

Of older generations, which readers may still have open, the indexes and their parity are checked.

Limits: at a URL parity is not checked, nor older generations, nor what stands behind the end of the file `current`.
Shards that only older generations name are not checked, nor are any where what names them (the file `current`, the
index' header and its table of shards) cannot be read. Where other parts of the index are damaged, samples are checked
of which it still tells where they lie.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tandem.core.errors import DataError, NewerVersionError, TandemError
from tandem.data.hashing import file_xxh3
from tandem.data.space import generations, layout, parity, snapshot
from tandem.data.space.columns import Columns
from tandem.data.space.guarding import level, parity_path
from tandem.data.space.homes import missing
from tandem.data.space.index import Index
from tandem.data.space.shard import CHANGED, damage
from tandem.data.space.shard_copy import fetched_shard
from tandem.data.space.space import Space
from tandem.data.space.writer import strays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tandem.data.space.layout import ShardEntry

_BATCH = 256


class Finding(NamedTuple):
    """Something that is damaged or missing.

    Attributes:
        what: "current", "index", "shard", "sample", "parity"; "older": the index of an older generation; "newer": a
            shard, an older index, or parity, of a newer version; or "stray": what is no part of the space, where
            whoever changes the space trips over it.
        file: The file it lies in.
        number: The sample, or None.
        path: The sample's path, or None, also where the index does not tell it any more.
        message: What is wrong, in words.
    """

    what: str
    file: str
    number: int | None
    path: str | None
    message: str


def scrub(folder: str, tell: Callable[[int, int], None] = lambda done, of: None) -> Iterator[Finding]:
    """Check a space's present generation; yields what is wrong, nothing where all is well.

    Of a space at a URL every shard is fetched for that; what is cached does not count.

    Args:
        folder: The space.
        tell: Told how many of how many bytes of shards are checked.

    Raises:
        SpaceError: There is no space, or one of a newer version.
    """
    try:
        space = Space.open(folder)
    except DataError as error:
        unseen = "so it is not known which shards there are to be, and none was checked"
        yield Finding(*_cannot_be_opened(folder), None, None, f"{error.given}; {unseen}")
        return
    with space:
        said = current_damage(folder) if space.home.is_here else None
        if said is not None:
            yield Finding("current", f"{folder}/current", None, None, said)
        broken = [Finding("index", space.index.name, None, None, error.given) for error in space.index.verify()]
        yield from broken
        shards_N = _shards_told(space.index) if broken else Columns.of(space.index).shards_N
        total, done = sum(entry.size for entry in space.index.shards), 0
        for place, entry in enumerate(space.index.shards):
            numbers_N = np.flatnonzero(shards_N == place)
            if space.home.is_here:
                yield from _shard(space, f"{folder}/shards/{entry.file_name}", entry, numbers_N)
            else:
                yield from _fetched_shard(space, entry, numbers_N)
            done += entry.size
            tell(done, total)
        if space.home.is_here:
            yield from _strays(Path(folder))
            yield from _parity(Path(folder), space.index, is_whole=not broken)
            yield from _older(Path(folder), space.generation)


def _cannot_be_opened(folder: str) -> tuple[str, str]:
    """Of a space that cannot be opened, what is damaged, and the file."""
    if "://" not in folder:
        try:
            snapshot.read_current(folder)
        except DataError:
            return "current", f"{folder}/current"
    return "index", folder


def _shards_told(index: Index) -> NDArray[np.int64]:
    """Of each sample the shard, as far as a damaged index tells; -1 where it does not."""
    found_N = np.full(len(index), -1, np.int64)
    for number in range(len(index)):
        with suppress(DataError):
            found_N[number] = index.place(number)[1]
    return found_N


def current_damage(folder: str) -> str | None:
    """What else is wrong with a file `current` that can be read, in words; None where nothing is."""
    path = f"{folder}/current"
    size = os.stat(path).st_size  # noqa: PTH116 - a folder is a text here
    if size == layout.CURRENT_BYTES:
        return None
    return f"{path} is longer than it was written: {size:,} bytes instead of {layout.CURRENT_BYTES}"


def _strays(root: Path) -> Iterator[Finding]:
    """Name what writers refuse."""
    for name, is_folder in snapshot.PARTS.items():
        try:
            snapshot.refuse_misplaced(root / name, is_folder=is_folder)
        except DataError as error:
            yield _stray(root / name, error.given, f"move it out of {root}")
    for path in strays(root):
        yield _stray(path, f"{path} is no part of the space it lies in", f"move it out of {root}")
    for path, wrong in generations.later(root):
        yield _stray(path, wrong.given, wrong.todo)


def _stray(path: Path, said: str, todo: str) -> Finding:
    return Finding("stray", str(path), None, None, f"{said}; {todo}")


def _parity(root: Path, index: Index, *, is_whole: bool) -> Iterator[Finding]:
    """Check the parity of all that is present; of an index that is not whole nobody knows what it was made of."""
    if not level(index):
        return
    files = [(entry.file_name, entry.size, entry.checksum) for entry in index.shards]
    if is_whole:
        files.append((Path(index.name).name, *file_xxh3(index.name)))
    for name, size, checksum in files:
        yield from _parity_of(root, name, size, checksum)


def _parity_of(root: Path, name: str, size: int, checksum: int) -> Iterator[Finding]:
    path = parity_path(root, Path(name))
    try:
        wrong = parity.damage(path, name, size, checksum)
    except NewerVersionError as error:
        yield Finding("newer", str(path), None, None, error.given)
        return
    except OSError as error:
        wrong = f"the parity {path} cannot be read: {error.strerror}"
    if wrong is not None:
        yield Finding("parity", str(path), None, None, wrong)


def _older(root: Path, present: int) -> Iterator[Finding]:
    """Check the indexes of older generations, and their parity where they have it."""
    for generation in generations.generations(root):
        if generation >= present:  # a later one was written, but never published
            return
        name = snapshot.index_path(root, generation)
        try:
            index = Index(name)
        except FileNotFoundError:
            continue  # compacted away just now
        except NewerVersionError as error:
            yield Finding("newer", name, None, None, error.given)
            continue
        except (TandemError, OSError) as error:
            said = error.given if isinstance(error, TandemError) else f"{name} cannot be read: {error.strerror}"
            yield Finding("older", name, None, None, said)
            continue
        try:
            broken = [Finding("older", name, None, None, error.given) for error in index.verify()]
            yield from broken
            if not broken and (index.header.parity > 0 or parity_path(root, Path(name)).exists()):
                yield from _parity_of(root, Path(name).name, *file_xxh3(name))
        finally:
            index.close()


def unused_bytes(folder: str) -> int:
    """Bytes of deleted samples and, in a folder, of files that the present generation does not need."""
    with Space.open(folder) as space:
        named = {entry.file_name: entry for entry in space.index.shards}
    dead = sum(entry.size - layout.SHARD_HEADER_BYTES - entry.live_bytes for entry in named.values())
    if not space.home.is_here:
        return dead
    others = (path for path in (Path(folder) / "shards").glob("*") if path.name not in named)
    old = (snapshot.index_path(folder, number) for number in generations.generations(Path(folder))[:-1])
    return dead + sum(map(generations.size_bytes, [*others, *map(Path, old)]))


def _fetched_shard(space: Space, entry: ShardEntry, numbers_N: NDArray[np.int64]) -> Iterator[Finding]:
    """Check a shard at a URL: a copy of it that was fetched just now."""
    with fetched_shard(space.home, entry) as (path, home):
        if home is None:
            yield Finding("shard", path, None, None, missing(path, entry).given)
            return
        index = Index(space.index.name)
        with Space(space.folder, index, space.how, space.threads, home) as copy:
            name = space.home.shard_name(entry)
            for one in _shard(copy, path, entry, numbers_N):
                yield one._replace(file=name, message=one.message.replace(path, name))


def _shard(space: Space, path: str, entry: ShardEntry, numbers_N: NDArray[np.int64]) -> Iterator[Finding]:
    """Check a shard's file, and every sample in it."""
    try:
        wrong = damage(path, entry)
    except NewerVersionError as error:
        yield Finding("newer", path, None, None, error.given)
        return
    except FileNotFoundError:
        wrong = missing(path, entry).given
    except OSError as error:
        wrong = f"the shard {path} cannot be read: {error.strerror}"
    damaged = list(_samples(space, path, numbers_N))
    if wrong is not None and not (damaged and wrong.endswith(CHANGED)):
        yield Finding("shard", path, None, None, wrong)
    yield from damaged


def _samples(space: Space, path: str, numbers_N: NDArray[np.int64]) -> Iterator[Finding]:
    for start in range(0, len(numbers_N), _BATCH):
        some = numbers_N[start : start + _BATCH]
        try:
            space.read_batch(some)
        except DataError:
            yield from _one_by_one(space, path, some.tolist())


def _one_by_one(space: Space, path: str, numbers: list[int]) -> Iterator[Finding]:
    for number in numbers:
        try:
            space.read(number)
        except TandemError as error:
            name = _path(space, number)
            # A shard that is missing is named by itself; what is lost with it is named here.
            named = f"sample {number}, {name!r}" if name is not None else f"sample {number}, its path is damaged too"
            given = error.given if f"{name!r} of " in error.given else f"{named}: {error.given}"
            yield Finding("sample", path, number, name, given)


def _path(space: Space, number: int) -> str | None:
    with suppress(DataError):
        return space.path(number)
    return None
