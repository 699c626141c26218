"""A snapshot of a space at a URL: which generation is the present one is read once, and its index is copied whole.

Indexes lie in the node's cache under their generation and checksum, so that two spaces that began as copies of each
other and were then changed differently are told apart. One process fetches an index; the others wait for it.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.core.durable import locked, written_aside
from tandem.core.errors import DataError, SpaceError
from tandem.data.cache.block_cache import BlockCache, SpaceFolder
from tandem.data.cache.remote import Range, Remote
from tandem.data.cache.settings import RemoteSettings
from tandem.data.space import layout
from tandem.data.space.index import Index
from tandem.data.space.remote_home import RemoteHome
from tandem.data.space.snapshot import try_lock_alone

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE_BYTES = 8 << 20
_INDEX_NAME = re.compile(r"(\d{8,})-([0-9a-f]{16})\.index")


def open_remote(url: str, generation: int | None, settings: RemoteSettings | None) -> tuple[Index, RemoteHome]:
    """Open the index of the present generation, or of an earlier one, and the home of the shards.

    Args:
        url: The space.
        generation: Which; the present one if None.
        settings: How it is reached and cached; as the environment says if None.

    Raises:
        SpaceError: There is no space, no such generation, or it is of a newer version.
        DataError: The index is damaged at the remote.
        RemoteError: The remote cannot be reached.
    """
    settings = settings or RemoteSettings()
    remote, cache = Remote(url, settings), BlockCache(settings)
    while True:
        current = read_current(remote, settings)
        folder = SpaceFolder(cache, current.space_id.hex(), remote.url)
        try:
            index = _index(remote, folder, current, current.generation if generation is None else generation, settings)
            return index, RemoteHome(remote, cache, folder, index)
        except FileNotFoundError as error:
            folder.close()
            if generation is not None or read_current(remote, settings) == current:
                raise _no_generation(remote.url, generation, current) from error
        except BaseException:
            folder.close()
            raise


def read_current(remote: Remote, settings: RemoteSettings) -> layout.Current:
    """What the present generation at a remote is.

    Raises:
        SpaceError: There is no space, or one of a newer version.
        DataError: The file that says it is damaged.
    """

    def read() -> layout.Current:
        try:
            packed = remote.read_whole("current")
        except FileNotFoundError as error:
            raise SpaceError(
                given=f"{remote.url} is not a space: it has no file `current`",
                allowed="the URL of a folder that `tandem data pack` made",
                todo="check it, or pack a space and copy it there",
            ) from error
        return layout.Current.decode(packed, f"{remote.url}/current")

    return _believed(read, settings)


def _believed(read: Callable[[], layout.Current], settings: RemoteSettings) -> layout.Current:
    """What is read, once it is no garbage."""
    for tried in range(1, settings.tries + 1):
        try:
            return read()
        except (DataError, SpaceError) as error:
            if tried == settings.tries or isinstance(error.__cause__, FileNotFoundError):
                raise
        time.sleep(settings.backoff_s * 2 ** (tried - 1))
    raise AssertionError


def _index(
    remote: Remote, folder: SpaceFolder, current: layout.Current, generation: int, settings: RemoteSettings
) -> Index:
    """The index of a generation, in the cache, whole and verified, kept from removal."""
    name = f"generations/{generation:08d}.index"
    if generation == current.generation:
        checksum, size = current.index_xxh3, current.index_bytes
    else:
        try:
            packed = remote.read(Range(name, 0, layout.HEADER_BYTES))
        except FileNotFoundError:
            return _kept(folder, generation)
        checks = layout.IndexHeader.decode(packed, f"{remote.url}/{name}").checks
        checksum, size = int.from_bytes(packed[-8:], "little"), checks.offset + checks.size
    path = Path(folder.path) / f"{generation:08d}-{checksum:016x}.index"
    with locked(Path(folder.path) / "fetching"):
        for tried in range(1, settings.tries + 1):
            index = _whole(path, current.space_id, generation, checksum, size)
            if index is not None:
                _remove_others(path)
                return index
            for left in path.parent.glob(".*.aside"):
                left.unlink(missing_ok=True)
            pieces = [Range(name, at, min(size, at + _PIECE_BYTES)) for at in range(0, size, _PIECE_BYTES)]
            with written_aside(path) as file:
                for place, data in remote.read_many(pieces):
                    file.seek(pieces[place].start)
                    file.write(data)
            if tried > 1:
                time.sleep(settings.backoff_s * 2 ** (tried - 1))
        index = _whole(path, current.space_id, generation, checksum, size)
    if index is not None:
        return index
    raise DataError(
        given=f"{remote.url}/{name} is damaged: it is not the index that `current` speaks of, or not whole",
        allowed="an index as it was written",
        todo="put it back there from a copy",
    )


def _whole(path: Path, space_id: bytes, generation: int, checksum: int, size: int) -> Index | None:
    """A cached index, if it is what it should be in every byte."""
    try:
        index = Index(str(path))
    except (FileNotFoundError, DataError, SpaceError):
        return None
    header = index.header
    same = (header.space_id, header.generation, index.header_xxh3, index.size) == (space_id, generation, checksum, size)
    if same and next(index.verify(), None) is None:
        fcntl.flock(index.file, fcntl.LOCK_SH)
        return index
    index.close()
    return None


def _kept(folder: SpaceFolder, generation: int) -> Index:
    """An index that the remote has no more, as a process was pickled that still reads it."""
    found = sorted(Path(folder.path).glob(f"{generation:08d}-*.index"))
    if len(found) != 1:
        raise FileNotFoundError(folder.path)
    index = Index(str(found[0]))
    fcntl.flock(index.file, fcntl.LOCK_SH)
    return index


def _remove_others(path: Path) -> None:
    """Remove indexes of other generations that nobody has open."""
    for other in path.parent.glob("*.index"):
        if other != path and _INDEX_NAME.fullmatch(other.name):
            file = os.open(other, os.O_RDONLY | os.O_CLOEXEC)
            if try_lock_alone(file):
                other.unlink()
            os.close(file)


def _no_generation(url: str, generation: int | None, current: layout.Current) -> SpaceError | DataError:
    if generation in (None, current.generation):
        return DataError(
            given=f"{url}/generations/{current.generation:08d}.index is missing",
            allowed="all files of the space",
            todo="put it back there from a copy",
        )
    return SpaceError(
        given=f"{url} has no generation {generation} (any more)",
        allowed=f"the present one, {current.generation}, and earlier ones while their files are there",
        todo="open the present one",
    )
