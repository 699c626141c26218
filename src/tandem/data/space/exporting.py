"""From a space back to files, with the sizes, times and modes they had, but for setuid, setgid and sticky bits."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from tandem.core.durable import naming
from tandem.core.errors import DataError, SpaceError
from tandem.data.space.snapshot import is_space, refuse_within
from tandem.data.space.writer import checked_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tandem.data.space.index import Sample
    from tandem.data.space.space import Space

_BATCH = 256
_BATCH_BYTES = 32 << 20
_MOST_PATH_BYTES = 4095  # Linux's PATH_MAX, less the end
_MOST_NAME_BYTES = 255  # its NAME_MAX

LeftOut = DataError | SpaceError | FileExistsError | NotADirectoryError
"""Why a sample is left out; the others can be written all the same."""


def export(
    space: Space,
    folder: str,
    prefix: str = "",
    tell: Callable[[int, int], None] = lambda done, of: None,
    left_out: Callable[[int, LeftOut], None] | None = None,
) -> int:
    """Write all samples whose paths begin with `prefix` as files below a folder; returns how many there are now.

    A file appears once it is whole, where the file system has files without a name (O_TMPFILE), and never takes the
    place of another. So an export that was broken off is gone on with by calling it again: what is there with the very
    bytes stays as it is.

    Args:
        left_out: Told the number of each sample that is left out, and why: it is damaged (DataError), something else
            is in its place (FileExistsError, or NotADirectoryError above it), its path leads through a link, or is
            longer than the system allows (SpaceError). None stops at the first.

    Raises:
        DataError, FileExistsError, NotADirectoryError: Nobody is to be told; some of the others are written.
        SpaceError: The same, or the folder is a space, in one, or none.
        OSError: Files cannot be written there.
    """
    if is_space(folder):
        raise SpaceError(given=f"{folder}, which is a space", allowed="a folder for files", todo="name another folder")
    refuse_within(folder)
    numbers = sorted(space.under(prefix), key=lambda number: space.index.place(number)[1:3])  # as they lie
    root, written, start = Path(folder), 0, 0
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        given = f"{error.filename}, which is a file, or below one"
        raise SpaceError(given=given, allowed="a folder for files", todo="name another folder") from None
    there = {root}
    while start < len(numbers):
        end, size = start + 1, space.index.place(numbers[start])[3]
        while end < len(numbers) and end - start < _BATCH:
            more = space.index.place(numbers[end])[3]
            if size + more > _BATCH_BYTES:
                break
            end, size = end + 1, size + more
        few = numbers[start:end]
        for number, data in _in_pieces(space, few) if size > _BATCH_BYTES else _whole(space, few, left_out):
            try:
                _put(space.stat(number), data, root, there)
            except (DataError, SpaceError, FileExistsError, NotADirectoryError) as error:
                if left_out is None:
                    raise
                left_out(number, error)
            else:
                written += 1
        start = end
        tell(end, len(numbers))
    return written


def _whole(
    space: Space, numbers: list[int], left_out: Callable[[int, LeftOut], None] | None
) -> Iterator[tuple[int, Iterable[memoryview]]]:
    """The samples with their bytes; where one of them is damaged, those that are not, one by one."""
    try:
        yield from ((number, [data]) for number, data in zip(numbers, space.read_batch(np.array(numbers)), strict=True))
    except DataError:
        if left_out is None:
            raise
        for number in numbers:
            try:
                [data] = space.read_batch(np.array([number]))
            except DataError as error:
                left_out(number, error)
            else:
                yield number, [data]


def _in_pieces(space: Space, numbers: list[int]) -> Iterator[tuple[int, Iterable[bytes]]]:
    """Samples that are too large to hold, which are read while they are written."""
    yield from ((number, space.pieces(number)) for number in numbers)


def _put(sample: Sample, data: Iterable[bytes | memoryview], root: Path, there: set[Path]) -> None:
    path = _path(sample, root)
    _make(path.parent, there)
    _write(sample, data, path)


def _path(sample: Sample, root: Path) -> Path:
    raw = checked_path(sample.path)
    path = root / os.fsdecode(raw)
    longest = max(map(len, raw.split(b"/")))
    if len(os.fsencode(path)) > _MOST_PATH_BYTES or longest > _MOST_NAME_BYTES:
        name = f", and a name of {longest:,} in it" if longest > _MOST_NAME_BYTES else ""
        raise SpaceError(
            given=f"sample {sample.path[:80]!r}... would be a path of {len(os.fsencode(path)):,} bytes{name}",
            allowed=f"{_MOST_PATH_BYTES:,} bytes, the folder's included, and {_MOST_NAME_BYTES} for each name",
            todo="read it by the library, or by tandem data cat",
        )
    return path


def _make(folder: Path, there: set[Path]) -> None:
    """Make a folder and those above it, one by one: there may be thousands, and none may be a link out of the root."""
    missing = []
    while folder not in there:
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        if one.is_symlink():
            raise SpaceError(given=f"{one}, a link", allowed="folders below the one to export to", todo="move it away")
        try:
            one.mkdir(exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(
                errno.ENOTDIR, "it is a file where a folder should be; move it away", str(one)
            ) from None
        there.add(one)


def _write(sample: Sample, data: Iterable[bytes | memoryview], path: Path) -> None:
    if _is_there(sample, path):
        return
    nameless = True
    try:
        file = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        nameless = False
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in data:
            view = memoryview(piece)
            with naming(path):
                while view:
                    view = view[os.write(file, view) :]
        os.fchmod(file, sample.mode & 0o777)
        os.utime(file, ns=(sample.mtime_ns, sample.mtime_ns))
        if nameless:
            try:
                os.link(f"/proc/self/fd/{file}", path, src_dir_fd=file)  # with a folder, Python follows the link
            except FileExistsError:
                if not _is_there(sample, path):
                    raise
    except BaseException:
        if not nameless:
            path.unlink()
        raise
    finally:
        os.close(file)


def _is_there(sample: Sample, path: Path) -> bool:
    """Whether a file holds the sample already.

    Raises:
        FileExistsError: One is there that does not.
    """
    if not path.exists() and not path.is_symlink():
        return False
    if not path.is_file() or path.stat().st_size != sample.size or _checksum(path) != sample.checksum:
        raise FileExistsError(errno.EEXIST, "it is there with other bytes; move it away", str(path))
    return True


def _checksum(path: Path) -> int:
    found = xxhash.xxh3_64()
    with path.open("rb") as file:
        while piece := file.read(_BATCH_BYTES):
            found.update(piece)
    return found.intdigest()
