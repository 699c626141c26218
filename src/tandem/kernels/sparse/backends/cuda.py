"""NVIDIA TensorCores from sm_80 on: CUDA C++ (gpu/product.cu), compiled at run time and kept on disk.

Bitmaps and nonzeros are decoded into the registers that mma.sync takes; the source says how. x is rounded to the
weights' type where it has another (bf16 for int8 weights and float32). Needs the extra `gpu` (cuda-core with NVRTC).
Compiled for sm_80 and sm_90a in the tests; it has not run on a GPU yet, and no figure of it is published.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tandem.core.durable import written_aside
from tandem.core.errors import MissingPackageError

if TYPE_CHECKING:
    from tandem.kernels.sparse.format import SparseWeight

DEVICE = "cuda"
TOLERANCE = 4e-3
"""x is rounded to the weights' 16 bits where it has more: 2**-8 of each product for bf16."""

GPU = Path(__file__).parent.parent / "gpu"
ROWS_A_BLOCK = 64
CHUNK_COLUMNS = 256
MOST_COLUMNS_OF_X = 32
_LEAST_ARCH = 80
_THREADS = 128
_log = logging.getLogger(__name__)


def supported() -> str:
    """Needs a GPU from sm_80 on and the package cuda-core."""
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    major, minor = torch.cuda.get_device_capability()
    if 10 * major + minor < _LEAST_ARCH:
        return f"this GPU is sm_{major}{minor} and sm_{_LEAST_ARCH} is needed"
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
        raise MissingPackageError(
            given="sparse products on a GPU, but the package cuda-core is not installed",
            allowed="backends whose packages are installed",
            todo="run: pip install 'tandemlab[gpu]'",
        )
    return ""


def forward(weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
    """Return `x_NK @ weight.T` in float32, `[N, M]`, at most 32 rows of x in one launch."""
    kind = x_NK.dtype if weight.values_P.dtype == torch.int8 else weight.values_P.dtype
    x_NK = x_NK.to(torch.bfloat16 if kind == torch.float32 else kind)
    y_NM = torch.empty(len(x_NK), weight.rows, device=x_NK.device)
    if weight.rows == 0 or weight.cols == 0:
        return y_NM.zero_()
    for first in range(0, len(x_NK), MOST_COLUMNS_OF_X):
        some = slice(first, first + MOST_COLUMNS_OF_X)
        _launch(weight, x_NK[some], y_NM[some])
    return y_NM


def options_of(x_type: torch.dtype, values_type: torch.dtype, count: int) -> dict[str, int]:
    """Return what product.cu is compiled with for a type of x, a type of values and rows of x.

    >>> options_of(torch.bfloat16, torch.int8, 9)
    {'TANDEM_X': 0, 'TANDEM_VALUES': 1, 'TANDEM_BLOCKS_OF_8': 2}
    """
    return {
        "TANDEM_X": int(x_type == torch.float16),
        "TANDEM_VALUES": int(values_type == torch.int8),
        "TANDEM_BLOCKS_OF_8": -(-count // 8),
    }


def splits_for(rows: int, cols: int, processors: int) -> int:
    """Return into how many parts the columns are cut: enough blocks for two on every multiprocessor.

    >>> splits_for(4096, 4096, 132), splits_for(64, 256, 132), splits_for(1 << 17, 4096, 132)
    (5, 1, 1)
    """
    blocks, chunks = -(-rows // ROWS_A_BLOCK), -(-cols // CHUNK_COLUMNS)
    return max(1, min(chunks, -(-2 * processors // blocks)))


def source() -> str:
    """Return product.cu with what it includes, as one text."""
    included = (GPU / "fragment.cuh").read_text().replace("#pragma once", "")
    return (GPU / "product.cu").read_text().replace('#include "fragment.cuh"', included)


def _launch(weight: SparseWeight, x_NK: torch.Tensor, y_NM: torch.Tensor) -> None:
    import cuda.core as cuda

    strips, tiles = weight.masks_ST.shape
    options = options_of(x_NK.dtype, weight.values_P.dtype, len(x_NK))
    padded_count, blocks = 8 * options["TANDEM_BLOCKS_OF_8"], -(-weight.rows // ROWS_A_BLOCK)
    x_padded = torch.nn.functional.pad(x_NK, (0, 8 * tiles - weight.cols, 0, padded_count - len(x_NK))).contiguous()
    index = x_NK.device.index or 0
    splits = splits_for(weight.rows, weight.cols, torch.cuda.get_device_properties(index).multi_processor_count)
    partial = torch.empty(splits, padded_count, ROWS_A_BLOCK * blocks, device=x_NK.device)
    product, finish, shared_bytes = _kernels(index, tuple(options.items()))
    stream = cuda.Stream.from_handle(torch.cuda.current_stream(index).cuda_stream)
    cuda.launch(
        stream,
        cuda.LaunchConfig(grid=(blocks, splits), block=_THREADS, shmem_size=shared_bytes),
        product,
        weight.masks_ST.data_ptr(),
        weight.values_P.data_ptr(),
        weight.starts_S.data_ptr(),
        x_padded.data_ptr(),
        partial.data_ptr(),
        ctypes.c_int32(strips),
        ctypes.c_int32(tiles),
    )
    cuda.launch(
        stream,
        cuda.LaunchConfig(grid=(-(-weight.rows // _THREADS), len(x_NK)), block=_THREADS),
        finish,
        partial.data_ptr(),
        0 if weight.scales_M is None else weight.scales_M.data_ptr(),
        y_NM.data_ptr(),
        *(ctypes.c_int32(n) for n in (weight.rows, len(x_NK), splits, ROWS_A_BLOCK * blocks, padded_count)),
    )


@functools.cache
def _kernels(index: int, options: tuple[tuple[str, int], ...]) -> tuple[Any, Any, int]:
    """Compile, or take from disk, and load; returns both kernels and the first one's shared memory."""
    import cuda.core as cuda
    from cuda.bindings import driver

    device = cuda.Device(index)
    device.set_current()
    cubin = _cubin(f"sm_{device.arch}", options)
    code = cuda.ObjectCode.from_cubin(cubin)
    product, finish = code.get_kernel("product"), code.get_kernel("finish")
    shared_bytes = shared_size_bytes(dict(options))
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (error,) = driver.cuFuncSetAttribute(driver.CUfunction(int(product.handle)), attribute, shared_bytes)
    if error != driver.CUresult.CUDA_SUCCESS:
        message = f"the driver refuses {shared_bytes} bytes of shared memory: {error}"
        raise RuntimeError(message)
    return product, finish, shared_bytes


def shared_size_bytes(options: dict[str, int]) -> int:
    """Return the size of product.cu's `Shared`."""
    piece = 8 * CHUNK_COLUMNS * (1 if options["TANDEM_VALUES"] else 2) + 32
    entries, x = 4 * 4 * 16 * 36, 2 * 8 * options["TANDEM_BLOCKS_OF_8"] * (CHUNK_COLUMNS + 8)
    return 4 * 2 * 2 * piece + entries + x


def _cubin(arch: str, options: tuple[tuple[str, int], ...]) -> bytes:
    import cuda.core as cuda

    text = source()
    digest = hashlib.sha256(f"{arch} {options} {cuda.__version__} {text}".encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem"
    path = folder / f"sparse-product-{arch}-{digest}.cubin"
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
