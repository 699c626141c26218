"""Several lists as one endless order: each source has its turns by its weight, and its own rows shuffled.

The row at a position is a pure function of the seed and the position, so that a run that goes on needs to know no
more than its step. The order is that of `tandem.data.mixture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from tandem.chat.errors import RowsError
from tandem.data.mixture import Mixture

T = TypeVar("T")

IMITATED, COMPARED, ANSWERED = "response to imitate", "preference pair", "prompt to respond to"
"""What rows of sft, reward and rl are, for the error."""


@dataclass(frozen=True, slots=True)
class _Listed(Generic[T]):
    """A list as a mixture's source."""

    rows: Sequence[T]

    def __len__(self) -> int:
        return len(self.rows)

    def read_batch(self, numbers: Sequence[int]) -> list[T]:
        return [self.rows[number] for number in numbers]


class Blend(Generic[T]):
    """Rows of several sources in one order.

    Args:
        lists: Rows, a list for each source; empty ones are left out.
        weights: One for each list.
        seed: Of the order.
        what: What they are, for the error.

    Raises:
        RowsError: All lists are empty.
    """

    def __init__(self, lists: Sequence[Sequence[T]], weights: Sequence[float], *, seed: int, what: str) -> None:
        kept = [(rows, weight) for rows, weight in zip(lists, weights, strict=True) if rows]
        if not kept:
            raise nothing_of(what)
        self._flat = [row for rows, _ in kept for row in rows]
        self._mixture = Mixture([_Listed(rows) for rows, _ in kept], weights=[weight for _, weight in kept])  # type: ignore[misc]  # only their lengths are asked for
        self._seed = seed

    def __len__(self) -> int:
        """How many rows there are; positions go on beyond."""
        return len(self._flat)

    def at(self, first: int, count: int) -> list[T]:
        """Return the rows at `count` positions from `first` on."""
        epoch_size = len(self._flat)
        rows: list[T] = []
        for epoch in range(first // epoch_size, (first + count - 1) // epoch_size + 1):
            order = self._mixture.order(seed=self._seed, epoch=epoch, shuffle=True)
            low, high = max(first, epoch * epoch_size), min(first + count, (epoch + 1) * epoch_size)
            numbers = order.at(np.arange(low, high) - epoch * epoch_size)
            rows += [self._flat[number] for number in numbers.tolist()]
        return rows


def nothing_of(what: str, left_out: int = 0) -> RowsError:
    """Return what is said where all lists are empty, or nothing is left of rows whose prompts serve another stage."""
    why = f": {left_out:,} rows are left out, as their prompts serve another stage" if left_out else ""
    return RowsError(
        given=f"no {what} in any source{why}",
        allowed="at least one, after those that are held out and those of other phases",
        todo="check data.sources, their columns, data.held_out and data.split",
    )
