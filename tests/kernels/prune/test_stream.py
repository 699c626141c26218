"""Block by block is the same as the whole model at once, whatever the architecture."""

from collections import defaultdict
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tandem.kernels.prune.blocks import blocks_of, left_dense
from tandem.kernels.prune.errors import PruneError
from tandem.kernels.prune.stream import Stream
from tests.kernels.prune.models import ids, model_of

KINDS = [
    "llama",
    "opt",
    "gpt2",
    "gpt_neox",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "mixtral",
    "falcon",
    "bloom",
    "phi",
    "gptj",
]


def seen_by_hooks(model: Any, batches_BT: list[torch.Tensor]) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """Sums of x xᵀ of every linear layer, by hooks on the whole model."""
    sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(()))

    def see(name: str, module: nn.Module, args: tuple[torch.Tensor]) -> None:
        x_NK = args[0].flatten(0, -2)
        sums[name] = sums[name] + x_NK.T @ x_NK

    hooks = [
        module.register_forward_pre_hook(partial(see, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]
    with torch.no_grad():
        for ids_BT in batches_BT:
            model(input_ids=ids_BT, use_cache=False)
    for hook in hooks:
        hook.remove()
    return sums


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_layers_see_what_they_see_in_the_whole_model(kind: str) -> None:
    model = model_of(kind)
    batches_BT = [ids(12, seed, batch=2) for seed in range(2)] + [ids(7, 9, batch=1)]
    expected = seen_by_hooks(model, batches_BT)
    blocks = blocks_of(model)
    assert len(blocks) == 3
    stream = Stream.into(model, blocks, batches_BT)
    checked = 0
    for number, block in enumerate(blocks):
        for name, inputs in stream.observe(number).items():
            torch.testing.assert_close(inputs.gram_KK, expected[block.layers[name].name], rtol=1e-4, atol=1e-4)
            assert inputs.tokens == 55
            checked += 1
        stream.advance(number)
    assert checked == len([name for name in expected if "lm_head" not in name and "embed_out" not in name])
    assert "forward" not in vars(blocks[0].module)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_stays_dense_are_the_embeddings_the_head_and_what_is_no_linear_layer(kind: str) -> None:
    model = model_of(kind)
    blocks = blocks_of(model)
    dense = left_dense(model, blocks)
    pruned = sum(block.weights for block in blocks)
    matrices = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert pruned + sum(dense.values()) == matrices
    inside = [name for name in dense if name.startswith(blocks[0].name)]
    assert all(
        "experts" in name or "mlp.gate" in name for name in inside
    )  # one tensor for all experts, and their router
    assert bool(inside) == (kind == "mixtral")


def test_a_conv1d_is_pruned_along_its_inputs() -> None:
    """GPT-2 stores weights the other way round."""
    layer = blocks_of(model_of("gpt2"))[0].layers["mlp.c_fc"]
    assert tuple(layer.weight_RK.shape) == (48, 32)
    layer.set_weight(torch.arange(48 * 32.0).view(48, 32))
    assert layer.module.weight[1, 0] == 1.0  # type: ignore[index,union-attr]


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(PruneError, match="Sequential has no list of blocks with linear layers"):
        blocks_of(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(PruneError, match="no list of blocks"):
        blocks_of(nn.ModuleList([nn.LayerNorm(4)]))


def test_blocks_work_as_before_when_the_model_fails_half_way() -> None:
    model = model_of("llama")
    with pytest.raises(IndexError):
        Stream.into(model, blocks_of(model), [torch.tensor([[999]])])
    assert "forward" not in vars(blocks_of(model)[0].module)
