"""What a loader is going to read from a remote space: laid down for the cache to evict by, and fetched ahead.

Legend: P uses of blocks, in the order in which they come.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from tandem.core.errors import TandemError
from tandem.data.cache.futures import Future
from tandem.data.cache.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tandem.data.space.remote_home import RemoteHome

_FIRST_POSITIONS = 1 << 16
_MOST_POSITIONS = 1 << 18
_LEAST_POSITIONS = 64
_LOOK_POSITIONS = 2048
_MOST_BYTES_AT_ONCE = 32 << 20
_FIRST_RATE_PER_S = 1000.0


class Foresight:
    """The future of one loader on one space, from the moment this is made.

    While the whole space is in a cache that has room to spare, nothing is laid down: nobody would evict by it.

    Args:
        home: The space.
        numbers: Samples in the order in which they are read, some at a time, without end.
    """

    def __init__(self, home: RemoteHome, numbers: Iterator[NDArray[np.int64]]) -> None:
        self._home, self._numbers = home, numbers
        self._remote = Remote(home.remote.url, home.settings)  # its requests do not wait for those that are due now
        self._future = Future(home.cache.futures_folder)
        self._blocks_P = self._positions_P = np.empty(0, np.int64)
        self._position = self._end = self._looked = 0
        self._began_s = time.monotonic()
        self._unused: list[tuple[int, int]] = []  # fetched ahead: when it is used, and bytes
        self._closed = False
        self._moved = threading.Condition()
        self._most = min(_MOST_POSITIONS, 2 * home.samples + _LEAST_POSITIONS)  # each block comes again within that
        self._wake_at = 0
        if not home.is_at_ease():
            self._extend(min(_FIRST_POSITIONS, self._most))
        threading.Thread(target=self._run, name="tandem-read-ahead", daemon=True).start()

    def took(self, count: int) -> None:
        """So many further samples have been read."""
        with self._moved:
            self._position += count
            self._future.go_on(self._position, self._rate_per_s())
            if self._position >= self._wake_at:
                self._moved.notify()

    def close(self) -> None:
        """Take it back; what is being fetched still comes."""
        with self._moved:
            self._closed = True
            self._future.close()
            self._moved.notify()

    def _run(self) -> None:
        """Fetch ahead, as far as may be, until it is closed."""
        try:
            while not self._closed:
                position, at_ease = self._position, self._home.is_at_ease()
                if not at_ease and self._end - position < self._most // 2:
                    self._extend(self._most)
                if at_ease or not self._fetch_some():
                    self._wait_for(position + (self._most // 8 if at_ease else 1))
        except (TandemError, OSError) as error:  # whoever needs the bytes will be told
            logging.getLogger(__name__).info("reading ahead ended: %s", error)

    def _wait_for(self, position: int) -> None:
        """Wait until the loader has come to a position."""
        with self._moved:
            self._wake_at = position
            self._moved.wait_for(lambda: self._closed or self._position >= position)

    def _fetch_some(self) -> bool:
        """Fetch some of what comes next; false where nothing may be fetched before the loader has gone on."""
        position = self._position
        self._looked = max(self._looked, position)
        self._unused = [one for one in self._unused if one[0] >= position]
        room = self._home.settings.ahead_bytes - sum(size for _, size in self._unused)
        block_bytes = self._home.folder.block_bytes
        if room < block_bytes or self._looked >= self._end:
            return False
        blocks, firsts = self._coming(self._looked, self._looked + _LOOK_POSITIONS)
        absent = np.isin(blocks, self._home.missing(blocks))
        blocks, firsts = blocks[absent], firsts[absent]
        most = max(1, min(room, _MOST_BYTES_AT_ONCE) // block_bytes)
        looked = int(firsts[most]) if len(blocks) > most else self._looked + _LOOK_POSITIONS
        blocks, firsts = blocks[:most], firsts[:most]
        if len(blocks):
            before_s = max(0.0, float(firsts[-1] - position) / self._rate_per_s())
            if not self._home.bring(blocks, self._remote, before_s=before_s):
                return False
            self._unused += [(first, block_bytes) for first in firsts.tolist()]
        self._looked = min(looked, self._end)
        return True

    def _coming(self, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The blocks used at positions from `begin` to before `end`, and when each is used first; soonest first."""
        part = slice(*np.searchsorted(self._positions_P, [begin, end]).tolist())
        blocks, places = np.unique(self._blocks_P[part], return_index=True)
        order = np.argsort(places, kind="stable")
        return blocks[order], self._positions_P[part][places[order]]

    def _extend(self, positions: int) -> None:
        """Look so far ahead, forget what is past, and lay it down."""
        keep = self._positions_P >= self._position
        found = self._drawn(self._position + positions - self._end)
        begin, end = max(self._end, self._position), self._end + len(found)
        used, which = self._home.uses_of(found[begin - self._end :])
        blocks_P = np.concatenate([self._blocks_P[keep], used])
        positions_P = np.concatenate([self._positions_P[keep], which + begin])
        keys_P = self._home.keys(blocks_P)
        with self._moved:
            self._blocks_P, self._positions_P, self._end = blocks_P, positions_P, end
            if not self._closed:
                self._future.lay_down(keys_P, positions_P, (self._position, self._rate_per_s()))

    def _drawn(self, count: int) -> NDArray[np.int64]:
        """The next numbers, about so many of them."""
        found, total = [np.empty(0, np.int64)], 0
        while total < count and len(found) < _MOST_POSITIONS and (some := next(self._numbers, None)) is not None:
            found.append(some)
            total += len(some)
        return np.concatenate(found)

    def _rate_per_s(self) -> float:
        passed_s = time.monotonic() - self._began_s
        return self._position / passed_s if self._position and passed_s > 0 else _FIRST_RATE_PER_S
