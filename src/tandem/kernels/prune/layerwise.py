"""Prune a model block by block, and tell of every layer what it lost."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.kernels.prune import method, owl
from tandem.kernels.prune.blocks import blocks_of, check_weights
from tandem.kernels.prune.pattern import Pattern
from tandem.kernels.prune.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from tandem.kernels.prune.blocks import Block, Layer
    from tandem.kernels.prune.inputs import Inputs
    from tandem.kernels.prune.method import Method

Tell = Callable[[str, int, int], None]
"""Is told what is done, how far, and of how many."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lost:
    """What became of one layer.

    Attributes:
        name: Its path in the model.
        block: Number of its block.
        kind: Its path within the block, such as `self_attn.q_proj`.
        rows: Outputs.
        columns: Inputs.
        zeros: Share of its weights that are zero now.
        error: ||(W - W') X|| / ||W X|| on the inputs it got from the pruned blocks before it; NaN without a text.
        bits: Bits per weight in a bitmap with values packed as bf16, whatever type the model has.
        note: What is out of the ordinary, "" where nothing is.
    """

    name: str
    block: int
    kind: str
    rows: int
    columns: int
    zeros: float
    error: float
    bits: float
    note: str = ""


def prune_model(
    model: nn.Module,
    method_name: str,
    pattern: Pattern,
    batches_BT: Sequence[Tensor] = (),
    *,
    by_outliers: bool = False,
    tell: Tell = lambda what, done, of: None,
) -> list[Lost]:
    """Prune the linear layers in the model's blocks, in place.

    Args:
        model: A causal language model of Hugging Face, in evaluation mode.
        method_name: A file of `methods/`.
        pattern: How many zeros, and where.
        batches_BT: Token ids of the calibration text; may be empty for a method that looks at weights alone, and then
            nothing is known of output errors.
        by_outliers: Let OWL give each block its own share of zeros.
        tell: Is told of progress.

    Returns:
        A line for each layer, in the model's order.

    Raises:
        PruneError: Weights or activations are not finite, nothing to prune, no text, or OWL with N:M.
    """
    how = method.load(method_name)
    blocks = blocks_of(model)
    check_weights(blocks)
    method.check(method_name, how, pattern, bool(batches_BT), by_outliers=by_outliers)
    patterns = [pattern] * len(blocks)
    if by_outliers:
        patterns = [Pattern(share) for share in shares(model, blocks, pattern.sparsity, batches_BT, tell)]
    stream = Stream.into(model, blocks, batches_BT)
    lost: list[Lost] = []
    for number, block in enumerate(blocks):
        seen = stream.observe(number)
        for kind, layer in block.layers.items():
            lost.append(_prune_layer(layer, number, kind, seen[kind], how, patterns[number]))
        stream.advance(number)
        tell("pruning", number + 1, len(blocks))
    return lost


def shares(
    model: nn.Module, blocks: Sequence[Block], sparsity: float, batches_BT: Sequence[Tensor], tell: Tell
) -> list[float]:
    """Each block's share of zeros by OWL, from the dense model."""
    stream = Stream.into(model, blocks, batches_BT)
    found = []
    for number, block in enumerate(blocks):
        found.append(owl.outliers(block, stream.observe(number)))
        stream.advance(number)
        tell("looking for outliers", number + 1, len(blocks))
    return owl.allocate(found, [block.weights for block in blocks], sparsity)


def _prune_layer(layer: Layer, number: int, kind: str, seen: Inputs, how: Method, pattern: Pattern) -> Lost:
    seen.check(layer.name)
    dense_RK = layer.weight_RK.clone()
    note = ""
    if how.NEEDS_INPUTS and not seen.tokens:
        how = method.load("magnitude")
        note = "the text never reached it: pruned by magnitude"
        _log.warning("%s: %s", layer.name, note)
    pruned_RK = how.prune(dense_RK, seen, pattern)
    layer.set_weight(pruned_RK)
    rows, columns = dense_RK.shape
    zeros = float((pruned_RK == 0).double().mean())
    return Lost(
        name=layer.name,
        block=number,
        kind=kind,
        rows=rows,
        columns=columns,
        zeros=zeros,
        error=seen.relative_error(dense_RK, pruned_RK) if seen.tokens else math.nan,
        bits=bitmap_bits(zeros),
        note=note,
    )


def bitmap_bits(zeros: float) -> float:
    """Bits per weight of a bitmap (1) and the nonzeros in bf16 (16 each), without the few for where strips begin.

    >>> bitmap_bits(0.5)
    9.0
    """
    return 1.0 + 16 * (1.0 - zeros)
