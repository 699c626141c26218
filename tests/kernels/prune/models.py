"""Folders with small models, drawn tokens and text for them."""

from pathlib import Path

import torch

from tests.small_models import model_of

__all__ = ["folder_of", "ids", "model_of", "text_file"]


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
