"""Room in a cache: counting what is held, letting blocks go, removing what nobody has open.

Legend: V blocks that are held, over all files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tandem.data.cache.cached_file import ABSENT, COMING, CachedFile, found_file
from tandem.data.cache.futures import next_uses_s
from tandem.data.cache.policy import in_order_of_eviction

if TYPE_CHECKING:
    from tandem.data.cache.ledger import OpenLedger
    from tandem.data.cache.locks import BlockLocks

_REMOVED = ".removed-"

Locks = Callable[[], "BlockLocks"]


@dataclass(frozen=True, slots=True)
class Held:
    """All blocks that are held or coming.

    Attributes:
        files: The files they are of.
        files_V: Which of them.
        blocks_V: Which block of it.
        bytes_V: Its bytes.
        keys_V: What it is called among all.
        used_ns_V: When it was used last; 0 for one that is coming.
    """

    files: list[CachedFile]
    files_V: NDArray[np.int64]
    blocks_V: NDArray[np.int64]
    bytes_V: NDArray[np.int64]
    keys_V: NDArray[np.uint64]
    used_ns_V: NDArray[np.uint64]


def cached_spaces(folder: str) -> Iterator[Path]:
    """The folders of spaces in a cache."""
    return (path.parent for path in sorted(Path(folder).glob("[0-9a-f]*/users")))


def cached_files(space: Path) -> Iterator[CachedFile]:
    """The files of a space that are in a cache."""
    for path in sorted(space.glob("*.map")):
        file = found_file(str(space), path.stem)
        if file is not None:
            yield file


def held(folder: str) -> Held:
    """Look at everything in a cache."""
    files = [file for space in cached_spaces(folder) for file in cached_files(space)]
    columns: list[tuple[NDArray[np.int64], ...]] = []
    keys, used = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for place, file in enumerate(files):
        states = file.states()
        blocks_N = np.flatnonzero(states != ABSENT)
        if len(blocks_N):
            columns.append((np.full(len(blocks_N), place), blocks_N, file.bytes_of(blocks_N)))
            keys.append(blocks_N.astype(np.uint64) + np.uint64(file.first_key))
            used.append(np.where(states[blocks_N] == COMING, 0, file.used_ns()[blocks_N]))
    empty = (np.empty(0, np.int64),) * 3
    files_V, blocks_V, bytes_V = (np.concatenate(parts) for parts in zip(empty, *columns, strict=True))
    return Held(files, files_V, blocks_V, bytes_V, np.concatenate(keys), np.concatenate(used).astype(np.uint64))


def make_room(folder: str, ledger: OpenLedger, locks: Locks, need: int, limit: int, after_s: float) -> None:
    """Let blocks go until there is room, as far as blocks may go; put the ledger right.

    Args:
        folder: The cache.
        ledger: Its ledger.
        locks: Makes holders of locks.
        need: How many bytes are to come.
        limit: How many may be held.
        after_s: Only what is needed later than in so many seconds may go.
    """
    all_held = held(folder)
    total = int(all_held.bytes_V.sum())
    ledger.set(held_bytes=total)
    if total + need <= limit:
        return
    next_use_s_V = next_uses_s(f"{folder}/futures", all_held.keys_V)
    order = in_order_of_eviction(next_use_s_V, all_held.used_ns_V, after_s=after_s)
    freed, count = let_go(all_held, order, total + need - limit, locks)
    ledger.add(held_bytes=-freed, evicted=count)
    remove_unused(folder)


def let_go(all_held: Held, order: NDArray[np.int64], at_least: int, locks: Locks) -> tuple[int, int]:
    """Let blocks go in this order until enough bytes are free, except those that somebody keeps.

    Returns:
        How many bytes are free now, and how many blocks went.
    """
    freed = count = 0
    going: dict[int, list[int]] = {}
    with locks() as alone:
        for place in order.tolist():
            if freed >= at_least:
                break
            which, block = int(all_held.files_V[place]), int(all_held.blocks_V[place])
            if alone.try_alone("keep", all_held.files[which].key, block):
                going.setdefault(which, []).append(block)
                freed, count = freed + int(all_held.bytes_V[place]), count + 1
        for which, blocks in going.items():
            all_held.files[which].drop(sorted(blocks))
    return freed, count


def remove_unused(folder: str) -> None:
    """Remove what is left of spaces of which no block is held, and that nobody has open."""
    for left in Path(folder).glob(f"{_REMOVED}*"):
        shutil.rmtree(left, ignore_errors=True)
    for space in cached_spaces(folder):
        if any((file.states() != ABSENT).any() for file in cached_files(space)):
            continue
        with contextlib.suppress(FileNotFoundError):
            users = os.open(space / "users", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            else:
                shutil.rmtree(space.rename(f"{folder}/{_REMOVED}{space.name}"), ignore_errors=True)
            finally:
                os.close(users)
