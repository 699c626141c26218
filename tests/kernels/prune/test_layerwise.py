"""Whole models, pruned: counts, errors, outliers, and what cannot be pruned."""

import gc
import logging
import math

import pytest
import torch

from tandem.kernels.prune import owl
from tandem.kernels.prune.blocks import blocks_of
from tandem.kernels.prune.errors import PruneError
from tandem.kernels.prune.layerwise import prune_model, shares
from tandem.kernels.prune.pattern import Pattern
from tests.kernels.prune.models import ids, model_of

BATCHES = [ids(24, seed, batch=2) for seed in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "bloom"])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_every_linear_layer_in_the_blocks_has_its_zeros_and_nothing_else_changed(kind: str, method: str) -> None:
    dense, model = model_of(kind), model_of(kind)
    lost = prune_model(model, method, Pattern(0.6), BATCHES)
    layers = [layer for block in blocks_of(model) for layer in block.layers.values()]
    assert [one.name for one in lost] == [layer.name for layer in layers]
    for one, layer in zip(lost, layers, strict=True):
        count = int((layer.weight_RK == 0).sum())
        assert count == round(0.6 * layer.weight_RK.numel())
        assert one.zeros == count / layer.weight_RK.numel()
        assert 0.01 < one.error < 1
        assert one.bits == pytest.approx(1 + 16 * (1 - one.zeros))  # as bf16, though the model is float32
    pruned = {id(layer.module.weight) for layer in layers}
    for (name, after), before in zip(model.named_parameters(), dense.parameters(), strict=True):
        assert id(after) in pruned or torch.equal(after, before), name


@pytest.mark.slow
def test_the_errors_told_are_those_of_layers_fed_by_pruned_blocks() -> None:
    dense, model = model_of("llama"), model_of("llama")
    lost = prune_model(model, "wanda", Pattern(0.5), BATCHES)
    name = "model.layers.2.mlp.gate_proj"
    seen: list[torch.Tensor] = []
    # the layers of a block are pruned on what its dense neighbours give it, as in both papers
    model.model.layers[2].load_state_dict(dense.model.layers[2].state_dict())
    hook = model.get_submodule(name).register_forward_pre_hook(lambda module, args: seen.append(args[0].flatten(0, 1)))
    with torch.no_grad():
        for ids_BT in BATCHES:
            model(input_ids=ids_BT, use_cache=False)
    hook.remove()
    again = model_of("llama")
    prune_model(again, "wanda", Pattern(0.5), BATCHES)
    x_NK, before, after = torch.cat(seen), dense.get_submodule(name).weight.data, again.get_submodule(name).weight.data
    expected = torch.linalg.norm(x_NK @ (before - after).T) / torch.linalg.norm(x_NK @ before.T)
    (told,) = [one.error for one in lost if one.name == name]
    assert told == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_two_of_four_holds_along_the_inputs_of_every_layer(method: str) -> None:
    model = model_of("gpt2")
    prune_model(model, method, Pattern.n_of_m("2:4"), BATCHES)
    for block in blocks_of(model):
        for layer in block.layers.values():
            groups = (layer.weight_RK != 0).unflatten(1, (-1, 4)).sum(dim=2)
            assert bool((groups == 2).all()), layer.name


@pytest.mark.slow
def test_owl_gives_blocks_with_more_outliers_fewer_zeros_and_keeps_the_sum() -> None:
    model = model_of("llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[:8, ::5] *= 30.0
    found = shares(model, blocks_of(model), 0.6, BATCHES, lambda what, done, of: None)
    lost = prune_model(model, "wanda", Pattern(0.6), BATCHES, by_outliers=True)
    by_block = [
        sum(one.zeros * one.rows * one.columns for one in lost if one.block == block)
        / sum(one.rows * one.columns for one in lost if one.block == block)
        for block in range(3)
    ]
    assert by_block == pytest.approx(found, abs=1e-3)
    assert by_block[1] == min(by_block) < 0.55
    assert max(by_block) - min(by_block) == pytest.approx(2 * owl.REACH, abs=1e-3)
    assert sum(by_block) / 3 == pytest.approx(0.6, abs=1e-3)


@pytest.mark.slow
def test_what_is_kept_of_the_text_does_not_grow_with_the_models_depth() -> None:
    def most_bytes(depth: int) -> int:
        found = []

        def tell(what: str, done: int, of: int) -> None:
            del what, done, of
            alive = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.ndim == 3 and o.shape[:2] == (2, 24)]
            found.append(sum(tensor.nbytes for tensor in alive))

        prune_model(model_of("llama", num_hidden_layers=depth), "wanda", Pattern(0.5), BATCHES, tell=tell)
        assert len(found) == depth
        return max(found)

    assert most_bytes(2) == most_bytes(7) == len(BATCHES) * 2 * 24 * 32 * 4


def test_magnitude_needs_no_text_and_says_nothing_of_errors() -> None:
    lost = prune_model(model_of("llama"), "magnitude", Pattern(0.5))
    assert all(math.isnan(one.error) and one.zeros == 0.5 for one in lost)


@pytest.mark.slow
def test_half_precision_stays_half_precision() -> None:
    model = model_of("llama").to(torch.bfloat16)
    lost = prune_model(model, "sparsegpt", Pattern(0.5), BATCHES)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(one.bits == 9.0 for one in lost)


def test_a_layer_that_the_text_never_reached_is_pruned_by_magnitude_and_said(caplog: pytest.LogCaptureFixture) -> None:
    model = model_of("llama")
    block = model.model.layers[1]
    block.unused = torch.nn.Linear(4, 4)
    with caplog.at_level(logging.WARNING):
        lost = prune_model(model, "wanda", Pattern(0.5), BATCHES)
    (one,) = [one for one in lost if one.kind == "unused"]
    assert (one.zeros, one.note) == (0.5, "the text never reached it: pruned by magnitude")
    assert math.isnan(one.error)
    assert len(caplog.records) == 1


def test_nan_weights_are_refused_before_anything_changes() -> None:
    model = model_of("llama")
    model.model.layers[2].mlp.up_proj.weight.data[0, 0] = math.nan
    model.model.layers[2].mlp.up_proj.weight.data[0, 1] = math.inf
    with pytest.raises(PruneError, match=r"model\.layers\.2\.mlp\.up_proj holds 2 values that are NaN or infinite"):
        prune_model(model, "magnitude", Pattern(0.5))
    assert not bool((model.model.layers[0].mlp.up_proj.weight == 0).any())


def test_activations_that_are_not_finite_are_refused() -> None:
    model = model_of("llama")
    model.model.layers[0].input_layernorm.weight.data[0] = math.inf
    with pytest.raises(PruneError, match=r"the inputs of model\.layers\.0\.self_attn\.q_proj are not finite"):
        prune_model(model, "wanda", Pattern(0.5), BATCHES)


@pytest.mark.parametrize(
    ("method", "pattern", "owl_too", "words"),
    [
        ("wanda", Pattern(0.5), False, "--method wanda without a calibration text"),
        ("magnitude", Pattern(0.5), True, "--owl without a calibration text"),
        ("magnitude", Pattern.n_of_m("2:4"), True, "--owl with 2:4"),
    ],
)
def test_wishes_that_cannot_be_met(method: str, pattern: Pattern, owl_too: bool, words: str) -> None:
    with pytest.raises(PruneError, match=words):
        prune_model(model_of("llama"), method, pattern, by_outliers=owl_too)
