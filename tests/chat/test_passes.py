"""What lies between products, against the same in float64 and torch's own gradients, on odd sizes and strides."""

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tandem import _native
from tandem.chat import passes

EPS = 1e-5
ON_THREADS = (1, 2, 3)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Of a sum of all outputs with drawn factors."""
    factors = [drawn(*output.shape, seed=90 + i).to(output.dtype) for i, output in enumerate(outputs)]
    return list(torch.autograd.grad(outputs, inputs, factors))


def assert_same_numbers(ours: list[Tensor], told: list[Tensor]) -> None:
    for mine, other in zip(ours, (one.detach() for one in told), strict=True):
        assert mine.dtype == torch.float32
        assert torch.allclose(mine.double(), other, rtol=1e-5, atol=1e-5 * (1.0 + float(other.abs().max())))


def norm_in_float64(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt()


def test_this_machine_has_passes_where_it_has_avx2() -> None:
    assert (passes.why_not() == "") == ({"avx2", "fma"} <= set(_native.cpu_features()))


@given(rows=st.integers(1, 5), tokens=st.integers(1, 40), width=st.integers(1, 70), adds=st.booleans())
def test_norms_and_their_gradients(rows: int, tokens: int, width: int, adds: bool) -> None:
    x, added, weight = drawn(rows, tokens, width, seed=1), drawn(rows, tokens, width, seed=2), drawn(width, seed=3)
    own = [one.clone().requires_grad_() for one in (x, added, weight)]
    wide = [one.double().requires_grad_() for one in (x, added, weight)]
    sums, normed = passes.rms_norm(own[0], own[2], EPS, own[1] if adds else None)
    told = wide[0] + wide[1] if adds else wide[0]
    assert_same_numbers([sums, normed], [told, norm_in_float64(told, wide[2])])
    used = [0, 1, 2] if adds else [0, 2]
    asked = [sums, normed] if adds else [normed]
    of_told = [told, norm_in_float64(told, wide[2])] if adds else [norm_in_float64(told, wide[2])]
    assert_same_numbers(gradients(asked, [own[i] for i in used]), gradients(of_told, [wide[i] for i in used]))


def test_a_sum_whose_norm_nobody_reads_has_a_gradient() -> None:
    x, added = drawn(3, 5, seed=1).requires_grad_(), drawn(3, 5, seed=2).requires_grad_()
    sums, _ = passes.rms_norm(x, torch.ones(5), EPS, added)
    assert_same_numbers(gradients([sums], [x, added]), [drawn(3, 5, seed=90).double()] * 2)


@given(
    rows=st.integers(1, 3),
    tokens=st.integers(1, 40),
    heads=st.integers(1, 4),
    half=st.integers(1, 20),
    own=st.booleans(),
)
def test_rotations_are_those_of_transformers(rows: int, tokens: int, heads: int, half: int, own: bool) -> None:
    angles = drawn(rows if own else 1, tokens, half, seed=5).repeat(1, 1, 2).double()
    cos, sin = angles.cos(), angles.sin()
    x = drawn(rows, tokens, heads, 2 * half, seed=6)
    ours, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    turned = passes.rotated(ours, cos.float().flatten(0, 1), sin.float().flatten(0, 1))
    told, _ = apply_rotary_pos_emb(wide, wide, cos, sin, unsqueeze_dim=2)
    assert_same_numbers([turned, *gradients([turned], [ours])], [told, *gradients([told], [wide])])


def test_a_gradient_that_lies_by_heads_is_turned_back() -> None:
    angles = drawn(7, 3, seed=5).repeat(1, 2)
    x = drawn(2, 7, 4, 6, seed=6).requires_grad_()
    by_heads = drawn(2, 4, 7, 6, seed=7).transpose(1, 2)
    found = [
        torch.autograd.grad(passes.rotated(x, angles.cos(), angles.sin()), x, grad)[0]
        for grad in (
            by_heads,
            by_heads.contiguous(),
            by_heads.contiguous().transpose(2, 3).contiguous().transpose(2, 3),
        )
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@given(shape=st.lists(st.integers(1, 30), min_size=1, max_size=3), scale=st.sampled_from([0.1, 1.0, 30.0, 1000.0]))
def test_gates_and_their_gradients(shape: list[int], scale: float) -> None:
    given_ = [drawn(*shape, seed=8) * scale, drawn(*shape, seed=9)]
    own, wide = [one.clone().requires_grad_() for one in given_], [one.double().requires_grad_() for one in given_]
    ours, told = passes.gated(*own), torch.nn.functional.silu(wide[0]) * wide[1]
    assert_same_numbers([ours, *gradients([ours], own)], [told, *gradients([told], wide)])


def test_what_is_no_number_stays_none() -> None:
    gate = torch.tensor([0.0, torch.nan, 1.0])
    assert passes.gated(gate, torch.ones(3)).isnan().tolist() == [False, True, False]
    assert passes.rms_norm(gate[None], torch.ones(3), EPS)[1].isnan().all()


def test_bits_do_not_depend_on_threads(threads: Callable[[int], None]) -> None:
    x, added, weight = drawn(300, 96, seed=1), drawn(300, 96, seed=2), drawn(96, seed=3)
    gate, up = drawn(300, 200, seed=4), drawn(300, 200, seed=5)

    def all_of_it(count: int) -> list[Tensor]:
        threads(count)
        own = [one.clone().requires_grad_() for one in (x, added, weight, gate, up)]
        sums, normed = passes.rms_norm(own[0], own[2], EPS, own[1])
        gated = passes.gated(own[3], own[4])
        return [sums, normed, gated, *gradients([sums, normed, gated], own)]

    first, *others = (all_of_it(count) for count in ON_THREADS)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_they_are_differentiable_once() -> None:
    x = drawn(3, 5, seed=1).requires_grad_()
    (first,) = torch.autograd.grad(passes.gated(x, x).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
