"""A whole shard, copied for a moment, and a home that has nothing else."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tandem.data.space.homes import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tandem.data.space.homes import Home
    from tandem.data.space.layout import ShardEntry


@contextmanager
def fetched_shard(home: Home, entry: ShardEntry) -> Iterator[tuple[str, Folder | None]]:
    """A shard in a folder that goes away afterwards.

    Returns:
        The path of the copy and a home that has it; or the shard's own name and None, where it is missing.
    """
    with tempfile.TemporaryDirectory(prefix="tandem-scrub-") as root:
        path = f"{root}/shards/{entry.file_name}"
        os.mkdir(f"{root}/shards")  # noqa: PTH102 - texts throughout
        try:
            home.fetch(entry, path)
        except FileNotFoundError:
            yield home.shard_name(entry), None
        else:
            yield path, Folder(root)
