"""The folders that the paths of samples make: a space has none of its own.

Legend: a folder is named without a slash at its end; the name of the uppermost is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tandem.data.space.index import Index


class Entry(NamedTuple):
    """What is in a folder.

    Attributes:
        name: Of the file or folder, without what is before it.
        number: The sample; None for a folder.
    """

    name: str
    number: int | None


def is_folder(index: Index, path: str) -> bool:
    """Whether some sample lies below this path."""
    return not path or len(index.under(f"{path}/")) > 0


def entries(index: Index, folder: str) -> Iterator[Entry]:
    """What is in a folder, in the order of whole paths by their bytes; nothing where there is no such folder.

    A folder costs a search of the index, however much lies below it.
    """
    below = f"{folder}/" if folder else ""
    places = index.under(below)
    place = places.start
    while place < places.stop:
        number = index.in_order(place)
        first, slash, _ = index.path(number)[len(below) :].partition("/")
        if slash:
            yield Entry(first, None)
            place = index.under(f"{below}{first}/").stop
        else:
            yield Entry(first, number)
            place += 1
