"""A space at a URL: its index is copied whole at opening, its shards come block by block through the node's cache.

What is read is verified sample by sample, as everywhere; so it does not matter what a remote answered, what a disk
made of it, or whether a block was evicted while it was being read: bytes that are not those that were packed are let
go and fetched again, and where that does not help, the read fails.

Legend: N samples, B blocks of all shards of the space, one shard after another.
"""

from __future__ import annotations

import mmap
import time
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tandem.core.errors import DataError
from tandem.data.cache.cached_file import THERE, CachedFile
from tandem.data.cache.remote import Range
from tandem.data.cache.settings import RemoteError
from tandem.data.space import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tandem.data.cache.block_cache import BlockCache, SpaceFolder
    from tandem.data.cache.remote import Remote
    from tandem.data.cache.settings import RemoteSettings
    from tandem.data.space.index import Index
    from tandem.data.space.layout import ShardEntry

Done = TypeVar("Done")

_MENDED_BY_FETCHING = ("checksum", "vanished", "io")
_FLUSH_NS = 10**9
_OFFSET_MASK = (1 << layout.OFFSET_BITS) - 1
_SIZE_MASK = (1 << layout.SIZE_BITS) - 1
_PIECE_BYTES = 8 << 20


class RemoteHome:
    """Where the shards of a remote space are read from.

    Safe to use from several threads, and after a fork.

    Args:
        remote: Where the space is.
        cache: The node's.
        folder: The space's part of it; closed with this.
        index: Its index, here.
    """

    is_here = False

    def __init__(self, remote: Remote, cache: BlockCache, folder: SpaceFolder, index: Index) -> None:
        self.remote, self.cache, self.folder = remote, cache, folder
        self.settings: RemoteSettings = cache.settings
        size = self.folder.block_bytes
        self.files = [
            CachedFile(self.folder.path, entry.file_name, entry.size, size, _source(entry)) for entry in index.shards
        ]
        self._by_name = {file.name: file for file in self.files}
        self._index = index
        self._keys_F = np.array([file.first_key for file in self.files], np.uint64)
        self._firsts = np.cumsum([0, *(file.blocks for file in self.files)])
        self._there_B = np.zeros(self._firsts[-1], np.bool_)  # as far as this process knows
        self._used_ns_B = np.zeros(self._firsts[-1], np.uint64)
        self._bad: set[int] = set()  # samples that were damaged at every try
        self._bad_blocks: set[int] = set()  # which they lie in
        self._hits, self._flushed_ns = 0, time.time_ns()
        self._lock = Lock()
        self._records_N3: NDArray[np.uint64] = np.empty((0, 3), np.uint64)
        if len(index):
            mapped = mmap.mmap(index.file, index.size, access=mmap.ACCESS_READ)
            records = np.frombuffer(mapped, "<u8", 3 * len(index), index.header.records.offset)
            self._records_N3 = records.reshape(-1, 3)

    @property
    def samples(self) -> int:
        """How many the space has."""
        return len(self._index)

    def close(self) -> None:
        """Let the space's part of the cache go."""
        self._flush()
        self.folder.close()

    def shard_path(self, entry: ShardEntry) -> str:
        """The file in the cache, which may have holes; the whole shard's length."""
        file = self._by_name[entry.file_name]
        file.make()
        return file.data_path

    def shard_name(self, entry: ShardEntry) -> str:
        """The shard's URL."""
        return f"{self.remote.url}/{_source(entry)}"

    def read(self, numbers_N: NDArray[np.int64], once: Callable[[], Done]) -> Done:
        """What `once` returns, the blocks of these samples being here meanwhile.

        It is called again, after blocks have been fetched anew, where it returns a fault that may come from them.

        Raises:
            RemoteError: Blocks cannot be had.
            DataError: The remote has a shard no more.
        """
        if self._are_there(numbers_N):
            done = once()
            if not _is_mendable(done):
                return done
        numbers_N = np.asarray(numbers_N, np.int64)
        return self._read_kept(numbers_N, self.blocks_of(numbers_N), once)

    def fetch(self, entry: ShardEntry, path: str) -> None:
        """Copy a whole shard from the remote to a file.

        Raises:
            RemoteError: It cannot be had.
            FileNotFoundError: It is not there.
        """
        name = _source(entry)
        with open(path, "wb") as file:  # noqa: PTH123 - texts throughout
            try:
                for at in range(0, entry.size, _PIECE_BYTES):
                    file.write(self.remote.read(Range(name, at, min(entry.size, at + _PIECE_BYTES))))
            except RemoteError:  # it may be shorter than it should be: as much of it as there is
                file.seek(0)
                file.write(self.remote.read_whole(name))
            self.cache.count(fetched_bytes=file.tell())

    def blocks_of(self, numbers_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """The blocks in which these samples lie, in order."""
        return np.unique(self.uses_of(numbers_N)[0])

    def uses_of(self, numbers_N: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The blocks that each sample lies in, sample after sample; and which of `numbers_N` it is."""
        begin_N, last_N, sizes_N = self._bounds(numbers_N[(numbers_N >= 0) & (numbers_N < len(self._index))])
        counts_N = np.where(sizes_N > 0, last_N - begin_N + 1, 0)
        which = np.repeat(np.arange(len(counts_N)), counts_N)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts_N) - counts_N, counts_N)
        return begin_N[which] + within, which

    def _bounds(self, numbers_N: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The first and the last block of each sample, and its bytes; of an empty one the blocks mean nothing."""
        records_N3 = self._records_N3[numbers_N].view(np.int64)
        offsets_N, sizes_N = records_N3[:, 1] & _OFFSET_MASK, records_N3[:, 2] & _SIZE_MASK
        firsts_N = self._firsts[self._records_N3[numbers_N, 1] >> np.uint64(layout.OFFSET_BITS)]
        size = self.folder.block_bytes
        last_N = firsts_N + (offsets_N + np.maximum(sizes_N, 1) - 1) // size
        return firsts_N + offsets_N // size, last_N, sizes_N

    def _are_there(self, numbers_N: NDArray[np.int64] | list[int]) -> bool:
        """Whether the blocks of these samples are here, as far as this process knows; if so they count as used."""
        if len(numbers_N) == 1:
            return self._is_there(int(numbers_N[0]))
        numbers_N = np.asarray(numbers_N)
        if not len(numbers_N) or numbers_N.min() < 0 or numbers_N.max() >= len(self._index):
            return True  # nothing to be read: the reader says what is wrong
        there_N, begin_N, last_N = self._which_are_there(numbers_N)
        if not there_N.all():
            return False
        self._used_ns_B[begin_N] = self._used_ns_B[last_N] = time.time_ns()
        self._count_hits(len(numbers_N))
        return True

    def _which_are_there(
        self, numbers_N: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
        """Which of these samples are here, as far as this process knows; and the first and the last block of each."""
        begin_N, last_N, sizes_N = self._bounds(numbers_N)
        last_N = np.minimum(last_N, len(self._there_B) - 1)
        begin_N = np.minimum(begin_N, last_N)
        there_N = self._there_B[begin_N] & self._there_B[last_N] | (sizes_N == 0)
        for place in np.flatnonzero(there_N & (last_N - begin_N > 1)).tolist():  # there are blocks between them
            there_N[place] = self._there_B[begin_N[place] : last_N[place]].all()
        return there_N, begin_N, last_N

    def _is_there(self, number: int) -> bool:
        """The same for one sample."""
        if not 0 <= number < len(self._index):
            return True
        _, shard, offset, size = self._index.place(number)
        if not size:
            return True
        first, block_bytes = int(self._firsts[shard]), self.folder.block_bytes
        blocks = slice(first + offset // block_bytes, first + (offset + size - 1) // block_bytes + 1)
        if not self._there_B[blocks].all():
            return False
        self._used_ns_B[blocks] = time.time_ns()
        self._count_hits(1)
        return True

    def missing(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of these blocks that are not here as far as anybody knows; in the same order."""
        unknown = blocks[~self._there_B[blocks]]
        for file, first, own in self._by_file(np.unique(unknown)):
            there = own[file.states()[own] == THERE]
            self._there_B[first + there] = True
        return unknown[~self._there_B[unknown]]

    def bring(self, blocks: NDArray[np.int64], remote: Remote, *, before_s: float) -> bool:
        """Fetch blocks ahead of their use; false where there is no room for all that is not needed earlier."""
        wanted = [(file, own.tolist()) for file, _, own in self._by_file(np.unique(blocks))]
        self._flush()
        with self.cache.locks() as keeping:
            all_there = self.cache.bring(wanted, remote, keeping, before_s=before_s)
        self.missing(blocks)
        return all_there

    def is_at_ease(self) -> bool:
        """Whether all blocks are here as far as this process knows, and the cache is far from full."""
        if not self._there_B.all():
            self._look(np.flatnonzero(~self._there_B))
        return bool(self._there_B.all()) and self.cache.has_room()

    def keys(self, blocks: NDArray[np.int64]) -> NDArray[np.uint64]:
        """What these blocks are called in the cache."""
        files_N = np.searchsorted(self._firsts, blocks, side="right") - 1
        found: NDArray[np.uint64] = self._keys_F[files_N] + (blocks - self._firsts[files_N]).astype(np.uint64)
        return found

    def _read_kept(self, numbers_N: NDArray[np.int64], blocks: NDArray[np.int64], once: Callable[[], Done]) -> Done:
        """Read while the blocks cannot be evicted; those that are damaged are fetched again.

        What was damaged at every try is from then on fetched once more for whoever reads of it, without a pause.
        """
        self._flush()
        self._look(blocks)
        known = int(self._which_are_there(numbers_N)[0].sum()) if len(blocks) else len(numbers_N)
        wanted = [(file, own.tolist()) for file, _, own in self._by_file(blocks)]
        fetched: dict[int, int] = {}
        while True:
            with self.cache.locks() as keeping:
                try:
                    self.cache.bring(wanted, self.remote, keeping)
                except FileNotFoundError as error:
                    raise _gone(self.remote.url, error) from error
                done = once()
            self.cache.trim()
            if not _is_mendable(done):
                self._there_B[blocks] = True
                self._used_ns_B[blocks] = time.time_ns()
                self._count_hits(known)
                if mended := self._bad.intersection(numbers_N.tolist()):
                    self._bad -= mended
                    self._bad_blocks.difference_update(self.blocks_of(np.array(sorted(mended))).tolist())
                return done
            sample = int(numbers_N[done[1]])  # type: ignore[index]  # a fault: kind, place, error
            bad = self.blocks_of(np.array([sample]))
            for block in bad.tolist():
                fetched[block] = fetched.get(block, 0) + 1
            tries = 1 if self._bad_blocks.issuperset(bad.tolist()) else self.settings.tries
            times = min((fetched[block] for block in bad.tolist()), default=tries + 1)
            if times > tries:
                self._bad.add(sample)
                self._bad_blocks.update(bad.tolist())
                return done
            if times > 1:  # it was not the cache
                time.sleep(self.settings.backoff_s * 2 ** (times - 2))
            for file, first, own in self._by_file(bad):
                self._there_B[first + own] = False
                self.cache.forget(file, own.tolist())

    def _look(self, blocks: NDArray[np.int64]) -> None:
        """See what is there of the files that these blocks are of."""
        for file, first, _own in self._by_file(blocks):
            self._there_B[first : first + file.blocks] = file.states() == THERE

    def _by_file(self, blocks: NDArray[np.int64]) -> Iterator[tuple[CachedFile, int, NDArray[np.int64]]]:
        """Blocks in order, by the file they lie in: the file, its first block, and which of its own they are."""
        files_N = np.searchsorted(self._firsts, blocks, side="right") - 1
        for place in np.unique(files_N).tolist():
            first = int(self._firsts[place])
            yield self.files[place], first, blocks[files_N == place] - first

    def _count_hits(self, hits: int) -> None:
        """Count samples for which nothing had to be fetched."""
        self._hits += hits
        if time.time_ns() - self._flushed_ns > _FLUSH_NS:
            self._flush()

    def _flush(self) -> None:
        """Tell the other processes which blocks were used, and when."""
        if not self._lock.acquire(blocking=False):
            return  # another thread does it (or did, in the process that this one was forked from)
        try:
            before_ns, self._flushed_ns = self._flushed_ns, time.time_ns()
            hits, self._hits = self._hits, 0
        finally:
            self._lock.release()
        blocks = np.flatnonzero(self._used_ns_B >= before_ns)
        for file, first, _own in self._by_file(blocks):
            file.make()
            file.note_used(self._used_ns_B[first : first + file.blocks])
        if hits:
            self.cache.count(hits=hits)


def _gone(url: str, error: FileNotFoundError) -> DataError:
    return DataError(
        given=f"{error} is not there (any more): files of {url} are missing, or it was compacted since it was opened",
        allowed="a space with all its shards",
        todo="open it again",
    )


def _is_mendable(done: object) -> bool:
    """Whether it is a fault that fetching may put right."""
    return isinstance(done, tuple) and len(done) == 3 and done[0] in _MENDED_BY_FETCHING


def _source(entry: ShardEntry) -> str:
    return f"shards/{entry.file_name}"
