"""Samples from a source once more, to put a damaged space right."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tandem.data.pack.source import open_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tandem.data.space.repair import Fetch


def fetch_from(text: str) -> Fetch:
    """Gives the bytes that a source has under some paths, as `tandem.data.space.repair` asks for them.

    Raises:
        SpaceError: No kind of source reads it.
    """
    source = open_source(text)

    def fetch(paths: Iterable[str]) -> Mapping[str, bytes]:
        wanted = {os.fsencode(path): path for path in paths}
        run = [entry for entry in source.entries() if entry.is_archive or entry.path in wanted]
        found = {}
        for item in source.items(run):
            if item.path in wanted:
                data = item.data
                found[wanted[item.path]] = data if isinstance(data, bytes) else b"".join(iter(data, b""))
        return found

    return fetch
