"""Small causal language models with drawn weights, of any of Hugging Face's kinds."""

import os
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may look for a network

SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "n_embd": 32,
    "num_attention_heads": 4,
    "n_head": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "n_inner": 48,
    "word_embed_proj_dim": 32,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "rotary_dim": 4,
    "num_local_experts": 4,
    "sliding_window": 4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
READ_ONLY = {"falcon": {"head_dim"}}


def model_of(kind: str, seed: int = 0, layers: int = 3, **settings: object) -> Any:  # noqa: ANN401 - transformers has no types
    """A small model of a kind (`llama`, `opt`, ...), in evaluation mode."""
    plain = AutoConfig.for_model(kind)
    known = {
        name: value
        for name, value in {**SIZES, "num_hidden_layers": layers, "n_layer": layers}.items()
        if (hasattr(plain, name) or name in plain.attribute_map) and name not in READ_ONLY.get(kind, set())
    }
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**known, **settings})).eval()
