"""Text into tokens, and tokens into windows.

Where a model comes without a tokenizer its tokens are taken to be bytes: token 65 is `A`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from tandem.kernels.prune.errors import PruneError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

MOST_BYTES = 64 << 20
"""Of a longer file the beginning is read."""

BATCH_TOKENS = 2048
"""About how many tokens go through the model at once."""


class Tokenize(Protocol):
    """Text into token ids."""

    def __call__(self, text: bytes) -> Tensor:
        """Return ids_N, int64."""
        ...


class Bytes:
    """Every byte is a token.

    Args:
        vocabulary: How many tokens the model knows.

    Raises:
        PruneError: Fewer than the 256 bytes there are.
    """

    def __init__(self, vocabulary: int) -> None:
        if vocabulary < 256:
            raise PruneError(
                given=f"a model of {vocabulary} tokens without a tokenizer",
                allowed="a tokenizer beside the model, or a model of at least 256 tokens, which are then bytes",
                todo="put the tokenizer's files into the model's folder",
            )

    def __call__(self, text: bytes) -> Tensor:
        """Return the bytes."""
        return torch.frombuffer(bytearray(text), dtype=torch.uint8).long() if text else torch.zeros(0).long()


class Words:
    """A tokenizer of Hugging Face, without the tokens that it puts around a text.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 - transformers has no types
        self._tokenizer = tokenizer

    def __call__(self, text: bytes) -> Tensor:
        """Return the ids; bytes that are no UTF-8 become the replacement sign."""
        ids = self._tokenizer(text.decode("utf-8", errors="replace"), add_special_tokens=False, verbose=False)
        return torch.tensor(ids["input_ids"], dtype=torch.int64)


def read(path: Path, tokenize: Tokenize, vocabulary: int, purpose: str) -> Tensor:
    """Return the tokens of a file.

    Args:
        path: A text.
        tokenize: Makes tokens of it.
        vocabulary: How many tokens the model knows.
        purpose: What the text is for, as the errors call it.

    Raises:
        PruneError: The file cannot be read, has fewer than two tokens, or tokens that the model does not know.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES)
    except OSError as error:
        raise PruneError(
            given=f"{purpose} {path}: {error.strerror or error}", allowed="a readable text file", todo="check the path"
        ) from error
    ids_N = tokenize(text)
    if len(ids_N) < 2:
        raise PruneError(
            given=f"{purpose} {path} has {len(ids_N)} tokens",
            allowed="a text of at least two tokens",
            todo="take a longer text",
        )
    if int(ids_N.max()) >= vocabulary:
        raise PruneError(
            given=f"{purpose} {path} gives token {int(ids_N.max())}, and the model knows {vocabulary}",
            allowed="a tokenizer that belongs to the model",
            todo="put the model's own tokenizer into its folder",
        )
    return ids_N


def calibration_batches(ids_N: Tensor, samples: int, length: int) -> list[Tensor]:
    """Return up to `samples` windows, spread evenly over the text, some to a batch.

    Args:
        ids_N: The text.
        samples: Windows at most; fewer where the text is too short for so many without overlap.
        length: Tokens of a window; a text shorter than that is one window.

    Returns:
        Batches of B x `length` token ids.
    """
    length = min(length, len(ids_N))
    fits = len(ids_N) // length
    count = min(samples, fits)
    starts = [place * fits // count * length for place in range(count)]
    windows_ST = torch.stack([ids_N[start : start + length] for start in starts])
    return list(torch.split(windows_ST, max(1, BATCH_TOKENS // length)))
