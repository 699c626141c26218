"""AdamW as torch has it, with the rate of each step, a clipped norm, and a stop where numbers end."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandem.learn.errors import TrainingInputError
from tandem.learn.optimiser import BETAS, Optimiser


def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]


def test_a_step_is_torchs_adamw_after_the_norm_was_clipped() -> None:
    ours, theirs = parameters(), parameters()
    optimiser = Optimiser(ours, learning_rate=0.1)
    adam = torch.optim.AdamW(theirs, lr=0.1, betas=BETAS, weight_decay=0.0)
    for step in range(3):
        for own, other in zip(ours, theirs, strict=True):
            own.grad = torch.full_like(own, 2.0)
            other.grad = torch.full_like(other, 2.0 / 24**0.5)
        assert optimiser.step(step) == pytest.approx(24**0.5)
        adam.step()
    assert all(torch.allclose(own, other) for own, other in zip(ours, theirs, strict=True))
    assert all(own.grad is None for own in ours)


def test_matrices_decay_and_vectors_do_not() -> None:
    ours = parameters()
    for own in ours:
        own.grad = torch.zeros_like(own)
    Optimiser(ours, learning_rate=0.1, weight_decay=0.5).step(0)
    assert ours[0].detach().flatten().tolist() == pytest.approx([0.95] * 4)
    assert ours[1].detach().tolist() == [1.0, 1.0]


@given(st.integers(0, 50), st.integers(0, 100))
def test_the_rate_rises_to_its_end_and_stays(warmup: int, step: int) -> None:
    optimiser = Optimiser(parameters(), learning_rate=2.0, warmup_steps=warmup)
    assert 0.0 < optimiser.rate(step) <= optimiser.rate(step + 1) <= 2.0
    assert optimiser.rate(warmup) == 2.0


@given(st.integers(1, 50), st.integers(0, 100))
def test_a_decaying_rate_falls_to_a_tenth_and_stays(decay: int, step: int) -> None:
    optimiser = Optimiser(parameters(), learning_rate=2.0, decay_steps=decay)
    assert optimiser.rate(0) == 2.0
    assert 0.2 - 1e-12 <= optimiser.rate(step + 1) <= optimiser.rate(step)
    assert optimiser.rate(decay) == pytest.approx(0.2)
    assert optimiser.rate(2 * decay) == optimiser.rate(decay)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_moves_nothing(bad: float) -> None:
    ours = parameters()
    ours[0].grad = torch.full_like(ours[0], bad)
    with pytest.raises(TrainingInputError, match="in step 7"):
        Optimiser(ours, learning_rate=0.1).step(7)
    assert bool((ours[0] == 1.0).all())
    assert ours[0].grad is None


def test_weights_of_16_bits_learn_by_steps_that_they_do_not_tell_apart() -> None:
    one = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
    optimiser = Optimiser([one], learning_rate=1e-3)
    for step in range(20):
        one.grad = torch.full_like(one, 0.1)
        optimiser.step(step)
        assert one.grad is None
    assert one.detach().float().flatten().tolist() == pytest.approx([0.98] * 4, abs=0.004)


def test_weights_of_16_bits_go_on_from_what_they_were_rounded_from() -> None:
    def trained(steps: range, state: dict | None = None, dtype: torch.dtype = torch.bfloat16) -> tuple:
        one = torch.nn.Parameter(torch.ones(2, 2, dtype=dtype))
        optimiser = Optimiser([one], learning_rate=1e-3)
        if state is not None:
            optimiser.load_state_dict(state)
        for step in steps:
            one.grad = torch.full_like(one, 0.1)
            optimiser.step(step)
        return one.detach(), optimiser.state_dict()

    whole, kept = trained(range(6))
    _, state = trained(range(3))
    again, taken = trained(range(3, 6), state)
    assert torch.equal(whole, again)
    assert torch.equal(kept["weights"][0], taken["weights"][0])
    assert not torch.equal(kept["weights"][0], whole.float())
    wide, _ = trained(range(0), kept, torch.float32)  # on a processor what was begun on a GPU
    assert torch.equal(wide, kept["weights"][0])
