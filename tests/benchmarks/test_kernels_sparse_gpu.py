"""The GPU's benchmark goes its whole way on a processor: tiny shapes, the processor's clock for CUDA's events."""

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import kernels_sparse_gpu as gpu
from benchmarks.kernels_sparse_gpu import Bench, Plan, Row, Shape, over_shapes, run, wrong
from benchmarks.measuring import Ratio
from tandem.kernels.sparse import choosing, reference
from tandem.kernels.sparse.format import SparseWeight
from tests.conftest import requires

SHAPES = (Shape("tiny", 64, 96), Shape("odd", 33, 70))
PLAN = Plan(SHAPES, counts=(1, 8), zeros=(0.5, 0.6), rounds=3, budget_s=1e9)
ALLOWED = 4e-6 + 96 / 16 * 2**-23


def cut_in(parts: int) -> SimpleNamespace:
    """A backend with layouts, which multiplies as the reference does, part of the columns by part."""

    def forward(weight: SparseWeight, x_NK: torch.Tensor, *, geometry: str = "") -> torch.Tensor:
        edges = torch.linspace(0, weight.cols, int(geometry.split()[0]) + 1).long().tolist()
        y_NM = torch.zeros(len(x_NK), weight.rows)
        for first, last in itertools.pairwise(edges):
            part_NK = torch.zeros_like(x_NK)
            part_NK[:, first:last] = x_NK[:, first:last]
            y_NM += reference.forward(weight, part_NK)
        return y_NM

    return SimpleNamespace(forward=forward, geometries=lambda weight: [f"{n} splits" for n in range(1, parts + 1)])


def breaking(kind: type[Exception], text: str) -> SimpleNamespace:
    def forward(weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
        raise kind(text)

    return SimpleNamespace(forward=forward)


def on_cpu(timer: gpu.Timer = gpu.by_clock, free_bytes: int = 1 << 40, **backends: Any) -> Bench:  # noqa: ANN401 - backends
    return Bench(
        name="A processor, 2 cores",
        device=torch.device("cpu"),
        timer=timer,
        buffer=torch.empty(1 << 12),
        backends=backends or {"cpu": choosing.backend("cpu"), "cut": cut_in(3)},
        why_not={"triton": "torch sees no NVIDIA GPU"},
        free_bytes=lambda: free_bytes,
    )


class Script:
    """A timer that runs what it is given and tells each kind of product's seconds as they were written down."""

    def __init__(self, seconds: Callable[[str], float]) -> None:
        self.seconds, self.flushed = seconds, 0

    def __call__(self, before: Callable[[], object], run: Any) -> float:  # noqa: ANN401 - a partial, or a method
        before()
        self.flushed += 1
        run()
        function = getattr(run, "func", run)
        if function is torch.nn.functional.linear:
            return self.seconds("bf16" if run.args[0].dtype == torch.bfloat16 else "fp16")
        return self.seconds(getattr(run, "keywords", {}).get("geometry", "sum"))


def test_everything_is_measured_shown_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(on_cpu(), PLAN, tmp_path)
    text = capsys.readouterr().out
    assert list(found) == ["gpu_n8_s60"]
    assert (found["gpu_n8_s60"] or 0.0) > 0.0
    assert "A processor, 2 cores; torch" in text
    assert "triton: not measured (torch sees no NVIDIA GPU)" in text
    assert "tiny 64 x 96" in text
    assert "8 rows of x, 60% zeros: " in text
    (file,) = tmp_path.glob("kernels_sparse_gpu_*.csv")
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == list(gpu.COLUMNS)
    products = {"F.linear bf16", "F.linear fp16", "cpu bf16", "cut bf16"}
    assert {row["product"] for row in rows} == products
    assert len(rows) == 2 * 2 * (2 + 2 * 2)  # shapes, counts, dense and backends by zeros
    assert all(float(row["median_us"]) > 0 and float(row["of_bandwidth"]) > 0 and not row["trouble"] for row in rows)
    assert {row["layout"] for row in rows if row["product"] == "cut bf16"} <= {"1 splits", "2 splits", "3 splits"}


def test_a_gain_is_over_the_better_dense_product_in_the_fastest_layout(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {"bf16": 6e-6, "fp16": 5e-6, "1 splits": 4e-6, "2 splits": 2e-6, "3 splits": 3e-6, "sum": 1e-6}
    script = Script(lambda name: seconds[name])
    assert run(on_cpu(script, cut=cut_in(3)), PLAN, None) == {"gpu_n8_s60": pytest.approx(2.5)}
    assert script.flushed == 20 + 2 * 2 * (2 * 3 * 5 + 3 * (2 + 2))  # bandwidth, layouts, rounds: a flush before each
    text = capsys.readouterr().out
    assert f"reads {4 * (1 << 12) / 1e-6 / 1e9:.4g} GB/s at most" in text
    ours = [line for line in text.splitlines() if "cut bf16" in line]
    assert len(ours) == 8
    assert all("2 splits" in line and "2.0" in line and "2.500" in line for line in ours)
    assert all("1.000" in line for line in text.splitlines() if "F.linear fp16" in line)


def test_a_wrong_product_and_one_that_fails_are_told_and_not_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = choosing.backend("cpu")

    def shifted(weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
        return right.forward(weight, x_NK.roll(1, dims=1))

    bench = on_cpu(shifted=SimpleNamespace(forward=shifted), broken=breaking(RuntimeError, "no such register\nat 0x0"))
    assert run(bench, PLAN, tmp_path) == {"gpu_n8_s60": None}
    text = capsys.readouterr().out
    assert "not measured: wrong by" in text
    assert "not measured: RuntimeError: no such register\n" in text
    assert "60% zeros: not measured" in text
    (file,) = tmp_path.glob("*.csv")
    with file.open() as lines:
        rows = {row["product"]: row for row in csv.DictReader(lines)}
    assert rows["broken bf16"]["median_us"] == rows["shifted bf16"]["median_us"] == ""
    assert rows["F.linear bf16"]["median_us"]
    beside = on_cpu(cpu=right, broken=breaking(RuntimeError, ""))
    assert (run(beside, PLAN, None)["gpu_n8_s60"] or 0.0) > 0.0  # what one backend cannot do another may


def test_one_wrong_layout_is_enough_to_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    honest = cut_in(2)

    def forward(weight: SparseWeight, x_NK: torch.Tensor, *, geometry: str = "") -> torch.Tensor:
        y_NM = honest.forward(weight, x_NK, geometry=geometry)
        return y_NM * 1.001 if geometry == "2 splits" else y_NM

    run(on_cpu(cut=SimpleNamespace(forward=forward, geometries=honest.geometries)), PLAN, None)
    ours = [line for line in capsys.readouterr().out.splitlines() if "cut bf16" in line]
    assert ours
    assert all("2 splits" in line and "not measured: wrong by" in line for line in ours)


def test_shapes_without_time_or_memory_are_left_out_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    late = iter([0.0, 300.0])
    run(on_cpu(), Plan(SHAPES, (8,), (0.6,), 1, budget_s=240.0), None, clock=lambda: next(late))
    text = capsys.readouterr().out
    assert "odd 33 x 70: left out (300 s have passed)" in text
    assert "tiny 64 x 96: left out" not in text
    assert run(on_cpu(free_bytes=48 * 33 * 70), PLAN, None)["gpu_n8_s60"] is not None
    assert "tiny 64 x 96: left out (it takes about" in capsys.readouterr().out
    assert run(on_cpu(free_bytes=0), PLAN, None) == {"gpu_n8_s60": None}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.floats(0.0, 0.95), st.data())
def test_a_weight_in_a_wrong_place_is_wrong_and_rounding_is_not(
    rows: int, cols: int, count: int, zeros: float, data: st.DataObject
) -> None:
    rng = torch.Generator().manual_seed(rows * 41 + cols)
    dense_MK, x_NK = torch.randn(rows, cols, generator=rng), torch.ones(count, cols).bfloat16()
    one = gpu.checked(dense_MK, zeros, x_NK)
    torch.testing.assert_close(one.expected_NM, reference.forward(one.weight, x_NK))
    torch.testing.assert_close(one.magnitude_NM, reference.magnitude(one.weight, x_NK))
    here = (one.expected_NM, one.magnitude_NM, cols)
    assert not wrong(one.expected_NM * (1 + 1e-7), *here)
    row = data.draw(st.integers(0, rows - 1))
    off_NM = one.expected_NM.clone()
    off_NM[:, row] += one.magnitude_NM[:, row] / cols + 1e-3
    assert "wrong by" in wrong(off_NM, *here)
    off_NM[:, row] = torch.nan
    assert "wrong by nan" in wrong(off_NM, *here)
    assert "in place of" in wrong(one.expected_NM.double(), *here)


def test_the_mean_over_shapes_takes_the_better_backend_of_each_and_misses_none() -> None:
    def row(shape: Shape, product: str, seconds: float | None, gain: float) -> Row:
        told = None if seconds is None else Ratio(gain, gain, gain, 1)
        return Row(shape, 8, product, "", 0.6, 1, "" if told else "wrong", (seconds,) if seconds else (), told)

    rows = [row(SHAPES[0], "cuda", 2.0, 1.0), row(SHAPES[0], "triton", 1.0, 2.0), row(SHAPES[1], "cuda", 1.0, 8.0)]
    assert over_shapes(rows, 8, 0.6) == pytest.approx(4.0)
    assert over_shapes([*rows, row(SHAPES[1], "triton", None, 0.0)], 8, 0.6) == pytest.approx(4.0)
    assert over_shapes([*rows[:2], row(SHAPES[1], "triton", None, 0.0)], 8, 0.6) is None
    assert over_shapes(rows, 16, 0.6) is None


def test_without_a_gpu_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.figures(quick=True, save=True) == {"gpu_n8_s60": None}
    assert "gpu: not measured (torch sees no NVIDIA GPU)" in capsys.readouterr().out


@requires("gpu", "cuda_core")
@pytest.mark.slow
def test_a_gpu_is_measured_by_its_events(capsys: pytest.CaptureFixture[str]) -> None:
    bench = gpu.on_gpu()
    assert set(bench.backends) == {"cuda", "triton"}
    plan = Plan((Shape("small", 1024, 1024),), counts=(1, 8), zeros=(0.6,), rounds=3)
    found = run(bench, plan, None)
    assert "wrong by" not in capsys.readouterr().out
    assert (found["gpu_n8_s60"] or 0.0) > 0.0
