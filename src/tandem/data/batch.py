"""Samples that were read together, in one contiguous buffer; and what a loader reads them from.

Legend: N samples in the batch, S bytes of all of them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tandem.data.integers import sample_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """Verified bytes of N samples.

    The buffer belongs to the batch: it is used again for a later one once nothing refers to this batch, or to a view
    of it, any more. Keep `bytes(batch[i])` where a sample is to outlive the batch cheaply.

    Attributes:
        numbers_N: which samples these are, int64, in the order in which they were asked for.
        data_S: their bytes one after another, uint8.
        offsets_N1: where each begins, and where the last one ends, int64, N + 1 of them.
    """

    numbers_N: NDArray[np.int64]
    data_S: NDArray[np.uint8]
    offsets_N1: NDArray[np.int64]

    def __len__(self) -> int:
        """N."""
        return len(self.numbers_N)

    @overload
    def __getitem__(self, i: int) -> memoryview: ...

    @overload
    def __getitem__(self, i: slice) -> list[memoryview]: ...

    def __getitem__(self, i: int | slice) -> memoryview | list[memoryview]:
        """The bytes of the i-th sample asked for, or of a run of them, without a copy."""
        if isinstance(i, slice):
            return [self[one] for one in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return self.data_S.data[self.offsets_N1[i] : self.offsets_N1[i + 1]]

    def __iter__(self) -> Iterator[memoryview]:
        """The samples in order."""
        return iter(self.views())

    def views(self) -> list[memoryview]:
        """All samples in order, without a copy."""
        data = np.ascontiguousarray(self.data_S).data
        return [data[begin:end] for begin, end in itertools.pairwise(self.offsets_N1.tolist())]


class Coming(Protocol):
    """Samples that other threads are reading; once it is forgotten they read no more of them."""

    @property
    def size_bytes(self) -> int:
        """Of all of them."""

    def take(self) -> list[bytes] | tuple[str, int, int]:
        """Wait for them, once; Ctrl-C gets through. A tuple says what failed, and where in the batch."""


class Samples(Protocol):
    """Numbered samples of which any set can be read at once: a space, or part of one."""

    def __len__(self) -> int:
        """How many there are; they are numbered from 0."""

    def read_batch(self, numbers_N: NDArray[np.int64]) -> Batch | Sequence[bytes | bytearray | memoryview]:
        """Read and verify these samples, in this order; a number may be there more than once.

        Returns a batch, or the bytes of each. Safe to call from several threads at once.

        Raises:
            IndexError: A number is out of range.
            DataError: A sample's bytes are not what was packed; names it.
        """


def whole_numbers(numbers: ArrayLike) -> NDArray[np.int64]:
    """Numbers of samples as they are given; a mask, or parts of numbers, would name other samples than were meant.

    Raises:
        IndexError: One is larger than any space.
        TypeError: They are no integers, or some are masked.
        ValueError: They are not one row.
    """
    if np.ma.is_masked(numbers):
        message = "numbers of samples are a masked array, and some are masked; take its compressed()"
        raise TypeError(message)
    if isinstance(numbers, list | tuple) and set(map(type, numbers)) not in ({int}, {bool}):  # numpy makes all alike
        numbers = [one if _is_row(one) else sample_number(one) for one in numbers]
    try:
        numbers_N = np.asarray(numbers)
    except ValueError as error:  # rows of several lengths
        message = f"numbers of samples are one row, not {numbers!r:.80}"
        raise ValueError(message) from error
    if numbers_N.dtype.kind in "fO":  # what large integers become
        every = np.asarray(numbers, dtype=object).flat
        beyond = next((one for one in every if isinstance(one, int) and not -(2**63) <= one < 2**63), None)
        if beyond is not None:
            message = f"sample {beyond}: no space has so many"
            raise IndexError(message)
    if numbers_N.size and numbers_N.dtype.kind not in "iu":
        message = f"numbers of samples are integers, not {numbers_N.dtype}; of a mask, take np.flatnonzero(mask)"
        raise TypeError(message)
    if numbers_N.ndim > 1:
        message = f"numbers of samples are one row, not of the shape {numbers_N.shape}; take its ravel()"
        raise ValueError(message)
    if numbers_N.dtype == np.uint64 and numbers_N.size and numbers_N.max() > np.iinfo(np.int64).max:
        message = f"sample {numbers_N.max()}: no space has so many"
        raise IndexError(message)
    return np.ascontiguousarray(numbers_N, np.int64)


def _is_row(one: object) -> bool:
    return isinstance(one, list | tuple | range) or getattr(one, "ndim", 0) > 0
