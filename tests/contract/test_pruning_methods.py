"""What every pruning method promises: a new file of `kernels/prune/methods` is tested by being there."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.core import plug
from tandem.core.errors import UnknownPluginError
from tandem.kernels.prune import method
from tandem.kernels.prune.inputs import Inputs
from tandem.kernels.prune.pattern import Pattern

NAMES = plug.names(method.FAMILY)
patterns = st.one_of(
    st.floats(0.0, 0.99).map(Pattern),
    st.sampled_from(["1:2", "2:4", "1:4", "4:8", "3:5"]).map(Pattern.n_of_m),
)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


def case(rows: int, columns: int, dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, Inputs]:
    rng = torch.Generator().manual_seed(seed)
    weight_RK = torch.randn(columns, rows, generator=rng).T.to(dtype)  # not contiguous: GPT-2 stores it so
    x_NK = torch.randn(2 * columns + 3, columns, generator=rng).to(dtype)
    return weight_RK, Inputs.of(x_NK)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@given(st.integers(1, 9), st.integers(1, 33), patterns, dtypes, st.integers(0, 1000))
def test_zeros_are_as_many_as_asked_for_and_lie_where_they_may(
    name: str, rows: int, columns: int, pattern: Pattern, dtype: torch.dtype, seed: int
) -> None:
    weight_RK, inputs = case(rows, columns, dtype, seed)
    before = weight_RK.clone()
    pruned_RK = method.load(name).prune(weight_RK, inputs, pattern)
    assert torch.equal(weight_RK, before)
    assert (pruned_RK.shape, pruned_RK.dtype) == (weight_RK.shape, dtype)
    assert bool(pruned_RK.isfinite().all())
    zero_RK = pruned_RK == 0
    if pattern.of:
        whole_RK = torch.nn.functional.pad(~zero_RK, (0, -columns % pattern.of))
        assert int(whole_RK.view(rows, -1, pattern.of).sum(dim=2).max()) <= pattern.kept
        spared = columns // pattern.of * pattern.kept + min(pattern.kept, columns % pattern.of)
        assert int((~zero_RK).sum()) == rows * spared
    else:
        assert int(zero_RK.sum()) == round(pattern.sparsity * rows * columns)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_comes_out_twice(name: str) -> None:
    weight_RK, inputs = case(12, 40, torch.float32, 1)
    gram_KK = inputs.gram_KK.clone()
    first, second = (method.load(name).prune(weight_RK, inputs, Pattern(0.6)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(inputs.gram_KK, gram_KK)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_asked_for_where_they_are_needed(name: str) -> None:
    how = method.load(name)
    weight_RK, inputs = case(4, 8, torch.float32, 2)
    if how.NEEDS_INPUTS:
        with pytest.raises(AssertionError):
            how.prune(weight_RK, None, Pattern(0.5))
    else:
        assert torch.equal(how.prune(weight_RK, None, Pattern(0.5)), how.prune(weight_RK, inputs, Pattern(0.5)))


def test_an_unknown_method_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownPluginError, match=r"unknown pruning method 'wandda'.*did you mean 'wanda'"):
        method.load("wandda")
