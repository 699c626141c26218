"""Every backend of sparse products equals the reference: odd sizes, every density, every type of value."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch

from tandem.core import plug
from tandem.kernels.sparse import choosing, reference
from tandem.kernels.sparse.backends import cpu
from tandem.kernels.sparse.format import SparseWeight, pack, unpack, unpack_strips
from tandem.kernels.sparse.mistakes import BackendError, SparseShapeError

NAMES = plug.names("kernels.sparse.backends")
RUNS = [name for name, why in choosing.reasons().items() if not why]
SIZES = [(1, 1), (7, 5), (8, 8), (9, 17), (40, 64), (67, 129)]
TYPES = [torch.bfloat16, torch.float16, torch.int8]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small products do not gain by threads; one test asks for more of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case(
    rows: int, cols: int, density: float, dtype: torch.dtype, count: int, x_type: torch.dtype = torch.float32
) -> tuple[SparseWeight, torch.Tensor]:
    rng = torch.Generator().manual_seed(rows * 1000 + cols + int(100 * density))
    dense = torch.randn(rows, cols, generator=rng) * (torch.rand(rows, cols, generator=rng) < density)
    return pack(dense, dtype), torch.randn(count, cols, generator=rng).to(x_type)


def is_close(y: torch.Tensor, weight: SparseWeight, x: torch.Tensor, tolerance: float, path: str = "") -> bool:
    """Compare shape, type and every number.

    `path` is the processor's path, since AVX-512 rounds x to 16 bits for int8 weights.
    """
    expected, allowed = reference.forward(weight, x), tolerance * reference.magnitude(weight, x) + 1e-30
    if path.startswith(("avx512", "emulated")) and weight.scales_M is not None and x.numel():
        largest_N, sums_M = x.float().abs().amax(1), unpack(weight).abs().sum(1)
        allowed += 0.5001 / 32639 * largest_N[:, None] * sums_M
    same = (y.shape, y.dtype) == (expected.shape, torch.float32)
    return same and bool(((y - expected).abs() <= allowed).all())


def path_of(name: str) -> str:
    return cpu.best_path() if name == "cpu" else ""


def product(name: str, weight: SparseWeight, x: torch.Tensor, **options: str) -> torch.Tensor:
    """Multiply where the backend computes."""
    backend = choosing.backend(name)
    device = "cuda" if backend.DEVICE == "cuda" else "cpu"
    return backend.forward(weight.to(device), x.to(device), **options).cpu()


def test_there_are_backends() -> None:
    assert {"cpu", "portable"} <= set(RUNS)


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_that_cannot_run_says_why(name: str) -> None:
    why = choosing.reasons()[name]
    if not why:
        assert choosing.backend(name).supported() == ""
    else:
        with pytest.raises(BackendError, match=name):
            choosing.backend(name)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 0.5, 0.97, 1.0])
def test_it_equals_the_reference(name: str, dtype: torch.dtype, density: float) -> None:
    backend = choosing.backend(name)
    for (rows, cols), count in itertools.product(SIZES, [1, 2, 3, 9]):
        weight, x = case(rows, cols, density, dtype, count)
        assert is_close(product(name, weight, x), weight, x, backend.TOLERANCE, path_of(name))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("x_type", [torch.bfloat16, torch.float16])
def test_it_takes_half_precision(name: str, x_type: torch.dtype) -> None:
    backend = choosing.backend(name)
    weight, x = case(33, 70, 0.4, torch.bfloat16, 5, x_type)
    assert is_close(product(name, weight, x), weight, x, backend.TOLERANCE, path_of(name))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16, torch.float16])
def test_torchs_default_type_changes_nothing(name: str, default: torch.dtype) -> None:
    before = torch.get_default_dtype()
    for dtype, count in itertools.product(TYPES, [1, 9]):
        weight, x = case(67, 129, 0.4, dtype, count)
        expected = product(name, weight, x)
        try:
            torch.set_default_dtype(default)
            y, nothing = product(name, weight, x), product(name, weight, x[:0])
        finally:
            torch.set_default_dtype(before)
        assert y.dtype == nothing.dtype == torch.float32
        assert torch.equal(y, expected)


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_nothing(name: str) -> None:
    for rows, cols, count in [(0, 5, 2), (5, 0, 2), (5, 3, 0), (0, 0, 0)]:
        weight = pack(torch.ones(rows, cols))
        y = product(name, weight, torch.ones(count, cols))
        assert y.shape == (count, rows)
        assert not y.any()


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")  # numpy's, under Triton's interpreter
@pytest.mark.parametrize("name", RUNS)
def test_what_is_not_finite_spoils_its_own_row_only(name: str) -> None:
    dense = torch.eye(9)
    dense[2, 3], dense[4, 4], dense[8, 0] = math.nan, math.inf, -math.inf
    for dtype, count in itertools.product((torch.bfloat16, torch.float16), (1, 16)):
        y = product(name, pack(dense, dtype), torch.ones(count, 9))
        assert y[:, 2].isnan().all()
        assert (y[:, 4] == math.inf).all()
        assert (y[:, 8] == -math.inf).all()
        assert (y[:, [0, 1, 3, 5, 6, 7]] == 1).all()


@pytest.mark.parametrize("name", RUNS)
def test_columns_need_not_be_contiguous(name: str) -> None:
    backend = choosing.backend(name)
    weight, x = case(20, 30, 0.5, torch.float16, 4)
    assert is_close(product(name, weight, x.T.contiguous().T), weight, x, backend.TOLERANCE, path_of(name))


@pytest.mark.parametrize("path", [*cpu.paths(), "emulated"])
@pytest.mark.parametrize("way", cpu.WAYS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("density", [0.0, 0.2, 0.6, 1.0])
def test_every_path_of_the_processor_equals_the_reference(
    path: str, way: str, dtype: torch.dtype, density: float
) -> None:
    for (rows, cols), count in itertools.product(
        [(7, 5), (9, 17), (67, 129), (17, 530)], [1, 2, 3, 4, 5, 11, 13, 17, 31]
    ):
        for x_type in (torch.float32, torch.bfloat16) if count % 2 else (torch.bfloat16,):
            weight, x = case(rows, cols, density, dtype, count, x_type)
            assert is_close(cpu.forward(weight, x, way=way, path=path), weight, x, cpu.TOLERANCE, path)


def test_long_rows_of_bytes_do_not_overflow() -> None:
    """The largest products there are, over more columns than 32 bits hold."""
    dense = torch.full((3, 70_000), 1.0)
    dense[1] = -1
    weight = pack(dense, torch.int8)
    for path, count in itertools.product([*cpu.paths(), "emulated"], [1, 2, 3]):
        x = torch.full((count, 70_000), 1.0)
        x[1:] = -1
        assert is_close(cpu.forward(weight, x, path=path), weight, x, cpu.TOLERANCE, path)


@pytest.mark.parametrize("path", [*cpu.paths(), "emulated"])
@pytest.mark.parametrize("way", cpu.WAYS)
@pytest.mark.parametrize("count", [1, 5, 17])
def test_bytes_times_a_large_x_overflow_only_where_the_result_does(path: str, way: str, count: int) -> None:
    weight, x = case(19, 67, 0.5, torch.int8, count)
    assert weight.scales_M is not None
    for size in (1e30, 1e37):
        y = cpu.forward(weight, size * x, way=way, path=path)
        assert y.isfinite().all()
        assert is_close(y, weight, size * x, cpu.TOLERANCE, path)
    assert (
        cpu.forward(pack(torch.ones(1, 8), torch.int8), torch.full((count, 8), 3e38), way=way, path=path).isinf().all()
    )


@pytest.mark.parametrize("path", [*cpu.paths(), "emulated"])
@pytest.mark.parametrize("count", [1, 2])
def test_rows_of_x_that_are_not_finite_spoil_no_others(path: str, count: int) -> None:
    weight, x = pack(torch.ones(9, 16), torch.int8), torch.ones(count, 16)
    x[0, 3] = math.nan
    y = cpu.forward(weight, x, path=path)
    assert y[0].isnan().all()
    torch.testing.assert_close(y[1:], torch.full((count - 1, 9), 16.0), rtol=1e-4, atol=0)


def test_a_path_that_the_processor_lacks_is_refused() -> None:
    with pytest.raises(BackendError, match=r"allowed: .*scalar"):
        cpu.forward(pack(torch.ones(1, 1)), torch.ones(1, 1), path="sve")


def test_what_the_processor_would_read_beyond_an_end_is_refused() -> None:
    weight = pack(torch.ones(9, 16))
    for x, bias in [(torch.ones(1, 15), None), (torch.ones(16), None), (torch.ones(1, 16), torch.ones(8))]:
        with pytest.raises(SparseShapeError, match="for a weight of 9 x 16"):
            cpu.forward(weight, x, bias)


def test_decoding_is_unpacking() -> None:
    for dtype in TYPES:
        weight, _ = case(67, 129, 0.4, dtype, 1)
        for first, last in [(0, 9), (2, 5), (8, 9), (3, 3)]:
            expected = unpack_strips(weight, first, last, torch.float32)
            torch.testing.assert_close(cpu.decode(weight, first, last), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", RUNS)
def test_every_layout_is_the_same_product(name: str) -> None:
    backend, (weight, x) = choosing.backend(name), case(67, 300, 0.4, torch.bfloat16, 5)
    layouts: dict[str, list[str]] = {
        "way": list(getattr(backend, "WAYS", ())),
        "geometry": getattr(backend, "geometries", lambda weight: [])(
            weight.to("cuda" if backend.DEVICE == "cuda" else "cpu")
        ),
    }
    given = [{option: layout} for option, found in layouts.items() for layout in found] or [{}]
    assert len(given) == {"portable": 1, "cpu": 2}.get(name, len(layouts["geometry"])) > 0
    for options in given:
        assert is_close(product(name, weight, x, **options), weight, x, backend.TOLERANCE, path_of(name)), options


@pytest.mark.parametrize("number", [1, 7])
def test_a_result_of_the_processor_does_not_depend_on_the_number_of_threads(number: int) -> None:
    weight, x = case(500, 200, 0.4, torch.bfloat16, 16)
    expected = cpu.forward(weight, x)
    torch.set_num_threads(number)
    assert torch.equal(cpu.forward(weight, x), expected)


@pytest.mark.parametrize("name", RUNS)
def test_a_result_is_the_same_every_time(name: str) -> None:
    weight, x = case(70, 300, 0.4, torch.bfloat16, 16)
    torch.set_num_threads(2)
    first = product(name, weight, x)
    assert all(torch.equal(product(name, weight, x), first) for _ in range(3))
