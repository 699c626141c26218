"""Which files of a space have parity, and where it lies.

    SPACE/parity/0f3a...9c.shard.parity     of a shard
    SPACE/parity/00000003.index.parity      of an index

How many blocks of each row can be restored, the level, is told by the index of each generation, so it changes in the
same instant as the generation. A space with a level keeps it: whoever commits to it writes the parity of what is new
before it counts, and whoever raises it that of what was there. Parity of what no index names counts for nothing.

Earlier versions of this program kept the level in a file, SPACE/parity/level; it is read while the index does not tell.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.core.errors import NewerVersionError, SpaceError
from tandem.data.space import layout, parity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tandem.data.space.index import Index

LEVELS = range(1, parity.MOST + 1)


def parity_path(folder: Path, file: Path) -> Path:
    """Where the parity of a shard or an index lies."""
    return folder / "parity" / f"{file.name}.parity"


def level(index: Index) -> int:
    """How much a generation of a space in a folder guards against; 0 for one without parity."""
    return index.header.parity if index.header.parity >= 0 else _level_before(Path(index.name))


def weaker(index: Index) -> list[Path]:
    """Where the parity lies, or is to, of shards that are guarded less than a generation's level tells.

    They were damaged when the level was raised, or it was raised by an earlier version; or their parity is damaged. Of
    what a later version has written nothing is said.
    """
    wanted, folder = level(index), Path(index.name).parent.parent

    def is_less(path: Path) -> bool:
        with suppress(NewerVersionError):
            return parity.level_of(path) < wanted
        return False

    paths = (parity_path(folder, Path(entry.file_name)) for entry in index.shards)
    return [path for path in paths if wanted and is_less(path)]


def highest(index: Index, shards: Iterable[int]) -> int:
    """The level that what is moved out of some of a generation's shards has to keep: the most that one of them has.

    0 where the generation has no parity: what lies there is what a run that was broken off has left. What a later
    version has written counts as the most that there is.
    """
    if not level(index):
        return 0

    def had(path: Path) -> int:
        with suppress(NewerVersionError):
            return parity.level_of(path)
        return parity.MOST

    folder = Path(index.name).parent.parent
    return max((had(parity_path(folder, Path(index.shards[shard].file_name))) for shard in shards), default=0)


def _level_before(index: Path) -> int:
    """What the parity of an index that does not tell it has; where that is of no use, what the file of old says."""
    folder = index.parent.parent
    if found := parity.level_of(parity_path(folder, index)):
        return found
    with suppress(OSError):
        digit = layout.read_start(folder / "parity" / "level", 1)
        return next((count for count in LEVELS if digit == b"%d" % count), parity.MOST)
    return 0


def check_level(count: int) -> None:
    """Refuse a level that cannot be kept.

    Raises:
        SpaceError: There is no such level.
        MissingPackageError: The package pyeclib is not installed.
    """
    if count not in LEVELS:
        raise SpaceError(given=f"parity {count}", allowed=f"1 to {parity.MOST}", todo="choose one of these")
    parity.coder(count)
