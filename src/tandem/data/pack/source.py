"""What is packed: a source lists its pieces, and reads any run of them in any process.

A file in `tandem/data/pack/sources/` exposes `accepts(text)`, whether it reads what the user named, and `Source(text)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from tandem.core import plug
from tandem.core.errors import SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FAMILY = "data.pack.sources"


class Entry(NamedTuple):
    """A piece of a source that can be packed by itself: a file, or an archive that can only be read from its beginning.

    Attributes:
        path: The sample's path, or the archive's name.
        size: Bytes, about.
        mtime_ns: When it was last changed; with path and size it tells whether a piece is the same as before.
        place: How the source finds it.
    """

    path: bytes
    size: int
    mtime_ns: int
    place: str | int


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
        """What `entries` found and does not pack, by kind: symbolic links, devices, ..."""


class _Kind(Protocol):
    def accepts(self, text: str) -> bool: ...
    def Source(self, text: str) -> Source: ...


def open_source(text: str) -> Source:
    """The source that a user named.

    Raises:
        SpaceError: No kind of source reads it.
    """
    kinds = {name: cast("_Kind", plug.load(FAMILY, name)) for name in plug.names(FAMILY)}
    for kind in kinds.values():
        if kind.accepts(text):
            return kind.Source(text)
    raise SpaceError(
        given=f"source {text!r}",
        allowed="a folder, a .tar or .zip file, a pattern of .tar files in quotes, or a URL that fsspec reads",
        todo="check that it exists",
    )
