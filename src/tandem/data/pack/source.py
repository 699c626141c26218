"""What is packed: a source lists its pieces, and reads any run of them in any process.

A file in `tandem/data/pack/sources/` exposes `accepts(text)`, whether it reads what the user named, and `Source(text)`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from tandem.core import plug
from tandem.core.errors import SpaceError
from tandem.data.pack.archives import ALL, is_called
from tandem.data.pack.urls import file_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

FAMILY = "data.pack.sources"

EMPTY_FOLDER = "empty folder"
EARLIER_MEMBER = "earlier one of two members with one name"
"""What archives and folders leave out alike."""
NO_FILE = "link, device or sparse file in an archive"


class Entry(NamedTuple):
    """A piece of a source that can be packed by itself: a file, or an archive that can only be read from its beginning.

    Attributes:
        path: The sample's path, or the archive's name.
        size: Bytes, about.
        mtime_ns: When it was last changed; with path and size it tells whether a piece is the same as before.
        place: How the source finds it.
        is_archive: Whether it has samples in it, rather than being one.
    """

    path: bytes
    size: int
    mtime_ns: int
    place: str | int
    is_archive: bool = False


class Item(NamedTuple):
    """A sample on its way into a space; `data` is its bytes, or gives pieces of them until it gives none."""

    path: bytes
    data: bytes | Callable[[], bytes]
    size: int
    mtime_ns: int
    mode: int


class Source(Protocol):
    """A folder, archive or URL. It is pickled to the processes that read it."""

    def entries(self) -> Sequence[Entry]:
        """All pieces, in the order of their paths.

        Raises:
            SpaceError: It cannot be read as what it seems to be.
            OSError: It cannot be read.
        """

    def items(self, run: Sequence[Entry]) -> Iterator[Item]:
        """The samples of some pieces, in order.

        Raises:
            SpaceError: A sample has a path that leads out of the space, or is not what was listed.
            OSError: It cannot be read.
        """

    def left_out(self) -> Mapping[str, int]:
        """What `entries`, and `items` of archives, found and did not pack, by kind: symbolic links, devices, ..."""


def member_path(name: str) -> bytes:
    """Where a member of an archive lies once it is unpacked: `./a//b` at `a/b`.

    Absolute paths and `..` stay as they are, to be refused.
    """
    if name.startswith("/"):
        return os.fsencode(name)
    return os.fsencode("/".join(part for part in name.split("/") if part not in ("", ".")))


def empty_folders(folders: Iterable[bytes], paths: Iterable[bytes]) -> int:
    """How many of these folders have none of these paths in or below them: a space does not know of them."""
    used = {b""}
    for path in paths:
        above = path
        while (above := above.rpartition(b"/")[0]) not in used:
            used.add(above)
    return len(set(folders) - used)


def as_path(text: str) -> str:
    """The path of the folder or archive that a `file://` or `local://` URL names; any other text as it is."""
    if not text.startswith(("file://", "local://")):
        return text
    _, path = file_system(text)
    is_archive = is_called(path, ALL) and os.path.isfile(path)  # noqa: PTH113 - names are texts here
    return path if is_archive or os.path.isdir(path) else text  # noqa: PTH112


class _Kind(Protocol):
    def accepts(self, text: str) -> bool: ...
    def Source(self, text: str) -> Source: ...


def open_source(text: str) -> Source:
    """The source that a user named.

    Raises:
        SpaceError: No kind of source reads it.
    """
    text = as_path(text)
    kinds = {name: cast("_Kind", plug.load(FAMILY, name, _Kind)) for name in plug.names(FAMILY)}
    for kind in kinds.values():
        if kind.accepts(text):
            return kind.Source(text)
    is_file = os.path.isfile(text)  # noqa: PTH113 - bytes that are no UTF-8 may be in it
    folder = os.path.dirname(text) or "."  # noqa: PTH120
    raise SpaceError(
        given=f"source {text!r}" + (", a single file that is no archive" if is_file else ""),
        allowed="a folder, a .tar or .zip file, a pattern of .tar files in quotes, or a URL that fsspec reads",
        todo=f"name the folder it lies in: {folder}" if is_file else "check that it exists",
    )
