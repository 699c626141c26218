"""Who decodes for a model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from tandem.chat.engine import graphed, llama, native_llama
from tandem.chat.engine.errors import GenerationError
from tandem.chat.engine.generic import GenericDecoder

if TYPE_CHECKING:
    from torch import nn

    from tandem.chat.engine.decoder import Decoder

Way = Literal["auto", "generic", "llama", "native", "graphed"]
"""How to run a model: `generic` by its own forward pass; `llama` by torch on the weights of a model of that shape;
`native` by native code, in float32 on a CPU; `graphed` by CUDA graphs, on a GPU; `auto` by the last of these that
fits."""

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
    name = type(model).__name__
    unfit = "" if way == "generic" else llama.why_not(model)
    if way == "generic" or (way == "auto" and unfit):
        log.debug("%s is decoded by its own forward pass (%s)", name, unfit or "as asked")
        return GenericDecoder(model, capacity)
    if unfit:
        raise _misfit(way, unfit, "'generic'")
    decoder = llama.LlamaDecoder(model, capacity)
    ungraphed = graphed.why_not(decoder)
    if not ungraphed and way in ("auto", "graphed"):
        log.debug("%s is decoded by CUDA graphs as a model of Llama's shape", name)
        return graphed.GraphedLlamaDecoder(decoder)
    if way == "graphed":
        raise _misfit(way, ungraphed, "'llama'")
    unfit = "as asked" if way == "llama" else native_llama.why_not(decoder)
    if unfit and way == "native":
        raise _misfit(way, unfit, "'llama'")
    if unfit:
        log.debug("%s is decoded by torch as a model of Llama's shape (%s)", name, unfit)
        return decoder
    log.debug("%s is decoded by native code as a model of Llama's shape", name)
    return native_llama.NativeLlamaDecoder(decoder)


def _misfit(way: Way, why: str, other: str) -> GenerationError:
    allowed = f"{', '.join(llama.SHAPED_LIKE_LLAMA)} with all parameters at hand"
    if way == "native":
        allowed += ", in float32 on a processor with AVX2"
    if way == "graphed":
        allowed += ", on a GPU, with plain linear layers"
    return GenerationError(
        given=f"way {way!r} for a model that does not fit: {why}",
        allowed=allowed,
        todo=f"take way {other} or 'auto'",
    )
