"""Where a shard's bytes come from: the one seam between readers and whatever keeps a space's files."""

from __future__ import annotations

import errno

from tandem.core.errors import DataError
from tandem.core.light_typing import TYPE_CHECKING
from tandem.data.space import layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeVar

    import numpy as np
    from numpy.typing import NDArray

    from tandem.data.cache.settings import RemoteSettings
    from tandem.data.space.layout import ShardEntry

    Done = TypeVar("Done")

    class Home(Protocol):
        """Keeps the shards of a space.

        Attributes:
            is_here: Whether all bytes are on this machine, so that nothing need be done to read them.
        """

        is_here: bool

        @property
        def settings(self) -> RemoteSettings | None:
            """How they are reached, where they are not."""

        def shard_path(self, entry: ShardEntry) -> str:
            """A file on this machine that holds the whole shard.

            Raises:
                DataError: There is none; names the shard.
            """

        def shard_name(self, entry: ShardEntry) -> str:
            """Where the shard is, for people."""

        def read(self, numbers_N: NDArray[np.int64], once: Callable[[], Done]) -> Done:
            """What `once` returns, which reads these samples, once their bytes are here."""

        def fetch(self, entry: ShardEntry, path: str) -> None:
            """Copy a whole shard to a file, whatever is cached of it.

            Raises:
                FileNotFoundError: It is not there.
            """

        def close(self) -> None:
            """Let go of what was opened."""


class Folder:
    """A space in a folder of a file system."""

    is_here = True
    settings = None

    def __init__(self, folder: str) -> None:
        """Look at nothing yet."""
        self._folder = folder

    def shard_path(self, entry: ShardEntry) -> str:
        """The file in the folder `shards`; one that was cut short still gives the samples before the cut.

        Raises:
            NewerVersionError: It is of a newer version.
            DataError: It is missing, or cannot be opened.
        """
        path = self.shard_name(entry)
        try:
            layout.refuse_newer(path)
        except (FileNotFoundError, NotADirectoryError):
            raise missing(path, entry) from None
        except OSError as error:
            raise unreadable(path, error) from error
        return path

    def shard_name(self, entry: ShardEntry) -> str:
        """The same, whether it is there or not."""
        return f"{self._folder}/shards/{entry.file_name}"

    def read(self, numbers_N: NDArray[np.int64], once: Callable[[], Done]) -> Done:
        """They are here."""
        return once()

    def fetch(self, entry: ShardEntry, path: str) -> None:
        """Copy a file."""
        import shutil

        shutil.copyfile(self.shard_name(entry), path)

    def close(self) -> None:
        """Nothing was opened."""


def missing(path: str, entry: ShardEntry) -> DataError:
    """The error for a shard that is not there."""
    return DataError(
        given=f"the shard {path} is missing; samples in it: {entry.live_samples:,}",
        allowed=f"a file of {entry.size:,} bytes",
        todo="put it back from a copy, or take its samples from their source: tandem data repair --source SOURCE SPACE",
    )


def unreadable(path: str, error: OSError) -> DataError:
    """The error for a shard that is there, or may be, and cannot be opened."""
    return DataError(
        given=f"the shard {path} cannot be read: {error.strerror}",
        allowed="a space whose files this user may read",
        todo="its owner may give the right: chmod -R a+rX SPACE"
        if error.errno == errno.EACCES
        else "see how much is damaged: tandem data scrub SPACE",
    )
