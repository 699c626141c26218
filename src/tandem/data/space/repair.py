"""Putting a damaged space right: by its parity, and by the source it was packed from.

In this order: what says which generation is present, the index, shards by their parity; parity itself, made again
from what is whole where it is damaged or less than the space's level; then samples that are still damaged, from the
source, if it has them with the same bytes. Those go, with all that is whole beside them, into new shards of a new
generation; so do those of a shard that is damaged outside of any sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tandem.core.durable import written_aside
from tandem.core.errors import DataError, NewerVersionError, SpaceError, TandemError
from tandem.data.hashing import xxh3
from tandem.data.space import layout, parity
from tandem.data.space.changing import relocated
from tandem.data.space.columns import Columns
from tandem.data.space.generations import generations
from tandem.data.space.guarding import highest, level, parity_path, weaker
from tandem.data.space.index import Index
from tandem.data.space.scrub import Finding, current_damage, scrub
from tandem.data.space.shard import damage
from tandem.data.space.snapshot import index_path, read_current, refuse_misplaced, refuse_misplaced_in, refuse_url
from tandem.data.space.space import Space
from tandem.data.space.writer import SHARD_BYTES, PartWriter, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fetch = Callable[[Iterable[str]], Mapping[str, bytes]]
"""Gives the bytes that a source has under some paths."""


class Repaired(NamedTuple):
    """What a repair did.

    Attributes:
        files: Files that were put right by their parity, or written anew.
        samples: Samples that were taken from the source.
        left: What is still damaged.
    """

    files: list[str]
    samples: int
    left: list[Finding]


def repair(folder: str, fetch: Fetch | None = None) -> Repaired:
    """Put a space right as far as its parity and its source allow.

    Args:
        folder: The space.
        fetch: Gives samples' bytes from the source; None to do without.

    Raises:
        SpaceError: There is no space, or a file in it is of a newer version, which stays.
        DataError: The index, or which generation is present, cannot be restored.
        MissingPackageError: There is parity, and the package pyeclib is not installed.
        OSError: Something cannot be written.
    """
    refuse_url(folder)
    root = Path(folder)
    refuse_misplaced_in(root)
    files = _current(root)
    files += _index_by_parity(root, read_current(root))
    found = list(scrub(folder))
    if any(one.what == "index" for one in found):  # what it names cannot be put right before it
        return Repaired(files, 0, found)
    for one in found:
        if one.what == "newer":
            raise layout.newer_version(given=one.message)
        if one.what == "older" and Path(one.file).is_file():
            files += _index_by_parity(root, int(Path(one.file).stem))
    files += _shards_by_parity(folder, {Path(one.file).name for one in found if one.what in ("shard", "sample")})
    left = list(scrub(folder))
    anew = _parity_anew(folder, left)
    if anew:
        files += anew
        left = list(scrub(folder))
    whole, samples = _written_anew(folder, left, fetch)
    files += whole
    return Repaired(files, samples, list(scrub(folder)) if whole or samples else left)


def _current(root: Path) -> list[str]:
    """Write `current` anew, where it is damaged or gone for the latest index; that is restored first."""
    restored: list[str] = []
    try:
        current = read_current(root)
    except NewerVersionError:
        raise  # whole, and not ours to write
    except TandemError:
        found = generations(root)
        if not found:
            raise
        restored = _index_by_parity(root, found[-1])
        current = _of_latest(root, found)
    else:
        if current_damage(str(root)) is None:
            return []
    with written_aside(root / "current") as file:
        file.write(current.encode())
    return [*restored, str(root / "current")]


def _of_latest(root: Path, found: list[int]) -> layout.Current:
    """What `current` would say of the latest generation.

    No earlier one is taken where that is of no use: what came after it would count for nothing.
    """
    generation = found[-1]
    path = index_path(root, generation)
    ids = _ids_in_shards(root)
    try:
        index = Index(path)
        try:
            header = index.header
            if header.generation == generation and (not ids or header.space_id in ids):
                return layout.Current(generation, header.space_id, index.size, index.header_xxh3)
        finally:
            index.close()
    except DataError as error:
        if len(found) == 1:
            raise
        given = error.given
    else:
        of = f"generation {header.generation}" if header.generation != generation else "another space"
        given = f"{path} is an index of {of}"
    raise DataError(
        given=f"{given}, and no file `current` tells which generation is present",
        allowed="the index of the latest generation, whole",
        todo=f"put it back from a copy; or, if it is no part of the space, move it out of {root}, and run this again",
    )


def _ids_in_shards(root: Path) -> set[bytes]:
    """Of which space the shards are that are there."""
    found = set()
    for path in (root / "shards").glob("*.shard"):
        with suppress(TandemError, OSError):
            found.add(layout.ShardHeader.decode(layout.read_start(path, layout.SHARD_HEADER_BYTES), str(path)).space_id)
    return found


def _index_by_parity(root: Path, of: layout.Current | int) -> list[str]:
    """Restore the index that `current` speaks of, or where that is lost the one of a generation."""

    def right(made: Path) -> bool:
        try:
            index = Index(str(made))
        except TandemError:
            return False
        try:
            header = index.header
            if isinstance(of, layout.Current):
                same = layout.Current(header.generation, header.space_id, index.size, index.header_xxh3) == of
            else:  # an index of another space names none of these shards
                shards = [root / "shards" / entry.file_name for entry in index.shards]
                same = header.generation == of and (not shards or any(shard.exists() for shard in shards))
            return same and not list(index.verify())
        finally:
            index.close()

    path = Path(index_path(root, of if isinstance(of, int) else of.generation))
    refuse_misplaced(path, is_folder=False)
    return _by_parity(root, path, right)


def _shards_by_parity(folder: str, names: set[str]) -> list[str]:
    """Restore shards of these names."""
    if not names:
        return []
    with Space.open(folder) as space:
        entries = [entry for entry in space.index.shards if entry.file_name in names]
    files = []
    for entry in sorted(entries, key=lambda one: one.file_name):

        def right(made: Path, entry: layout.ShardEntry = entry) -> bool:
            return damage(str(made), entry) is None

        files += _by_parity(Path(folder), Path(folder) / "shards" / entry.file_name, right)
    return files


def _by_parity(root: Path, file: Path, right: Callable[[Path], bool]) -> list[str]:
    """Restore a file that has parity, if what is made is right; says which, where anything was wrong with it."""
    guarded = parity_path(root, file)
    if not guarded.is_file() or (file.exists() and not file.is_file()):
        return []
    if file.exists():
        layout.refuse_newer(str(file))
    size = file.stat().st_size if file.exists() else -1
    try:
        bad = parity.restore(file, guarded, right)
    except (DataError, SpaceError):
        return []  # the file's parity is of no use; what is left is told at the end
    return [str(file)] if bad or file.stat().st_size != size else []


def _parity_anew(folder: str, left: list[Finding]) -> list[str]:
    """Write parity that is damaged, missing, or less than the space's anew, of what is whole; says which files.

    A folder in the place of one stays.
    """
    if any(one.what == "index" for one in left):
        return []
    root, made = Path(folder), []
    damaged = [Path(one.file) for one in left if one.what == "parity"]
    with Space.open(folder) as space:
        shards = {entry.file_name: entry for entry in space.index.shards}
        for path in dict.fromkeys([*damaged, *weaker(space.index)]):
            entry = shards.get(path.stem)
            file = root / ("shards" if entry else "generations") / path.stem
            whole = entry is None or (file.is_file() and damage(str(file), entry) is None)
            if whole and not path.is_dir():
                parity.protect(file, path, max(level(space.index), parity.level_of(path)))
                made.append(str(path))
    return made


def _written_anew(folder: str, left: list[Finding], fetch: Fetch | None) -> tuple[list[str], int]:
    """Write damaged shards' samples into new ones, those that are damaged from the source.

    Without a source only shards of which no sample is: the others had better stay as they are.

    Returns:
        Shards that were damaged but for their samples, and how many samples came from the source.
    """
    files = {Path(one.file).name for one in left if one.what in ("shard", "sample")}
    whole = files - {Path(one.file).name for one in left if one.number is not None}
    if fetch is None:
        files = whole
    if not files:
        return [], 0
    with Space.open(folder) as space:
        columns = Columns.of(space.index)
        lost = [one.number for one in left if one.number is not None]
        found = _fetched(space, lost, fetch) if fetch is not None and lost else {}
        shards = [i for i, entry in enumerate(columns.shards) if entry.file_name in files]
        moving_N = np.flatnonzero(np.isin(columns.shards_N, shards))
        moving_N = moving_N[[n in found or n not in set(lost) for n in moving_N.tolist()]]
        if not moving_N.size:
            return [], 0
        target = Target(folder)
        try:
            moved = _written(space, columns, moving_N, found, target)
            moved_level = highest(space.index, shards)
            target.commit(
                [moved], lambda present, added: relocated(present, added, columns, moving_N), moved_level=moved_level
            )
        finally:
            target.discard()
    return [f"{folder}/shards/{name}" for name in sorted(whole)], len(found)


def _fetched(space: Space, lost: list[int], fetch: Fetch) -> dict[int, bytes]:
    """What the source has with the same bytes."""
    wanted = {space.path(number): number for number in lost}
    found = {}
    for path, data in fetch(wanted).items():
        number = wanted[path]
        if xxh3(data) == space.stat(number).checksum:
            found[number] = data
    return found


def _written(
    space: Space, columns: Columns, moving_N: NDArray[np.int64], found: Mapping[int, bytes], target: Target
) -> Columns:
    writer = PartWriter(target.pending, target.space_id, SHARD_BYTES)
    for number in moving_N.tolist():
        data = found[number] if number in found else space.read(number)
        mode = int(columns.records_N3[number, 2]) >> layout.SIZE_BITS
        writer.add(columns.paths[number], data, int(columns.mtimes_N[number]), mode)
    return writer.finish()
