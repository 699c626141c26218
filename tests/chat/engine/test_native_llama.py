"""Products of native code against torch in float64, on odd sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem import _native


@pytest.mark.slow
@given(
    rows=st.integers(1, 9),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 70),
    threads=st.integers(1, 3),
    biased=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_products_are_those_of_torch_and_of_each_row_alone(
    rows: int, inputs: int, outputs: int, threads: int, biased: bool, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    x_NK, weight_MK = torch.randn(rows, inputs, generator=rng), torch.randn(outputs, inputs, generator=rng)
    bias_M = torch.randn(outputs, generator=rng)
    y_NM, alone_NM = torch.full((rows, outputs), torch.nan), torch.full((rows, outputs), torch.nan)
    bias = bias_M.data_ptr() if biased else 0

    def product(x: torch.Tensor, y: torch.Tensor, threads: int) -> None:
        _native.llama_product(x.data_ptr(), len(x), inputs, weight_MK.data_ptr(), bias, outputs, threads, y.data_ptr())

    product(x_NK, y_NM, threads)
    for row in range(rows):
        product(x_NK[row : row + 1], alone_NM[row : row + 1], 1)
    told_NM = x_NK.double() @ weight_MK.double().T + (bias_M.double() if biased else 0.0)
    assert torch.allclose(y_NM.double(), told_NM, atol=1e-5)
    assert torch.equal(y_NM, alone_NM)
