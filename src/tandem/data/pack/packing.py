"""Packing a source into a space, in several processes; after `kill -9` it goes on where it was.

The pieces of the source are cut into parts of about one shard. A part is packed by one process; when it is durable, an
index of it is left in the writer's folder, under a name that stands for exactly these pieces. Whoever packs the same
source again finds it there. At the end all parts are published at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from typing import TYPE_CHECKING, NoReturn

from tandem.core.errors import DataError, SpaceError
from tandem.core.interrupts import deaf_children, unbroken
from tandem.data.hashing import xxh3
from tandem.data.pack.source import Entry, Source, as_path, open_source
from tandem.data.space import snapshot
from tandem.data.space.guarding import check_level
from tandem.data.space.writer import PACKING, SHARD_BYTES, PartWriter, Target, clear_abandoned

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerContext
    from multiprocessing.sharedctypes import Synchronized
    from types import FrameType

_PARTS = 32
_LEAST_BYTES, _LEAST_FILES = 16 << 20, 1000
_TELL_S = 0.2
_TELL_FILES = 64
_PACKER_FIRST_S = 2.0  # so long the packer has to hear of a signal before one of its processes is gone by it

Tell = Callable[[int, int], None]
"""Told how many of how many bytes of the source are packed."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What packing did.

    Attributes:
        generation: The generation that has it.
        files: Samples that were added.
        data_bytes: Their bytes.
        resumed_files: How many of them an earlier, broken run had packed.
        left_out: What was not packed, by kind; what an earlier run left out of compressed archives is not in it.
    """

    generation: int
    files: int
    data_bytes: int
    resumed_files: int
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Part:
    """Pieces that are packed together, and the name that stands for them."""

    name: str
    run: Sequence[Entry]
    size: int


def pack(
    text: str,
    folder: str,
    *,
    append: bool = False,
    workers: int,
    shard_bytes: int = SHARD_BYTES,
    parity: int = 0,
    tell: Tell,
    broken_off_at: Callable[[int], None] = lambda generation: None,
) -> Packed:
    """Pack a source into a new space, or behind what a space has.

    Args:
        text: A folder, archive, pattern of archives, or URL.
        folder: The space.
        append: Whether the space may be there already.
        workers: How many processes read and write.
        shard_bytes: About how large shards become.
        parity: How many blocks in each row of 28 can be restored, at least, also of what the space has; 0 keeps what
            the space has, and so does a source without a file.
        tell: Told how far it is.
        broken_off_at: Told the generation that has it all, where it is broken off when it is there already.

    Raises:
        SpaceError: There is nothing to read, a path cannot be stored or comes twice, or the space is there already.
        DataError: A file vanished meanwhile, or a process was killed; what was done stays for the next run.
        RemoteError: A URL cannot be read; what was done stays for the next run.
        OSError: Something cannot be read or written; what was done stays for the next run.
    """
    snapshot.refuse_url(folder)
    text = as_path(text)
    if not append and snapshot.is_space(folder):
        raise SpaceError(
            given=f"{folder}, which is a space already",
            allowed="a name that is not taken, or --append",
            todo=f"to add to it, run: tandem data pack --append {text} {folder}",
        )
    _refuse_inside(text, folder)
    if parity:
        check_level(parity)
    source = open_source(text)
    target = Target(folder, f"{PACKING}{xxh3(os.fsencode(os.path.abspath(text))):016x}")  # noqa: PTH100 - or a URL
    try:
        target.drop_half_done()
        parts = _cut(source.entries(), shard_bytes)
        left_out = Counter(source.left_out())
        resumed, left_out_too = _pack_parts(source, target, parts, workers, shard_bytes, tell)
        columns = [target.kept_part(part.name) for part in parts]
        whole = [one for one in columns if one is not None]
        assert len(whole) == len(parts)
        if any(map(len, whole)) or not snapshot.is_space(target.folder):
            generation = target.commit(whole, parity_level=parity)
        else:  # nothing is added: nothing changes
            generation = snapshot.read_current(target.folder).generation
            target.discard()
        with suppress(OSError):  # it is there, and whoever packs or compacts next tries again
            clear_abandoned(target.folder, time.time())
    except SpaceError:
        target.discard()  # it would be refused again
        raise
    except BaseException:
        if target.published:
            broken_off_at(target.published)
        target.give_up()
        raise
    return Packed(
        generation=generation,
        files=sum(map(len, whole)),
        data_bytes=sum(int(one.sizes_N.sum()) for one in whole),
        resumed_files=resumed,
        left_out=left_out + left_out_too,
    )


def _refuse_inside(text: str, folder: str) -> None:
    """A space below what it is made of would hold parts of itself."""
    root, inside = (os.path.realpath(one) for one in (text, folder))
    if os.path.isdir(text) and inside.startswith(root.rstrip("/") + "/"):  # noqa: PTH112
        raise SpaceError(
            given=f"the space {folder} inside of {text}, which it is packed from",
            allowed="a place outside of it",
            todo=f"name another, such as {root.rstrip('/')}.space",
        )


def _cut(entries: Sequence[Entry], shard_bytes: int) -> list[Part]:
    """Runs of pieces: about one shard each, and fewer bytes where there would be less than 32 parts."""
    most_bytes = min(shard_bytes, max(_LEAST_BYTES, sum(entry.size for entry in entries) // _PARTS))
    most_files = max(_LEAST_FILES, len(entries) // _PARTS)
    parts: list[Part] = []
    run: list[Entry] = []
    size = 0
    for entry in entries:
        if run and (size + entry.size > most_bytes or len(run) >= most_files):
            parts.append(_part(run, size))
            run, size = [], 0
        run.append(entry)
        size += entry.size
    return [*parts, _part(run, size)] if run else parts


def _part(run: Sequence[Entry], size: int) -> Part:
    return Part(f"{xxh3(repr(run).encode()):016x}", run, size)


def _pack_parts(
    source: Source, target: Target, parts: Sequence[Part], workers: int, shard_bytes: int, tell: Tell
) -> tuple[int, Counter[str]]:
    """Pack what was not packed before; returns how many samples were, and what is left out of the others."""
    before = [(part, target.kept_part(part.name)) for part in parts]
    todo = [part for part, kept in before if kept is None]
    total, left = sum(part.size for part in parts), sum(part.size for part in todo)
    context = multiprocessing.get_context("forkserver")
    with deaf_children():  # the resource tracker that comes with it, too
        done = context.Value("q", 0)
    jobs = [partial(_pack_part, source, part, str(target.folder), target.pending.name, shard_bytes) for part in todo]
    left_out: Counter[str] = Counter()

    def over(found: Counter[str]) -> None:
        left_out.update(found)
        tell(total - left + done.value, total)

    if workers == 1 or len(jobs) <= 1:
        _begin(done)
        for job in jobs:
            over(job())
    else:
        _in_processes(jobs, min(workers, len(jobs)), context, done, over)
    return sum(len(kept) for _, kept in before if kept is not None), left_out


def _in_processes(
    jobs: Sequence[Callable[[], Counter[str]]],
    workers: int,
    context: ForkServerContext,
    done: Synchronized[int],
    over: Callable[[Counter[str]], None],
) -> None:
    """Have parts packed; `over` is told what is left out of those that have ended, every now and then."""
    with deaf_children():
        forkserver.ensure_running()  # whom it forks is deaf, too
    life, ours = context.Pipe(duplex=False)
    with life, ours, ProcessPoolExecutor(workers, context, _begin_process, (done, life)) as pool:
        try:
            with unbroken():  # a process that is half started would lose what it is to be given
                waiting = _submitted(pool, jobs)
            while waiting:
                ended, waiting = wait(waiting, _TELL_S, FIRST_COMPLETED)
                over(_ended_well(pool, ended))
        except Exception:
            raise
        except BaseException:  # Ctrl-C: nobody waits for parts that are not done
            ours.close()
            raise


def _submitted(pool: ProcessPoolExecutor, jobs: Sequence[Callable[[], Counter[str]]]) -> set[Future[Counter[str]]]:
    """Begin processes, and give them what there is to do."""
    try:
        return {pool.submit(job) for job in jobs}
    except (BrokenProcessPool, EOFError, ConnectionError):  # the fork server does not answer, or no longer
        pool.shutdown(wait=False, cancel_futures=True)
        raise _killed() from None


def _ended_well(pool: ProcessPoolExecutor, ended: Iterable[Future[Counter[str]]]) -> Counter[str]:
    """What is left out of parts, or raise what one raised; no further part is begun then."""
    try:
        return sum((future.result() for future in ended), Counter[str]())
    except BrokenProcessPool:
        raise _killed() from None
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _killed() -> DataError:
    return DataError(
        given="one of the processes that pack was killed (for want of memory, perhaps)",
        allowed="processes that are let alone",
        todo="run it again, and it goes on; with fewer --workers where memory is short",
    )


_done: Synchronized[int]


def _begin(done: Synchronized[int]) -> None:
    global _done
    _done = done


def _begin_process(done: Synchronized[int], life: Connection) -> None:
    """A process that ends when the one that packs is killed, or interrupted.

    The fork server does not end before: whom it forked keeps it alive.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it hears it where somebody else had started the fork server
    signal.signal(signal.SIGTERM, partial(_end_after_the_packer, life))  # which a job's processes may all be sent
    threading.Thread(target=_end_with_the_packer, args=(life,), name="tandem-packer-watch", daemon=True).start()
    _begin(done)


def _end_after_the_packer(life: Connection, number: int, frame: FrameType | None) -> NoReturn:
    del frame
    life.poll(_PACKER_FIRST_S)
    os._exit(128 + number)


def _end_with_the_packer(life: Connection) -> None:
    life.poll(None)  # until the other end, which the packer alone has, is closed
    os._exit(1)


def _pack_part(source: Source, part: Part, folder: str, name: str, shard_bytes: int) -> Counter[str]:
    """Pack one part, in a process of its own; returns what reading it left out."""
    before = Counter(source.left_out())
    target = Target(folder, name, lock=False)
    writer = PartWriter(target.pending, target.space_id, shard_bytes)
    told = size = 0
    try:
        for count, item in enumerate(source.items(part.run)):
            if isinstance(item.data, bytes):
                writer.add(item.path, item.data, item.mtime_ns, item.mode)
            else:
                writer.add_stream(item.path, item.data, item.size, item.mtime_ns, item.mode)
            size += item.size
            if count % _TELL_FILES == 0:
                told += _tell(size - told)
        target.keep_part(part.name, writer.finish())
        _tell(part.size - told)
    except BaseException:
        writer.abandon()
        raise
    return Counter(source.left_out()) - before


def _tell(size: int) -> int:
    with _done.get_lock():
        _done.value += size
    return size
