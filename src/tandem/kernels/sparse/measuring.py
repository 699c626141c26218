"""How fast products are, sparse and dense, each read from memory and not from a cache.

Every contender has as many copies of its matrix as fill four last-level caches, and takes them in turn. Contenders are
timed in rounds, one after the other in each round, so that a ratio compares what was measured side by side. Dense
products that are hopeless at the first try get one copy and the first few rounds only.

`tandem kernels bench` and benchmarks/kernels_sparse.py show what `measure` returns.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tandem.core import machine
from tandem.kernels.sparse import running
from tandem.kernels.sparse.format import VALUE_TYPES, SparseWeight, pack

_CACHES = 4
_LEAST_CACHE_BYTES = 1 << 20
_MOST_COPIES = 1000  # of matrices so small that they stay in a cache all the same
_TIMED_S = 0.004
_HOPELESS = 2.0
"""A dense product so many times slower than the best, read from no more than one copy, is timed seldom."""

_SELDOM_ROUNDS = 3
Product = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to multiply.

    Attributes:
        name: As in `Timed`.
        size_bytes: What it reads at each product.
        run: One product.
        zeros: The share of zeros, None for a dense matrix.
        seldom: It cannot be the fastest: a few rounds are enough.
    """

    name: str
    size_bytes: int
    run: Product
    zeros: float | None = None
    seldom: bool = False


@dataclass(frozen=True, slots=True)
class Timed:
    """A contender's times.

    Attributes:
        name: `bf16 60 %` for ours, `dense F.linear bf16` and so on for the others.
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


@dataclass(frozen=True, slots=True)
class Pruned:
    """A matrix pruned to a share of zeros and packed: as many copies as outgrow the caches."""

    name: str
    zeros: float
    copies: tuple[SparseWeight, ...]


def pruned(dense_MK: torch.Tensor, zeros: Sequence[float], kinds: Sequence[torch.dtype]) -> list[Pruned]:
    """Prune a matrix by magnitude and pack it, for each type of values and each share of zeros."""
    sizes_MK = dense_MK.abs()
    some = sizes_MK.flatten()[: 1 << 20]  # a million weights are enough to know where to cut
    cuts = some.quantile(torch.tensor(zeros, dtype=some.dtype)).tolist()
    masks = [sizes_MK >= cut if share else sizes_MK >= 0 for share, cut in zip(zeros, cuts, strict=True)]
    return [
        Pruned(f"{VALUE_TYPES[kind]} {share:.0%}", share, tuple(_copies(pack(dense_MK, kind, mask_MK=mask_MK))))
        for kind in kinds
        for share, mask_MK in zip(zeros, masks, strict=True)
    ]


def measure(
    dense_MK: torch.Tensor,
    weights: Sequence[Pruned],
    count: int,
    *,
    rounds: int = 9,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Compare sparse products with every dense one, on the CPU.

    Args:
        dense_MK: The matrix, float32.
        weights: What `pruned` made of it.
        count: N, rows of x.
        rounds: How many times each contender is timed.
        clock: Seconds.
    """
    ours = [sparse_contender(weight, count) for weight in weights]
    dense = dense_contenders(dense_MK, count, clock)
    contenders = [*ours, *dense]
    for contender in contenders:
        contender.run()  # chooses a way, and touches what is to be touched
    times: list[list[float]] = [[] for _ in contenders]
    for number in range(rounds):
        for contender, rounds_s in zip(contenders, times, strict=True):
            if number < _SELDOM_ROUNDS or not contender.seldom:
                rounds_s.append(_time_s(contender.run, clock))
    timed = tuple(Timed(c.name, c.zeros, c.size_bytes, tuple(t)) for c, t in zip(contenders, times, strict=True))
    rows, cols = dense_MK.shape
    return Comparison(
        rows=rows,
        cols=cols,
        count=count,
        ours=timed[: len(ours)],
        dense=timed[len(ours) :],
        read_bytes_per_s=read_bandwidth(),
        threads=torch.get_num_threads(),
        clock_hz=clock_hz(),
    )


def sparse_contender(weight: Pruned, count: int) -> Contender:
    """Multiply by a matrix's copies in turn."""
    x_NK = torch.randn(count, weight.copies[0].cols).bfloat16()
    products = [functools.partial(running.multiply, one, x_NK, None, "none", "") for one in weight.copies]
    return Contender(weight.name, weight.copies[0].size_bytes, _in_turn(products), weight.zeros)


def dense_contenders(
    dense_MK: torch.Tensor, count: int, clock: Callable[[], float] = time.perf_counter
) -> list[Contender]:
    """All dense products that torch can do here: F.linear in three types, and weights packed beforehand."""
    prospects: list[_Prospect] = []
    for kind in (torch.bfloat16, torch.float16, torch.float32):
        weight_MK, x_NK = dense_MK.to(kind), torch.randn(count, dense_MK.shape[1]).to(kind)
        short = str(kind).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")
        for way, prepare in (("F.linear", _plain), ("oneDNN packed", _onednn), ("MKL packed", _mkl)):
            prospects += _prospects(f"{way} {short}", weight_MK, x_NK, prepare)
    x_NK = torch.randn(count, dense_MK.shape[1])
    prospects += _prospects("fbgemm int8", _quantised(dense_MK), x_NK, _int8)
    tried_s = [min(_once_s(one.first, clock) for _ in range(2)) for one in prospects]
    limit_s = _HOPELESS * min(s for one, s in zip(prospects, tried_s, strict=True) if "int8" not in one.name)
    return [one.contender(seldom=s > limit_s) for one, s in zip(prospects, tried_s, strict=True)]


@dataclass(frozen=True, slots=True)
class _Prospect:
    """A dense product that torch can do here, with one copy of its matrix."""

    name: str
    size_bytes: int
    first: Product
    again: Callable[[], Product]

    def contender(self, *, seldom: bool) -> Contender:
        number = 1 if seldom else _number_of_copies(self.size_bytes)
        products = [self.first, *(self.again() for _ in range(number - 1))]
        return Contender(self.name, self.size_bytes, _in_turn(products), seldom=seldom)


def _prospects(
    name: str,
    weight_MK: torch.Tensor,
    x_NK: torch.Tensor,
    prepare: Callable[[torch.Tensor, torch.Tensor], Product],
) -> list[_Prospect]:
    """Return it, or nothing where torch cannot do this here."""
    try:
        first = prepare(weight_MK, x_NK)
        first()
    except (RuntimeError, AttributeError, NotImplementedError):
        return []
    size_bytes = weight_MK.numel() * weight_MK.element_size()
    return [_Prospect(name, size_bytes, first, lambda: prepare(weight_MK.clone(), x_NK))]


def read_bandwidth() -> float:
    """Return bytes a second that as many threads as torch uses read at most; 0 without the extension."""
    try:
        from tandem import _native
    except ImportError:
        return 0.0
    return _native.read_bandwidth(torch.get_num_threads(), max(_CACHES * _cache_bytes(), 1 << 25), 0.2)


@functools.cache
def clock_hz() -> float:
    """Return cycles a second of a core, by additions that wait for one another; 0 without the extension."""
    try:
        from tandem import _native
    except ImportError:
        return 0.0
    return _native.clock_hz(0.05)


def _in_turn(products: Sequence[Product]) -> Product:
    turns = itertools.cycle(products)
    return lambda: next(turns)()


def _plain(weight_MK: torch.Tensor, x_NK: torch.Tensor) -> Product:
    return functools.partial(torch.nn.functional.linear, x_NK, weight_MK)


def _onednn(weight_MK: torch.Tensor, x_NK: torch.Tensor) -> Product:
    ops: Any = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(weight_MK, len(x_NK))
    return functools.partial(ops._linear_pointwise, x_NK, packed, None, "none", [], "")


def _mkl(weight_MK: torch.Tensor, x_NK: torch.Tensor) -> Product:
    ops: Any = torch.ops.mkl
    packed = ops._mkl_reorder_linear_weight(weight_MK, len(x_NK))
    return functools.partial(ops._mkl_linear, x_NK, packed, weight_MK, None, len(x_NK))


def _quantised(dense_MK: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():  # torch's int8 product on processors is deprecated, and the only one it has
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(dense_MK, float(dense_MK.abs().max()) / 127, 0, torch.qint8)


def _int8(weight_MK: torch.Tensor, x_NK: torch.Tensor) -> Product:
    quantized: Any = torch.ops.quantized
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return functools.partial(quantized.linear_dynamic, x_NK, quantized.linear_prepack(weight_MK, None))


def _copies(weight: SparseWeight) -> list[SparseWeight]:
    number = _number_of_copies(weight.size_bytes)
    return [replace(weight, masks_ST=weight.masks_ST.clone(), values_P=weight.values_P.clone()) for _ in range(number)]


def _number_of_copies(size_bytes: int) -> int:
    return min(_MOST_COPIES, _CACHES * _cache_bytes() // max(1, size_bytes) + 1)


@functools.cache
def _cache_bytes() -> int:
    return max(machine.last_level_cache_bytes(), _LEAST_CACHE_BYTES)


def _once_s(run: Product, clock: Callable[[], float]) -> float:
    began_s = clock()
    run()
    return clock() - began_s


def _time_s(run: Product, clock: Callable[[], float]) -> float:
    """Seconds of a product, over as many as take some milliseconds after a first; that one where it takes so long."""
    if (first_s := _once_s(run, clock)) >= _TIMED_S:
        return first_s
    began_s, done = clock(), 0
    while done == 0 or clock() - began_s < _TIMED_S:
        run()
        done += 1
    return (clock() - began_s) / done
