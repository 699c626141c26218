"""Which positions of an epoch each step takes, and which of those each rank reads.

The layout, for B samples a batch over all ranks, W ranks, and an epoch whose remaining positions begin at s:

    step i takes positions        s + i B  ...  s + (i + 1) B - 1
    of which rank r reads from    s + i B + floor(r B / W)   to before   s + i B + floor((r + 1) B / W)

So the set of samples of a step is the same whatever W is, and a run may go on with another W from any step. Where W
does not divide B, some ranks read one sample more than others, always the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from tandem.core.errors import TandemError
from tandem.data.integers import integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Last = Literal["keep", "drop", "pad"]


class LoaderError(TandemError):
    """A loader asked for what it cannot do, or given a state that is not its own."""


def whole(name: str, number: object) -> int:
    """A whole number as Python has it; it may be one of numpy's.

    Raises:
        LoaderError: It is a fraction, a truth value, masked, or no number.
    """
    found = integer(number)
    if found is None:
        fraction = "round it, or divide with // instead of /"
        todo = "write the number itself" if isinstance(number, bool) else fraction
        raise LoaderError(given=f"{name}={number!r}", allowed="a whole number", todo=todo)
    return found


@dataclass(frozen=True, slots=True)
class Batches:
    """How samples are put together.

    Attributes:
        size: Samples a batch, of all ranks together.
        last: What becomes of the last positions of an epoch where they fill no batch. `keep`: a smaller batch, divided
            among the ranks like any other (a rank may get an empty share, so that all take equally many steps);
            `drop`: nobody reads them in this epoch; `pad`: the batch is filled up with the epoch's first samples.
    """

    size: int
    last: Last = "keep"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", whole("batch_size", self.size))
        if self.size < 1:
            raise LoaderError(given=f"batches of {self.size}", allowed="1 or more samples", todo="name a larger size")
        if self.last not in get_args(Last):
            allowed = ", ".join(get_args(Last))
            raise LoaderError(given=f"last={self.last!r}", allowed=allowed, todo="choose one of them")

    def steps(self, positions: int) -> int:
        """How many steps so many positions make."""
        return positions // self.size if self.last == "drop" else -(-positions // self.size)


@dataclass(frozen=True, slots=True)
class Share:
    """One rank's part of every batch.

    Attributes:
        rank: Which, from 0.
        world: Of how many.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        for name in ("rank", "world"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise LoaderError(
                given=f"rank {self.rank} of {self.world}", allowed="ranks from 0 to world - 1", todo="check both"
            )

    def of(self, size: int) -> tuple[int, int]:
        """The part of a batch of this size, from and to before."""
        return self.rank * size // self.world, (self.rank + 1) * size // self.world


@dataclass(frozen=True, slots=True)
class Layout:
    """The steps of one rank through the rest of an epoch.

    Attributes:
        count: How many positions the epoch has.
        batches: How they are put together.
        share: This rank's part.
        start: The first position that is still to be read.
    """

    count: int
    batches: Batches
    share: Share = Share()
    start: int = 0

    def __post_init__(self) -> None:
        if self.batches.size < self.share.world:
            raise LoaderError(
                given=f"batches of {self.batches.size} samples for {self.share.world} ranks",
                allowed="at least a sample for each rank: batch_size is of all ranks together",
                todo="multiply it by the number of ranks",
            )

    def __len__(self) -> int:
        """How many steps are left; the same for every rank."""
        return self.batches.steps(max(0, self.count - self.start))

    def block(self, steps: range) -> list[NDArray[np.int64]]:
        """The same as `positions` of each of these consecutive steps, whole batches at once."""
        size = self.batches.size
        whole = max(steps.start, min(steps.stop, (self.count - self.start) // size))
        found: list[NDArray[np.int64]] = []
        if whole > steps.start:  # a batch that no epoch fills may have any size
            low, high = self.share.of(size)
            firsts = np.arange(steps.start, whole, dtype=np.int64) * size + self.start
            found = list(firsts[:, None] + np.arange(low, high, dtype=np.int64))
        return found + [self.positions(step) for step in range(whole, steps.stop)]

    def end(self, step: int) -> int:
        """Up to which position the epoch has been read after this step, counted from 0 at `start`."""
        return min(self.count, self.start + (step + 1) * self.batches.size)

    def positions(self, step: int) -> NDArray[np.int64]:
        """What this rank reads at this step; int64, empty where its share of the last batch is."""
        first = self.start + step * self.batches.size
        size = self.batches.size if self.batches.last == "pad" else min(self.batches.size, self.count - first)
        low, high = self.share.of(size)
        positions_N = np.arange(first + low, first + high, dtype=np.int64)
        return positions_N % self.count if first + high > self.count else positions_N
