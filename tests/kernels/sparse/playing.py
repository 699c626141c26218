"""Kernels of gpu/ played by a processor, as the sanitizers see them: stands in for `launching` in tests.

`played/gpu.hpp` says what is played. What Python does for a product on a GPU (options, grids, shared memory, padding,
parts, epilogues) runs as it is; only what loads and launches kernels is another.
"""

from __future__ import annotations

import functools
import os
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from tandem.kernels.sparse import launching

if TYPE_CHECKING:
    import pytest

HERE = Path(__file__).parent / "played"
FLAGS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
_MOST_SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}
_MOST_THREADS = 1024
_ALIGNED = 16  # bytes that a kernel reads at a time, at most: where a tensor lies between them is kept
_MOST_OF_A_CLUSTER = 8
_PATIENCE_S = 300


@dataclass(frozen=True)
class Kernel:
    """One of a programme that plays a source with some options."""

    program: Path
    name: str
    arch: int


@dataclass(frozen=True)
class Gpu:
    """A played GPU.

    Attributes:
        folder: Where programmes are built.
        arch: 80 or 90; from 90 on blocks form clusters.
        sanitizer: One of `FLAGS`.
        processors: Multiprocessors, which decide into how many parts columns are cut.
        change: For tests of the tests: a text that is in the sources once, and what stands in its place.
    """

    folder: Path
    arch: int
    sanitizer: str
    processors: int = 1
    change: tuple[str, str] = ("", "")

    def put_in_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let products on tensors of the processor be launched here."""
        properties = SimpleNamespace(major=self.arch // 10, multi_processor_count=self.processors)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        monkeypatch.setattr(launching, "most_shared_bytes", lambda _: _MOST_SHARED_BYTES[self.arch])
        monkeypatch.setattr(launching, "loaded", self.loaded)
        monkeypatch.setattr(launching, "launch", launch)

    def loaded(
        self, index: int, name: str, options: tuple[tuple[str, int], ...], kernels: tuple[str, ...], *, most_shared: str
    ) -> tuple[Kernel, ...]:
        """Build a source, as `launching.loaded` compiles it."""
        assert index == 0
        assert most_shared in kernels
        program = _built(self, name, options)
        return tuple(Kernel(program, kernel, self.arch) for kernel in kernels)


@functools.cache
def _built(gpu: Gpu, name: str, options: tuple[tuple[str, int], ...]) -> Path:
    macros = {**dict(options), "__CUDA_ARCH__": 10 * gpu.arch} | ({"PLAYED_COUNT": 1} if name == "product.cu" else {})
    before, after = gpu.change
    parts = [
        name.removesuffix(".cu"),
        gpu.sanitizer,
        *map(str, macros.values()),
        f"{zlib.crc32((before + after).encode())}",
    ]
    program = gpu.folder / "-".join(parts)
    if program.exists():
        return program
    instructions = (launching.GPU / "instructions.cuh").read_text().replace("#pragma once", "")
    shared = "extern __shared__ __align__(16) unsigned char memory[];"
    text = launching.source(name)
    for old, new in (
        (instructions, ""),
        (shared, "unsigned char* const memory = played::block->shared.bytes;"),
        *([gpu.change] if before else []),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    source = program.with_suffix(f".{os.getpid()}.cpp")
    source.write_text(f'#include "gpu.hpp"\n{text}\n#include "launch.hpp"\n')
    made = program.with_suffix(f".{os.getpid()}")
    told = subprocess.run(
        ["g++", "-std=c++20", "-Og", "-g", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas",
         "-Wno-unused-function",
         *FLAGS[gpu.sanitizer], *(f"-D{macro}={value}" for macro, value in macros.items()),
         f"-I{HERE}", "-o", made, source, "-pthread"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert not told.stderr, told.stderr
    made.replace(program)  # another process of pytest may have built it, too
    return program


def launch(
    kernel: Kernel,
    grid: tuple[int, int],
    threads: int,
    arguments: tuple[torch.Tensor | int | None, ...],
    *,
    shared_bytes: int = 0,
    cluster: bool = False,
) -> None:
    """Play a launch as `launching.launch` makes it; what the kernel has written is in the tensors then.

    Raises:
        AssertionError: A sanitizer found something (its words are in the message), or a GPU would not launch it.
    """
    assert threads in range(32, _MOST_THREADS + 1, 32), f"a block of {threads} threads"
    assert shared_bytes <= _MOST_SHARED_BYTES[kernel.arch], f"{shared_bytes} bytes of shared memory"
    assert not cluster or (kernel.arch >= 90 and grid[1] <= _MOST_OF_A_CLUSTER), f"a cluster of {grid[1]} blocks"
    parts = [f"{kernel.name}\n".encode(), struct.pack("5q", *grid, threads, shared_bytes, cluster)]
    tensors = [one for one in arguments if isinstance(one, torch.Tensor)]
    for one in arguments:
        if one is None:
            parts.append(b"n")
        elif isinstance(one, int):
            parts.append(b"i" + struct.pack("q", one))
        else:
            assert one.is_contiguous()
            parts.append(b"t" + struct.pack("2q", one.nbytes, one.data_ptr() % _ALIGNED) + _bytes_of(one))
    told = subprocess.run(
        ["setarch", "-R", kernel.program],  # ThreadSanitizer of GCC 12 wants addresses where older systems put them
        input=b"".join(parts), capture_output=True, check=False, timeout=_PATIENCE_S,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr.decode()
    assert len(told.stdout) == sum(tensor.nbytes for tensor in tensors), told.stderr.decode()
    at = 0
    for tensor in tensors:
        written = torch.frombuffer(bytearray(told.stdout[at : at + tensor.nbytes]), dtype=torch.uint8)
        tensor.copy_(written.view(tensor.dtype).view(tensor.shape) if tensor.nbytes else tensor)
        at += tensor.nbytes


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.nbytes else b""
