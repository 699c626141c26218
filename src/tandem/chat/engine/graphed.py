"""Models of Llama's shape on a GPU: a step is recorded once as a CUDA graph, and replayed.

A step of a small batch is a few hundred kernels that each take less time than telling the GPU of them. A graph tells it
of all at once. Its shapes are fixed: rows are rounded up to a power of two, tokens that attention looks at to
`TOKENS`; rows too many write to slots that nobody uses. A shape runs as it is the first `UNRECORDED` times, which
loads what its kernels need. Weights are read where they train. Where recording fails, steps run as they are, and a
warning says so.

Source: CUDA graphs in torch, pytorch.org/blog/accelerating-pytorch-with-cuda-graphs. Limits: layers that are no plain
matrices (sparse ones) may choose kernels as they go, and are not recorded.

Shapes: N rows in use, R rows recorded, V vocabulary; of the cache see `cache`.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from tandem.chat.engine.decoder import Step
from tandem.chat.engine.llama import Dense, LlamaDecoder

if TYPE_CHECKING:
    from tandem.chat.engine.cache import KeyValues

TOKENS = 128
UNRECORDED = 2

Replay = Callable[[], Tensor]
"""Does again what was recorded, on what its inputs hold now; returns its result, the same memory each time."""

log = logging.getLogger(__name__)


def why_not(decoder: LlamaDecoder) -> str:
    """Return why a model's steps cannot be recorded; empty where they can."""
    if decoder.embedding_VE.device.type != "cuda":
        return "it is not on a GPU"
    products = [decoder.head]
    for layer in decoder.layers:
        products += [layer.qkv, layer.out, layer.gate_up, layer.down]
    if not all(isinstance(product, Dense) for product in products):
        return "some of its layers are no plain matrices"
    return ""


@final
class GraphedLlamaDecoder:
    """Runs a model of Llama's shape by graphs.

    Args:
        decoder: The model as torch runs it, of which `why_not` says nothing.
        recorder: Records a function.
    """

    def __init__(self, decoder: LlamaDecoder, recorder: Callable[[Callable[[], Tensor]], Replay] | None = None) -> None:
        self._decoder = decoder
        self._record = recorder or CudaRecorder(decoder.embedding_VE.device)
        self._times: Counter[tuple[int, int]] = Counter()
        self._recorded: dict[tuple[int, int], tuple[Tensor, Tensor, Replay]] = {}
        self._fails = False

    def prefill(self, tokens_BP: Tensor) -> Tensor:
        """Return keys and values of right-padded prompts, [L, 2, B, H, P, D]; padding's are whatever they are."""
        return self._decoder.prefill(tokens_BP)

    def step(self, step: Step, cache: KeyValues) -> Tensor:
        """Append a token to each row; return the logits of the next, [N, V], until the next step."""
        rows, slots = len(step.tokens_N), cache.kv_L2NHSD.shape[2]
        shape = min(1 << (rows - 1).bit_length(), slots), min(-(-step.seen // TOKENS) * TOKENS, cache.capacity)
        self._times[shape] += 1
        if shape not in self._recorded and not self._fails and self._times[shape] > UNRECORDED:
            try:
                self._recorded[shape] = self._recording(*shape, cache)
            except RuntimeError as error:
                self._fails = True
                log.warning("steps of decoding are not recorded as CUDA graphs, and are slower: %s", error)
        if shape not in self._recorded:
            return self._decoder.step(step, cache)
        tokens_R, positions_R, replay = self._recorded[shape]
        tokens_R[:rows], positions_R[:rows] = step.tokens_N, step.positions_N
        positions_R[rows:] = 0
        return replay()[:rows]

    def _recording(self, rows: int, seen: int, cache: KeyValues) -> tuple[Tensor, Tensor, Replay]:
        device = self._decoder.embedding_VE.device
        tokens_R, positions_R = (torch.zeros(rows, dtype=torch.long, device=device) for _ in range(2))
        step = Step(tokens_R, positions_R, seen, even=False)
        return tokens_R, positions_R, self._record(lambda: self._decoder.step(step, cache))


@final
class CudaRecorder:
    """Records functions as CUDA graphs that share their memory: one runs at a time.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = _stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Tensor]) -> Replay:
        """Record a function, which then has not run.

        Raises:
            RuntimeError: Something in it cannot be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        # Not `torch.cuda.graph`: it empties the allocator's cache, which training would have to fill again.
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                result = function()
            finally:
                graph.capture_end()
        current.wait_stream(self._stream)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """A stream to record on, always the same: cuBLAS keeps a workspace for each that it ever saw."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
