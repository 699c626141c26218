"""How fast products are, sparse and dense, each read from memory and not from a cache.

Contenders are timed in rounds, one after the other in each round, so that a ratio compares what was measured side by
side. `contenders` makes them, with copies that outgrow the caches; `tandem kernels bench` and
benchmarks/kernels_sparse.py show what `measure` returns.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tandem.kernels.sparse import contenders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.kernels.sparse.contenders import Clock, Contender, Dense, Product, Pruned

_TIMED_S = 0.004
_SETTLING_S = 0.015
_SELDOM_ROUNDS = 3
_FAR = 1.5


@dataclass(frozen=True, slots=True)
class Timed:
    """A contender's times.

    Attributes:
        name: `bf16 60%` for ours, `dense F.linear bf16` and so on for the others.
        zeros: The share of zeros, None for a dense matrix.
        size_bytes: What one product reads.
        rounds_s: Seconds a product in each round.
    """

    name: str
    zeros: float | None
    size_bytes: int
    rounds_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Seconds of a product."""
        return statistics.median(self.rounds_s)

    @property
    def bytes_per_s(self) -> float:
        """Compressed (or dense) bytes read a second."""
        return self.size_bytes / self.median_s


@dataclass(frozen=True, slots=True)
class Comparison:
    """One shape: ours, every dense product there is, and the bound.

    Attributes:
        rows: M.
        cols: K.
        count: N, rows of x.
        ours: One for each type of values and share of zeros.
        dense: All that run here.
        read_bytes_per_s: What this machine reads at most, measured beside them.
        threads: How many there were.
        clock_hz: Cycles a second of a core; 0 where it is not known.
    """

    rows: int
    cols: int
    count: int
    ours: tuple[Timed, ...]
    dense: tuple[Timed, ...]
    read_bytes_per_s: float
    threads: int
    clock_hz: float = 0.0

    @property
    def best_dense(self) -> Timed:
        """The fastest of 16 and 32 bits: what a speed-up is over."""
        return min((d for d in self.dense if "int8" not in d.name), key=lambda d: d.median_s)

    @property
    def from_memory(self) -> bool:
        """Whether copies outgrow a cache, as those of small matrices do not; hopeless products have one copy."""
        sizes = [timed.size_bytes for timed in (*self.ours, *self.dense)]
        return all(size * contenders.number_of_copies(size) > contenders.cache_bytes() for size in sizes)

    def speedup(self, ours: Timed) -> float:
        """The median over rounds of the best dense product's time over ours, of those rounds that both were in."""
        return statistics.median(d / o for d, o in zip(self.best_dense.rounds_s, ours.rounds_s, strict=False))

    def share_of_bandwidth(self, timed: Timed) -> float:
        """Bytes read a second over what this machine reads at most."""
        return timed.bytes_per_s / self.read_bytes_per_s

    def ns_per_32(self, timed: Timed) -> float:
        """Nanoseconds of one thread for 32 weights of the dense matrix."""
        return 1e9 * timed.median_s * self.threads * 32 / (self.rows * self.cols)

    def cycles_per_32(self, timed: Timed) -> float:
        """Cycles of one core for 32 weights of the dense matrix; 0 where the clock is not known."""
        return self.ns_per_32(timed) * self.clock_hz / 1e9


def measure(
    dense: Dense, weights: Sequence[Pruned], count: int, *, rounds: int = 9, clock: Clock = time.perf_counter
) -> Comparison:
    """Compare sparse products with every dense one, on the CPU.

    Args:
        dense: The matrix.
        weights: What `contenders.pruned` made of it.
        count: N, rows of x.
        rounds: How many times each contender is timed.
        clock: Seconds.
    """
    read = [part for weight in weights for part in weight.parts]
    before_bytes_per_s = read_bandwidth(read)
    every = [*(weight.contender(count) for weight in weights), *dense.contenders(count, clock)]
    for contender in every:
        contender.run()  # chooses a way, and touches what is to be touched
    times: list[list[float]] = [[] for _ in every]
    order = random.Random(0)  # nobody always comes after the same one
    for number in range(rounds):
        for one in order.sample(range(len(every)), len(every)):
            if number < _SELDOM_ROUNDS or not (every[one].seldom and _is_far_behind(one, every, times)):
                times[one].append(_time_s(every[one].run, clock))
    timed = tuple(Timed(c.name, c.zeros, c.size_bytes, tuple(t)) for c, t in zip(every, times, strict=True))
    return Comparison(
        rows=dense.rows,
        cols=dense.cols,
        count=count,
        ours=timed[: len(weights)],
        dense=timed[len(weights) :],
        read_bytes_per_s=max(before_bytes_per_s, read_bandwidth(read)),
        threads=torch.get_num_threads(),
        clock_hz=clock_hz(),
    )


def read_bandwidth(parts: Sequence[torch.Tensor] = ()) -> float:
    """Return bytes a second that as many threads as torch uses read at most; 0 without the extension.

    Args:
        parts: What is read, if it outgrows the caches; else memory that is made for it.
    """
    try:
        from tandem import _native
    except ImportError:
        return 0.0
    least_bytes = max(contenders.CACHES * contenders.cache_bytes(), 1 << 25)
    parts = [part for part in parts if part.device.type == "cpu" and part.is_contiguous()]
    total_bytes = list(itertools.accumulate(part.nbytes for part in parts))
    if not parts or total_bytes[-1] < least_bytes:
        parts, total_bytes = [torch.ones(least_bytes, dtype=torch.uint8)], [least_bytes]
    enough = parts[: bisect.bisect_left(total_bytes, least_bytes) + 1]
    return _native.read_bandwidth(torch.get_num_threads(), [(part.data_ptr(), part.nbytes) for part in enough], 0.2)


@functools.cache
def clock_hz() -> float:
    """Return cycles a second of a core, by additions that wait for one another; 0 without the extension."""
    try:
        from tandem import _native
    except ImportError:
        return 0.0
    return _native.clock_hz(0.05)


def _is_far_behind(one: int, every: Sequence[Contender], times: Sequence[Sequence[float]]) -> bool:
    """Whether a dense product is slower by half than the fastest, by what is known so far."""
    medians_s = [statistics.median(s) for e, s in zip(every, times, strict=True) if e.is_rival]
    return statistics.median(times[one]) > _FAR * min(medians_s)


def _time_s(run: Product, clock: Clock) -> float:
    """Seconds of a product, over as many as take some milliseconds after others that do not count.

    Threads of whoever came before spin for some milliseconds on the cores that these need.
    """
    _repeated_s(run, clock, _SETTLING_S)
    return _repeated_s(run, clock, _TIMED_S)


def _repeated_s(run: Product, clock: Clock, at_least_s: float) -> float:
    began_s, done = clock(), 0
    while done == 0 or clock() - began_s < at_least_s:
        run()
        done += 1
    return (clock() - began_s) / done
