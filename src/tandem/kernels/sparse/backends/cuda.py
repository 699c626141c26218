"""NVIDIA TensorCores from sm_80 on: CUDA C++ (gpu/product.cu), compiled at run time and kept on disk.

Bitmaps and nonzeros are decoded into the registers that mma.sync takes; the source says how. x is rounded to the
weights' type where it has another (for int8 weights: fp16 stays, all else becomes bf16). How many warps a block has,
how many rows a warp, and into how many parts the columns are cut is measured once for each kind of product
(`geometries`, `running`). Many rows of x are multiplied densely by rows that `decode` has written out. Where a strip's
chunks of 256 columns begin is counted at a weight's first product and kept as long as its bitmap. Needs the extra `gpu`
(cuda-core with NVRTC).

Run on an H200 (as sm_90); compiled for sm_80 and sm_90a in the tests.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.weak import WeakIdKeyDictionary

from tandem.core.errors import MissingPackageError
from tandem.kernels.sparse import launching
from tandem.kernels.sparse.format import TILE
from tandem.kernels.sparse.reference import ACTIVATIONS, activated

if TYPE_CHECKING:
    from tandem.kernels.sparse.format import SparseWeight

DEVICE = "cuda"
TOLERANCE = 4e-3
"""x is rounded to the weights' 16 bits where it has more: 2**-8 of each product for bf16."""

SOURCE = "product.cu"
WARP_ROWS = 16
LAYOUTS = ((4, 1), (8, 1), (4, 2), (8, 2), (2, 1))
"""Warps of a block and groups of 16 rows of a warp, the usual ones first; the last ones fit everywhere."""
MOST_SPLITS = 8
"""A cluster has at most so many blocks on every GPU that has clusters."""
CHUNK_COLUMNS = 256
MOST_COLUMNS_OF_X = 32
_LEAST_ARCH = 80
CLUSTER_MAJOR = 9
"""From sm_90 on blocks form clusters."""
_FINISHING_THREADS = 128
_SCRATCH_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a product is laid out: warps in a block, groups of 16 rows in a warp, parts that the columns are cut into."""

    warps: int
    groups: int
    splits: int

    def __str__(self) -> str:
        return f"{self.warps} warps x {self.groups} groups x {self.splits} splits"

    @classmethod
    def named(cls, name: str) -> Geometry:
        """Return the geometry that `str` has written.

        >>> Geometry.named("4 warps x 1 groups x 5 splits")
        Geometry(warps=4, groups=1, splits=5)
        """
        return cls(*(int(part.split()[0]) for part in name.split(" x ")))

    @property
    def block_rows(self) -> int:
        """Rows of a block."""
        return WARP_ROWS * self.warps * self.groups


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


def forward(
    weight: SparseWeight,
    x_NK: torch.Tensor,
    bias_M: torch.Tensor | None = None,
    activation: str = "none",
    *,
    geometry: str = "",
) -> torch.Tensor:
    """Return `activation(x_NK @ weight.T + bias_M)` in float32, `[N, M]`, at most 32 rows of x in one launch.

    Args:
        weight: On the GPU, as are all others.
        x_NK: Any floating type.
        bias_M: Or None.
        activation: One of `reference.ACTIVATIONS`.
        geometry: The name of one of `geometries()`; empty for the first of them.
    """
    x_NK = x_NK.to(type_of_x(x_NK.dtype, weight.values_P.dtype))
    y_NM = torch.empty(len(x_NK), weight.rows, dtype=torch.float32, device=x_NK.device)
    if weight.rows == 0 or weight.cols == 0:
        return activated(y_NM.zero_(), bias_M, activation)
    chosen = Geometry.named(geometry) if geometry else None
    if chosen is None or not _fits(chosen, weight, chunks_of(weight)):  # another of this kind may have shorter chunks
        chosen = Geometry.named(geometries(weight)[0])
    epilogue = Epilogue(None if bias_M is None else bias_M.float().contiguous(), ACTIVATIONS.index(activation))
    for first in range(0, len(x_NK), MOST_COLUMNS_OF_X):
        some = slice(first, first + MOST_COLUMNS_OF_X)
        _multiply(weight, x_NK[some], y_NM[some], chosen, epilogue)
    return y_NM


def by_blocks(weight: SparseWeight, x_NK: torch.Tensor) -> torch.Tensor:
    """Return `x_NK @ weight.T` in float32 from blocks of rows, written out in 16 bits one after another."""
    x_NK = x_NK.to(type_of_x(x_NK.dtype, weight.values_P.dtype))
    y_NM = torch.empty(len(x_NK), weight.rows, dtype=torch.float32, device=x_NK.device)
    step = max(1, _SCRATCH_BYTES // (2 * TILE * max(1, weight.cols)))
    for first in range(0, len(weight.masks_ST), step):
        block_MK = decode(weight, first, min(first + step, len(weight.masks_ST)), x_NK.dtype)
        y_NM[:, first * TILE : first * TILE + len(block_MK)] = torch.mm(x_NK, block_MK.T, out_dtype=torch.float32)
    return y_NM if weight.scales_M is None else y_NM.mul_(weight.scales_M)


def decode(weight: SparseWeight, first: int, last: int, x_type: torch.dtype) -> torch.Tensor:
    """Return the rows of strips `first` to `last` (excluded) as a dense matrix (a view), int8 without their scales."""
    strips, tiles = last - first, weight.masks_ST.shape[1]
    dense_MK = torch.empty(TILE * strips, TILE * tiles, dtype=x_type, device=weight.device)
    geometry = Geometry(*LAYOUTS[0], 1)
    if dense_MK.numel():
        launching.launch(
            _kernels(_index(weight), options_of(x_type, weight.values_P.dtype, 1, geometry)).decode,
            (-(-strips // geometry.warps), 1),
            32 * geometry.warps,
            (weight.masks_ST, weight.values_P, weight.starts_S, dense_MK, first, strips, tiles),
        )
    return dense_MK[: min(TILE * last, weight.rows) - TILE * first, : weight.cols]


def type_of_x(x_type: torch.dtype, values_type: torch.dtype) -> torch.dtype:
    """Return what x is rounded to: the weights' type; for int8 fp16 where it is that, else bf16."""
    if values_type != torch.int8:
        return values_type
    return torch.float16 if x_type == torch.float16 else torch.bfloat16


def options_of(x_type: torch.dtype, values_type: torch.dtype, count: int, geometry: Geometry) -> dict[str, int]:
    """Return what product.cu is compiled with for a type of x, a type of values and rows of x.

    >>> options_of(torch.bfloat16, torch.int8, 9, Geometry(4, 1, 1))
    {'TANDEM_X': 0, 'TANDEM_VALUES': 1, 'TANDEM_BLOCKS_OF_8': 2, 'TANDEM_WARPS': 4, 'TANDEM_GROUPS': 1}
    """
    return {
        "TANDEM_X": int(x_type == torch.float16),
        "TANDEM_VALUES": int(values_type == torch.int8),
        "TANDEM_BLOCKS_OF_8": -(-count // 8),
        "TANDEM_WARPS": geometry.warps,
        "TANDEM_GROUPS": geometry.groups,
    }


def geometries(weight: SparseWeight) -> list[str]:
    """Return the names of the layouts that are worth trying for a weight, the usual one first."""
    properties = torch.cuda.get_device_properties(weight.device)
    found = geometries_for(weight.rows, weight.cols, properties.multi_processor_count)
    chunks = chunks_of(weight)
    return [str(geometry) for geometry in found if _fits(geometry, weight, chunks)]


def _fits(geometry: Geometry, weight: SparseWeight, chunks: Chunks) -> bool:
    """Tell whether a block's shared memory is enough, with as many rows of x as there can be."""
    options = options_of(torch.bfloat16, weight.values_P.dtype, MOST_COLUMNS_OF_X, geometry)
    return shared_size_bytes(options, chunks.piece_bytes(weight)) <= launching.most_shared_bytes(_index(weight))


def geometries_for(rows: int, cols: int, processors: int) -> list[Geometry]:
    """Return layouts with about one, two, four or eight blocks on every multiprocessor, the usual one (four) first.

    >>> [str(geometry) for geometry in geometries_for(4096, 4096, 132)][:2]
    ['4 warps x 1 groups x 8 splits', '4 warps x 1 groups x 5 splits']
    >>> geometries_for(1 << 17, 64, 132)[:2]
    [Geometry(warps=4, groups=1, splits=1), Geometry(warps=8, groups=1, splits=1)]
    """
    found: list[Geometry] = []
    for warps, groups in LAYOUTS:
        blocks, chunks = -(-rows // (WARP_ROWS * warps * groups)), -(-cols // CHUNK_COLUMNS)
        wanted = (-(-turns * processors // blocks) for turns in (4, 2, 1, 8))
        found += [Geometry(warps, groups, max(1, min(chunks, MOST_SPLITS, splits))) for splits in wanted]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What is done to sums: a bias, float32, and the activation's number in `reference.ACTIVATIONS`."""

    bias_M: torch.Tensor | None
    activation: int


class Kernels(NamedTuple):
    """The loaded kernels of product.cu."""

    product: Any
    finish: Any
    count: Any
    decode: Any


class Chunks(NamedTuple):
    """Where each strip's chunks begin, `[S, chunks + 1]` int32, and how many values the longest has.

    `bitmap` is where the bitmap lay, and how often it had been written to.
    """

    begins_SC: torch.Tensor
    longest: int
    bitmap: tuple[int, int]

    def piece_bytes(self, weight: SparseWeight) -> int:
        """Return what the longest takes in shared memory."""
        return piece_size_bytes(self.longest, weight.values_P.element_size())


def _multiply(
    weight: SparseWeight, x_NK: torch.Tensor, y_NM: torch.Tensor, geometry: Geometry, epilogue: Epilogue
) -> None:
    """Launch `product` on torch's own stream, and `finish` where parts' blocks cannot see each other's sums."""
    strips, tiles = weight.masks_ST.shape
    options = options_of(x_NK.dtype, weight.values_P.dtype, len(x_NK), geometry)
    counts, blocks = 8 * options["TANDEM_BLOCKS_OF_8"], -(-weight.rows // geometry.block_rows)
    x_NK = torch.nn.functional.pad(x_NK, (0, -weight.cols % 8)) if weight.cols % 8 else x_NK.contiguous()
    if x_NK.data_ptr() % 16:
        x_NK = x_NK.clone()  # the kernel reads 16 bytes at a time
    clustered = torch.cuda.get_device_properties(weight.device).major >= CLUSTER_MAJOR
    partial = None
    if geometry.splits > 1 and not clustered:
        partial = torch.empty(
            geometry.splits, counts, geometry.block_rows * blocks, dtype=torch.float32, device=x_NK.device
        )
    chunks, kernels = chunks_of(weight), _kernels(_index(weight), options)
    epilogued = (weight.scales_M, epilogue.bias_M, y_NM, weight.rows, len(x_NK), epilogue.activation)
    launching.launch(
        kernels.product,
        (blocks, geometry.splits),
        32 * geometry.warps,
        (
            *(weight.masks_ST, weight.values_P, weight.starts_S, chunks.begins_SC, x_NK, partial, *epilogued),
            *(strips, tiles, x_NK.shape[1], chunks.piece_bytes(weight)),
        ),
        shared_bytes=shared_size_bytes(options, chunks.piece_bytes(weight)),
        cluster=clustered and geometry.splits > 1,
    )
    if partial is not None:
        grid = (-(-weight.rows // _FINISHING_THREADS), len(x_NK))
        sizes = (geometry.splits, geometry.block_rows * blocks)
        launching.launch(kernels.finish, grid, _FINISHING_THREADS, (partial, *epilogued, *sizes))


def chunks_of(weight: SparseWeight) -> Chunks:
    """Return where a weight's chunks begin, counted once for a bitmap."""
    masks_ST = weight.masks_ST
    bitmap = (masks_ST.data_ptr(), 0 if masks_ST.is_inference() else masks_ST._version)
    known: Chunks | None = _chunks.get(masks_ST)  # type: ignore[no-untyped-call]
    if known is not None and known.bitmap == bitmap:
        return known
    strips, tiles = weight.masks_ST.shape
    chunks = -(-tiles * TILE // CHUNK_COLUMNS)
    begins_SC = torch.empty(strips, chunks + 1, dtype=torch.int32, device=weight.device)
    geometry = Geometry(*LAYOUTS[0], 1)
    kernel = _kernels(_index(weight), options_of(torch.bfloat16, weight.values_P.dtype, 1, geometry)).count
    grid = (-(-strips // geometry.warps), 1)
    launching.launch(kernel, grid, 32 * geometry.warps, (weight.masks_ST, begins_SC, strips, tiles))
    if torch.cuda.is_current_stream_capturing():  # nothing can be read now, and the table lives as long as the graph
        return Chunks(begins_SC, TILE * CHUNK_COLUMNS, bitmap)
    _chunks[masks_ST] = found = Chunks(begins_SC, int(begins_SC.diff(dim=1).max()), bitmap)
    return found


def piece_size_bytes(values: int, value_bytes: int) -> int:
    """Return what so many values take in shared memory: 16 bytes at a time, and they begin within the first 16.

    >>> piece_size_bytes(800, 2)
    1616
    """
    return -(-(values * value_bytes + 15) // 16) * 16


_chunks: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _index(weight: SparseWeight) -> int:
    return weight.device.index or 0


def _kernels(index: int, options: dict[str, int]) -> Kernels:
    found = launching.loaded(index, SOURCE, tuple(options.items()), Kernels._fields, most_shared="product")
    return Kernels(*found)


def shared_size_bytes(options: dict[str, int], piece_bytes: int) -> int:
    """Return what a block of `product` takes: `Fixed` and the pieces, or the sums that a cluster's blocks show."""
    warps, groups, counts = options["TANDEM_WARPS"], options["TANDEM_GROUPS"], 8 * options["TANDEM_BLOCKS_OF_8"]
    fixed = 2 * 2 * counts * (CHUNK_COLUMNS + 32) + warps * groups * 4 * 8 * 72
    return max(fixed + warps * groups * 2 * 2 * piece_bytes, 4 * counts * WARP_ROWS * warps * groups)
