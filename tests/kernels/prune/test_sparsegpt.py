"""SparseGPT against Optimal Brain Surgeon as it is written: an inverse of its own for every column, in float64."""

import itertools
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.kernels.prune.inputs import Inputs
from tandem.kernels.prune.methods import magnitude, sparsegpt, wanda
from tandem.kernels.prune.pattern import Pattern


def drawn(rows: int, columns: int, seed: int, tokens: int = 64) -> tuple[torch.Tensor, Inputs]:
    """A weight, and inputs that are correlated and of different sizes."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=rng, dtype=torch.float64) / columns**0.5
    x_NK = torch.randn(tokens, columns, generator=rng, dtype=torch.float64) @ (mixing + torch.eye(columns))
    x_NK *= torch.exp(torch.randn(columns, generator=rng, dtype=torch.float64))
    return torch.randn(rows, columns, generator=rng, dtype=torch.float64), Inputs.of(x_NK)


def damped(inputs: Inputs) -> torch.Tensor:
    gram_KK = inputs.gram_KK
    return gram_KK + sparsegpt.DAMPING * gram_KK.diagonal().mean() * torch.eye(len(gram_KK), dtype=torch.float64)


def surgeon(
    weight_RK: torch.Tensor, gram_KK: torch.Tensor, pattern: Pattern, chosen_at: int, costs: list[float] | None = None
) -> torch.Tensor:
    """Equation 3 of the paper, column by column, row by row; `costs` learns what each weight cost."""
    work = weight_RK.clone()
    rows, columns = work.shape
    gone = torch.zeros_like(work, dtype=torch.bool)
    for column in range(columns):
        if column % chosen_at == 0:
            last = min(column + chosen_at, columns)
            prices = torch.stack(
                [work[:, p] ** 2 / torch.linalg.inv(gram_KK[p:, p:])[0, 0] for p in range(column, last)], dim=1
            )
            for row, place in _least(prices, pattern, rows, column, last):
                gone[row, column + place] = True
        inverse = torch.linalg.inv(gram_KK[column:, column:])
        for row in range(rows):
            if gone[row, column]:
                if costs is not None:
                    costs.append(float(work[row, column] ** 2 / inverse[0, 0]))
                work[row, column:] -= work[row, column] / inverse[0, 0] * inverse[:, 0]
                work[row, column] = 0.0
    return work


def _least(costs: torch.Tensor, pattern: Pattern, rows: int, first: int, last: int) -> list[tuple[int, int]]:
    width = last - first
    cells = sorted(itertools.product(range(rows), range(width)), key=lambda cell: float(costs[cell]))
    if not pattern.of:
        return cells[: round(pattern.sparsity * rows * last) - round(pattern.sparsity * rows * first)]
    due = max(0, width - pattern.kept)
    return [cell for row in range(rows) for cell in [c for c in cells if c[0] == row][:due]]


@pytest.mark.slow
@pytest.mark.parametrize("block", [4, 128])
@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 11), st.integers(0, 9), st.integers(0, 10_000))
def test_it_is_the_surgeon_column_by_column(block: int, rows: int, columns: int, tenths: int, seed: int) -> None:
    weight_RK, inputs = drawn(rows, columns, seed)
    pattern = Pattern(tenths / 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparsegpt, "BLOCK_COLUMNS", block)
        patch.setattr(sparsegpt, "MASK_COLUMNS", block)
        pruned_RK = sparsegpt.prune(weight_RK, inputs, pattern)
    torch.testing.assert_close(pruned_RK, surgeon(weight_RK, damped(inputs), pattern, block), rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 13), st.integers(2, 5), st.integers(0, 10_000))
def test_n_of_m_is_the_surgeon_group_by_group(rows: int, columns: int, of: int, seed: int) -> None:
    weight_RK, inputs = drawn(rows, columns, seed)
    pattern = Pattern.n_of_m(f"{max(1, of // 2)}:{of}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparsegpt, "BLOCK_COLUMNS", 6)
        pruned_RK = sparsegpt.prune(weight_RK, inputs, pattern)
    torch.testing.assert_close(pruned_RK, surgeon(weight_RK, damped(inputs), pattern, of), rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.integers(1, 3), st.integers(2, 9), st.integers(1, 8), st.integers(0, 10_000))
def test_where_the_first_columns_go_the_rest_is_the_least_squares_solution(
    rows: int, columns: int, gone: int, seed: int
) -> None:
    """All columns that stay come after all that go, so nothing of the exact solution is out of reach."""
    gone = min(gone, columns - 1)
    weight_RK, inputs = drawn(rows, columns, seed)
    weight_RK[:, :gone] *= 1e-4 / weight_RK[:, :gone].abs().clamp_min(1e-3)
    gram_KK = damped(inputs)
    pruned_RK = sparsegpt.prune(weight_RK, inputs, Pattern(gone / columns))
    assert bool((pruned_RK[:, :gone] == 0).all())
    right = gram_KK[gone:, :] @ weight_RK.T  # normal equations of min ||(W - W') X|| over what stays
    torch.testing.assert_close(pruned_RK[:, gone:].T, torch.linalg.solve(gram_KK[gone:, gone:], right))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_between_the_best_of_all_masks_and_twice_that_and_costs_what_its_steps_cost(seed: int) -> None:
    """Brute force: for every mask the exact least-squares weights. Nothing may be better than the best of them."""
    columns, gone = 8, 4
    weight_1K, inputs = drawn(1, columns, seed)
    gram_KK, w_K = damped(inputs), weight_1K[0]

    def loss(left_K: torch.Tensor) -> float:
        return float((w_K - left_K) @ gram_KK @ (w_K - left_K))

    best = min(
        loss(_solved(w_K, gram_KK, [k for k in range(columns) if k not in out]))
        for out in itertools.combinations(range(columns), gone)
    )
    found = sparsegpt.prune(weight_1K, inputs, Pattern(gone / columns))
    costs: list[float] = []
    surgeon(weight_1K, gram_KK, Pattern(gone / columns), columns, costs)
    assert len(costs) == gone
    assert loss(found[0]) == pytest.approx(sum(costs))
    assert best * (1 - 1e-9) <= loss(found[0]) <= 2 * best


def _solved(w_K: torch.Tensor, gram_KK: torch.Tensor, stays: list[int]) -> torch.Tensor:
    left_K = torch.zeros_like(w_K)
    left_K[stays] = torch.linalg.solve(gram_KK[stays][:, stays], gram_KK[stays] @ w_K)
    return left_K


@pytest.mark.slow
def test_outputs_lose_less_than_by_wanda_and_by_wanda_less_than_by_magnitude() -> None:
    errors = {"magnitude": 0.0, "wanda": 0.0, "sparsegpt": 0.0}
    for seed in range(4):
        weight_RK, inputs = drawn(16, 48, seed, tokens=200)
        for method in (magnitude, wanda, sparsegpt):
            pruned_RK = method.prune(weight_RK, inputs, Pattern(0.6))
            errors[method.__name__.rpartition(".")[2]] += inputs.relative_error(weight_RK, pruned_RK) / 4
    assert errors["sparsegpt"] < errors["wanda"] < errors["magnitude"]


def test_inputs_that_are_always_zero_lose_all_their_weights_and_disturb_nothing() -> None:
    weight_RK, inputs = drawn(3, 6, 0)
    inputs.gram_KK[2, :] = inputs.gram_KK[:, 2] = 0.0
    pruned_RK = sparsegpt.prune(weight_RK, inputs, Pattern(0.5))
    assert bool((pruned_RK[:, 2] == 0).all())
    assert bool(pruned_RK.isfinite().all())


def test_fewer_tokens_than_columns_are_enough() -> None:
    weight_RK, inputs = drawn(4, 40, 3, tokens=5)
    pruned_RK = sparsegpt.prune(weight_RK.float(), Inputs(inputs.gram_KK.float(), 5), Pattern(0.5))
    assert bool(pruned_RK.isfinite().all())
    assert inputs.relative_error(weight_RK, pruned_RK.double()) < 0.1  # 5 tokens leave 35 columns to make up with


def test_more_damping_is_added_and_said_where_the_gram_matrix_is_not_positive(caplog: pytest.LogCaptureFixture) -> None:
    gram_KK = torch.diag(torch.tensor([1.0, 1.0, -0.05], dtype=torch.float64))
    with caplog.at_level(logging.WARNING):
        upper_KK = sparsegpt.upper_factor(gram_KK)
    expected = torch.linalg.inv(gram_KK + 0.1 * gram_KK.diagonal().mean() * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(upper_KK.T @ upper_KK, expected)
    assert [record.args for record in caplog.records] == [(0.1,)]
