"""Wanda against its equation 1, written out in plain Python."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.kernels.prune.inputs import Inputs
from tandem.kernels.prune.methods import wanda
from tandem.kernels.prune.pattern import Pattern


@pytest.mark.slow
@given(st.integers(1, 5), st.integers(1, 10), st.integers(1, 7), st.integers(1, 9), st.integers(0, 1000))
def test_the_least_of_magnitude_times_norm_go_in_each_row(
    rows: int, columns: int, tokens: int, tenths: int, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    weight_RK = torch.randn(rows, columns, generator=rng, dtype=torch.float64)
    x_NK = torch.randn(tokens, columns, generator=rng, dtype=torch.float64) * torch.arange(1, columns + 1)
    pruned = wanda.prune(weight_RK, Inputs.of(x_NK), Pattern(tenths / 10)).tolist()

    norms = [math.sqrt(sum(float(x) ** 2 for x in x_NK[:, k])) for k in range(columns)]
    for row, (weights, left) in enumerate(zip(weight_RK.tolist(), pruned, strict=True)):
        gone = round(tenths / 10 * columns * (row + 1)) - round(tenths / 10 * columns * row)
        order = sorted(range(columns), key=lambda k, w=weights: abs(w[k]) * norms[k])  # type: ignore[misc]
        expected = [0.0 if k in order[:gone] else w for k, w in enumerate(weights)]
        assert left == expected


def test_the_papers_example() -> None:
    """Figure 1: |W| times the norms 1, 2, 8, 3; half of each row goes."""
    weight_RK = torch.tensor([[4.0, 0, 1, -1], [3, -2, -1, -3], [-3, 1, 0, 2]])
    x_NK = torch.diag(torch.tensor([1.0, 2, 8, 3]))
    pruned_RK = wanda.prune(weight_RK, Inputs.of(x_NK), Pattern(0.5))
    assert pruned_RK.tolist() == [[4, 0, 1, 0], [0, 0, -1, -3], [-3, 0, 0, 2]]


def test_sums_over_batches_are_sums_over_all_tokens() -> None:
    x_NK = torch.randn(30, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole, parts = Inputs.of(x_NK), Inputs.of(x_NK[:11])
    parts.add(x_NK[11:].T @ x_NK[11:], 19)
    assert parts.tokens == whole.tokens == 30
    torch.testing.assert_close(parts.gram_KK, whole.gram_KK)
    torch.testing.assert_close(whole.norms_K, torch.linalg.vector_norm(x_NK, dim=0))


def test_the_relative_error_is_that_of_the_outputs() -> None:
    rng = torch.Generator().manual_seed(2)
    weight_RK, x_NK = torch.randn(4, 6, generator=rng), torch.randn(20, 6, generator=rng)
    pruned_RK = wanda.prune(weight_RK, Inputs.of(x_NK), Pattern(0.5))
    expected = torch.linalg.norm(x_NK @ (weight_RK - pruned_RK).T) / torch.linalg.norm(x_NK @ weight_RK.T)
    assert abs(Inputs.of(x_NK).relative_error(weight_RK, pruned_RK) - float(expected)) < 1e-5
    assert math.isnan(Inputs.of(x_NK).relative_error(torch.zeros(4, 6), torch.zeros(4, 6)))
