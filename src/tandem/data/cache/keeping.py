"""What a person may want of a cache: to see what is in it, to set its limit, to empty it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from tandem.data.cache import room
from tandem.data.cache.cached_file import THERE
from tandem.data.cache.settings import RemoteError

if TYPE_CHECKING:
    from pathlib import Path

    from tandem.data.cache.block_cache import BlockCache


def contents(cache: BlockCache) -> dict[str, Any]:
    """What a cache holds and has done.

    Returns:
        Plain values: `folder`, `limit_bytes`, `held_bytes`, `index_bytes`, what the ledger counts, and `spaces`, for
        each its `url` (or which file, that says it, is damaged), `held_bytes`, and `seen_bytes`, those of all its files
        of which anything was cached.
    """
    spaces = [_space(path) for path in room.cached_spaces(cache.folder)]
    ledger = cache.ledger.read()
    counts = {name: getattr(ledger, name) for name in ("fetched_bytes", "hits", "misses", "evicted", "refetched")}
    totals = {name: sum(int(one[name]) for one in spaces) for name in ("held_bytes", "index_bytes")}
    return {"folder": cache.folder, "limit_bytes": cache.limit_bytes, **totals, **counts, "spaces": spaces}


def set_limit(cache: BlockCache, limit_bytes: int) -> None:
    """Set how much a cache holds, for all who do not say otherwise; what is too much goes at once.

    Raises:
        RemoteError: A limit of nothing.
    """
    if limit_bytes < 1:
        raise RemoteError(given=f"a limit of {limit_bytes} bytes", allowed="1 byte or more", todo="name a larger one")
    with cache.ledger.changing() as ledger:
        ledger.set(limit_bytes=limit_bytes)
        room.make_room(cache.folder, ledger, cache.locks, 0, limit_bytes, -1.0)


def cleared(cache: BlockCache) -> int:
    """Let all blocks go that nobody reads just now, and remove spaces that nobody has open; returns the bytes freed."""
    with cache.ledger.changing() as ledger:
        held = room.held(cache.folder)
        total = int(held.bytes_V.sum())
        freed, _ = room.let_go(held, np.arange(len(held.bytes_V)), total, cache.locks)
        ledger.set(held_bytes=total - freed)
        room.remove_unused(cache.folder)
    return freed


def _space(path: Path) -> dict[str, Any]:
    held = seen = 0
    for file in room.cached_files(path):
        held += int(file.bytes_of(np.flatnonzero(file.states() == THERE)).sum())
        seen += file.size
    url, source = "", path / "source"
    with contextlib.suppress(FileNotFoundError):
        url = source.read_text(errors="backslashreplace")
        if not (url.isprintable() and "://" in url):
            url = f"{source} is damaged"
    index_bytes = sum(one.stat().st_size for one in path.glob("*.index"))
    return {"space_id": path.name, "url": url, "held_bytes": held, "seen_bytes": seen, "index_bytes": index_bytes}
