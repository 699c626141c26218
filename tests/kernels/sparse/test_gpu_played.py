"""The GPU's products without a GPU: all of a kernel, thread by thread, under the sanitizers of a compiler.

Python's side of a launch runs as it is; `playing` and `played/gpu.hpp` say what is played. AddressSanitizer stands for
compute-sanitizer's memcheck, ThreadSanitizer for its racecheck. That they would find something is tested, too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from tandem.kernels.sparse import arranged, lanes, reference
from tandem.kernels.sparse.backends import cuda
from tandem.kernels.sparse.format import TAIL, SparseWeight, pack, unpack, unpack_strips
from tests.conftest import requires
from tests.kernels.sparse.playing import Gpu

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, requires("sanitizers")]
BF16, FP16, INT8 = torch.bfloat16, torch.float16, torch.int8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programmes of all of pytest's processes."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "played"
    shared.mkdir(exist_ok=True)
    return shared


def case(
    dtype: torch.dtype,
    count: int,
    density: float = 0.4,
    shape: tuple[int, int] = (70, 1300),
    x_type: torch.dtype = BF16,
) -> tuple[SparseWeight, torch.Tensor]:
    rng = torch.Generator().manual_seed(count)
    dense = torch.randn(shape, generator=rng) * (torch.rand(shape, generator=rng) < density)
    return pack(dense, dtype), torch.randn(count, shape[1], generator=rng).to(x_type)


def assert_right(
    y: torch.Tensor,
    weight: SparseWeight,
    x: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "none",
) -> None:
    """x is of the type that the kernel takes, so that results differ by the order of float32 sums alone."""
    expected = reference.activated(reference.forward(weight, x), bias, activation)
    allowed = 4e-6 * reference.magnitude(weight, x) + 1e-6
    assert y.shape == expected.shape
    assert bool(((y - expected).abs() <= allowed).all())


@pytest.mark.parametrize(
    ("sanitizer", "arch", "dtype", "x_type", "count", "geometry"),
    [
        ("address", 90, BF16, BF16, 9, "2 warps x 1 groups x 3 splits"),
        ("address", 80, FP16, FP16, 3, "2 warps x 2 groups x 2 splits"),
        ("address", 90, INT8, FP16, 33, "2 warps x 1 groups x 1 splits"),
        ("address", 80, INT8, BF16, 8, "4 warps x 1 groups x 3 splits"),
        ("thread", 90, BF16, BF16, 9, "2 warps x 1 groups x 3 splits"),
        ("thread", 80, FP16, FP16, 3, "2 warps x 2 groups x 2 splits"),
        ("thread", 90, INT8, BF16, 8, "4 warps x 1 groups x 3 splits"),
    ],
)
def test_the_backend_is_right_and_sanitizers_find_nothing(
    sanitizer: str,
    arch: int,
    dtype: torch.dtype,
    x_type: torch.dtype,
    count: int,
    geometry: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Gpu(folder, arch, sanitizer).put_in_place(monkeypatch)
    weight, x = case(dtype, count, x_type=x_type)
    assert_right(cuda.forward(weight, x, geometry=geometry), weight, x)
    if sanitizer == "address":
        bias = torch.randn(70)
        for density, activation in [(0.0, "relu"), (1.0, "gelu")]:
            weight, x = case(dtype, count, density, x_type=x_type)
            assert_right(cuda.forward(weight, x, bias, activation, geometry=geometry), weight, x, bias, activation)


@pytest.mark.parametrize(
    ("sanitizer", "arch", "dtype", "x_type", "count"),
    [
        ("address", 90, BF16, BF16, 9),
        ("address", 80, FP16, FP16, 32),
        ("address", 90, INT8, FP16, 3),
        ("thread", 90, BF16, BF16, 9),
        ("thread", 80, INT8, FP16, 3),
    ],
)
def test_arranged_layers_are_right_and_sanitizers_find_nothing(
    sanitizer: str,
    arch: int,
    dtype: torch.dtype,
    x_type: torch.dtype,
    count: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Gpu(folder, arch, sanitizer).put_in_place(monkeypatch)
    bias = torch.randn(70)
    results = []
    for density in (0.0, 1.0, 0.4) if sanitizer == "address" else (0.4, 0.4):
        weight, x = case(dtype, count, density, x_type=x_type)
        results.append(arranged.multiply(lanes.arrange(weight), weight.rows, x, weight.scales_M, bias, "silu"))
        assert_right(results[-1], weight, x, bias, "silu")
    assert sanitizer == "address" or torch.equal(*results)  # in whatever order threads ran


@pytest.mark.parametrize("dtype", [BF16, INT8])
def test_rows_are_written_out_for_many_rows_of_x(
    dtype: torch.dtype, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpu(folder, 90, "address").put_in_place(monkeypatch)
    weight, _ = case(dtype, 1)
    without_scales = SparseWeight(
        weight.rows, weight.cols, weight.masks_ST, weight.values_P.to(BF16), weight.starts_S, None
    )
    for first, last in [(0, 9), (2, 5)]:
        expected = unpack_strips(without_scales, first, last, BF16)
        assert torch.equal(cuda.decode(weight, first, last, BF16), expected)
    written = arranged.decode(lanes.arrange(weight), 1, 5, BF16)
    assert torch.equal(written[: 70 - 16, :1300], unpack(without_scales)[16:].to(BF16))


@pytest.mark.parametrize(
    ("product", "change", "sanitizer", "found"),
    [
        # nobody waits until all have copied their part of x
        ("arranged", ("    wait();\n    __syncthreads();", "    wait();"), "thread", "data race"),
        # a warp's entries are written over while others of its lanes still read them
        ("cuda", ("    __syncwarp();  // entries may be written over\n", ""), "thread", "data race"),
        # blocks leave before their sums are read
        (
            "arranged",
            ("  meet_cluster();  // nobody leaves before its sums are read\n", ""),
            "thread",
            "data race|use-after-free",
        ),
        # a piece is copied from one row behind
        (
            "arranged",
            ("static_cast<long long>(begin) * row_bytes;", "(begin + 9ll) * row_bytes;"),
            "address",
            "overflow",
        ),
        # what is copied is multiplied before it is there
        ("cuda", ("    wait();\n    __syncthreads();", "    __syncthreads();\n    wait();"), "address", "nan"),
    ],
)
def test_a_mistake_would_be_found(
    product: str, change: tuple[str, str], sanitizer: str, found: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpu(folder, 90, sanitizer, change=change).put_in_place(monkeypatch)
    weight, x = case(BF16, 9)

    def multiplied() -> torch.Tensor:
        if product == "cuda":
            return cuda.forward(weight, x, geometry="2 warps x 1 groups x 3 splits")
        return arranged.multiply(lanes.arrange(weight), weight.rows, x)

    if found == "nan":
        assert multiplied().isnan().any()
    else:
        with pytest.raises(AssertionError, match=found):
            multiplied()


@pytest.mark.parametrize("product", ["cuda", "arranged"])
def test_x_may_begin_anywhere_in_memory(product: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Gpu(folder, 90, "address").put_in_place(monkeypatch)
    weight, _ = case(BF16, 9, shape=(70, 1304))  # x needs no padding, which would lie elsewhere
    x = torch.randn(9 * 1304 + 1).bfloat16()[1:].view(9, 1304)
    assert x.data_ptr() % 16
    if product == "cuda":
        y = cuda.forward(weight, x, geometry="2 warps x 1 groups x 3 splits")
    else:
        y = arranged.multiply(lanes.arrange(weight), weight.rows, x)
    assert_right(y, weight, x)


def test_a_launch_that_no_gpu_would_take_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Gpu(folder, 90, "address").put_in_place(monkeypatch)
    weight, x = case(BF16, 9)
    whole = cuda.shared_size_bytes
    monkeypatch.setattr(cuda, "shared_size_bytes", lambda *sizes: whole(*sizes) + (1 << 20))
    monkeypatch.setattr(cuda, "_fits", lambda *_: True)
    with pytest.raises(AssertionError, match="bytes of shared memory"):
        cuda.forward(weight, x, geometry="2 warps x 1 groups x 3 splits")


def test_parts_that_are_too_short_would_be_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel is promised to be readable is needed, and the shared memory, too."""
    Gpu(folder, 90, "address").put_in_place(monkeypatch)
    weight, x = case(BF16, 9)
    geometry = "2 warps x 1 groups x 3 splits"
    cut = SparseWeight(
        weight.rows, weight.cols, weight.masks_ST, weight.values_P[: -TAIL - 1], weight.starts_S, weight.scales_M
    )
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        cuda.forward(cut, x, geometry=geometry)
    whole = cuda.shared_size_bytes
    monkeypatch.setattr(cuda, "shared_size_bytes", lambda *sizes: whole(*sizes) - 512)
    with pytest.raises(AssertionError, match=r"heap-buffer-overflow|not of the block's shared memory"):
        cuda.forward(weight, x, geometry=geometry)
