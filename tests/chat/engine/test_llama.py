"""Models of Llama's shape: what `test_generate` does not look at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tandem.chat.engine.choosing import Way, decoder_for
from tandem.chat.engine.generate import Sampling, generate
from tandem.chat.engine.generic import GenericDecoder
from tandem.chat.engine.llama import LlamaDecoder, why_not
from tandem.chat.engine.native_llama import NativeLlamaDecoder
from tandem.kernels.sparse.linear import SparseLinear
from tandem.kernels.sparse.model import sparsify
from tests.chat.engine.families import CONTEXT, EOS, PAD, plain_logps, prompts_of, tiny


def variant(**changed: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    given = {
        "vocab_size": 13,
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.4,
    }
    return LlamaForCausalLM(LlamaConfig(**{**given, **changed}))


@pytest.mark.parametrize(
    "changed",
    [
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"head_dim": 12},
        {"attention_bias": True, "mlp_bias": True},
        {"tie_word_embeddings": True},
        {"rms_norm_eps": 0.1},
        {"attn_implementation": "eager"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}},
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["llama", "native"])
def test_variants(changed: dict[str, Any], way: Way) -> None:
    model = variant(**changed)
    sampling = Sampling(max_new_tokens=20, eos_id=EOS)
    generator = torch.Generator().manual_seed(0)
    rollout = generate(model, prompts_of([20, 3]), sampling, group=3, generator=generator, pad_id=PAD, way=way)
    assert torch.allclose(rollout.logps_BT, plain_logps(model, rollout, 1.0), atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"hidden_act": "gelu"}, "its activation is gelu"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "embedding is dynamic"),
    ],
)
def test_what_does_not_fit_goes_the_generic_way(changed: dict[str, Any], told: str) -> None:
    model = variant(**changed)
    assert told in why_not(model)
    assert isinstance(decoder_for(model, 8), GenericDecoder)
    assert isinstance(decoder_for(variant().bfloat16(), 8), LlamaDecoder)
    assert isinstance(decoder_for(variant(), 8), NativeLlamaDecoder)


@pytest.mark.parametrize("way", ["generic", "llama", "auto"])
def test_sparse_layers_are_called_as_they_are(way: Way) -> None:
    model = tiny("llama")
    for layer in model.model.layers:
        for part in layer.modules():
            if isinstance(part, torch.nn.Linear):
                part.weight.data[:, ::2] = 0.0
    sparsify(model, torch.bfloat16)
    assert isinstance(model.model.layers[0].self_attn.q_proj, SparseLinear)
    sampling = Sampling(max_new_tokens=8, eos_id=EOS)
    generator = torch.Generator().manual_seed(0)
    rollout = generate(model, prompts_of([4, 2]), sampling, group=2, generator=generator, pad_id=PAD, way=way)
    assert torch.allclose(rollout.logps_BT, plain_logps(model, rollout, 1.0), atol=1e-4)
