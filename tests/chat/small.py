"""Small models and rows for tests."""

import json
from pathlib import Path
from typing import Any

import torch

from tandem.chat import tokenizers
from tandem.chat.data.turns import Turn
from tandem.chat.template import Template
from tests import small_models

FAMILIES = ("llama", "qwen2", "gpt2", "opt")


def model_of(family: str, vocabulary: int = 258, seed: int = 0, **settings: object) -> Any:  # noqa: ANN401 - transformers has no types
    """A small model with drawn weights, larger than usual so that mistakes show."""
    ends = {"vocab_size": vocabulary, "eos_token_id": 256, "pad_token_id": 257}
    model = small_models.model_of(family, seed, layers=2, **{**ends, **settings})
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
