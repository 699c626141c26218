"""A pruned copy decodes as a model pruned by hand does, and leaves the model what it was."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.prune import l1_unstructured

from tandem.chat import forward
from tandem.chat.drawing import batch_of
from tandem.chat.engine.errors import GenerationError
from tandem.chat.engine.generate import Rollout, Sampling, generate
from tandem.chat.engine.pruned import largest, pruned
from tandem.kernels.prune.methods import magnitude
from tandem.kernels.prune.pattern import Pattern, keep
from tandem.kernels.sparse.linear import SparseLinear
from tests.chat.small import model_of

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
TYPES = (torch.float32, torch.float64, torch.bfloat16)
SAMPLING = Sampling(max_new_tokens=8, temperature=1.3, eos_id=256)


def drawn(model: Any, seed: int = 0) -> Rollout:  # noqa: ANN401 - transformers has no types
    return generate(model, PROMPTS, SAMPLING, group=2, generator=torch.Generator().manual_seed(seed), pad_id=257)


def by_hand(model: Any, zeros: float) -> Any:  # noqa: ANN401 - transformers has no types
    """A dense model with the same weights left out and the others rounded, by what prunes models for good."""
    other = copy.deepcopy(model)
    for part in other.base_model.modules():
        if type(part) is torch.nn.Linear:
            kept = magnitude.prune(part.weight.data, None, Pattern(zeros))
            part.weight.data = kept.bfloat16().float()
    return other


def sparse_layers(model: torch.nn.Module) -> list[SparseLinear]:
    return [part for part in model.modules() if isinstance(part, SparseLinear)]


@pytest.mark.parametrize("family", ["llama", "qwen2", "opt"])
def test_log_probabilities_are_those_of_the_copys_own_forward_pass(family: str) -> None:
    model = model_of(family)
    with pruned(model, 0.6):
        rollout = drawn(model)
        batch = batch_of(rollout)
        with torch.no_grad():
            own_BT = forward.logprobs(model, batch, temperature=1.3)
    torch.testing.assert_close(rollout.logps_BT, own_BT, rtol=0, atol=2e-5)
    with torch.no_grad():
        dense_BT = forward.logprobs(model, batch, temperature=1.3)
    assert float((dense_BT - own_BT).abs().max()) > 0.1


def test_a_layer_that_was_changed_by_itself_stays_dense() -> None:
    model = model_of("llama")
    mlp = model.model.layers[0].mlp
    hooked = mlp.up_proj
    hooked.register_forward_hook(lambda *_: None)
    l1_unstructured(mlp.down_proj, "weight", 0.6)
    before = sum(type(part) is torch.nn.Linear for part in model.model.modules())
    with pruned(model, 0.6):
        assert len(sparse_layers(model)) == before - 2
        assert mlp.up_proj is hooked


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("zeros", [0.3, 0.8])
def test_it_draws_what_a_model_that_was_pruned_for_good_draws(family: str, zeros: float) -> None:
    model = model_of(family)
    with pruned(model, zeros):
        layers = sparse_layers(model)
        found = drawn(model)
    told = drawn(by_hand(model, zeros))
    assert torch.equal(found.tokens_BT, told.tokens_BT)
    torch.testing.assert_close(found.logps_BT, told.logps_BT, rtol=0, atol=2e-5)
    linear = [part for part in model.base_model.modules() if type(part) is torch.nn.Linear]
    assert len(layers) == len(linear) > 0
    assert all(abs(layer.weight.density - (1.0 - zeros)) < 0.01 for layer in layers)


def test_without_zeros_it_is_the_model_itself() -> None:
    model = model_of("llama")
    told = drawn(model)
    with pruned(model, 0.0):
        assert not sparse_layers(model)
        found = drawn(model)
    assert torch.equal(found.tokens_BT, told.tokens_BT)
    assert torch.equal(found.logps_BT, told.logps_BT)


def test_the_model_is_what_it_was_when_the_block_ends_or_breaks() -> None:
    model = model_of("llama").train()
    names, parameters = zip(*model.named_parameters(), strict=True)
    values = [parameter.detach().clone() for parameter in parameters]
    with pruned(model, 0.5):
        drawn(model)
    with pytest.raises(GenerationError), pruned(model, 0.5):
        generate(model, [[]], SAMPLING, generator=torch.Generator(), pad_id=257)
    after = dict(model.named_parameters())
    assert list(after) == list(names)
    assert all(after[name] is parameter for name, parameter in zip(names, parameters, strict=True))
    assert all(torch.equal(after[name], value) for name, value in zip(names, values, strict=True))
    assert all(part.training for part in model.modules())


def test_it_is_made_anew_when_weights_have_changed() -> None:
    model = model_of("llama")
    with pruned(model, 0.6):
        before = drawn(model).logps_BT
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    with pruned(model, 0.6):
        now = drawn(model)
    assert not torch.equal(before, now.logps_BT)
    torch.testing.assert_close(now.logps_BT, drawn(by_hand(model, 0.6)).logps_BT, rtol=0, atol=2e-5)


def test_a_tied_head_stays_dense() -> None:
    model = model_of("llama", tie_word_embeddings=True)
    with pruned(model, 0.6):
        assert type(model.get_output_embeddings()) is torch.nn.Linear
        assert sparse_layers(model)


def test_a_model_without_linear_layers_is_refused() -> None:
    with (
        pytest.raises(GenerationError, match=r"GPT2LMHeadModel to prune.*allowed: models of linear layers"),
        pruned(model_of("gpt2"), 0.5),
    ):
        pass


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.0, 0.99), st.booleans(), st.sampled_from(TYPES))
def test_what_stays_is_what_pruning_keeps_with_and_without_ties(
    rows: int, cols: int, zeros: float, ties: bool, dtype: torch.dtype
) -> None:
    weight_MK = torch.randn(rows, cols, generator=torch.Generator().manual_seed(rows * 13 + cols))
    weight_MK = (weight_MK.round() if ties else weight_MK).to(dtype)
    assert torch.equal(largest(weight_MK, zeros), keep(weight_MK.abs(), Pattern(zeros), "layer"))
