"""Where a shard's bytes come from: the one seam between readers and whatever keeps a space's files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from tandem.core.errors import DataError

if TYPE_CHECKING:
    from tandem.data.space.layout import ShardEntry


class Home(Protocol):
    """Keeps the shards of a space."""

    def shard_path(self, entry: ShardEntry) -> str:
        """A file on this machine that holds the whole shard.

        Raises:
            DataError: There is none; names the shard.
        """


class Folder:
    """A space in a folder of a file system."""

    def __init__(self, folder: str) -> None:
        """Look at nothing yet."""
        self._folder = folder

    def shard_path(self, entry: ShardEntry) -> str:
        """The file in the folder `shards`, if it has the length it was written with."""
        path = f"{self._folder}/shards/{entry.file_name}"
        try:
            size = os.stat(path).st_size  # noqa: PTH116 - a Path would be one more import
        except FileNotFoundError as error:
            raise missing(path, entry) from error
        if size < entry.size:
            raise cut_short(path, entry, size)
        return path


def missing(path: str, entry: ShardEntry) -> DataError:
    """The error for a shard that is not there."""
    return DataError(
        given=f"the shard {path} is missing; {entry.live_samples:,} samples lie in it",
        allowed=f"a file of {entry.size:,} bytes",
        todo="put it back from a copy, or pack the space again from its source",
    )


def cut_short(path: str, entry: ShardEntry, size: int) -> DataError:
    """The error for a shard that was truncated."""
    return DataError(
        given=f"the shard {path} is cut short: {size:,} bytes",
        allowed=f"{entry.size:,} bytes, of {entry.live_samples:,} samples",
        todo="put it back from a copy, or pack the space again from its source",
    )
