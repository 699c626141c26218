"""The cache of a node: blocks of files at remotes, fetched once however many jobs need them, and within a limit.

    CACHE/ledger, lock        what is held, and the right to change it (`ledger.py`)
    CACHE/blocks              locked byte by byte (`locks.py`)
    CACHE/futures/            what loaders are going to read (`futures.py`)
    CACHE/SPACE/*.blocks, *.map    the files of a space (`cached_file.py`)
    CACHE/SPACE/*.index       its index, one of each generation
    CACHE/SPACE/users         locked by every process that has the space open
    CACHE/SPACE/geometry      bytes of a block, and a checksum of that

Limits: the limit counts blocks, not indexes. A read whose own blocks do not fit has them all the same, and lets them
go afterwards. No process has to be trusted to end well: locks go with it, and what it had begun to fetch counts as
absent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.core.errors import without_secrets
from tandem.data.cache.cached_file import ABSENT, COMING, THERE, CachedFile, punch
from tandem.data.cache.ledger import LedgerFile
from tandem.data.cache.locks import BlockLocks, runs
from tandem.data.cache.remote import Range, Remote
from tandem.data.cache.room import cached_files, make_room
from tandem.data.cache.settings import DEFAULT_LIMIT_BYTES, RemoteError, RemoteSettings
from tandem.data.hashing import xxh3

if TYPE_CHECKING:
    from tandem.data.cache.ledger import Ledger, OpenLedger

_MOST_BYTES_A_REQUEST = 8 << 20
_EASE = 0.8  # of the limit
_FIRST_LOOK_S, _MOST_LOOK_S = 0.001, 0.005

Blocks = Sequence[tuple[CachedFile, Sequence[int]]]
"""Blocks of files, those of each in order."""


class BlockCache:
    """The cache in a folder.

    Args:
        settings: Which folder, and the rest.
        sleep: Called to wait for other processes.

    Raises:
        RemoteError: The folder cannot be a cache.
    """

    def __init__(self, settings: RemoteSettings, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        self.folder = os.path.abspath(settings.folder)  # noqa: PTH100 - texts throughout
        self.futures_folder = f"{self.folder}/futures"
        self.ledger = LedgerFile(self.folder)
        self._sleep = sleep
        try:
            os.makedirs(self.futures_folder, exist_ok=True)  # noqa: PTH103
            os.close(os.open(f"{self.folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))  # as umask allows
            if not os.path.exists(f"{self.folder}/ledger"):  # noqa: PTH110
                _prove_holes(self.folder)
        except OSError as error:
            raise RemoteError(
                given=f"the cache {self.folder}: {error.strerror}",
                allowed="a folder on a disk of this node that can be written",
                todo="name one: TANDEM_DATA_CACHE=/local/cache",
            ) from error

    @property
    def limit_bytes(self) -> int:
        """How many bytes of blocks may be held."""
        return self._limit(self.ledger.read())

    def locks(self) -> BlockLocks:
        """A new holder of locks."""
        return BlockLocks(f"{self.folder}/blocks")

    def bring(self, wanted: Blocks, remote: Remote, keeping: BlockLocks, *, before_s: float | None = None) -> bool:
        """Have blocks here; false where not all could be, which happens only ahead of their use.

        Args:
            wanted: Which.
            remote: Where they come from.
            keeping: Keeps them from then on.
            before_s: If they are fetched ahead of their use, in how many seconds the last is used: nothing that is used
                earlier goes for them, and the limit is kept.

        Raises:
            RemoteError: They cannot be had.
            FileNotFoundError: The remote has no such file.
        """
        for file, blocks in wanted:
            file.make()
            keeping.keep(file.key, blocks)
        patience_s = time.monotonic() + self.settings.timeout_s * self.settings.tries
        look_s = _FIRST_LOOK_S
        with self.locks() as fetching:
            while missing := _not_there(wanted):
                alone = time.monotonic() < patience_s  # else whoever fetches them has been stopped: do without
                mine = _not_there(_taken(fetching, missing)) if alone else missing
                granted = self._reserved(mine, before_s) if mine else []
                if granted:
                    self._fetch(granted, remote, alone=alone, ahead=before_s is not None)
                for file, blocks in missing:
                    for first, count in runs(blocks):
                        fetching.release("fetch", file.key, first, count)
                if _count(granted) < _count(mine):
                    return False
                if not mine and _not_there(missing):
                    self._sleep(look_s)  # others fetch them
                    look_s = min(_MOST_LOOK_S, 2 * look_s)
        return True

    def forget(self, file: CachedFile, blocks: Sequence[int]) -> None:
        """Let blocks go whose bytes are not what they should be; somebody may have done so just before."""
        with self.ledger.changing() as ledger:
            states = file.states()
            there = [block for block in blocks if states[block] == THERE]
            file.drop(there)
            held = sum(end - begin for begin, end in map(file.bounds, there))
            ledger.add(held_bytes=-held if ledger.now.held_bytes >= 0 else 0, refetched=len(there))

    def trim(self) -> None:
        """Meet the limit again, where blocks that were needed at once did not fit."""
        now = self.ledger.read()
        limit = self._limit(now)
        if now.held_bytes > limit:
            with self.ledger.changing() as ledger:
                make_room(self.folder, ledger, self.locks, 0, limit, -1.0)

    def has_room(self) -> bool:
        """Whether so much room is left that nothing will be evicted soon."""
        now = self.ledger.read()
        return 0 <= now.held_bytes <= _EASE * self._limit(now)

    def count(self, **fields: int) -> None:
        """Add to what the ledger counts."""
        with self.ledger.changing() as ledger:
            ledger.add(**fields)

    def _limit(self, ledger: Ledger) -> int:
        return self.settings.limit_bytes or ledger.limit_bytes or DEFAULT_LIMIT_BYTES

    def _reserved(self, wanted: Blocks, before_s: float | None) -> Blocks:
        """Take room for blocks and say that they are coming; returns those there is room for."""
        with self.ledger.changing() as ledger:
            need = {id(file): file.states() for file, _ in wanted}
            new = sum(_bytes(file, [b for b in blocks if need[id(file)][b] == ABSENT]) for file, blocks in wanted)
            limit = self._limit(ledger.now)
            if ledger.now.held_bytes < 0 or ledger.now.held_bytes + new > limit:
                make_room(self.folder, ledger, self.locks, new, limit, -1.0 if before_s is None else before_s)
            granted = wanted if before_s is None else _fitting(wanted, limit - ledger.now.held_bytes)
            self._note_coming(ledger, granted)
        return granted

    def _note_coming(self, ledger: OpenLedger, granted: Blocks) -> None:
        for file, blocks in granted:
            states = file.states()
            new = [block for block in blocks if states[block] == ABSENT]
            ledger.add(held_bytes=_bytes(file, new))
            file.set_states(new, COMING)

    def _fetch(self, wanted: Blocks, remote: Remote, *, alone: bool, ahead: bool) -> None:
        """Fetch blocks, neighbours in one request; on an error those that did not come are absent again."""
        pieces: list[tuple[CachedFile, int]] = []
        ranges: list[Range] = []
        for file, blocks in wanted:
            most = max(1, _MOST_BYTES_A_REQUEST // file.block_bytes)
            for first, count in runs(blocks):
                for start in range(first, first + count, most):
                    pieces.append((file, start))
                    ranges.append(Range(file.source, *file.bounds(start, min(most, first + count - start))))
        fetched = 0
        try:
            for place, data in remote.read_many(ranges):
                file, first = pieces[place]
                file.write(first, data)
                fetched += len(data)
        except BaseException:
            if alone:
                self._give_back(wanted)
            raise
        finally:
            self.count(fetched_bytes=fetched, misses=0 if ahead else _count(wanted))

    def _give_back(self, wanted: Blocks) -> None:
        """Undo a reservation."""
        with self.ledger.changing() as ledger:
            for file, blocks in wanted:
                states = file.states()
                coming = [block for block in blocks if states[block] == COMING]
                file.drop(coming)
                if ledger.now.held_bytes >= 0:
                    ledger.add(held_bytes=-_bytes(file, coming))


class SpaceFolder:
    """The part of a cache that belongs to one space; while it is open nobody removes its files.

    Args:
        cache: The cache.
        space_id: Which space, in hexadecimal digits.
        url: Where it comes from, for people.
    """

    def __init__(self, cache: BlockCache, space_id: str, url: str) -> None:
        self.path = f"{cache.folder}/{space_id}"
        self._users = -1
        while True:
            os.makedirs(self.path, exist_ok=True)  # noqa: PTH103
            self.close()
            with contextlib.suppress(FileNotFoundError):  # removed just now
                self._users = os.open(f"{self.path}/users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                fcntl.flock(self._users, fcntl.LOCK_SH)
                if os.path.samestat(os.fstat(self._users), os.stat(f"{self.path}/users")):  # noqa: PTH116
                    break
        self.block_bytes = self._geometry(cache.settings.block_bytes)
        source = Path(self.path) / "source"
        if not source.exists():
            source.write_text(without_secrets(url))

    def close(self) -> None:
        """Let it go."""
        if self._users >= 0:
            os.close(self._users)
            self._users = -1

    def _geometry(self, block_bytes: int) -> int:
        """Bytes of a block: what the first has put down; where that is damaged, what its files say."""
        path, aside = Path(self.path) / "geometry", Path(self.path) / f".{uuid.uuid4().hex}.new"
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                text, _, checksum = path.read_bytes().partition(b" ")
                if checksum == b"%016x" % xxh3(text):
                    return int(text)
                block_bytes = next((file.block_bytes for file in cached_files(Path(self.path))), block_bytes)
                path.unlink(missing_ok=True)
            text = b"%d" % block_bytes
            aside.write_bytes(b"%b %016x" % (text, xxh3(text)))
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(aside)
            aside.unlink()
        return block_bytes


def _prove_holes(folder: str) -> None:
    """See whether the file system can free room within a file, and give locks."""
    path = f"{folder}/.{uuid.uuid4().hex}.aside"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.pwrite(file, bytes(8192), 0)
        punch(file, 0, 4096)
    finally:
        os.close(file)
        os.unlink(path)  # noqa: PTH108
    with BlockLocks(f"{folder}/blocks") as locks:
        locks.try_alone("fetch", 0, 0)


def _not_there(wanted: Blocks) -> Blocks:
    found = []
    for file, blocks in wanted:
        states = file.states()
        missing = [block for block in blocks if states[block] != THERE]
        if missing:
            found.append((file, missing))
    return found


def _taken(fetching: BlockLocks, missing: Blocks) -> Blocks:
    """Those that nobody else fetches: this one does now."""
    taken = [(file, [b for b in blocks if fetching.try_alone("fetch", file.key, b)]) for file, blocks in missing]
    return [(file, blocks) for file, blocks in taken if blocks]


def _fitting(wanted: Blocks, room: int) -> Blocks:
    """As many of the first as there is room for."""
    found = []
    for file, blocks in wanted:
        some = []
        for block in blocks:
            room -= _bytes(file, [block])
            if room >= 0:
                some.append(block)
        if some:
            found.append((file, some))
    return found


def _bytes(file: CachedFile, blocks: Sequence[int]) -> int:
    return sum(end - begin for begin, end in map(file.bounds, blocks))


def _count(wanted: Blocks) -> int:
    return sum(len(blocks) for _, blocks in wanted)
