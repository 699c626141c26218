"""Small models with drawn weights, and text for them."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may look for a network

SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "n_embd": 32,
    "num_hidden_layers": 3,
    "n_layer": 3,
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


def model_of(kind: str, seed: int = 0, **settings: object) -> Any:  # noqa: ANN401 - transformers has no types
    """A small model of one of Hugging Face's kinds (`llama`, `opt`, ...), in evaluation mode."""
    plain = AutoConfig.for_model(kind)
    known = {
        name: value
        for name, value in SIZES.items()
        if (hasattr(plain, name) or name in plain.attribute_map) and name not in READ_ONLY.get(kind, set())
    }
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**known, **settings})).eval()


def folder_of(path: Path, kind: str = "llama", **settings: object) -> Path:
    """A folder with such a model."""
    model_of(kind, **settings).save_pretrained(path)
    return path


def ids(tokens: int, seed: int = 0, batch: int | None = None) -> torch.Tensor:
    """Drawn tokens, N or B x T of them."""
    shape = (tokens,) if batch is None else (batch, tokens)
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(seed))


def text_file(path: Path, size: int = 2000) -> Path:
    """A text of so many letters, in which some follow others more often."""
    words = ["the ", "king ", "speaks ", "of ", "ships ", "and ", "rain.\n"]
    order = torch.randint(len(words), (size,), generator=torch.Generator().manual_seed(size)).tolist()
    path.write_text("".join(words[place] for place in order)[:size])
    return path
