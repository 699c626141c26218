"""A whole shard, copied for a moment, and a home that has nothing else."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tandem.core.errors import NewerVersionError
from tandem.data.space.homes import Folder
from tandem.data.space.shard import damage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tandem.data.space.homes import Home
    from tandem.data.space.layout import ShardEntry


@contextmanager
def fetched_shard(home: Home, entry: ShardEntry) -> Iterator[tuple[str, Folder | None]]:
    """A shard in a folder that goes away afterwards; of a remote, one that is damaged is fetched again before.

    Returns:
        The path of the copy and a home that has it; or the shard's own name and None, where it is missing.
    """
    with tempfile.TemporaryDirectory(prefix="tandem-scrub-") as root:
        path = f"{root}/shards/{entry.file_name}"
        os.mkdir(f"{root}/shards")  # noqa: PTH102 - texts throughout
        try:
            _fetch(home, entry, path)
        except FileNotFoundError:
            yield home.shard_name(entry), None
        else:
            yield path, Folder(root)


def _fetch(home: Home, entry: ShardEntry, path: str) -> None:
    """Copy a shard, as often as requests are made again where it is damaged: it may be the answer alone that is."""
    home.fetch(entry, path)
    if home.settings is None:
        return
    for tried in range(home.settings.tries - 1):
        try:
            if damage(path, entry) is None:
                return
        except NewerVersionError:
            return
        time.sleep(home.settings.backoff_s * 2**tried)
        home.fetch(entry, path)
