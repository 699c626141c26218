"""What can be said of the GPU's kernels without one: they compile, decode rightly, and agree when interpreted."""

import itertools
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
from hypothesis import given
from hypothesis import strategies as st
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tandem import _native
from tandem.kernels.sparse import arranged, lanes, launching
from tandem.kernels.sparse.backends import cuda
from tandem.kernels.sparse.backends import triton as triton_backend
from tandem.kernels.sparse.format import SparseWeight, pack
from tests.conftest import nvcc, requires

ROOT = Path(__file__).parents[3]


@given(st.floats(0, 1), st.sampled_from([torch.bfloat16, torch.float16]), st.integers(0, 10_000))
def test_a_warp_decodes_the_very_bits_that_were_packed(density: float, dtype: torch.dtype, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    dense = torch.randn(16, 256, generator=rng) * (torch.rand(16, 256, generator=rng) < density)
    weight = pack(dense, dtype)
    decoded = torch.full((16, 256), 7.0, dtype=dtype)
    upper = weight.values_P.data_ptr()
    lower = upper + 2 * int(weight.starts_S[1])
    masks = [weight.masks_ST[strip].data_ptr() for strip in (0, 1)]
    _native.sparse_emulate_chunk(*masks, upper, lower, decoded.data_ptr())
    assert torch.equal(decoded.view(torch.int16), dense.to(dtype).view(torch.int16) * (dense != 0))


def decoded(weight: SparseWeight) -> torch.Tensor:
    """Arrange a weight in the order of lanes and decode it piece by piece, as warps do."""
    arranged = lanes.arrange(weight)
    panels, chunks = arranged.masks_PCL4.shape[:2]
    pieces = torch.full((panels, chunks, 16, lanes.CHUNK_COLUMNS), 7.0, dtype=weight.values_P.dtype)
    for panel, chunk in itertools.product(range(panels), range(chunks)):
        masks, turns = arranged.masks_PCL4[panel, chunk], arranged.turns_PCL[panel, chunk]
        values = arranged.values_RS[arranged.begins[panel * chunks + chunk]]
        addresses = (part.data_ptr() for part in (masks, turns, values, pieces[panel, chunk]))
        _native.sparse_emulate_piece(*addresses)
    return pieces.transpose(1, 2).reshape(16 * panels, -1)[: weight.rows, : weight.cols]


@given(
    st.integers(1, 50), st.integers(1, 1100), st.floats(0, 1), st.floats(0, 1),
    st.sampled_from([torch.bfloat16, torch.float16]), st.integers(0, 10_000),
)  # fmt: skip
def test_a_warp_decodes_the_very_bits_that_were_arranged(
    rows: int, cols: int, density: float, uneven: float, dtype: torch.dtype, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    of_rows = (density + uneven * torch.randn(rows, 1, generator=rng)).clamp(0, 1)  # from empty rows to whole ones
    dense = torch.randn(rows, cols, generator=rng) * (torch.rand(rows, cols, generator=rng) < of_rows)
    expected = dense.to(dtype).view(torch.int16) * (dense != 0)
    assert torch.equal(decoded(pack(dense, dtype)).view(torch.int16), expected)


@pytest.mark.parametrize("density", [0.1, 0.4, 0.5])
def test_the_order_of_lanes_takes_little_more_room_than_the_nonzeros(density: float) -> None:
    rng = torch.Generator().manual_seed(0)
    weight = pack(torch.rand(256, 4096, generator=rng) * (torch.rand(256, 4096, generator=rng) < density))
    arranged, pieces = lanes.arrange(weight), 16 * 16
    rows = len(arranged.values_RS) - lanes.TAIL_ROWS
    assert int(arranged.begins[-1]) == rows <= pieces * (weight.kept / pieces / lanes.SLOTS + 3.5)
    # and for each weight a bit of the bitmap and a quarter of one of turns, and four bytes a piece
    rest_bytes = arranged.size_bytes - arranged.values_RS.numel() * 2
    assert rest_bytes == weight.rows * weight.cols * 5 // 32 + 4 * (pieces + 1)


def test_a_weight_without_a_zero_takes_all_slots_and_no_turn() -> None:
    arranged = lanes.arrange(pack(torch.ones(32, 1024)))
    assert arranged.longest == lanes.MOST_ROWS
    assert arranged.begins.tolist() == [lanes.MOST_ROWS * i for i in range(2 * 4 + 1)]
    own = torch.arange(lanes.LANES) << 7
    assert torch.equal(arranged.turns_PCL, (own | own << 16).int().expand(2, 4, -1))


@given(st.integers(1, 40), st.floats(0, 1), st.sampled_from([torch.bfloat16, torch.float16]), st.integers(0, 10_000))
def test_rows_are_written_out_as_they_were_packed(tiles: int, density: float, dtype: torch.dtype, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    dense = torch.randn(8, 8 * tiles, generator=rng) * (torch.rand(8, 8 * tiles, generator=rng) < density)
    weight = pack(dense, dtype)
    decoded = torch.full((8, 8 * tiles), 7.0, dtype=dtype)
    _native.sparse_emulate_rows(weight.masks_ST.data_ptr(), weight.values_P.data_ptr(), tiles, decoded.data_ptr())
    assert torch.equal(decoded.view(torch.int16), dense.to(dtype).view(torch.int16) * (dense != 0))


@given(st.integers(1, 200_000), st.integers(1, 50_000), st.integers(1, 200))
def test_layouts_cover_every_row_and_column_and_are_known_by_their_names(rows: int, cols: int, processors: int) -> None:
    found = cuda.geometries_for(rows, cols, processors)
    assert (found[0].warps, found[0].groups) == (4, 1)
    chunks = -(-cols // cuda.CHUNK_COLUMNS)
    for one in found:
        assert 1 <= one.splits <= min(chunks, cuda.MOST_SPLITS)  # the kernel's parts are never empty
        assert cuda.Geometry.named(str(one)) == one


@pytest.mark.slow
@requires("nvcc")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize(
    ("x_type", "values_type", "count", "warps", "groups"),
    [
        (torch.bfloat16, torch.bfloat16, 8, 4, 1),
        (torch.float16, torch.float16, 16, 2, 1),
        (torch.bfloat16, torch.int8, 24, 8, 1),
        (torch.float16, torch.int8, 32, 4, 2),
        (torch.bfloat16, torch.bfloat16, 32, 8, 2),
    ],
)
def test_the_kernel_compiles_without_spills(
    arch: str, x_type: torch.dtype, values_type: torch.dtype, count: int, warps: int, groups: int, tmp_path: Path
) -> None:
    compiler = nvcc()
    assert compiler is not None
    options = cuda.options_of(x_type, values_type, count, cuda.Geometry(warps, groups, 1))
    defines = [f"-D{name}={value}" for name, value in options.items()]
    text = tmp_path / "product.cu"
    text.write_text(launching.source("product.cu"))
    command = [compiler, f"-arch={arch}", "-std=c++17", *defines, "-cubin", "-Xptxas", "-v", "-Werror", "all-warnings"]
    told = subprocess.run([*command, "-o", "out.cubin", str(text)], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    spills = [line for line in told.stderr.splitlines() if "spill" in line]
    assert spills
    assert all("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in line for line in spills)


@pytest.mark.slow
@requires("nvcc")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize(
    ("x_type", "values_type", "count"),
    [
        (torch.bfloat16, torch.bfloat16, 8),
        (torch.float16, torch.float16, 16),
        (torch.bfloat16, torch.bfloat16, 32),
        (torch.bfloat16, torch.int8, 8),
        (torch.float16, torch.int8, 24),
    ],
)
def test_the_kernel_of_arranged_weights_compiles_without_spills_and_fits_every_gpu(
    arch: str, x_type: torch.dtype, values_type: torch.dtype, count: int, tmp_path: Path
) -> None:
    compiler = nvcc()
    assert compiler is not None
    defines = [f"-D{name}={value}" for name, value in arranged.options_of(x_type, values_type, count).items()]
    text = tmp_path / "lanes.cu"
    x_bytes = arranged.shared_size_bytes(count, 0, values_type.itemsize)
    laid_out = f"static_assert(sizeof(Fixed) <= {x_bytes});"
    text.write_text(launching.source("lanes.cu") + laid_out)
    command = [compiler, f"-arch={arch}", "-std=c++17", *defines, "-cubin", "-Xptxas", "-v", "-Werror", "all-warnings"]
    told = subprocess.run([*command, "-o", "out.cubin", str(text)], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    spills = [line for line in told.stderr.splitlines() if "spill" in line]
    assert spills
    assert all("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in line for line in spills)
    assert arranged.shared_size_bytes(32, lanes.MOST_ROWS, values_type.itemsize) <= 99 << 10  # of sm_86 and sm_89


@given(st.integers(1, 200_000), st.integers(1, 50_000), st.integers(1, 200))
def test_parts_of_columns_are_never_empty_and_fill_the_gpu_once(rows: int, cols: int, processors: int) -> None:
    splits, chunks = arranged.splits_for(rows, cols, processors), -(-cols // lanes.CHUNK_COLUMNS)
    assert 1 <= splits <= min(chunks, arranged.MOST_SPLITS)
    warps = -(-rows // 64) * 4
    assert splits == 1 or splits * warps <= 28 * processors


@pytest.mark.slow
@requires("cuda_core")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("values_type", [torch.bfloat16, torch.int8])
def test_the_kernel_is_compiled_at_run_time_once_and_kept(
    arch: str,
    values_type: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = tuple(cuda.options_of(torch.bfloat16, values_type, 8, cuda.Geometry(4, 1, 1)).items())
    with caplog.at_level(logging.INFO):
        compiled = launching.cubin("product.cu", arch, options)
        assert compiled.startswith(b"\x7fELF")
        assert all(name in compiled for name in (b"product", b"finish", b"count", b"decode"))
        assert launching.cubin("product.cu", arch, options) == compiled
    assert [record.getMessage() for record in caplog.records] == [
        f"sparse products compiled for {arch} with {dict(options)}"
    ]
    assert [path.name.split("-")[2] for path in (tmp_path / "tandem").iterdir()] == [arch]


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("values", ["bf16", "i8"])
def test_the_triton_kernel_compiles_to_tensorcore_instructions(
    arch: int, values: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    signature = dict.fromkeys(("rows", "cols", "count", "strips", "tiles", "turns"), "i32")
    signature |= {"masks": "*i64", "values": f"*{values}", "starts": "*i64", "x": "*bf16", "parts": "*fp32"}
    signature |= dict.fromkeys(("STRIPS", "TILES", "COUNT"), "constexpr")
    ordered = {name: signature[name] for name in triton_backend._product.arg_names}
    sizes = {"STRIPS": triton_backend._STRIPS, "TILES": triton_backend._TILES, "COUNT": 16}
    source = ASTSource(fn=triton_backend._product, signature=ordered, constexprs=sizes)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"enable_fp_fusion": True})
    assert "mma.sync" in compiled.asm["ptx"] or "wgmma" in compiled.asm["ptx"]
    assert compiled.asm["cubin"].startswith(b"\x7fELF")


@pytest.mark.slow
def test_the_triton_kernel_keeps_the_contract_in_its_interpreter() -> None:
    densities = "triton and not 0.01 and not 0.5 and not 0.97"
    settings = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "--no-header"]
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/contract/test_sparse_backends.py", "-k", densities, *settings],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout
    assert re.search(r"\b2\d passed", told.stdout), told.stdout
    assert "skipped" not in told.stdout


def test_the_shared_memory_of_some_layout_fits_every_gpu_it_is_for() -> None:
    """sm_80 has 163 KB for a block, sm_86 and sm_89 99 KB; here for a matrix without a zero."""
    for values_type in (torch.bfloat16, torch.int8):
        piece_bytes = cuda.piece_size_bytes(8 * cuda.CHUNK_COLUMNS, values_type.itemsize)
        sizes = [
            cuda.shared_size_bytes(
                cuda.options_of(torch.bfloat16, values_type, 32, cuda.Geometry(*layout, 1)), piece_bytes
            )
            for layout in cuda.LAYOUTS
        ]
        assert sizes[0] <= 163 << 10
        assert sizes[-1] <= 99 << 10


@pytest.mark.slow
@requires("nvcc")
def test_the_shared_memory_is_what_the_kernel_lays_out(tmp_path: Path) -> None:
    compiler = nvcc()
    assert compiler is not None
    for count, layout in itertools.product((1, 32), cuda.LAYOUTS):
        options = cuda.options_of(torch.bfloat16, torch.bfloat16, count, cuda.Geometry(*layout, 1))
        expected = cuda.shared_size_bytes(options, 0)
        sums = 4 * 8 * options["TANDEM_BLOCKS_OF_8"] * cuda.Geometry(*layout, 1).block_rows
        text = tmp_path / "sizes.cu"
        text.write_text(
            launching.source("product.cu")
            + f"static_assert(sizeof(Fixed) <= {expected} && (sizeof(Fixed) == {expected} || {sums} == {expected}));"
        )
        command = [compiler, "-arch=sm_90a", "-std=c++17", *(f"-D{name}={value}" for name, value in options.items())]
        told = subprocess.run(
            [*command, "-ptx", "-o", "out.ptx", str(text)], cwd=tmp_path, capture_output=True, text=True
        )
        assert told.returncode == 0, told.stderr
