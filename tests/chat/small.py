"""Small models and rows for tests."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tandem.chat import tokenizers
from tandem.chat.data.turns import Turn
from tandem.chat.template import Template

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may look for a network

FAMILIES = ("llama", "qwen2", "gpt2", "opt")

SIZES = {
    "hidden_size": 32,
    "n_embd": 32,
    "num_hidden_layers": 2,
    "n_layer": 2,
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
    "bos_token_id": None,
}


def model_of(family: str, vocabulary: int = 258, seed: int = 0, **settings: object) -> Any:  # noqa: ANN401 - transformers has no types
    """A small model with drawn weights, larger than usual so that mistakes show."""
    plain = AutoConfig.for_model(family)
    known = {key: value for key, value in SIZES.items() if hasattr(plain, key) or key in plain.attribute_map}
    ends = {"vocab_size": vocabulary, "eos_token_id": 256, "pad_token_id": 257}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**known, **ends, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return model


def template(text: str | None = None) -> Template:
    """A byte tokenizer with its template."""
    tokenizer = tokenizers.trained("bytes", [], 0)
    tokenizers.completed(tokenizer, text, "the test")
    return Template(tokenizer)


def turns(lengths: list[tuple[int, int]], seed: int = 0) -> list[Turn]:
    """Drawn turns of these (prompt, response) lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Turn(tuple(torch.randint(0, 256, (prompt + response,), generator=generator).tolist()), prompt)
        for prompt, response in lengths
    ]


def folder_of(path: Path, family: str = "llama", **settings: object) -> Path:
    """A folder with a model and a tokenizer."""
    model_of(family, **settings).save_pretrained(path)
    template().tokenizer.save_pretrained(path)
    return path


def write_rows(path: Path, count: int = 60) -> Path:
    """Rows with every column: the answer is the prompt's letters in capitals."""
    lines = []
    for i in range(count):
        prompt = "".join(chr(97 + (i * k) % 26) for k in (1, 3, 7))
        right = prompt.upper()
        row = {"prompt": prompt, "response": right, "chosen": right, "rejected": prompt, "answer": right}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
    return path
