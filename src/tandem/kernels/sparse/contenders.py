"""Ways to multiply by one matrix, sparse and dense, with as many copies as outgrow the caches.

Every contender takes its copies in turn, so that each product reads its matrix from memory. Dense products that are
hopeless at the first try keep one copy and are timed seldom. `measuring` times what is made here.
"""

from __future__ import annotations

import functools
import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch

from tandem.core import machine
from tandem.kernels.sparse import running
from tandem.kernels.sparse.format import VALUE_TYPES, SparseWeight, pack

CACHES = 4
_LEAST_CACHE_BYTES = 1 << 20
_MOST_COPIES = 1000  # of matrices so small that they stay in a cache all the same
_HOPELESS = 2.0
"""A dense product so many times slower than the best, read from no more than one copy, is timed seldom."""

_MORE_TRIES = 2
_ENOUGH = 1 << 20
"""So many weights are enough to know where to cut."""

_FEW = 1000
_CLOSE = 0.005
_DENSE_BYTES = (2, 2, 2, 2, 4, 4, 4, 1)
"""Of a weight: F.linear and oneDNN in bf16 and fp16, these and MKL in fp32, fbgemm in int8."""
Product = Callable[[], torch.Tensor]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to multiply.

    Attributes:
        name: `bf16 60%` for ours, `F.linear bf16` and so on for the others.
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

    @property
    def is_rival(self) -> bool:
        """Whether it is a dense product of 16 or 32 bits, over the fastest of which a speed-up is told."""
        return self.zeros is None and "int8" not in self.name


@dataclass(frozen=True, slots=True)
class Pruned:
    """A matrix pruned to a share of zeros and packed: as many copies as outgrow the caches."""

    name: str
    zeros: float
    copies: tuple[SparseWeight, ...]

    @property
    def parts(self) -> list[torch.Tensor]:
        """The bitmaps and nonzeros of all copies."""
        return [part for one in self.copies for part in (one.masks_ST, one.values_P)]

    def contender(self, count: int) -> Contender:
        """Multiply `count` rows of x by the copies in turn."""
        x_NK = torch.randn(count, self.copies[0].cols).bfloat16()
        products = [functools.partial(running.multiply, one, x_NK, None, "none", "") for one in self.copies]
        return Contender(self.name, self.copies[0].size_bytes, _in_turn(products), self.zeros)


def pruned(dense_MK: torch.Tensor, zeros: Sequence[float], kinds: Sequence[torch.dtype]) -> list[Pruned]:
    """Prune a matrix by magnitude and pack it, for each type of values and each share of zeros.

    Of a matrix of a million weights or more, shares are right to some thousandths; of a smaller one, to a weight, and
    names tell what there is.
    """
    masks = [_mask_of(dense_MK, share) for share in zeros]
    found = [1 - float(mask_MK.sum()) / mask_MK.numel() for mask_MK in masks]
    close = _CLOSE if dense_MK.numel() >= _ENOUGH else 0.5 / dense_MK.numel() if dense_MK.numel() >= _FEW else 0.0
    known = [asked if abs(asked - share) < close else share for asked, share in zip(zeros, found, strict=True)]
    return [
        Pruned(f"{VALUE_TYPES[kind]} {100 * share:.6g}%", share, tuple(_copies(pack(dense_MK, kind, mask_MK=mask_MK))))
        for kind in kinds
        for share, mask_MK in zip(known, masks, strict=True)
    ]


def _mask_of(dense_MK: torch.Tensor, share: float) -> torch.Tensor:
    """Return which weights are kept: all but the smallest."""
    sizes_MK = dense_MK.abs()
    if share >= 1:
        return torch.zeros_like(sizes_MK, dtype=torch.bool)
    if sizes_MK.numel() >= _ENOUGH:
        return sizes_MK >= (sizes_MK.flatten()[:_ENOUGH].quantile(share) if share else 0)
    kept = torch.ones(sizes_MK.numel(), dtype=torch.bool)
    kept[sizes_MK.flatten().argsort()[: round(share * sizes_MK.numel())]] = False
    return kept.view_as(sizes_MK)


def most_bytes(rows: int, cols: int, zeros: Sequence[float], kinds: Sequence[torch.dtype]) -> int:
    """Return what the copies of all contenders of a shape take in memory, if every one has as many as it may."""
    weights = rows * cols
    sparse = [weights // 8 + int((1 - share) * weights * kind.itemsize) for kind in kinds for share in zeros]
    dense = [weights * size for size in _DENSE_BYTES]
    return sum(size_bytes * number_of_copies(size_bytes) for size_bytes in (*sparse, *dense))


@final
class Dense:
    """A matrix in all forms that torch can multiply by here: three types, and weights packed beforehand.

    What does not depend on the rows of x is made once and serves every number of them.

    Args:
        dense_MK: The matrix, float32.
    """

    def __init__(self, dense_MK: torch.Tensor) -> None:
        self.rows, self.cols = dense_MK.shape
        self._plain: dict[torch.dtype, list[torch.Tensor]] = {
            kind: [dense_MK.to(kind)] for kind in (torch.bfloat16, torch.float16, torch.float32)
        }
        self._quantised_MK: torch.Tensor | None = None
        self._bytes: list[Any] = []

    def contenders(self, count: int, clock: Clock = time.perf_counter) -> list[Contender]:
        """Return every dense product of `count` rows of x that runs here, each with its copies.

        Args:
            count: N, rows of x.
            clock: Seconds; what is hopeless is found by it.
        """
        prospects: list[_Prospect] = []
        for kind, plain in self._plain.items():
            x_NK = torch.randn(count, self.cols).to(kind)
            short = str(kind).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")
            size_bytes = plain[0].numel() * plain[0].element_size()
            for way, prepare in (
                ("F.linear", self._linear),
                ("oneDNN packed", self._onednn),
                ("MKL packed", self._mkl),
            ):
                prospects += _prospects(f"{way} {short}", size_bytes, functools.partial(prepare, x_NK, kind))
        x_NK = torch.randn(count, self.cols)
        prospects += _prospects("fbgemm int8", self.rows * self.cols, functools.partial(self._int8, x_NK))
        tried_s = [_once_s(one.first, clock) for one in prospects]
        for _ in range(_MORE_TRIES):  # of what is not far behind: who else used the machine meanwhile does not count
            limit_s = _limit_s(prospects, tried_s)
            tried_s = [
                min(s, _once_s(one.first, clock)) if s <= 3 * limit_s else s
                for one, s in zip(prospects, tried_s, strict=True)
            ]
        limit_s = _limit_s(prospects, tried_s)
        return [one.contender(seldom=s > limit_s) for one, s in zip(prospects, tried_s, strict=True)]

    def _copy(self, kind: torch.dtype, number: int) -> torch.Tensor:
        plain = self._plain[kind]
        while len(plain) <= number:
            plain.append(plain[0].clone())
        return plain[number]

    def _linear(self, x_NK: torch.Tensor, kind: torch.dtype, number: int) -> Product:
        return functools.partial(torch.nn.functional.linear, x_NK, self._copy(kind, number))

    def _onednn(self, x_NK: torch.Tensor, kind: torch.dtype, number: int) -> Product:
        del number  # packing copies
        ops: Any = torch.ops.mkldnn
        packed = ops._reorder_linear_weight(self._plain[kind][0], len(x_NK))
        return functools.partial(ops._linear_pointwise, x_NK, packed, None, "none", [], "")

    def _mkl(self, x_NK: torch.Tensor, kind: torch.dtype, number: int) -> Product:
        del number
        ops: Any = torch.ops.mkl
        weight_MK = self._plain[kind][0]
        packed = ops._mkl_reorder_linear_weight(weight_MK, len(x_NK))
        return functools.partial(ops._mkl_linear, x_NK, packed, weight_MK, None, len(x_NK))

    def _int8(self, x_NK: torch.Tensor, number: int) -> Product:
        quantized: Any = torch.ops.quantized
        with warnings.catch_warnings():  # torch's int8 product on processors is deprecated, and the only one it has
            warnings.simplefilter("ignore")
            if self._quantised_MK is None:
                dense_MK = self._plain[torch.float32][0]
                scale = float(dense_MK.abs().max()) / 127
                self._quantised_MK = torch.quantize_per_tensor(dense_MK, scale, 0, torch.qint8)
            while len(self._bytes) <= number:
                self._bytes.append(quantized.linear_prepack(self._quantised_MK, None))
            return functools.partial(quantized.linear_dynamic, x_NK, self._bytes[number])


@dataclass(frozen=True, slots=True)
class _Prospect:
    """A dense product that torch can do here, by one copy of its matrix; `prepare` makes one by another."""

    name: str
    size_bytes: int
    first: Product
    prepare: Callable[[int], Product]

    def contender(self, *, seldom: bool) -> Contender:
        number = 1 if seldom else number_of_copies(self.size_bytes)
        products = [self.first, *map(self.prepare, range(1, number))]
        return Contender(self.name, self.size_bytes, _in_turn(products), seldom=seldom)


def _prospects(name: str, size_bytes: int, prepare: Callable[[int], Product]) -> list[_Prospect]:
    """Return it, or nothing where torch cannot do this here."""
    try:
        first = prepare(0)
        first()
    except (RuntimeError, AttributeError, NotImplementedError):
        return []
    return [_Prospect(name, size_bytes, first, prepare)]


def _limit_s(prospects: Sequence[_Prospect], tried_s: Sequence[float]) -> float:
    """Return above which time one is hopeless; int8 is another product, so that it does not count."""
    return _HOPELESS * min(s for one, s in zip(prospects, tried_s, strict=True) if "int8" not in one.name)


def number_of_copies(size_bytes: int) -> int:
    """Return how many matrices of a size fill more than four of the largest caches."""
    return min(_MOST_COPIES, CACHES * cache_bytes() // max(1, size_bytes) + 1)


@functools.cache
def cache_bytes() -> int:
    """Return the size of the last-level cache, or a little where it is not known."""
    return max(machine.last_level_cache_bytes(), _LEAST_CACHE_BYTES)


def _copies(weight: SparseWeight) -> list[SparseWeight]:
    return [
        weight,
        *(
            replace(weight, masks_ST=weight.masks_ST.clone(), values_P=weight.values_P.clone())
            for _ in range(number_of_copies(weight.size_bytes) - 1)
        ),
    ]


def _in_turn(products: Sequence[Product]) -> Product:
    turns = itertools.cycle(products)
    return lambda: next(turns)()


def _once_s(run: Product, clock: Clock) -> float:
    began_s = clock()
    run()
    return clock() - began_s
