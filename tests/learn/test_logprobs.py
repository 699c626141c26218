"""Log-probabilities against torch's own log_softmax, forward and backward."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tandem.learn.errors import TrainingInputError
from tandem.learn.logprobs import token_logprobs


def case(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits_BTV = (5 * torch.randn(2, 5, 7, generator=rng, dtype=torch.float64)).to(dtype)
    tokens_BT = torch.randint(7, (2, 5), generator=rng)
    mask_BT = torch.rand(2, 5, generator=rng) < 0.7
    return logits_BTV.requires_grad_(), tokens_BT, mask_BT, torch.randn(2, 5, generator=rng, dtype=torch.float64)


def plainly(logits_BTV: Tensor, tokens_BT: Tensor, temperature: float) -> Tensor:
    logps_BTV = torch.log_softmax(logits_BTV.double() / temperature, dim=-1)
    return logps_BTV.gather(2, tokens_BT[..., None]).squeeze(2)


@given(st.integers(0, 10_000), st.floats(0.3, 3.0), st.integers(1, 11))
def test_values_and_gradients_are_those_of_log_softmax_in_chunks_of_any_size(
    seed: int, temperature: float, chunk_tokens: int
) -> None:
    logits_BTV, tokens_BT, mask_BT, weight_BT = case(seed)
    told_BT = plainly(logits_BTV, tokens_BT, temperature) * mask_BT
    logps_BT = token_logprobs(logits_BTV, tokens_BT, mask_BT, temperature=temperature, chunk_tokens=chunk_tokens)
    assert torch.allclose(logps_BT, told_BT, atol=1e-12)
    (told_grad,) = torch.autograd.grad((told_BT * weight_BT).sum(), logits_BTV)
    (grad,) = torch.autograd.grad((logps_BT * weight_BT).sum(), logits_BTV)
    assert torch.allclose(grad, told_grad, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_widened_before_the_softmax(dtype: torch.dtype) -> None:
    logits_BTV, tokens_BT, _, _ = case(2, dtype)
    logps_BT = token_logprobs(logits_BTV, tokens_BT)
    assert logps_BT.dtype == torch.float32
    assert torch.allclose(logps_BT.double(), plainly(logits_BTV, tokens_BT, 1.0), atol=5e-6)
    logps_BT.sum().backward()
    assert logits_BTV.grad is not None
    assert logits_BTV.grad.dtype == dtype


def test_large_logits_do_not_overflow() -> None:
    logits_BTV = torch.tensor([[[3e4, 0.0], [-3e4, 0.0]]])
    assert token_logprobs(logits_BTV, torch.tensor([[0, 0]])).tolist() == [[0.0, -3e4]]


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_masked_slots_are_never_read(junk: float) -> None:
    logits_BTV, tokens_BT, mask_BT, _ = case(3)
    clean_BT = token_logprobs(logits_BTV, tokens_BT, mask_BT)
    (clean_grad,) = torch.autograd.grad(clean_BT.sum(), logits_BTV)
    dirty_BTV = logits_BTV.detach().masked_fill(~mask_BT[..., None], junk).requires_grad_()
    dirty_BT = token_logprobs(dirty_BTV, tokens_BT.masked_fill(~mask_BT, -100), mask_BT)
    (dirty_grad,) = torch.autograd.grad(dirty_BT.sum(), dirty_BTV)
    assert torch.equal(clean_BT, dirty_BT)
    assert torch.equal(clean_grad, dirty_grad)


def test_what_keeps_its_graph_is_smaller_than_the_logits() -> None:
    logits_BTV = torch.randn(4, 64, 500, requires_grad=True)
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        token_logprobs(logits_BTV, torch.zeros(4, 64, dtype=torch.long))
    own = [x for x in kept if x.data_ptr() != logits_BTV.data_ptr()]
    assert own
    assert sum(x.numel() for x in own) < logits_BTV.numel() / 50


def test_mistakes_are_refused() -> None:
    logits_BTV, tokens_BT, _, _ = case(4)
    with pytest.raises(TrainingInputError, match=r"temperature 0\.0"):
        token_logprobs(logits_BTV, tokens_BT, temperature=0.0)
    with pytest.raises(TrainingInputError, match="tokens from 7 to 7 with a vocabulary of 7"):
        token_logprobs(logits_BTV, torch.full_like(tokens_BT, 7))


def test_no_token_at_all_is_no_mistake() -> None:
    logits_BTV, tokens_BT, mask_BT, _ = case(5)
    logps_BT = token_logprobs(logits_BTV, tokens_BT, torch.zeros_like(mask_BT))
    logps_BT.sum().backward()
    assert logits_BTV.grad is not None
    assert not logps_BT.any()
    assert not logits_BTV.grad.any()
