"""Who decodes for a model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from tandem.chat.engine import llama
from tandem.chat.engine.errors import GenerationError
from tandem.chat.engine.generic import GenericDecoder

if TYPE_CHECKING:
    from torch import nn

    from tandem.chat.engine.decoder import Decoder

Way = Literal["auto", "generic", "llama"]
"""How to run a model: `generic` by its own forward pass, `llama` by `llama`'s; `auto` by the latter where it fits."""

log = logging.getLogger(__name__)


def decoder_for(model: nn.Module, capacity: int, way: Way = "auto") -> Decoder:
    """Return a decoder for a model.

    Args:
        model: A causal language model of Hugging Face.
        capacity: The most tokens a row will have.
        way: How to run it.

    Raises:
        GenerationError: It cannot be run in this way.
    """
    unfit = llama.why_not(model)
    if way == "llama" and unfit:
        raise GenerationError(
            given=f"way 'llama' for a model that does not fit: {unfit}",
            allowed=f"{', '.join(llama.SHAPED_LIKE_LLAMA)} with all parameters at hand",
            todo="take way 'generic' or 'auto'",
        )
    if way == "generic" or unfit:
        log.debug("%s is decoded by its own forward pass (%s)", type(model).__name__, unfit or "as asked")
        return GenericDecoder(model, capacity)
    log.debug("%s is decoded as a model of Llama's shape", type(model).__name__)
    return llama.LlamaDecoder(model, capacity)
