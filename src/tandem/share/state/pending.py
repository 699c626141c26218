"""The jobs that wait, indexed by demand and by order, so that no policy scans a queue.

All jobs with the same parts form one `ShapeQueue`: whether the first of them fits says it for all. Inside a shape the
jobs stand in order in blocks of some dozens, each knowing its shortest planned duration; "the first job in order that
ends within x seconds" (the question of backfilling) therefore skips whole blocks.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tandem.share.state.demand_index import DemandIndex, Shape

Key = tuple[float, float, int]
"""(minus priority, rank, job id): smaller goes first; the rank is the policy's (submission time, for FIFO)."""

BLOCK = 64


class ShapeQueue:
    """Waiting jobs of one shape, in order."""

    __slots__ = ("_blocks", "_seconds", "_shortest", "size")

    def __init__(self) -> None:
        self._blocks: list[list[Key]] = []
        self._seconds: dict[int, float] = {}
        self._shortest: list[float] = []
        self.size = 0

    def add(self, key: Key, seconds: float) -> None:
        """Insert a job that is planned to take ``seconds``."""
        self.size += 1
        self._seconds[key[2]] = seconds
        if not self._blocks:
            self._blocks.append([key])
            self._shortest.append(seconds)
            return
        b = self._block_of(key)
        block = self._blocks[b]
        insort(block, key)
        self._shortest[b] = min(self._shortest[b], seconds)
        if len(block) > 2 * BLOCK:
            self._blocks[b : b + 1] = [block[:BLOCK], block[BLOCK:]]
            self._shortest[b : b + 1] = [self._min(block[:BLOCK]), self._min(block[BLOCK:])]

    def remove(self, key: Key) -> float:
        """Take a job out; returns the seconds it was planned to take."""
        b = self._block_of(key)
        block = self._blocks[b]
        del block[bisect_left(block, key)]
        gone = self._seconds.pop(key[2])
        self.size -= 1
        if not block:
            del self._blocks[b], self._shortest[b]
        elif gone <= self._shortest[b]:
            self._shortest[b] = self._min(block)
        return gone

    def first(self) -> Key | None:
        """The first job in order."""
        return self._blocks[0][0] if self._blocks else None

    def last(self) -> Key:
        """The last job in order; there must be one."""
        return self._blocks[-1][-1]

    def first_within(self, seconds: float) -> Key | None:
        """The first job in order that is planned to take at most ``seconds``."""
        planned = self._seconds
        for shortest, block in zip(self._shortest, self._blocks, strict=True):
            if shortest <= seconds:
                for key in block:
                    if planned[key[2]] <= seconds:
                        return key
        return None

    def __iter__(self) -> Iterator[Key]:
        for block in self._blocks:
            yield from block

    def _block_of(self, key: Key) -> int:
        low, high = 0, len(self._blocks) - 1
        while low < high:
            middle = (low + high) // 2
            if self._blocks[middle][-1] < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _min(self, block: list[Key]) -> float:
        planned = self._seconds
        return min(planned[key[2]] for key in block)


class Pending:
    """Every waiting job, by shape and in global order."""

    def __init__(self, index: DemandIndex) -> None:
        self._index = index
        self._shapes: dict[Shape, ShapeQueue] = {}
        self._keys: dict[int, tuple[Key, Shape]] = {}
        self._order: list[Key] = []  # heap; entries of jobs that left are dropped when they surface

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, job: int) -> bool:
        return job in self._keys

    def add(self, key: Key, shape: Shape, seconds: float) -> None:
        """A job waits; ``seconds`` is how long the policy plans it to take."""
        queue = self._shapes.get(shape)
        if queue is None:
            queue = self._shapes[shape] = ShapeQueue()
            self._index.add(shape)
        queue.add(key, seconds)
        self._keys[key[2]] = (key, shape)
        heapq.heappush(self._order, key)

    def remove(self, job: int) -> None:
        """A job waits no longer."""
        key, shape = self._keys.pop(job)
        queue = self._shapes[shape]
        queue.remove(key)
        if not queue.size:
            del self._shapes[shape]
            self._index.drop(shape)
        if len(self._order) > 64 and len(self._order) > 4 * len(self._keys):
            self._order = [key for key, _ in self._keys.values()]
            heapq.heapify(self._order)

    def head(self) -> Key | None:
        """The first job of all."""
        order = self._order
        while order:
            held = self._keys.get(order[0][2])
            if held is not None and held[0] == order[0]:
                return order[0]
            heapq.heappop(order)
        return None

    def last(self) -> Key | None:
        """The last job of all."""
        return max((queue.last() for queue in self._shapes.values()), default=None)

    def in_order(self) -> Iterator[Key]:
        """All waiting jobs in order. Costs a merge over shapes: for reports, not for policies' inner loops."""
        return heapq.merge(*self._shapes.values())

    def key(self, job: int) -> Key:
        """The key of a waiting job."""
        return self._keys[job][0]

    def shape(self, shape: Shape) -> ShapeQueue:
        """The queue of one shape that has waiting jobs."""
        return self._shapes[shape]

    def shapes(self) -> dict[Shape, ShapeQueue]:
        """All shapes with waiting jobs (live view)."""
        return self._shapes

    def fitting(self) -> list[Shape]:
        """Shapes with enough nodes that fit now (necessary for a job of several parts, exact otherwise)."""
        return self._index.fitting()
