"""CUDA C++ of gpu/: compiled at run time by NVRTC, kept on disk, loaded once a process, and launched on torch's stream.

Needs the extra `gpu` (cuda-core with NVRTC).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Any

import torch

from tandem.core.data_folder import cache_folder
from tandem.core.durable import written_aside

GPU = Path(__file__).parent / "gpu"
_log = logging.getLogger(__name__)


def source(name: str) -> str:
    """Return a file of gpu/, such as product.cu, with what it includes, as one text."""

    def included(found: re.Match[str]) -> str:
        return (GPU / found[1]).read_text().replace("#pragma once", "")

    return re.sub(r'#include "(\w+\.cuh)"', included, (GPU / name).read_text())


def cubin(name: str, arch: str, options: tuple[tuple[str, int], ...]) -> bytes:
    """Return a file compiled for an architecture, or as an earlier process has left it on disk.

    Args:
        name: Of gpu/.
        arch: Such as sm_90.
        options: Macros and their values.
    """
    import cuda.core as cuda

    text = source(name)
    digest = hashlib.sha256(f"{arch} {options} {cuda.__version__} {text}".encode()).hexdigest()[:16]
    folder = cache_folder(os.environ, os.geteuid())
    path = folder / f"sparse-{name.removesuffix('.cu')}-{arch}-{digest}.cubin"
    try:
        return path.read_bytes()
    except OSError:
        pass
    defines = [(name, str(value)) for name, value in options]
    settings = cuda.ProgramOptions(arch=arch, std="c++17", define_macro=defines)
    compiled: bytes = cuda.Program(text, code_type="c++", options=settings).compile("cubin").code
    _log.info("sparse products compiled for %s with %s", arch, dict(options))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as out:
            out.write(compiled)
    except OSError as error:
        _log.warning("the compiled kernel cannot be kept in %s: %s", path, error.strerror)
    return compiled


@functools.cache
def loaded(
    index: int, name: str, options: tuple[tuple[str, int], ...], kernels: tuple[str, ...], *, most_shared: str
) -> tuple[Any, ...]:
    """Compile a file, or take it from disk, load it, and return some of its kernels.

    Args:
        index: Of the GPU.
        name: Of gpu/.
        options: Macros and their values.
        kernels: Their names.
        most_shared: Which of them may take as much shared memory as a block can have.
    """
    import cuda.core as cuda
    from cuda.bindings import driver

    device = cuda.Device(index)
    device.set_current()
    code = cuda.ObjectCode.from_cubin(cubin(name, f"sm_{device.arch}", options))
    found = tuple(code.get_kernel(kernel) for kernel in kernels)
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    most, handle = most_shared_bytes(index), int(found[kernels.index(most_shared)].handle)
    (error,) = driver.cuKernelSetAttribute(attribute, most, driver.CUkernel(handle), index)
    if error != driver.CUresult.CUDA_SUCCESS:
        message = f"the driver refuses {most} bytes of shared memory: {error}"
        raise RuntimeError(message)
    return found


@functools.cache
def most_shared_bytes(index: int) -> int:
    """Return how much shared memory a block can have on a GPU."""
    import cuda.core as cuda

    return int(cuda.Device(index).properties.max_shared_memory_per_block_optin)


def launch(
    kernel: Any,  # noqa: ANN401 - a kernel of cuda-core
    grid: tuple[int, int],
    threads: int,
    arguments: tuple[torch.Tensor | int | None, ...],
    *,
    shared_bytes: int = 0,
    cluster: bool = False,
) -> None:
    """Launch a kernel on torch's stream.

    Tensors go by address (None is a null pointer), numbers as 32-bit integers; clusters are columns of the grid.
    """
    import cuda.core as cuda

    index = next(one for one in arguments if isinstance(one, torch.Tensor)).device.index or 0
    with torch.cuda.device(index):
        stream = cuda.Stream.from_handle(torch.cuda.current_stream(index).cuda_stream)
        cuda.launch(
            stream,
            cuda.LaunchConfig(grid=(grid[0], 1), cluster=(1, grid[1]), block=threads, shmem_size=shared_bytes)
            if cluster  # whose grid is one of clusters
            else cuda.LaunchConfig(grid=grid, block=threads, shmem_size=shared_bytes),
            kernel,
            *(ctypes.c_int32(one) if isinstance(one, int) else _address(one) for one in arguments),
        )


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
