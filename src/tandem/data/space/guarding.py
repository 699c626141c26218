"""Which files of a space have parity, and where it lies.

    SPACE/parity/level                      how many blocks of each row can be restored: a digit
    SPACE/parity/0f3a...9c.shard.parity     of a shard
    SPACE/parity/00000003.index.parity      of an index

A space with a level keeps it: whoever commits to it writes the parity of what is new before it counts.
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
    """How much a space guards against; 0 for one without parity."""
    try:
        text = (folder / "parity" / "level").read_bytes()
    except FileNotFoundError:
        return 0
    return int(text) if text.isdigit() and int(text) in LEVELS else parity.MOST


def set_level(folder: Path, count: int) -> None:
    """Have all that is written from now on guarded.

    Raises:
        SpaceError: There is no such level.
    """
    if count not in LEVELS:
        raise SpaceError(given=f"parity {count}", allowed=f"1 to {parity.MOST}", todo="choose one of these")
    make_folder(folder / "parity")
    with written_aside(folder / "parity" / "level") as file:
        file.write(str(count).encode())


def guard(folder: Path, file: Path, name: Path | None = None) -> None:
    """Write the parity of a file, if the space has a level and it is not there.

    Args:
        folder: The space.
        file: The file as it lies now.
        name: What it will be called, if it has another name yet.

    Raises:
        MissingPackageError: The package pyeclib is not installed.
        OSError: Something cannot be read or written.
    """
    count = level(folder)
    target = parity_path(folder, name or file)
    if count and not target.exists():
        parity.protect(file, target, count)
