"""Models of Llama's shape in float32 on a processor with AVX2: a whole step in one call of native code.

Weights are read where they train, without being packed, and no operation of torch is between them. Each number of a row
is one sum in one order: a row's logits are the same to the last bit whatever runs beside it, and on any number of
threads. Prompts are prefilled by torch, whose products are as fast where there are many rows.

Shapes: N rows in use, V vocabulary; of the cache see `cache`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from tandem.chat import passes
from tandem.chat.engine.llama import Dense, Layer, LlamaDecoder

if TYPE_CHECKING:
    from tandem.chat.engine.cache import KeyValues
    from tandem.chat.engine.decoder import Step


def why_not(decoder: LlamaDecoder) -> str:
    """Return why native code cannot run this model; empty where it can."""
    if why := passes.why_not():
        return why
    try:
        tensors = _tensors(decoder)
    except TypeError as error:
        return str(error)
    if any(tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in tensors):
        return "its weights are not all float32 on the CPU"
    if any(not tensor.is_contiguous() for tensor in tensors):
        return "its weights do not lie row by row"
    return ""


@final
class NativeLlamaDecoder:
    """Runs a model of Llama's shape by native code.

    Args:
        decoder: The model as torch runs it, of which `why_not` says nothing.
    """

    def __init__(self, decoder: LlamaDecoder) -> None:
        self._decoder = decoder
        self._vocabulary = len(_dense(decoder.head).weight_MK)
        mlp_width = len(_dense(decoder.layers[0].gate_up).weight_MK) // 2
        width = decoder.embedding_VE.shape[1]
        self._kept = _tensors(decoder)  # the native model holds their addresses
        self._model = passes.native().LlamaModel(
            (width, decoder.queries, decoder.keys, decoder.size, mlp_width, self._vocabulary),
            decoder.eps,
            decoder.scale,
            [_addresses(layer) for layer in decoder.layers],
            [
                decoder.embedding_VE.data_ptr(),
                decoder.norm_E.data_ptr(),
                *_pair(decoder.head),
                decoder.cos_SD.data_ptr(),
                decoder.sin_SF.data_ptr(),
            ],
        )

    def prefill(self, tokens_BP: Tensor) -> Tensor:
        """Return keys and values of right-padded prompts, [L, 2, B, H, P, D]; padding's are whatever they are."""
        return self._decoder.prefill(tokens_BP)

    def step(self, step: Step, cache: KeyValues) -> Tensor:
        """Append a token to each row; return the logits of the next, [N, V]."""
        rows = len(step.tokens_N)
        logits_NV = torch.empty(rows, self._vocabulary, dtype=torch.float32)
        _, _, slots, _, capacity, _ = cache.kv_L2NHSD.shape
        self._model.step(
            step.tokens_N.data_ptr(),
            step.positions_N.data_ptr(),
            rows,
            cache.kv_L2NHSD.data_ptr(),
            slots,
            capacity,
            torch.get_num_threads(),
            logits_NV.data_ptr(),
        )
        return logits_NV


def _tensors(decoder: LlamaDecoder) -> list[Tensor]:
    """Return all that native code reads.

    Raises:
        TypeError: A layer is no matrix.
    """
    found = [decoder.embedding_VE, decoder.norm_E, decoder.cos_SD, decoder.sin_SF]
    products = [decoder.head]
    for layer in decoder.layers:
        found += [layer.norm_E, layer.mlp_norm_E]
        products += [layer.qkv, layer.out, layer.gate_up, layer.down]
    for product in products:
        dense = _dense(product)
        found += [dense.weight_MK] if dense.bias_M is None else [dense.weight_MK, dense.bias_M]
    return found


def _dense(product: object) -> Dense:
    if not isinstance(product, Dense):
        message = "some of its layers are no plain matrices"
        raise TypeError(message)
    return product


def _addresses(layer: Layer) -> list[int]:
    norm, mlp_norm = layer.norm_E.data_ptr(), layer.mlp_norm_E.data_ptr()
    return [norm, *_pair(layer.qkv), *_pair(layer.out), mlp_norm, *_pair(layer.gate_up), *_pair(layer.down)]


def _pair(product: object) -> list[int]:
    dense = _dense(product)
    return [dense.weight_MK.data_ptr(), 0 if dense.bias_M is None else dense.bias_M.data_ptr()]
