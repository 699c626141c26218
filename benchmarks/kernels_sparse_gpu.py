"""Products with sparse weights on a GPU, against cuBLAS through torch; used by kernels_sparse.py.

    python benchmarks/kernels_sparse.py --part gpu --save        # all shapes: less than five minutes
    python benchmarks/kernels_sparse.py --part gpu --quick --json

Matrices are those of OPT and Llama; x is bf16 with 1, 8, 16 and 32 rows. Against F.linear in bf16 and fp16 stand the
backends `cuda` and `triton`, bf16 weights with 50 to 80 % zeros, each in the fastest of its layouts, and `arranged`,
the same weights as tandem.kernels.sparse.arranged has them. A product is first compared with the reference, in each
layout; what is wrong or fails is told in its row and is not timed.

Before each product a buffer of 16 last-level caches is written and then read, so that the product finds nothing of its
own in the cache, and no line that has to be written back. While the GPU is at it the host is through with launching:
CUDA events see kernels one after another, as within a CUDA graph. Contenders take turns in drawn order. Bandwidth is
what the fastest sum over the buffer reads. Without a GPU it says so and measures nothing.

Shapes: M rows and K columns of a weight, N rows of x.
"""

from __future__ import annotations

import csv
import functools
import itertools
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.measuring import RESULTS, Ratio, commit, ratio
from tandem.kernels.sparse import arranged, choosing, lanes
from tandem.kernels.sparse.format import SparseWeight, pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = ("cuda", "triton")
FIGURE = "gpu_n8_s60"
COLUMNS = (
    "device", "commit", "model", "m", "k", "n", "product", "layout", "zeros", "size_bytes", "median_us",
    "over_best_dense", "low", "high", "of_bandwidth", "trouble",
)  # fmt: skip
_CACHES = 16
_LEAST_BUFFER_BYTES = 1 << 28
_BANDWIDTH_TRIES = 20
_LAYOUT_TRIES = 5
_BYTES_PER_WEIGHT = 48
"""What packing and the reference take at their peak, for each weight of the dense matrix."""

Timer = Callable[[Callable[[], object], Callable[[], object]], float]
"""Runs its first argument, then its second, and returns the seconds of the second alone."""


class Shape(NamedTuple):
    """A matrix of a model."""

    model: str
    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        shapes: Of matrices.
        counts: N.
        zeros: Shares of zeros.
        rounds: How often each contender is timed.
        budget_s: Shapes that would begin after so long are left out, and it is said.
    """

    shapes: tuple[Shape, ...]
    counts: tuple[int, ...] = (1, 8, 16, 32)
    zeros: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8)
    rounds: int = 25
    budget_s: float = 240.0


FULL = Plan(
    (
        Shape("Llama-2-7B", 4096, 4096),
        Shape("Llama-2-7B", 11008, 4096),
        Shape("Llama-2-7B", 4096, 11008),
        Shape("OPT-13B", 5120, 5120),
        Shape("OPT-13B", 20480, 5120),
        Shape("OPT-30B", 7168, 7168),
        Shape("OPT-30B", 7168, 28672),
        Shape("Llama-2-70B", 8192, 8192),
        Shape("Llama-2-70B", 28672, 8192),
    )
)
QUICK = replace(FULL, shapes=FULL.shapes[:2], counts=(8,), zeros=(0.6,), rounds=11, budget_s=20.0)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where it is measured, and how.

    Attributes:
        name: The device's, in words.
        device: Where tensors lie.
        timer: See `Timer`.
        buffer: float32, what is written and read before each product.
        backends: Ours, by name.
        why_not: Why others cannot run here, by name.
        free_bytes: Says how much memory is left.
    """

    name: str
    device: torch.device
    timer: Timer
    buffer: Tensor
    backends: Mapping[str, Any]
    why_not: Mapping[str, str]
    free_bytes: Callable[[], int]

    def flush(self) -> None:
        """Leave nothing in the cache but clean lines of the buffer."""
        self.buffer.zero_()
        self.buffer.sum()

    def time_s(self, run: Callable[[], object]) -> float:
        """Seconds of a product that finds nothing in the cache."""
        return self.timer(self.flush, run)


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to multiply; `trouble` says what is wrong with it, if anything."""

    product: str
    layout: str
    zeros: float | None
    size_bytes: int
    run: Callable[[], object]
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of a contender; no times and no gain where there was trouble."""

    shape: Shape
    count: int
    product: str
    layout: str
    zeros: float | None
    size_bytes: int
    trouble: str
    rounds_s: tuple[float, ...]
    over_dense: Ratio | None

    @property
    def median_s(self) -> float:
        """Seconds of a product; infinitely many where there was trouble."""
        return statistics.median(self.rounds_s) if self.rounds_s else float("inf")


class Checked(NamedTuple):
    """A packed weight, and what its products with all rows of x are."""

    zeros: float
    weight: SparseWeight
    expected_NM: Tensor
    magnitude_NM: Tensor


def figures(*, quick: bool, save: bool) -> dict[str, float | None]:
    """Return `gpu_n8_s60`, None where there is no GPU or something of it could not be measured."""
    if not torch.cuda.is_available():
        print("gpu: not measured (torch sees no NVIDIA GPU)")
        return {FIGURE: None}
    return run(on_gpu(), QUICK if quick else FULL, RESULTS if save else None)


def on_gpu() -> Bench:
    """Return the first GPU with its events."""
    device = torch.device("cuda", 0)
    properties = torch.cuda.get_device_properties(device)
    size_bytes = max(_CACHES * properties.L2_cache_size, _LEAST_BUFFER_BYTES)
    reasons = choosing.reasons()

    def free_bytes() -> int:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]

    return Bench(
        name=properties.name,
        device=device,
        timer=by_events,
        buffer=torch.empty(size_bytes // 4, device=device),
        backends={
            **{name: choosing.backend(name) for name in BACKENDS if not reasons[name]},
            **({} if reasons["cuda"] else {"arranged": Arranged()}),
        },
        why_not={name: reasons[name] for name in BACKENDS if reasons[name]},
        free_bytes=free_bytes,
    )


class Arranged:
    """Products of arranged weights, each arranged once, as a backend has them."""

    def __init__(self) -> None:
        self._known: tuple[SparseWeight, lanes.Lanes] | None = None

    def lanes_of(self, weight: SparseWeight) -> lanes.Lanes:
        """Return a weight in the order of lanes."""
        if self._known is None or self._known[0] is not weight:
            self._known = weight, lanes.arrange(weight)
        return self._known[1]

    def size_bytes(self, weight: SparseWeight) -> int:
        """Return what a product reads of it."""
        return self.lanes_of(weight).size_bytes

    def prepared(self, weight: SparseWeight, x_NK: Tensor) -> Callable[[], Tensor]:
        """Return the product with x."""
        return functools.partial(arranged.multiply, self.lanes_of(weight), weight.rows, x_NK)


def by_events(before: Callable[[], object], run: Callable[[], object]) -> float:
    """Time on the GPU alone; see `Timer`."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before()
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def by_clock(before: Callable[[], object], run: Callable[[], object]) -> float:
    """Time by the processor's clock, of what is done when it returns; see `Timer`."""
    before()
    began_s = time.perf_counter()
    run()
    return time.perf_counter() - began_s


def run(
    bench: Bench, plan: Plan, folder: Path | None, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float | None]:
    """Measure all of a plan, print it, and return its figure.

    Args:
        bench: Where.
        plan: What.
        folder: Where a table goes as CSV; None for nowhere.
        clock: Seconds, for the budget.
    """
    began_s = clock()
    bytes_per_s = read_bandwidth(bench)
    print(f"{bench.name}; torch {torch.__version__}; reads {bytes_per_s / 1e9:.4g} GB/s at most")
    for name, why in bench.why_not.items():
        print(f"{name}: not measured ({why})")
    rows: list[Row] = []
    for number, shape in enumerate(plan.shapes):
        lacking = _why_left_out(bench, shape, clock() - began_s if number else 0.0, plan.budget_s)
        if lacking:
            print(f"{shape.model} {shape.rows} x {shape.cols}: left out ({lacking})")
            continue
        found = of_shape(bench, shape, plan)
        show(found, bytes_per_s)
        rows += found
    means = {
        (count, zeros): over_shapes(rows, count, zeros) for count, zeros in itertools.product(plan.counts, plan.zeros)
    }
    print("\nthe better backend over the better F.linear, geometric mean of the shapes above")
    for (count, zeros), mean in means.items():
        print(f"{count:3d} rows of x, {zeros:.0%} zeros: {'not measured' if mean is None else f'{mean:.3f}'}")
    if folder is not None:
        print(save(rows, bytes_per_s, bench, folder))
    return {FIGURE: means.get((8, 0.6))}


def read_bandwidth(bench: Bench) -> float:
    """Return bytes a second that a sum over the buffer reads, the fastest of several."""
    fastest_s = min(bench.time_s(bench.buffer.sum) for _ in range(_BANDWIDTH_TRIES))
    return 4 * bench.buffer.numel() / fastest_s


def of_shape(bench: Bench, shape: Shape, plan: Plan) -> list[Row]:
    """Return the times of all products of one shape."""
    own = torch.Generator(bench.device).manual_seed(0)
    dense_MK = torch.randn(shape.rows, shape.cols, device=bench.device, generator=own)
    x_NK = torch.randn(max(plan.counts), shape.cols, device=bench.device, generator=own).bfloat16()
    packed = [checked(dense_MK, zeros, x_NK) for zeros in plan.zeros]
    plain = {"bf16": dense_MK.bfloat16(), "fp16": dense_MK.half()}
    del dense_MK
    rows: list[Row] = []
    for count in plan.counts:
        contenders = [_dense(f"F.linear {kind}", weight_MK, x_NK[:count]) for kind, weight_MK in plain.items()]
        contenders += [_ours(bench, name, one, x_NK[:count]) for one in packed for name in bench.backends]
        times = _times_s(bench, contenders, plan.rounds)
        dense_s = min(times[: len(plain)], key=statistics.median)
        rows += [
            Row(
                shape, count, c.product, c.layout, c.zeros, c.size_bytes, c.trouble, tuple(t),
                ratio(dense_s, t) if t else None,
            )
            for c, t in zip(contenders, times, strict=True)
        ]  # fmt: skip
    return rows


def checked(dense_MK: Tensor, zeros: float, x_NK: Tensor) -> Checked:
    """Prune by magnitude, pack, and multiply as `reference` does."""
    some = dense_MK.flatten()[: 1 << 20].abs()  # a million weights are enough to know where to cut
    weight = pack(dense_MK, torch.bfloat16, mask_MK=dense_MK.abs() >= some.quantile(zeros))
    weights_KM, wide_NK = unpack(weight, torch.float64).T, x_NK.double()
    return Checked(zeros, weight, (wide_NK @ weights_KM).float(), (wide_NK.abs() @ weights_KM.abs_()).float())


def wrong(y_NM: Tensor, expected_NM: Tensor, magnitude_NM: Tensor, cols: int) -> str:
    """Return what is wrong with a product; empty where nothing is.

    TensorCores cut each of their sums of 16 products off at 2**-23 of it: K / 16 times that is allowed, of the sum of
    the products' absolute values. One weight in a wrong place is off by more, about 1 / K.
    """
    if (y_NM.shape, y_NM.dtype) != (expected_NM.shape, torch.float32):
        return f"{tuple(y_NM.shape)} {y_NM.dtype} in place of {tuple(expected_NM.shape)} {torch.float32}"
    allowed = 4e-6 + cols / 16 * 2**-23
    off = float(((y_NM - expected_NM).abs() / magnitude_NM.clamp(min=1e-30)).max())
    return "" if off <= allowed else f"wrong by {off:.1e} of the products' sizes, where {allowed:.1e} is allowed"


def over_shapes(rows: Sequence[Row], count: int, zeros: float) -> float | None:
    """Return the geometric mean over shapes of the better backend's gain; None where one of them has none."""
    best: dict[Shape, Row] = {}
    for row in rows:
        if (row.count, row.zeros) == (count, zeros):
            best[row.shape] = min(best.get(row.shape, row), row, key=lambda one: one.median_s)
    gains = [row.over_dense.mid for row in best.values() if row.over_dense]
    return statistics.geometric_mean(gains) if gains and len(gains) == len(best) else None


def show(rows: Sequence[Row], bytes_per_s: float) -> None:
    """Print the table of one shape."""
    shape = rows[0].shape
    print(f"\n{shape.model} {shape.rows} x {shape.cols}")
    print(f"{'N':>3} {'zeros':>5} {'product':13} {'layout':20} {'us':>8} of bandwidth  over the better F.linear")
    for row in rows:
        zeros = "" if row.zeros is None else f"{row.zeros:.0%}"
        start = f"{row.count:3d} {zeros:>5} {row.product:13} {row.layout:20}"
        if row.trouble:
            print(f"{start} not measured: {row.trouble}")
        else:
            share = row.size_bytes / row.median_s / bytes_per_s
            print(f"{start} {1e6 * row.median_s:8.1f} {share:12.2f}  {row.over_dense}")


def save(rows: Sequence[Row], bytes_per_s: float, bench: Bench, folder: Path) -> Path:
    """Write all rows as CSV, one file a device."""
    plain = "".join(sign if sign.isalnum() else "_" for sign in bench.name.lower())
    path = folder / f"kernels_sparse_gpu_{plain}.csv"
    with path.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(COLUMNS)
        for row in rows:
            told = [""] * 5
            if row.over_dense:
                over, share = row.over_dense, row.size_bytes / row.median_s / bytes_per_s
                numbers = (over.mid, over.low, over.high, share)
                told = [f"{1e6 * row.median_s:.2f}", *(f"{number:.4g}" for number in numbers)]
            known = [bench.name, commit(), *row.shape, row.count, row.product, row.layout, row.zeros, row.size_bytes]
            table.writerow([*known, *told, row.trouble])
    return path


def _dense(name: str, weight_MK: Tensor, x_NK: Tensor) -> Contender:
    product = functools.partial(torch.nn.functional.linear, x_NK.to(weight_MK.dtype), weight_MK)
    return Contender(name, "", None, weight_MK.numel() * weight_MK.element_size(), product)


def _ours(bench: Bench, name: str, one: Checked, x_NK: Tensor) -> Contender:
    """Return a backend in the fastest of its layouts, or with what is wrong with it."""
    backend = bench.backends[name]
    is_arranged = isinstance(backend, Arranged)
    size_bytes = backend.size_bytes(one.weight) if is_arranged else one.weight.size_bytes
    found = Contender(f"{name} bf16", "", one.zeros, size_bytes, lambda: None)
    here = (one.expected_NM[: len(x_NK)], one.magnitude_NM[: len(x_NK)], one.weight.cols)
    tried_s: dict[str, float] = {}
    layouts = backend.geometries(one.weight) if hasattr(backend, "geometries") else [""]
    for layout in layouts:
        if is_arranged:
            product = backend.prepared(one.weight, x_NK)
        else:
            product = functools.partial(backend.forward, one.weight, x_NK, **({"geometry": layout} if layout else {}))
        try:
            trouble = wrong(product(), *here)
        except Exception as error:  # a compiler or a driver raises what it likes, and others are still to run
            trouble = f"{type(error).__name__}: {(str(error) or 'without words').splitlines()[0]}"
        if trouble:
            return replace(found, layout=layout, trouble=trouble)
        tried_s[layout] = min(bench.time_s(product) for _ in range(_LAYOUT_TRIES))
        if tried_s[layout] == min(tried_s.values()):
            found = replace(found, layout=layout, run=product)
    return found


def _times_s(bench: Bench, contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
    """Return seconds of each in every round; all take turns, in each round in another order."""
    times: list[list[float]] = [[] for _ in contenders]
    able, order = [i for i, one in enumerate(contenders) if not one.trouble], random.Random(0)
    for one in able:
        contenders[one].run()  # what is prepared at the first call does not count
    for _ in range(rounds):
        for one in order.sample(able, len(able)):
            times[one].append(bench.time_s(contenders[one].run))
    return times


def _why_left_out(bench: Bench, shape: Shape, passed_s: float, budget_s: float) -> str:
    needed_bytes, free_bytes = _BYTES_PER_WEIGHT * shape.rows * shape.cols, bench.free_bytes()
    if passed_s > budget_s:
        return f"{passed_s:.0f} s have passed"
    if needed_bytes > free_bytes:
        return f"it takes about {needed_bytes / 1e9:.1f} GB of memory, and {free_bytes / 1e9:.1f} GB are free"
    return ""
