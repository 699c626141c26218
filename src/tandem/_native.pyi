"""The compiled extension, absent where the package was installed without a C++ compiler."""

from collections.abc import Sequence
from mmap import mmap
from typing import Any, final

from numpy.typing import NDArray

_Buffer = bytes | bytearray | memoryview

def cpu_features() -> list[str]:
    """Names of the vector instruction sets that may be used, as in /proc/cpuinfo."""

def copy_bandwidth(threads: int, bytes: int, seconds: float) -> float:
    """Streaming (triad) bandwidth in bytes/s of `threads` threads over `bytes` of arrays for `seconds`."""

def bubble_work(kind: str, reporter: bool, level: float, seconds: float, folder: str) -> int:
    """Operations that one kernel of `tandem.estimate.bubbles` does in this thread in about `seconds`."""

def xxh3(bytes: _Buffer, scalar: bool = False) -> int:
    """XXH3-64 of a buffer, seed 0."""

def copy_xxh3(to: bytearray | memoryview, bytes: _Buffer, scalar: bool = False) -> int:
    """Copy a buffer; XXH3-64 of what was copied."""

def xxh3_backend() -> str:
    """The code that xxh3() runs: avx2 or scalar."""

def has_io_uring() -> bool:
    """Whether the kernel gives this process an io_uring."""

def idle_buffer_bytes() -> int:
    """Bytes that lie unused in the pool of batch buffers."""

def sparse_paths() -> list[str]:
    """Paths of sparse products that this processor can run, best first."""

def sparse_product(
    path: str,
    masks: int,
    values: int,
    starts: int,
    scales: int,
    rows: int,
    cols: int,
    kind: str,
    x: int,
    count: int,
    x_is_bf16: bool,
    bias: int,
    activation: str,
    way: str,
    threads: int,
    y: int,
) -> None:
    """y[N, M] = activation(x[N, K] * weight^T + bias), float32; tensors by address."""

def sparse_decode(
    masks: int,
    values: int,
    starts: int,
    scales: int,
    rows: int,
    cols: int,
    kind: str,
    first: int,
    last: int,
    threads: int,
    dense: int,
    stride: int,
) -> None:
    """Writes strips [first, last) as float32 rows, padded; tensors by address."""

def sparse_emulate_chunk(upper_masks: int, lower_masks: int, upper: int, lower: int, dense: int) -> None:
    """Decodes 32 tiles of two strips as a warp of the GPU's kernel does, into [16, 256]; tensors by address."""

def sparse_emulate_piece(masks: int, turns: int, values: int, dense: int) -> None:
    """Decodes a piece in the order of lanes as a warp of the GPU's kernel does, into [16, 256]; tensors by address."""

def sparse_emulate_rows(masks: int, values: int, tiles: int, dense: int) -> None:
    """Decodes a strip as a warp of the GPU's `decode` does, into [8, 8 * tiles]; tensors by address."""

def read_bandwidth(threads: int, parts: Sequence[tuple[int, int]], seconds: float) -> float:
    """Best bandwidth in bytes/s at which `threads` threads read parts (address, bytes), over about `seconds`."""

def clock_hz(seconds: float) -> float:
    """Cycles a second of one core, from dependent additions over about `seconds`."""

CHAT_NEEDS: tuple[str, ...] | None

@final
class LlamaModel:
    """A model of Llama's shape in float32; tensors by address."""

    def __init__(
        self,
        sizes: tuple[int, int, int, int, int, int],
        eps: float,
        scale: float,
        layers: list[list[int]],
        rest: list[int],
    ) -> None: ...
    def step(
        self,
        tokens: int,
        positions: int,
        rows: int,
        cache: int,
        slots: int,
        capacity: int,
        threads: int,
        logits: int,
    ) -> None:
        """Append a token to each row and write the logits of the next."""

def llama_product(x: int, rows: int, inputs: int, weight: int, bias: int, outputs: int, threads: int, y: int) -> None:
    """y[N, M] = x[N, K] weight^T + bias as a step computes it; tensors by address."""

PASSES_PIECE_TOKENS: int

def norm(
    tokens: int,
    width: int,
    weight: int,
    eps: float,
    x: int,
    added: int,
    sum: int,
    y: int,
    factors: int,
    threads: int,
) -> None:
    """sum = x + added, and its root-mean-square norm y; tensors by address, 0 for none."""

def norm_backward(
    tokens: int,
    width: int,
    weight: int,
    dy: int,
    dsum: int,
    sum: int,
    factors: int,
    dx: int,
    shares: int,
    threads: int,
) -> None:
    """The gradients of a norm: of what is summed, and shares of the weight's."""

def rotate(
    x: int,
    shape: tuple[int, int, int, int],
    strides: tuple[int, int, int],
    cosines: int,
    sines: int,
    table: int,
    transposed: bool,
    y: int,
    threads: int,
) -> None:
    """Heads turned by their tokens' angles, or back."""

def gate(gates: int, ups: int, count: int, y: int, threads: int) -> None:
    """y = silu(gate) up."""

def gate_backward(dy: int, gates: int, ups: int, count: int, dgates: int, dups: int, threads: int) -> None:
    """Both gradients of silu(gate) up."""

@final
class SpaceReader:
    """Verified reads through the index of a space."""

    def __init__(
        self, index: mmap, verified: bytearray, body_at: int, records_at: int, samples: int, checks_at: int, shards: int
    ) -> None: ...
    def attach(self, shard: int, path: str) -> int:
        """Open a shard's file; its size in bytes."""

    def read(
        self, numbers: NDArray[Any], threads: int, how: str
    ) -> tuple[NDArray[Any], NDArray[Any]] | tuple[str, int, int]:
        """(data, offsets) of a batch, or (fault, position, errno)."""

    def read_one(self, number: int, how: str) -> bytes | tuple[str, int, int]:
        """Bytes, or (fault, position, errno)."""
