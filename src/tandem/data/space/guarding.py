"""Which files of a space have parity, and where it lies.

    SPACE/parity/level                      how many blocks of each row can be restored: a digit, thrice
    SPACE/parity/0f3a...9c.shard.parity     of a shard
    SPACE/parity/00000003.index.parity      of an index

A space with a level keeps it: whoever commits to it writes the parity of what is new before it counts. Packing changes
the level when it publishes a generation, under the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.core.durable import make_folder, written_aside
from tandem.core.errors import SpaceError
from tandem.data.space import parity

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = range(1, parity.MOST + 1)


def parity_path(folder: Path, file: Path) -> Path:
    """Where the parity of a shard or an index lies."""
    return folder / "parity" / f"{file.name}.parity"


def level(folder: Path) -> int:
    """How much a space guards against; 0 for one without parity.

    Where the file that says it is damaged or gone, it is the highest that the parity of any file has.
    """
    said = _said(folder)
    if said in LEVELS:
        return said
    found = [parity.level_of(path) for path in (folder / "parity").glob("*.parity")]
    return (max(found) or parity.MOST) if found else said and parity.MOST


def level_damage(folder: Path) -> str | None:
    """What is wrong with the file that says the level, in words; None where nothing is, or there is no parity."""
    path = folder / "parity" / "level"
    if _said(folder) in LEVELS:
        alone = len(path.read_bytes()) == 1
        return f"{path} has its digit once instead of three times" if alone else None
    return f"{path} is damaged or missing" if level(folder) else None


def _said(folder: Path) -> int:
    """What the file says; 0 where it is not there, another number than a level where it is damaged, or a folder."""
    try:
        text = (folder / "parity" / "level").read_bytes()
    except FileNotFoundError:
        return 0
    except IsADirectoryError:
        return parity.MOST + 1
    return next((count for count in LEVELS if text in (_written(count), b"%d" % count)), parity.MOST + 1)


def _written(count: int) -> bytes:
    """A digit three times: no flipped bit makes another level of it. One alone is read too, as it once was written."""
    return b"%d" % count * 3


def check_level(count: int) -> None:
    """Refuse a level that cannot be kept.

    Raises:
        SpaceError: There is no such level.
        MissingPackageError: The package pyeclib is not installed.
    """
    if count not in LEVELS:
        raise SpaceError(given=f"parity {count}", allowed=f"1 to {parity.MOST}", todo="choose one of these")
    parity.coder(count)


def set_level(folder: Path, count: int) -> None:
    """Have all that is written from now on guarded.

    Raises:
        SpaceError: There is no such level.
        MissingPackageError: The package pyeclib is not installed; nothing is changed.
    """
    check_level(count)
    make_folder(folder / "parity")
    with written_aside(folder / "parity" / "level") as file:
        file.write(_written(count))


def guard(folder: Path, file: Path, count: int = 0) -> None:
    """Write the parity of a file, if the space has a level and it is not there.

    Args:
        folder: The space.
        file: The file.
        count: The level; 0 for that of the space.

    Raises:
        MissingPackageError: The package pyeclib is not installed.
        OSError: Something cannot be read or written.
    """
    count = count or level(folder)
    target = parity_path(folder, file)
    if count and not target.exists():
        parity.protect(file, target, count)
