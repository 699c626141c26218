"""What a loader's threads do: read some batches at once, have them decoded, and keep what fails for its own batch.

Legend: N samples of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from tandem.data.decoding import Decode, DecoderFailure, told
from tandem.data.mixture import Mixture, read_views

if TYPE_CHECKING:
    from collections.abc import Callable

    from tandem.data.batch import Coming, Samples
    from tandem.data.order import Numbers

Sample = TypeVar("Sample", bytes, memoryview)


class Task(NamedTuple):
    """A batch to be read.

    Attributes:
        numbers_N: Its samples, of this rank.
        end: Up to which position the epoch has been read after it, by all ranks.
    """

    numbers_N: Numbers
    end: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Instead of a batch: why there is none.

    Attributes:
        error: What was raised.
    """

    error: BaseException

    @property
    def cause(self) -> BaseException | None:
        """What the error that is told comes from; None where it is told as it is."""
        return self.error.cause if isinstance(self.error, DecoderFailure) else self.error.__cause__

    def told(self, samples: Samples | Mixture, numbers_N: Numbers) -> BaseException:
        """The error for whoever takes the batch."""
        return told(self.error, samples, numbers_N) if isinstance(self.error, DecoderFailure) else self.error


@dataclass(frozen=True, slots=True)
class Read:
    """Batches that were read together.

    Attributes:
        tasks: Which.
        batches: A batch for each, or `Failed`.
        size_bytes: Of all their samples, undecoded; 0 where that is not known.
    """

    tasks: list[Task]
    batches: list[object]
    size_bytes: int


class Begun:
    """Batches that are being read into `bytes`.

    Args:
        tasks: Which.
        coming: Their samples, one after another.
        reading: Reads them again where that fails: it tells whose the error is.
    """

    __slots__ = ("_coming", "_reading", "_tasks", "cancelled")

    def __init__(self, tasks: list[Task], coming: Coming, reading: Reading) -> None:
        self._tasks, self._coming, self._reading = tasks, coming, reading
        self.cancelled = False  # as `Pending` has it; what is forgotten is not read on

    def take(self) -> Read:
        """Wait for them."""
        samples = self._coming.take()
        if isinstance(samples, tuple):
            return self._reading(self._tasks)
        return Read(self._tasks, [*_parted(samples, self._tasks)], self._coming.size_bytes)


class Reading:
    """Reads batches and has them decoded.

    Args:
        samples: What is read.
        decoder: Makes a batch of the views of its samples; closed with this, where it can be.
        pin: Whether what it makes is moved to page-locked memory.
    """

    def __init__(
        self, samples: Samples | Mixture, decoder: Callable[[list[memoryview], list[int]], object], *, pin: bool
    ) -> None:
        self._samples, self._decoder, self._pin = samples, decoder, pin
        self._plain = isinstance(decoder, Decode) and decoder.is_plain

    def __call__(self, tasks: list[Task]) -> Read:
        """Read and decode; what is raised stands in the place of its batch."""
        try:
            parts, size_bytes = self._views(tasks)
        except Exception as error:
            if len(tasks) == 1:
                return Read(tasks, [Failed(error)], 0)
            return Read(tasks, [batch for task in tasks for batch in self([task]).batches], 0)  # whose was it?
        return Read(tasks, self._decoded(parts, tasks), size_bytes)

    def begin(self, tasks: list[Task], threads: int) -> Begun | None:
        """Have undecoded batches read by threads of the samples' own; None where that cannot be."""
        begin_batch = getattr(self._samples, "begin_batch", None) if self._plain else None
        if begin_batch is None:
            return None
        try:
            coming = begin_batch(_numbers(tasks), threads)
        except Exception:
            return None  # to be told in its turn
        return None if coming is None else Begun(tasks, coming, self)

    @property
    def usable(self) -> bool:
        """Whether it can go on: not where its decoder's process has ended."""
        return bool(getattr(self._decoder, "usable", True))

    def close(self) -> None:
        """Close the decoder."""
        close = getattr(self._decoder, "close", None)
        if close is not None:
            close()

    def _views(self, tasks: list[Task]) -> tuple[list[list[memoryview]], int]:
        """The samples of each task, and the bytes of all."""
        if isinstance(self._samples, Mixture):
            parts = [self._samples.read_views(task.numbers_N) for task in tasks]
        else:
            parts = _parted(read_views(self._samples, _numbers(tasks)), tasks)
        return parts, sum(len(view) for views in parts for view in views)

    def _decoded(self, parts: list[list[memoryview]], tasks: list[Task]) -> list[object]:
        """A batch, or `Failed`, for each task."""
        if self._plain:
            return [list(map(bytes, views)) for views in parts]
        several = getattr(self._decoder, "several", None)
        if several is None:
            return [self._pinned(self._tried(views, task)) for views, task in zip(parts, tasks, strict=True)]
        pairs = [(views, task.numbers_N.tolist()) for views, task in zip(parts, tasks, strict=True)]
        return [self._pinned(Failed(one) if isinstance(one, DecoderFailure) else one) for one in several(pairs)]

    def _tried(self, views: list[memoryview], task: Task) -> object:
        try:
            return self._decoder(views, task.numbers_N.tolist())
        except Exception as error:
            return Failed(error)

    def _pinned(self, batch: object) -> object:
        if not self._pin or isinstance(batch, Failed):
            return batch
        from tandem.data.pinning import pinned

        try:
            return pinned(batch)
        except Exception as error:
            return Failed(error)


def _numbers(tasks: list[Task]) -> Numbers:
    """The samples of all tasks."""
    return tasks[0].numbers_N if len(tasks) == 1 else np.concatenate([task.numbers_N for task in tasks])


def _parted(samples: list[Sample], tasks: list[Task]) -> list[list[Sample]]:
    """The samples of each task."""
    if len(tasks) == 1:
        return [samples]
    parts, begin = [], 0
    for task in tasks:
        parts.append(samples[begin : begin + len(task.numbers_N)])
        begin += len(task.numbers_N)
    return parts
