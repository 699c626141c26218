"""Magnitude against sorting by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.kernels.prune.methods import magnitude
from tandem.kernels.prune.pattern import Pattern


@pytest.mark.slow
@given(st.integers(1, 6), st.integers(1, 12), st.floats(0.0, 0.99), st.integers(0, 1000))
def test_the_smallest_go(rows: int, columns: int, sparsity: float, seed: int) -> None:
    weight_RK = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    pruned_RK = magnitude.prune(weight_RK, None, Pattern(sparsity))
    ordered = sorted(weight_RK.flatten().tolist(), key=abs)
    gone = set(ordered[: round(sparsity * len(ordered))])
    expected = [[0.0 if w in gone else w for w in row] for row in weight_RK.tolist()]
    assert pruned_RK.tolist() == expected
