"""Responses joined behind one prompt: the same log-probabilities and gradients as each behind a prompt of its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.chat import forward, siblings
from tandem.chat.data.batches import Batch, padded
from tandem.chat.data.turns import Turn
from tests.chat.small import FAMILIES, model_of


def group_of(prompt: int, responses: list[int], seed: int) -> list[Turn]:
    """Turns with one prompt; lengths in tokens."""
    rng = torch.Generator().manual_seed(seed)
    asked = torch.randint(0, 256, (prompt,), generator=rng).tolist()
    return [Turn((*asked, *torch.randint(0, 256, (n,), generator=rng).tolist()), prompt) for n in responses]


def joined_logprobs(model: object, batch: Batch, together: int, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    with monkeypatch.context() as patched:
        patched.setattr(siblings, "best_together", lambda *_: together)
        return forward.logprobs(model, batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_that_is_computed_once_changes_no_log_probability(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family)
    turns = [*group_of(5, [3, 1, 4, 2], 1), *group_of(2, [6, 2, 1, 1], 2)]
    batch = padded(turns, 257, group=4)
    alone_BT = forward.logprobs(model, dataclasses.replace(batch, group=1))
    assert bool(alone_BT[batch.mask_BT].lt(0).all())
    for together in (2, 4):
        torch.testing.assert_close(joined_logprobs(model, batch, together, monkeypatch), alone_BT, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family).double()
    batch = padded([*group_of(4, [3, 2], 3), *group_of(3, [1, 5], 4)], 257, group=2)
    weights_BT = torch.linspace(-1, 1, batch.mask_BT.numel(), dtype=torch.float64).view_as(batch.mask_BT)
    found = []
    for together in (1, 2):
        model.zero_grad()
        (joined_logprobs(model, batch, together, monkeypatch) * weights_BT).sum().backward()
        found.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-4)  # the log-softmax is in float32


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.lists(st.integers(0, 5), min_size=4, max_size=4)), min_size=1, max_size=3),
    st.sampled_from([2, 4]),
)
def test_whatever_the_lengths(groups: list[tuple[int, list[int]]], together: int) -> None:
    """An empty response has no slot, and takes none from its neighbours."""
    turns = [turn for i, (prompt, lengths) in enumerate(groups) for turn in group_of(prompt, lengths, i)]
    batch = padded(turns, 257, group=4)
    joined = siblings.join(batch, together)
    width = joined.tokens_RW.shape[1]
    assert len(joined.before_N) == int(batch.mask_BT.sum())
    flat, seen = joined.tokens_RW.flatten().tolist(), joined.sees_RWW.flatten(0, 1)
    positions = joined.positions_RW.flatten().tolist()
    n = 0
    for i, turn in enumerate(turns):
        row = i // together
        for at in range(turn.prompt_tokens, len(turn.tokens)):
            before = int(joined.before_N[n])
            visible = [row * width + slot for slot in seen[before].nonzero().flatten().tolist()]
            assert [flat[slot] for slot in visible] == list(turn.tokens[:at]), "all of its own past, and nothing else"
            assert [positions[slot] for slot in visible] == list(range(at))
            n += 1


def test_so_many_go_together_as_cost_least() -> None:
    model = model_of("llama")
    long_prompt = padded(group_of(60, [2] * 8, 5), 257, group=8)
    assert siblings.best_together(model, long_prompt) == 8
    assert siblings.best_together(model, dataclasses.replace(long_prompt, group=1)) == 1
    long_responses = padded(group_of(1, [400] * 8, 6), 257, group=8)
    assert siblings.best_together(model, long_responses) == 1, "attention over all of them would cost more"
