"""What a reader opens: the present generation, or an earlier one, kept from removal while it is open.

Limits: no pathlib, so that opening is quick in a fresh process. On file systems without `flock` nothing is kept from
removal; writers then remove nothing old.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress

from tandem.core.errors import DataError, NewerVersionError, SpaceError
from tandem.data.space import layout
from tandem.data.space.index import Index

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

PARTS = {
    "shards": True,
    "generations": True,
    "pending": True,
    "parity": True,
    "current": False,
    "lock": False,
    "pending/space-id": False,
}
"""What a space is made of, and whether that is a folder."""


def index_path(folder: str | os.PathLike[str], generation: int) -> str:
    """Where the index of a generation lies."""
    return f"{os.fspath(folder)}/generations/{generation:08d}.index"


def is_space(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a space."""
    try:
        return _read_small(f"{os.fspath(folder)}/current") is not None
    except IsADirectoryError:
        return False


def begins_as_space(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a space, even if it has lost its file `current`; one of that name may be of others."""
    return _has_current(os.fspath(folder)) or _has_had_one(os.fspath(folder))


def read_current(folder: str | os.PathLike[str]) -> layout.Current:
    """What the present generation is.

    Raises:
        SpaceError: The folder is no space, or one of a newer version.
        DataError: The file that says it is damaged.
    """
    name = f"{os.fspath(folder)}/current"
    try:
        packed = _read_small(name)
    except IsADirectoryError:
        packed = None
    if packed is None:
        refuse_misplaced(name, is_folder=False)
        raise no_space(os.fspath(folder))
    try:
        return layout.Current.decode(packed, name)
    except NewerVersionError:
        raise
    except (SpaceError, DataError) as error:
        if _has_had_one(os.fspath(folder)):
            raise DataError(
                given=f"{name}: its header is damaged", allowed="the file as it was written", todo=_restored(folder)
            ) from error
        raise


def open_snapshot(folder: str | os.PathLike[str], generation: int | None = None) -> Index:
    """Open the index of the present generation, or of an earlier one that is still there, and keep it from removal.

    Raises:
        SpaceError: The folder is no space, has no such generation, or is of a newer version.
        DataError: What says which generation is present, or the index, is damaged or missing.
    """
    name = os.fspath(folder)
    while True:
        current = read_current(name)
        wanted = current.generation if generation is None else generation
        try:
            index = Index(index_path(name, wanted))
        except (IsADirectoryError, NotADirectoryError):
            refuse_misplaced_in(name, wanted)
            raise
        except FileNotFoundError as error:
            if generation is None and read_current(name) != current:
                continue  # it was replaced, and the old one removed, just now
            raise _no_generation(name, wanted, current) from error
        _hold(index.file)
        if os.fstat(index.file).st_nlink:
            return _matching(index, current, name, wanted)
        index.close()  # removed between opening and locking


def refuse_misplaced_in(folder: str | os.PathLike[str], generation: int | None = None) -> None:
    """Refuse a space in which a file lies where a folder has to be, or a folder where a file has to.

    Args:
        folder: The space.
        generation: Whose index is looked at, too.

    Raises:
        DataError: There is one; names it.
    """
    for name, is_folder in PARTS.items():
        refuse_misplaced(f"{os.fspath(folder)}/{name}", is_folder=is_folder)
    if generation is not None:
        refuse_misplaced(index_path(folder, generation), is_folder=False)


def refuse_misplaced(path: str | os.PathLike[str], *, is_folder: bool) -> None:
    """The same for one part of a space, which is a folder or a file, or not there."""
    name, lies = os.fspath(path), "neither file nor folder"
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 - no pathlib here
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP) or not os.path.islink(name):  # noqa: PTH114
            return
        mode, lies = 0, "a link to nothing" if error.errno == errno.ENOENT else "a link to itself"
    wanted = "folder" if is_folder else "file"
    if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
        lies = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else lies
        raise DataError(
            given=f"{name} is {lies}, where a {wanted} of the space was",
            allowed=f"a {wanted}, or nothing",
            todo="move it out of the space, and run this again",
        )


def refuse_url(folder: str | os.PathLike[str]) -> None:
    """Raise where a space is to be written at a URL.

    Raises:
        SpaceError: It is.
    """
    if "://" in os.fspath(folder):
        raise SpaceError(
            given=f"a change of {os.fspath(folder)}",
            allowed="changes of a space in a folder; at a URL spaces are read",
            todo="change it in its folder, and copy it there",
        )


def refuse_within(folder: str | os.PathLike[str]) -> None:
    """Raise where something is to be written into a space that is no part of it: compacting would take it for litter.

    Raises:
        SpaceError: The folder lies in a space.
    """
    place = os.path.realpath(folder)
    while (above := os.path.dirname(place)) != place:  # noqa: PTH120 - no pathlib here
        place = above
        if _has_current(place):
            raise SpaceError(
                given=f"{os.fspath(folder)}, which lies in the space {place}",
                allowed="a folder outside of spaces",
                todo="name another folder",
            )


def try_lock_alone(descriptor: int) -> bool:
    """Lock an open index if nobody else has it open; False where somebody has, or no lock is to be had."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _hold(descriptor: int) -> None:
    """Keep an index from removal; a writer that is just removing it is waited for."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _read_small(name: str) -> bytes | None:
    """The file `current`; None where there is none."""
    try:
        return layout.read_start(name, layout.CURRENT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _has_current(folder: str) -> bool:
    """Whether there is a file `current` that is a space's by how it begins."""
    with suppress(OSError):
        return (_read_small(f"{folder}/current") or b"").startswith(layout.CURRENT_MAGIC)
    return False


def _matching(index: Index, current: layout.Current, folder: str, generation: int) -> Index:
    header = index.header
    same = header.generation == generation and header.space_id == current.space_id
    if generation == current.generation:
        same = same and (index.size, index.header_xxh3) == (current.index_bytes, current.index_xxh3)
    if same:
        return index
    index.close()
    raise DataError(
        given=f"{index.name} is not the index that {folder}/current speaks of",
        allowed="files of one space, whole",
        todo="put the index back from a copy",
    )


def no_space(folder: str) -> SpaceError:
    """The error for a folder without a file `current`: what it lacks, and how to get it."""
    try:
        os.listdir(folder)  # noqa: PTH208 - a Path would be one more import
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        what = "is no folder"
    else:
        what = "has no file `current`"
    todo = f"run: tandem data pack SOURCE {folder}"
    if _has_had_one(folder):
        todo = f"it has had one: {_restored(folder)}"
    elif (around := _space_around(folder)) is not None:
        todo = f"name the space that it is a part of: {around}"
    return SpaceError(
        given=f"{folder} is not a space: it {what}", allowed="a folder that `tandem data pack` made", todo=todo
    )


def _space_around(folder: str) -> str | None:
    """The space of which this is a folder or a file."""
    place = os.path.dirname(os.path.abspath(folder))  # noqa: PTH100, PTH120 - no pathlib here
    return next((one for one in (place, os.path.dirname(place)) if is_space(one)), None)  # noqa: PTH120


def _has_had_one(folder: str) -> bool:
    """Whether there are indexes, of which the file `current` can be made anew."""
    try:
        names = os.listdir(f"{folder}/generations")  # noqa: PTH208 - a Path would be one more import
    except OSError:
        return False
    return any(name.endswith(".index") for name in names)


def _restored(folder: str | os.PathLike[str]) -> str:
    return f"run: tandem data repair {os.fspath(folder)}"


def _no_generation(folder: str, wanted: int, current: layout.Current) -> SpaceError | DataError:
    if wanted == current.generation:
        return DataError(
            given=f"{index_path(folder, wanted)} is missing",
            allowed="all files of the space",
            todo=f"put it back from a copy, or rm -r {folder} and pack the space again from its source",
        )
    return SpaceError(
        given=f"{folder} has no generation {wanted} any more",
        allowed=f"the present one, {current.generation}, and earlier ones while readers hold them",
        todo="open the present one",
    )
