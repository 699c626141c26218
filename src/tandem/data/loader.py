"""Samples in batches, read ahead, in an order that is known: what a training loop iterates over.

    with Space.open("train.space") as space:
        loader = Loader(space, batch_size=256, seed=7, rank=rank, world=world, decode=png)
        for epoch in range(10):
            for batch in loader:
                ...
            save(loader.state_dict())

The order is a pure function of (seed, epoch) (`order.py`), and which rank reads what of position and world size
(`steps.py`). So a state is three numbers, and a run goes on from one at once, with any number of ranks and workers.

Undecoded batches of a space are read without the interpreter lock, straight into the `bytes` that are handed out.

Limits: one iteration at a time.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from tandem.core.clock import SystemClock
from tandem.data.ahead import Crew, Pending, Worker
from tandem.data.decoding import Decode, Where
from tandem.data.foreseen import Foreseen, foresee
from tandem.data.meter import Meter
from tandem.data.mixture import Mixture, refuse_unreadable
from tandem.data.order import InOrder, Order, Shuffled
from tandem.data.reading import Begun, Failed, Read, Reading, Task
from tandem.data.state import LoaderState
from tandem.data.steps import Batches, Layout, LoaderError, Share, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Never, Self

    from tandem.data.batch import Samples
    from tandem.data.order import Numbers

_PLAN_POSITIONS = 1 << 16  # so many positions are looked up in the order at once: some 3 ms
_DEFAULT_WORKERS = 4
_NO_ROOM = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_A_READ = 32, 512 << 10
_A_DECODED_READ = 4, 128 << 10
"""The most batches, and bytes, that are read at once: undecoded; and for a decoding process."""


class Loader:
    """Batches of one rank, epoch after epoch.

    Each iteration is an epoch; the next one takes the next. A batch is a list: of `bytes` where nothing is decoded,
    else of what `decode` returns for each (or whatever `Decode.batch` returns for all of them).

    Args:
        samples: What is read: a `Space`, a `Mixture`, or anything else with `__len__` and `read_batch(numbers)`, which
            returns the bytes of these samples, in this order: a list of `bytes`, or a `Batch`.
        batch_size: Samples a batch, *of all ranks together*; or `Batches(size, last=...)`, which says what becomes of
            the rest of an epoch. By default the last batch is smaller.
        seed: Of the shuffle.
        rank: Which rank this is, from 0.
        world: How many there are.
        shuffle: Whether the samples are shuffled anew each epoch; else they come as they are numbered.
        decode: Called with the bytes of each sample, a view of a buffer that is used again once nothing refers to it;
            or a `Decode` that says more.
        workers: How many threads read (and decode), or how many processes decode; by default one for each usable core,
            at most 4. With 0 everything is done when it is asked for, in the calling thread: for debugging.
        decode_in: "threads" for decoders that release the interpreter lock (Pillow, zlib, most of C); "processes" for
            others, see `decode_process.py`.
        prefetch: How many reads may be ready or in the making; by default two for each worker. A read is a batch, or as
            many undecoded ones as make 512 KiB (at most 32), or for a process that decodes 128 KiB (at most 4).

    Raises:
        LoaderError: Arguments that cannot be met; more workers than can be started, when the first iteration begins.
    """

    def __init__(
        self,
        samples: Samples | Mixture,
        batch_size: int | Batches,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        decode: Callable[[memoryview], Any] | Decode | None = None,
        workers: int | None = None,
        decode_in: Where = "threads",
        prefetch: int | None = None,
    ) -> None:
        if not isinstance(samples, Mixture):
            refuse_unreadable("samples", samples)
        self.samples = samples
        self.batches = batch_size if isinstance(batch_size, Batches) else Batches(batch_size)
        self.share = Share(rank, world)
        self.decode = decode if isinstance(decode, Decode) else Decode(decode)
        cores = len(os.sched_getaffinity(0))
        self.workers = min(_DEFAULT_WORKERS, cores) if workers is None else whole("workers", workers)
        self.decode_in = decode_in
        self.prefetch = max(1, 2 * self.workers) if prefetch is None else whole("prefetch", prefetch)
        _check(self)
        if not isinstance(shuffle, bool | np.bool_):
            raise LoaderError(given=f"shuffle={shuffle!r}", allowed="True, False", todo="choose one")
        self._state = LoaderState(whole("seed", seed), 0, 0, shuffle=bool(shuffle), samples=_signature(samples))
        self._begun = False
        self._iteration = 0
        self._crew: Crew[list[Task], Read] | None = None
        self._left = 0  # batches of the epoch that nobody was asked for
        self._batches_a_read = 1  # small ones, once they are known to be small, are read several at once
        self._foreseen = Foreseen([])
        self._meter = Meter(SystemClock())
        self._reading = Reading(samples, self.decode, pin=self.decode.pin)  # by the calling thread
        self._layout(0)  # refuses what cannot be laid out, before the first batch

    def __len__(self) -> int:
        """Steps of a whole epoch; the same for every rank."""
        return len(self._layout(0))

    def __iter__(self) -> Iterator[Any]:
        """Begin the next epoch, or go on in the one whose state was loaded."""
        state = self._state
        if self._begun or not len(self._layout(state.position)):
            state.epoch, state.position = state.epoch + 1, 0
        self._begun = True
        self._iteration += 1
        if self._crew is not None and not self._crew.usable:
            self._crew.close()
            self._crew = None
        if self._crew is None and self.workers:
            self._crew = self._new_crew()
        return self._iterate(self._iteration)

    def __getitem__(self, number: object) -> Never:
        """There is none: a loader is iterated. `torch.utils.data.DataLoader` asks for it, and is told.

        Raises:
            LoaderError: Always.
        """
        raise LoaderError(
            given=f"loader[{number!r}]: a Loader was indexed, perhaps by torch's DataLoader, as a dataset",
            allowed="iterating a Loader, which makes batches itself",
            todo="write `for batch in loader:` without a DataLoader; a DataLoader takes "
            "tandem.data.torch_dataset.TorchDataset(space, decode)",
        )

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it."""
        self.close()

    @property
    def epoch(self) -> int:
        """The epoch that is being read, or that the next iteration begins with."""
        return self._state.epoch

    def close(self) -> None:
        """Stop threads and processes; a later iteration starts them again."""
        self._iteration += 1
        self._foreseen.close()
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is: after the batch handed out last. Plain values; the same on every rank."""
        return self._state.as_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on after the batch that was handed out last before `state_dict` was called.

        The seed and whether samples are shuffled are the state's; batch size, ranks and workers may be others.

        Raises:
            LoaderError: It is the state of other samples, of no place in an epoch, or none.
        """
        self._state = LoaderState.from_dict(state, self._state.samples, self._epoch_size)
        self._begun = False
        self._iteration += 1

    def coming(self, count: int) -> Numbers:
        """The `count` samples that this rank reads next, after the batch handed out last, across epochs; int64."""
        found, total = [np.zeros(0, dtype=np.int64)], 0
        for numbers_N in self._coming(self._state.epoch, self._state.position):
            if total >= count:
                break
            found.append(numbers_N)
            total += len(numbers_N)
        return np.concatenate(found)[:count]

    def metrics(self) -> dict[str, float]:
        """Of the time since the last call: `samples_per_s` of this rank, and `data_wait_share`, the part spent waiting.

        Made for run records: `recorder.record(step=step, **loader.metrics())`.
        """
        return self._meter.read()

    def _coming(self, epoch: int, position: int) -> Iterator[Numbers]:
        """What this rank reads from a position of an epoch on, batch by batch, without end."""
        while True:
            tasks = 0
            for task in self._tasks(epoch, position):
                tasks += 1
                yield task.numbers_N
            if not tasks and position == 0:
                return  # nothing to read in any epoch
            epoch, position = epoch + 1, 0

    def _foresee(self) -> Foreseen:
        """What the samples are told of what comes; where the last epoch was read to its end, they know already."""
        epoch, position = self._state.epoch, self._state.position
        if self._foreseen.at != self._place(epoch, position):
            self._foreseen.close()
            self._foreseen = foresee(self.samples, lambda: self._coming(epoch, position))
        self._foreseen.at = None
        return self._foreseen

    def _place(self, epoch: int, position: int) -> tuple[int, bool, int, int]:
        return self._state.seed, self._state.shuffle, epoch, position

    def _iterate(self, iteration: int) -> Iterator[Any]:
        tasks = self._tasks(self._state.epoch, self._state.position)
        self._left = len(self._layout(self._state.position))
        foreseen = self._foresee()
        waiting: deque[Pending[list[Task], Read] | Begun] = deque()
        ready: deque[tuple[Task, object]] = deque()
        meter = self._meter
        meter.begin()
        try:
            while True:
                if self._iteration != iteration:
                    message = "this iteration is over: the loader was closed, or a new iteration or state was begun"
                    raise RuntimeError(message)
                if not ready:
                    meter.wait()
                    if not self._fetch(tasks, waiting, ready):
                        foreseen.at = self._place(self._state.epoch + 1, 0)
                        return
                    meter.had()
                task, batch = ready.popleft()
                foreseen.took(task.numbers_N)
                if isinstance(batch, Failed):
                    raise batch.told(self.samples, task.numbers_N) from batch.cause
                self._state.position = task.end
                meter.count(len(task.numbers_N))
                box = [batch]
                del batch
                yield box.pop()  # nothing here refers to it while it is used
        finally:
            meter.end()
            foreseen.stop()
            for pending in waiting:
                pending.cancelled = True

    def _fetch(
        self,
        tasks: Iterator[Task],
        waiting: deque[Pending[list[Task], Read] | Begun],
        ready: deque[tuple[Task, object]],
    ) -> bool:
        """Ask for what may be read ahead, and take what was asked for first; false at the end of the epoch."""
        while len(waiting) < self.prefetch and (some := list(itertools.islice(tasks, self._a_read))):
            waiting.append(self._asked(some))
            self._left -= len(some)
        if not waiting:
            return False
        pending = waiting.popleft()
        if self._crew is None and isinstance(pending, Pending):
            pending.run(self._reading)
        read = pending.take()
        ready.extend(zip(read.tasks, read.batches, strict=True))
        if read.size_bytes and (self.decode.is_plain or self.decode_in == "processes"):
            most, most_bytes = _A_READ if self.decode.is_plain else _A_DECODED_READ
            self._batches_a_read = max(1, min(most, most_bytes * len(read.tasks) // read.size_bytes))
        return True

    @property
    def _a_read(self) -> int:
        """Batches of the next read; fewer towards the end of an epoch, so that processes end it at the same time."""
        if self.decode.is_plain:
            return self._batches_a_read
        return max(1, min(self._batches_a_read, self._left // max(1, 2 * self.workers)))

    def _asked(self, tasks: list[Task]) -> Pending[list[Task], Read] | Begun:
        """Batches that are being read, or (without workers) will be when they are taken."""
        if self._crew is None:
            return Pending(tasks)
        return self._reading.begin(tasks, self.workers) or self._crew.submit(tasks)

    def _tasks(self, epoch: int, position: int) -> Iterator[Task]:
        """The batches of this rank from a position on; the order is looked up for many at once."""
        order, layout = self._order(epoch), self._layout(position)
        steps_at_once = max(1, _PLAN_POSITIONS * self.share.world // self.batches.size)
        for first in range(0, len(layout), steps_at_once):
            steps = range(first, min(len(layout), first + steps_at_once))
            positions = layout.block(steps)
            numbers_N, begin = order.at(np.concatenate(positions)), 0
            for step, positions_N in zip(steps, positions, strict=True):
                yield Task(numbers_N[begin : begin + len(positions_N)], layout.end(step))
                begin += len(positions_N)

    def _order(self, epoch: int) -> Order:
        seed, shuffle = self._state.seed, self._state.shuffle
        if isinstance(self.samples, Mixture):
            return self.samples.order(seed=seed, epoch=epoch, shuffle=shuffle)
        count = len(self.samples)
        return Shuffled(count, seed=seed, epoch=epoch) if shuffle else InOrder(count)

    def _layout(self, position: int) -> Layout:
        return Layout(self._epoch_size, self.batches, self.share, position)

    @property
    def _epoch_size(self) -> int:
        return self.samples.epoch_size if isinstance(self.samples, Mixture) else len(self.samples)

    def _new_crew(self) -> Crew[list[Task], Read]:
        try:
            return Crew(self._new_workers())
        except (OSError, RuntimeError) as error:
            if getattr(error, "errno", None) not in _NO_ROOM and "can't start new thread" not in str(error):
                raise
            raise LoaderError(
                given=f"workers={self.workers} in {self.decode_in}, more than could be started: {error}",
                allowed="as many as the system has room for (ulimit -u, ulimit -n, the job's limits)",
                todo=f"take fewer; this process may use {len(os.sched_getaffinity(0))} cores",
            ) from error

    def _new_workers(self) -> Iterator[Worker[list[Task], Read]]:
        if self.decode_in == "threads":
            return (Reading(self.samples, self.decode, pin=self.decode.pin) for _ in range(self.workers))
        from tandem.data.decode_process import DecodingProcess

        return (Reading(self.samples, DecodingProcess(self.decode), pin=self.decode.pin) for _ in range(self.workers))


def _check(loader: Loader) -> None:
    for name, value, least in (("workers", loader.workers, 0), ("prefetch", loader.prefetch, 1)):
        if value < least:
            raise LoaderError(given=f"{name}={value}", allowed=f"{least} or more", todo="leave it out for the default")
    if loader.decode_in not in ("threads", "processes"):
        raise LoaderError(given=f"decode_in={loader.decode_in!r}", allowed="threads, processes", todo="choose one")
    if loader.decode_in == "processes" and not (loader.workers and (loader.decode.sample or loader.decode.batch)):
        raise LoaderError(
            given="decode_in='processes' without a decoder or with 0 workers",
            allowed="something to decode, and 1 or more workers",
            todo="leave decode_in out",
        )
    if loader.decode.pin:
        from tandem.data.pinning import require_cuda

        require_cuda()


def _signature(samples: Samples | Mixture) -> str:
    """What is read, in words that are the same exactly where the order would be."""
    if isinstance(samples, Mixture):
        parts = [f"{turns} x {_named(one)}" for turns, one in zip(samples.turns, samples.sources, strict=True)]
        return f"a mixture of {' + '.join(parts)}, {samples.epoch_size} an epoch"
    return _named(samples)


def _named(samples: Samples) -> str:
    """How many there are and, where they say it (`Space.identity`), which: numbers mean others after a deletion."""
    identity = getattr(samples, "identity", "")
    return f"{len(samples)} samples{identity and f' of {identity}'}"
