"""What a loader is going to read, told to the samples that can use it: spaces at URLs, which are cached by it.

Anything whose `foresee` takes an iterator of sample numbers and returns what has `took(count)` and `close()` is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tandem.data.mixture import Mixture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tandem.data.batch import Samples
    from tandem.data.order import Numbers


class Told(Protocol):
    """Samples that have been told what comes."""

    def took(self, count: int) -> None:
        """So many further samples have been read."""

    def close(self) -> None:
        """They will not be read after all."""


class Foreseen:
    """What has been told, of iterations that follow one another.

    Args:
        told: Who was told, and the first of their numbers, and the first that is not theirs.

    Attributes:
        at: Between two iterations, where the next is to begin for this to go on; None during one.
    """

    def __init__(self, told: list[tuple[Told, int, int]]) -> None:
        self.at: object = None
        self._told = told

    def __del__(self) -> None:
        """Whoever was told has threads that would go on."""
        self.close()

    def took(self, numbers_N: Numbers) -> None:
        """These samples have been read."""
        for one, first, end in self._told:
            one.took(int(((numbers_N >= first) & (numbers_N < end)).sum()))

    def stop(self) -> None:
        """The iteration is over; if it was broken off, what was told does not come."""
        if self.at is None:
            self.close()

    def close(self) -> None:
        """What was told does not come."""
        self.at = None
        for one, _, _ in self._told:
            one.close()


def foresee(samples: Samples | Mixture, numbers: Callable[[], Iterator[Numbers]]) -> Foreseen:
    """Tell samples what comes, each source of a mixture its own part.

    Args:
        samples: What is read.
        numbers: Makes iterators of what is read, some at a time.
    """
    sources = samples.sources if isinstance(samples, Mixture) else [samples]
    told, first = [], 0
    for source in sources:
        end = first + len(source)
        tell = getattr(source, "foresee", None)
        one = tell(_of(numbers(), first, end)) if tell is not None else None
        if one is not None:
            told.append((one, first, end))
        first = end
    return Foreseen(told)


def _of(numbers: Iterator[Numbers], first: int, end: int) -> Iterator[Numbers]:
    """Those between these bounds, counted from the first."""
    for numbers_N in numbers:
        yield numbers_N[(numbers_N >= first) & (numbers_N < end)] - first
