"""What generation asks of a model.

Shapes: B prompts, P prompt tokens, N rows in use, V vocabulary; of the cache see `cache`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from tandem.chat.engine.cache import KeyValues


@dataclass(frozen=True, slots=True)
class Step:
    """One token more for each row.

    Attributes:
        tokens_N: The rows' newest tokens, not cached yet. Row i has slot i.
        positions_N: Where they stand.
        seen: The longest row's tokens, these included.
        even: Whether all rows have as many.
    """

    tokens_N: Tensor
    positions_N: Tensor
    seen: int
    even: bool


class Decoder(Protocol):
    """A model, made ready to decode."""

    def prefill(self, tokens_BP: Tensor) -> Tensor:
        """Return keys and values of right-padded prompts, [L, 2, B, H, P, D]; padding's are whatever they are."""
        ...

    def step(self, step: Step, cache: KeyValues) -> Tensor:
        """Append a token to each row; return the logits of the next, [N, V]."""
        ...


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and afterwards each module back to what it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
