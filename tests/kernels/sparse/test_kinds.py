"""Every kind of language model: packed, saved and loaded, it gives the same logits to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tandem.kernels.sparse.model import load_pretrained, save_pretrained, sparsify
from tests.small_models import model_of

TOKENS = torch.tensor([[1, 5, 2, 7, 7, 3]])
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 16}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
KINDS = [
    ("bloom", {}),
    ("camembert", {}),
    ("codegen", {}),
    ("falcon", {}),
    ("gemma", {}),
    ("gemma2", {}),
    ("gemma3_text", {}),
    ("gpt2", {}),
    ("gpt_neo", {"attention_types": [[["global", "local"], 1]]}),
    ("gpt_neox", {}),
    ("gptj", {}),
    ("llama", {"rope_parameters": YARN}),
    ("llama", {"rope_parameters": DYNAMIC}),
    ("mamba", {}),
    ("opt", {}),
    ("rwkv", {}),
]


def pruned(folder: Path, kind: str, **settings: object) -> Any:  # noqa: ANN401 - transformers has no types
    """A model as `from_pretrained` reads one in bfloat16: what follows from the configuration is in float32 there."""
    model_of(kind, layers=2, **settings).bfloat16().save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(torch.rand_like(parameter) < 0.4)
    return model


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_a_model_of_any_kind_comes_back_to_the_bit(kind: str, settings: dict[str, object], tmp_path: Path) -> None:
    model = pruned(tmp_path / "dense", kind, **settings)
    with torch.no_grad():
        dense = model(TOKENS).logits
        report = sparsify(model)
        sparse = model(TOKENS).logits
        save_pretrained(model, tmp_path / "sparse")
        again = load_pretrained(tmp_path / "sparse")(TOKENS).logits
    assert any(not row.why_dense for row in report)
    torch.testing.assert_close(sparse, dense, rtol=0.02, atol=0.005)
    assert torch.equal(again, sparse)


def test_layers_of_bloom_that_it_reads_in_a_branch_not_taken_are_swapped_on_demand(tmp_path: Path) -> None:
    model = pruned(tmp_path / "dense", "bloom")
    with torch.no_grad():
        dense = model(TOKENS).logits
        report = sparsify(model, unread=("dense", "dense_4h_to_h"))
        sparse = model(TOKENS).logits
    assert [row.name for row in report if row.why_dense] == ["lm_head"]
    torch.testing.assert_close(sparse, dense, rtol=0.02, atol=0.005)
