"""Packing and unpacking: exact for every shape, type and density, and what is refused."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.kernels.sparse.format import TAIL, SparseWeight, kept_of, pack, starts_of, unpack, unpack_strips
from tandem.kernels.sparse.mistakes import SparseShapeError


def random_matrix(rows: int, cols: int, density: float, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, cols, generator=rng)
    return dense * (torch.rand(rows, cols, generator=rng) < density)


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.floats(0, 1),
    st.sampled_from([torch.bfloat16, torch.float16]),
    st.integers(0, 1000),
)
def test_round_trip_is_exact(rows: int, cols: int, density: float, dtype: torch.dtype, seed: int) -> None:
    dense = random_matrix(rows, cols, density, seed).to(dtype)
    weight = pack(dense, dtype)
    assert torch.equal(unpack(weight), dense)
    assert weight.kept == int((dense != 0).sum())


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 1000))
def test_the_bitmap_is_the_one_the_page_describes(rows: int, cols: int, density: float, seed: int) -> None:
    """Walked through tile by tile in plain Python."""
    dense = random_matrix(rows, cols, density, seed).half()
    weight = pack(dense, torch.float16)
    masks, values, starts = [], [], [0]
    for strip in range(math.ceil(rows / 8)):
        for tile in range(math.ceil(cols / 8)):
            word = 0
            for row in range(8 * strip, min(8 * strip + 8, rows)):
                for col in range(8 * tile, min(8 * tile + 8, cols)):
                    if dense[row, col] != 0:
                        word |= 1 << (8 * (row - 8 * strip) + col - 8 * tile)
                        values.append(float(dense[row, col]))
            masks.append(word)
        starts.append(len(values))
    assert weight.masks_ST.flatten().numpy().view(np.uint64).tolist() == masks
    assert weight.values_P.tolist() == values + [0.0] * TAIL
    assert weight.starts_S.tolist() == starts


def test_int8_is_the_nearest_multiple_of_the_rows_scale() -> None:
    dense = random_matrix(13, 50, 0.5)
    weight = pack(dense, torch.int8)
    assert weight.scales_M is not None
    torch.testing.assert_close(weight.scales_M, dense.abs().amax(1) / 127)
    assert ((unpack(weight) - dense).abs() <= weight.scales_M[:, None] * 0.5001).all()
    assert torch.equal(unpack(pack(unpack(weight), torch.int8)), unpack(weight))


@pytest.mark.parametrize("size", [1.4e-45, 2.7e-43, 1e-42, 1e-37, 1e-36, float(torch.finfo(torch.float32).max)])
def test_int8_rows_at_the_ends_of_float32_come_back(size: float) -> None:
    dense = torch.tensor([1.0, -0.5, 0.0, 0.3], dtype=torch.float64).mul(size).float()[None]
    weight = pack(dense, torch.int8)
    assert weight.scales_M is not None
    allowed = 0.5001 * weight.scales_M.double()[:, None] + 1e-6 * dense.abs()
    assert ((unpack(weight, torch.float64) - dense.double()).abs() <= allowed).all()
    assert weight.scales_M.double() <= max(2 * size / 127, 1.5e-45)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
def test_a_finite_weight_that_would_become_infinite_is_refused(dtype: torch.dtype) -> None:
    size = 1e5 if dtype == torch.float16 else 1e39
    with pytest.raises(SparseShapeError, match=r"finite weight of size 1e\+"):
        pack(torch.tensor([[size, 1.0]], dtype=torch.float64, requires_grad=True), dtype)


def test_what_is_not_finite_is_kept() -> None:
    dense = torch.tensor([[0.0, math.nan, -math.inf], [-0.0, math.inf, 1e-30]])
    back = unpack(pack(dense))
    torch.testing.assert_close(back, dense.bfloat16(), rtol=0, atol=0, equal_nan=True)
    assert pack(dense).kept == 4


def test_a_mask_keeps_zeros_and_leaves_out_others() -> None:
    dense = torch.ones(9, 9)
    dense[0] = 0
    everything = pack(dense, mask_MK=torch.ones(9, 9, dtype=torch.bool))
    nothing = pack(dense, mask_MK=torch.zeros(9, 9, dtype=torch.bool))
    assert (everything.kept, nothing.kept) == (81, 0)
    assert torch.equal(unpack(everything), dense.bfloat16())
    assert not unpack(nothing).any()


def test_strides_do_not_matter() -> None:
    dense = random_matrix(24, 17, 0.4).bfloat16()
    assert torch.equal(unpack(pack(dense.T.contiguous().T)), dense)
    assert torch.equal(unpack(pack(dense[::2, 1::3])), dense[::2, 1::3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
def test_everything_is_made_where_the_matrix_is(dtype: torch.dtype) -> None:
    """As on a GPU: what is not put beside the matrix goes to the default device, and does not mix with it."""
    dense = random_matrix(21, 33, 0.4)
    with torch.device("meta"):
        weight = pack(dense, dtype)
        back = unpack(weight)
    parts = [weight.masks_ST, weight.values_P, weight.starts_S, back, weight.scales_M]
    assert {part.device.type for part in parts if part is not None} == {"cpu"}
    assert torch.equal(back, unpack(pack(dense, dtype)))


def test_some_strips_are_some_rows() -> None:
    dense = random_matrix(30, 17, 0.4)
    for dtype in (torch.bfloat16, torch.int8):
        weight = pack(dense, dtype)
        assert torch.equal(unpack_strips(weight, 1, 3), unpack(weight)[8:24])
        assert torch.equal(unpack_strips(weight, 3, 4), unpack(weight)[24:30])
        assert unpack_strips(weight, 2, 2).shape == (0, 17)


def test_elements_at_the_kept_places_are_in_the_formats_order() -> None:
    dense = random_matrix(21, 33, 0.3).bfloat16()
    weight = pack(dense)
    assert torch.equal(kept_of(dense, weight.masks_ST), weight.values_P[: weight.kept])


@pytest.mark.parametrize(("dtype", "value_bits"), [(torch.bfloat16, 16), (torch.float16, 16), (torch.int8, 8)])
@pytest.mark.parametrize("density", [0.2, 0.4, 0.5])
def test_bits_a_weight_are_the_bitmap_the_values_and_little_more(
    dtype: torch.dtype, value_bits: int, density: float
) -> None:
    weight = pack(random_matrix(256, 1024, density), dtype)
    assert weight.bits_per_weight == pytest.approx(1 + value_bits * weight.density, abs=0.06)


def test_an_empty_matrix_takes_no_bits_a_weight() -> None:
    assert pack(torch.zeros(0, 5)).bits_per_weight == 0


def test_what_cannot_be_packed_is_refused() -> None:
    bad: list[tuple[Any, torch.dtype, torch.Tensor | None, str]] = [
        (torch.zeros(3), torch.bfloat16, None, "matrices"),
        (torch.zeros(2, 2, dtype=torch.int32), torch.bfloat16, None, "int32"),
        (torch.zeros(2, 2), torch.float32, None, "bfloat16"),
        (torch.zeros(2, 2), torch.bfloat16, torch.ones(2, 3, dtype=torch.bool), "mask"),
        (torch.zeros(2, 2), torch.bfloat16, torch.ones(2, 2), "mask"),
        (torch.tensor([[math.nan]]), torch.int8, None, "NaN"),
        (torch.zeros(2, 2, device="meta"), torch.bfloat16, None, "no values"),
        (torch.eye(2).to_sparse(), torch.bfloat16, None, "to_dense"),
        (torch.eye(2).numpy(), torch.bfloat16, None, "ndarray to pack.*as_tensor"),
    ]
    for dense, dtype, mask, told in bad:
        with pytest.raises(SparseShapeError, match=told):
            pack(dense, dtype, mask_MK=mask)


def test_a_weight_says_how_large_it_is() -> None:
    weight: SparseWeight = pack(torch.eye(16))
    assert weight.size_bytes == 8 * 4 + 2 * (16 + TAIL) + 8 * 3
    assert weight.density == 1 / 16


@given(st.integers(0, 40), st.integers(0, 70), st.floats(0, 1), st.integers(0, 1000))
def test_where_strips_begin_is_what_their_bitmaps_count(rows: int, cols: int, density: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    weight = pack(torch.ones(rows, cols) * (torch.rand(rows, cols, generator=rng) < density))
    counts = [sum((word & (1 << 64) - 1).bit_count() for word in strip) for strip in weight.masks_ST.tolist()]
    assert (
        starts_of(weight.masks_ST).tolist() == list(itertools.accumulate(counts, initial=0)) == weight.starts_S.tolist()
    )
