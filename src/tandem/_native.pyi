"""The compiled extension, absent where the package was installed without a C++ compiler."""

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

def idle_buffer_bytes() -> int:
    """Bytes that lie unused in the pool of batch buffers."""

@final
class SpaceReader:
    """Verified reads through the index of a space."""

    def __init__(
        self, index: Any, verified: bytearray, body_at: int, records_at: int, samples: int, checks_at: int, shards: int
    ) -> None: ...
    def attach(self, shard: int, path: str) -> int:
        """Open a shard's file; its size in bytes."""

    def read(
        self, numbers: NDArray[Any], threads: int, how: str
    ) -> tuple[NDArray[Any], NDArray[Any]] | tuple[str, int, int]:
        """(data, offsets) of a batch, or (fault, position, errno)."""

    def read_one(self, number: int, how: str) -> bytes | tuple[str, int, int]:
        """Bytes, or (fault, position, errno)."""
