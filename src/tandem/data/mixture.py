"""Several sets of samples read as one, each with a weight that holds at every moment, not only in the long run.

    mixture = Mixture([web, books, code], weights=[0.7, 0.2, 0.1])

Whose turn it is repeats after a cycle of at most 10,000 positions. Within it the turns follow Tijdeman's algorithm
("The chairman assignment problem", Discrete Mathematics 32, 1980): after t samples, each of K sources has had its
weight times t, give or take at most 1 - 1 / (2 K - 2); no order can promise less. A source's own samples come in its
own shuffled order, every one once before any comes again, whatever the lengths of epochs are.

Limits: weights are kept to one in 10,000 (exactly, where they are such fractions, like 0.7 or 1/3).

Legend: N positions; K sources; L positions of a cycle.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tandem.data.batch import Batch
from tandem.data.integers import integer, is_truth_or_masked
from tandem.data.order import Shuffled, mix
from tandem.data.steps import LoaderError, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Never

    from numpy.typing import NDArray

    from tandem.data.batch import Samples
    from tandem.data.order import Numbers

MAX_CYCLE = 10_000
_EACH = "one weight for each of 1 or more sources"

T = TypeVar("T")


class Mixture:
    """Sources and how often each has its turn.

    The samples of all sources are numbered through: those of the first come first.

    Args:
        sources: Where the samples come from; none may be empty.
        weights: How often each has its turn, in proportion; above 0.
        epoch_size: After how many samples an epoch ends; by default, the number of all samples. The sources go on in
            the next epoch where they stopped, so that proportions and turns hold across epochs.

    Raises:
        LoaderError: No sources, an empty one, or weights that do not fit.
    """

    def __init__(self, sources: Sequence[Samples], *, weights: Sequence[float], epoch_size: int | None = None) -> None:
        self.sources, weights = _row("sources", sources), _row("weights", weights)
        if not self.sources or len(self.sources) != len(weights):
            _refuse(f"{len(self.sources)} sources and {len(weights)} weights", _EACH)
        for number, source in enumerate(self.sources):
            refuse_unreadable(f"source {number}", source)
        self.counts = [len(source) for source in self.sources]
        if min(self.counts) == 0:
            _refuse(f"an empty source (number {self.counts.index(0)})", "sources that hold samples")
        self.turns = turns_of(weights)
        self.epoch_size = sum(self.counts) if epoch_size is None else whole("epoch_size", epoch_size)
        if self.epoch_size < 1:
            _refuse(f"epochs of {self.epoch_size} samples", "1 or more")
        self.firsts = np.concatenate([[0], np.cumsum(self.counts)])

    def __len__(self) -> int:
        """How many samples all sources have."""
        return int(self.firsts[-1])

    def order(self, *, seed: int, epoch: int, shuffle: bool) -> MixedOrder:
        """In which order the samples of an epoch come."""
        return MixedOrder(self, seed=seed, epoch=epoch, shuffle=shuffle)

    def source_of(self, number: int) -> tuple[int, int]:
        """Which source a sample is from, and its number there."""
        source = int(np.searchsorted(self.firsts, number, side="right")) - 1
        return source, number - int(self.firsts[source])

    def read_views(self, numbers_N: Numbers) -> list[memoryview]:
        """The bytes of these samples, each source being read once."""
        found: list[memoryview] = [memoryview(b"")] * len(numbers_N)
        sources_N = np.searchsorted(self.firsts, numbers_N, side="right") - 1
        for source in np.unique(sources_N).tolist():
            places = np.flatnonzero(sources_N == source)
            views = read_views(self.sources[source], numbers_N[places] - self.firsts[source])
            for place, view in zip(places.tolist(), views, strict=True):
                found[place] = view
        return found


class MixedOrder:
    """One epoch of a mixture; a pure function of the position, like the orders in `order.py`.

    Args:
        mixture: What is mixed.
        seed: Any whole number.
        epoch: Which epoch, from 0.
        shuffle: Whether each source's own samples are shuffled.
    """

    def __init__(self, mixture: Mixture, *, seed: int, epoch: int, shuffle: bool) -> None:
        self._mixture, self._seed, self._shuffle = mixture, seed, shuffle
        self._first = epoch * mixture.epoch_size
        self._sources_L, self._earlier_L = cycle(tuple(mixture.turns))

    def __len__(self) -> int:
        """How many positions the epoch has."""
        return self._mixture.epoch_size

    def at(self, positions_N: Numbers) -> Numbers:
        """The samples at these positions, int64, in the mixture's numbering."""
        cycles_N, slots_N = np.divmod(np.asarray(positions_N, dtype=np.int64) + self._first, len(self._sources_L))
        sources_N = self._sources_L[slots_N]
        drawn_N = cycles_N * np.array(self._mixture.turns)[sources_N] + self._earlier_L[slots_N]
        found_N: Numbers = np.empty(len(drawn_N), dtype=np.int64)
        for source in np.unique(sources_N).tolist():
            places = sources_N == source
            found_N[places] = self._mixture.firsts[source] + self._drawn(source, drawn_N[places])
        return found_N

    def _drawn(self, source: int, drawn_N: Numbers) -> Numbers:
        """A source's own samples that are drawn from it as its n-th, counted over all epochs."""
        count = self._mixture.counts[source]
        passes_N = drawn_N // count
        within_N = drawn_N - passes_N * count
        if not self._shuffle:
            return within_N
        for number in np.unique(passes_N).tolist():
            places = passes_N == number
            within_N[places] = Shuffled(count, seed=mix(self._seed + source), epoch=number).at(within_N[places])
        return within_N


def refuse_unreadable(name: str, samples: object, of_mixture: str = "mix all sources in one Mixture") -> None:
    """Refuse what cannot be read by the numbers of samples.

    Args:
        name: What it is called in the error.
        samples: What is to be read.
        of_mixture: What to do where it is a mixture.

    Raises:
        LoaderError: It is no space, nor anything like one.
    """
    if not (callable(getattr(samples, "read_batch", None)) and hasattr(type(samples), "__len__")):
        raise LoaderError(
            given=f"{name} is a {type(samples).__name__}",
            allowed="a Space, or anything else with __len__ and read_batch",
            todo=of_mixture if isinstance(samples, Mixture) else "pack it, and open the space",
        )


def read_views(samples: Samples, numbers_N: Numbers) -> list[memoryview]:
    """The bytes of these samples.

    Raises:
        LoaderError: What `read_batch` returns is not that.
    """
    batch = samples.read_batch(numbers_N)
    why: TypeError | None = None
    try:
        views = batch.views() if isinstance(batch, Batch) else [_bytes_of(one) for one in batch]
        given = f"{len(views)} samples of {len(numbers_N)}"
        if len(views) == len(numbers_N):
            return views
    except TypeError as error:
        given, why = f"a {type(batch).__name__}: {error}", error
    raise LoaderError(
        given=f"{type(samples).__name__}.read_batch returned {given}",
        allowed="a list of the bytes of each sample asked for, in that order, or a tandem.data.batch.Batch",
        todo="change what it returns",
    ) from why


def _bytes_of(one: bytes | bytearray | memoryview) -> memoryview:
    view = memoryview(one)
    if view.format != "B" or view.ndim != 1:
        message = f"{type(one).__name__} is no row of bytes"
        raise TypeError(message)
    return view if view.c_contiguous else memoryview(bytes(view))


def turns_of(weights: Sequence[float]) -> list[int]:
    """How many turns of a cycle each source has: whole numbers in proportion to the weights.

    Raises:
        LoaderError: A weight that is no finite number above 0, or one too small to ever have a turn.
    """
    given = [weight for weight in map(_weight, weights) if weight is not None]
    if len(given) < len(weights):
        _refuse(f"weights {', '.join(map(str, weights))}", "finite numbers above 0")
    exact = [(weight / sum(given)).limit_denominator(10**6) for weight in given]
    if min(exact) * MAX_CYCLE < sum(exact):
        _refuse(f"a weight of {min(weights)} among {', '.join(map(str, weights))}", "one in 10,000 of all, or more")
    parts = [weight / sum(exact) for weight in exact]
    length = math.lcm(*(part.denominator for part in parts))
    if length <= MAX_CYCLE:
        return [int(part * length) for part in parts]
    turns = [int(part * MAX_CYCLE) for part in parts]  # the largest remainders get what rounding leaves
    by_remainder = sorted(range(len(parts)), key=lambda k: turns[k] - parts[k] * MAX_CYCLE)
    for k in by_remainder[: MAX_CYCLE - sum(turns)]:
        turns[k] += 1
    return turns


def _weight(weight: Any) -> Fraction | None:  # noqa: ANN401 - whatever was given
    """A weight as it is given, whoever's number it is; None for what is none, like a truth value."""
    try:
        if is_truth_or_masked(weight) or not (math.isfinite(weight) and weight > 0):
            return None
        if (whole := integer(weight)) is not None:
            return Fraction(whole)
        return Fraction(weight if isinstance(weight, Fraction | Decimal) else float(weight))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None  # no number at all, several, an integer beyond all floats, or a tensor without values


def _row(name: str, given: Iterable[T]) -> tuple[T, ...]:
    try:
        if not isinstance(given, Mapping | AbstractSet):  # which weight is whose would be left to chance
            return tuple(given)
    except TypeError:
        pass
    _refuse(f"{name}={given!r}", f"{_EACH}, in a row")


@functools.lru_cache(maxsize=16)
def cycle(turns: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whose turn it is at each position of a cycle, and how many turns that source had in it before."""
    length, count = sum(turns), len(turns)
    had = [0] * count
    sources_L = np.zeros(length, dtype=np.int64)
    earlier_L = np.zeros(length, dtype=np.int64)
    scale = max(1, 2 * count - 2)
    for position in range(length):
        # Entitled: whom a turn now does not put too far ahead. Of these, the one who would be too late first.
        due = [turn * (position + 1) - length * h for turn, h in zip(turns, had, strict=True)]
        entitled = [k for k in range(count) if scale * due[k] >= length]
        source = min(entitled, key=lambda k: ((length - due[k]) * scale - length) / turns[k])
        sources_L[position], earlier_L[position] = source, had[source]
        had[source] += 1
    return sources_L, earlier_L


def _refuse(given: str, allowed: str) -> Never:
    raise LoaderError(given=given, allowed=allowed, todo="change the mixture")
