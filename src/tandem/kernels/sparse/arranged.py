"""Sparse layers for inference on a GPU: weights in the order of lanes alone, the fastest there and no second copy.

    arrange(model.to("cuda"))

A sparse layer keeps its weight in the order on disk: it can be trained, saved, moved, and its values changed in place.
An arranged one cannot: its weight lies once, in the order in which lanes of a warp read (`lanes`), and is multiplied
by TensorCores (gpu/lanes.cu, sm_80 and later). Save a model before it is arranged. Needs the extra `gpu`.

Shapes: M rows and K columns of a weight, N rows of x; those of the parts are `lanes.Lanes`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tandem.kernels.sparse import choosing, launching, reference
from tandem.kernels.sparse.backends import cuda
from tandem.kernels.sparse.lanes import CHUNK_COLUMNS, PANEL_ROWS, SLOTS, Lanes
from tandem.kernels.sparse.lanes import arrange as in_order
from tandem.kernels.sparse.linear import SparseLinear
from tandem.kernels.sparse.mistakes import SparseShapeError
from tandem.kernels.sparse.ops import check_x, in_own_types, rows_of, stacked

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE, KERNELS = "lanes.cu", ("product", "finish", "decode")
WARPS = 4
MOST_SPLITS = 8
MOST_ROWS_OF_X = 32
BLOCKS_FROM = 65
"""From so many rows of x on, panels are written out and multiplied densely: three products would take longer."""
_WARPS_AT_ONCE = 28
"""So many have room on a multiprocessor, by their registers and shared memory."""
_COPIED_BYTES = 512
_SCRATCH_BYTES = 32 << 20


class ArrangedLinear(nn.Module):
    """A linear layer with an arranged weight, on a GPU, that takes no gradients.

    Attributes:
        in_features: K.
        out_features: M.
        activation: One of `reference.ACTIVATIONS`, applied in the product.
        masks, turns, values, begins: The parts of `lanes.Lanes`.
        longest: Rows of slots of the longest piece.
        scales: What a row of int8 values is multiplied by, `[M]` float32; None for other types.
        bias: `[M]`, or None.
    """

    masks: torch.Tensor
    turns: torch.Tensor
    values: torch.Tensor
    begins: torch.Tensor
    scales: torch.Tensor | None

    def __init__(self, layer: SparseLinear) -> None:
        """Arrange the weight of a sparse layer, which stays as it is.

        Raises:
            SparseShapeError: It lies on no GPU, is trained, is empty, has hooks, or has another backend.
            BackendError: This machine cannot multiply so.
        """
        super().__init__()
        if why := _why_not(layer):
            raise SparseShapeError(
                given=f"a sparse layer to arrange that {why}",
                allowed="layers on a GPU, with rows and columns, for inference",
                todo="move it to cuda, call layer.trainable(False), or leave it as it is",
            )
        choosing.backend("cuda")
        found = in_order(layer.weight)
        self.in_features, self.out_features, self.activation = layer.in_features, layer.out_features, layer.activation
        self.longest = found.longest
        self.register_buffer("masks", found.masks_PCL4)
        self.register_buffer("turns", found.turns_PCL)
        self.register_buffer("values", found.values_RS)
        self.register_buffer("begins", found.begins)
        self.register_buffer("scales", layer.scales)
        self.bias = layer.bias
        self.train(layer.training)

    @property
    def size_bytes(self) -> int:
        """Bytes that its weight holds in memory."""
        parts = (self.masks, self.turns, self.values, self.begins, self.scales)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `activation(x @ weight.T + bias)` in x's type, or that of `torch.autocast`, `[..., M]`.

        Raises:
            SparseShapeError: x does not fit the weight, or its gradient is wanted.
        """
        if x.is_floating_point() and x.dtype != torch.float64 and torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))  # as nn.Linear does
        if torch.is_grad_enabled() and x.requires_grad:
            raise SparseShapeError(
                given="x whose gradient is wanted, for an arranged layer",
                allowed="inference",
                todo="run under torch.no_grad() or torch.inference_mode(), or train before the model is arranged",
            )
        parts = (self.masks, self.turns, self.values, self.begins, self.scales, self.bias)
        sizes = (self.out_features, self.in_features, self.longest)
        y: torch.Tensor = arranged_linear(x, *parts, *sizes, self.activation)
        return y

    def _apply(self, fn: Any, recurse: bool = True) -> ArrangedLinear:  # noqa: ANN401 - as torch has it
        """Stay as it is: `model.half()` and the like change no packed weight, and only a GPU reads it."""
        masks = fn(self.masks)
        if masks.device != self.masks.device:
            raise SparseShapeError(
                given=f"an arranged layer to be moved to {masks.device}",
                allowed=f"{self.masks.device}, where it was arranged",
                todo="move the model before it is arranged",
            )
        if self.bias is not None:
            self.bias.data = fn(self.bias.data)
        del recurse
        return self

    def extra_repr(self) -> str:
        """Return shape and size for `print(model)`."""
        bits = 8 * self.size_bytes / (self.out_features * self.in_features)
        told = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{told}, bits_per_weight={bits:.2f}"


def arrange(model: nn.Module) -> list[str]:
    """Put arranged layers in the places of a model's sparse ones, one after another, and return their names.

    The memory of each sparse layer is free as soon as nobody else holds it. Layers that cannot be arranged stay.

    Raises:
        BackendError: This machine cannot multiply so.
    """
    places: dict[int, list[str]] = {}  # of each layer, which may stand in several
    for name, part in model.named_modules(remove_duplicate=False):
        if isinstance(part, SparseLinear) and not _why_not(part):
            places.setdefault(id(part), []).append(name)
    for names in places.values():
        made = ArrangedLinear(model.get_submodule(names[0]))  # type: ignore[arg-type]  # torch knows modules alone
        for name in names:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, made)
    return [name for names in places.values() for name in names]


def _why_not(layer: SparseLinear) -> str:
    """Return why a layer cannot be arranged; empty where it can."""
    if layer.values.device.type != "cuda":
        return f"lies on {layer.values.device}"
    if layer.values.requires_grad or (layer.bias is not None and layer.bias.requires_grad):
        return "is being trained"
    if not layer.out_features * layer.in_features:
        return f"is empty, {layer.out_features} x {layer.in_features}"
    if any(vars(layer)[kind] for kind in ("_forward_pre_hooks", "_forward_hooks")) or "forward" in vars(layer):
        return "has hooks or another forward"
    return f"is to be multiplied by {layer.backend}" if layer.backend not in ("", "cuda") else ""


@torch.library.custom_op("tandem::arranged_linear", mutates_args=())
@in_own_types
def arranged_linear(
    x: torch.Tensor,
    masks: torch.Tensor,
    turns: torch.Tensor,
    values: torch.Tensor,
    begins: torch.Tensor,
    scales: torch.Tensor | None,
    bias: torch.Tensor | None,
    rows: int,
    cols: int,
    longest: int,
    activation: str,
) -> torch.Tensor:
    """Return `activation(x @ weight.T + bias)` in x's type, the weight in the order of lanes.

    Raises:
        SparseShapeError: x has other columns than the weight, another device, or is not of a floating type.
    """
    check_x(x, rows, cols, masks.device)
    lanes = Lanes(masks, turns, values, begins, longest)
    return stacked(multiply(lanes, rows, rows_of(x, cols), scales, bias, activation).to(x.dtype), x)


@arranged_linear.register_fake
def _(
    x: torch.Tensor,
    masks: torch.Tensor,
    turns: torch.Tensor,
    values: torch.Tensor,
    begins: torch.Tensor,
    scales: torch.Tensor | None,
    bias: torch.Tensor | None,
    rows: int,
    cols: int,
    longest: int,
    activation: str,
) -> torch.Tensor:
    check_x(x, rows, cols, masks.device)
    del turns, values, begins, scales, bias, longest, activation
    return x.new_empty(*x.shape[:-1], rows)


def multiply(
    lanes: Lanes,
    rows: int,
    x_NK: torch.Tensor,
    scales_M: torch.Tensor | None = None,
    bias_M: torch.Tensor | None = None,
    activation: str = "none",
) -> torch.Tensor:
    """Return `activation(x_NK @ weight.T + bias_M)` in float32, `[N, M]`.

    Args:
        lanes: The weight, on a GPU, as are all others.
        rows: M.
        x_NK: Any floating type.
        scales_M: Of int8 values.
        bias_M: Or None.
        activation: One of `reference.ACTIVATIONS`.
    """
    x_NK = x_NK.to(cuda.type_of_x(x_NK.dtype, lanes.values_RS.dtype))
    y_NM = torch.empty(len(x_NK), rows, dtype=torch.float32, device=x_NK.device)
    bias_M = None if bias_M is None else bias_M.float().contiguous()
    if len(x_NK) >= BLOCKS_FROM:
        _by_blocks(lanes, x_NK, y_NM)
        return reference.activated(y_NM if scales_M is None else y_NM.mul_(scales_M), bias_M, activation)
    epilogue = (scales_M, bias_M, reference.ACTIVATIONS.index(activation))
    for first in range(0, len(x_NK), MOST_ROWS_OF_X):
        some = slice(first, first + MOST_ROWS_OF_X)
        _multiply(lanes, x_NK[some], y_NM[some], epilogue)
    return y_NM


def splits_for(rows: int, cols: int, processors: int) -> int:
    """Return into how many parts the columns are cut: so that warps fill the GPU once, with no more parts than help.

    >>> splits_for(4096, 4096, 132), splits_for(11008, 4096, 132), splits_for(28672, 8192, 132)
    (8, 4, 2)
    """
    chunks = -(-cols // CHUNK_COLUMNS)
    warps = -(-rows // (WARPS * PANEL_ROWS)) * WARPS
    most = max(1, min(chunks, MOST_SPLITS, _WARPS_AT_ONCE * processors // warps))
    return -(-chunks // -(-chunks // most))


def options_of(x_type: torch.dtype, values_type: torch.dtype, count: int) -> dict[str, int]:
    """Return what lanes.cu is compiled with for a type of x, a type of values and rows of x."""
    return {
        "TANDEM_X": int(x_type == torch.float16),
        "TANDEM_VALUES": int(values_type == torch.int8),
        "TANDEM_BLOCKS_OF_8": -(-count // 8),
        "TANDEM_WARPS": WARPS,
    }


def shared_size_bytes(count: int, longest: int, value_bytes: int) -> int:
    """Return the shared memory of a block: `Fixed` and pieces, or the sums that a cluster's blocks show.

    Args:
        count: Rows of x.
        longest: Rows of slots of the longest piece.
        value_bytes: Of a nonzero.
    """
    counts = 8 * -(-count // 8)
    pieces = WARPS * piece_size_bytes(longest, value_bytes)
    return max(2 * 2 * counts * (CHUNK_COLUMNS + 32) + pieces, 4 * counts * PANEL_ROWS * WARPS)


def piece_size_bytes(rows: int, value_bytes: int) -> int:
    """Return what so many rows of slots take in shared memory, into which 512 bytes are copied at a time.

    >>> piece_size_bytes(30, 2)
    4096
    """
    return -(-rows * SLOTS * value_bytes // _COPIED_BYTES) * _COPIED_BYTES


def _multiply(lanes: Lanes, x_NK: torch.Tensor, y_NM: torch.Tensor, epilogue: Sequence[Any]) -> None:
    """Launch `product`, and `finish` where parts' blocks cannot see each other's sums; at most 32 rows of x."""
    (panels, chunks), device = lanes.masks_PCL4.shape[:2], x_NK.device
    (count, cols), rows = x_NK.shape, y_NM.shape[1]
    x_NK = torch.nn.functional.pad(x_NK, (0, -cols % 8)) if cols % 8 else x_NK.contiguous()
    if x_NK.data_ptr() % 16:
        x_NK = x_NK.clone()  # the kernel reads 16 bytes at a time
    properties = torch.cuda.get_device_properties(device)
    splits, blocks = splits_for(rows, cols, properties.multi_processor_count), -(-panels // WARPS)
    scales_M, bias_M, activation = epilogue
    epilogued = (scales_M, bias_M, y_NM, rows, count, activation)
    options, clustered = options_of(x_NK.dtype, lanes.values_RS.dtype, count), properties.major >= cuda.CLUSTER_MAJOR
    product, finish, _ = _kernels(device, options)
    partial, padded_rows = None, blocks * WARPS * PANEL_ROWS
    if splits > 1 and not clustered:
        partial = torch.empty(
            splits, 8 * options["TANDEM_BLOCKS_OF_8"], padded_rows, dtype=torch.float32, device=device
        )
    value_bytes = lanes.values_RS.element_size()
    launching.launch(
        product,
        (blocks, splits),
        32 * WARPS,
        (
            *(*lanes[:4], x_NK, partial, *epilogued),
            *(panels, chunks, x_NK.shape[1], piece_size_bytes(lanes.longest, value_bytes)),
        ),
        shared_bytes=shared_size_bytes(count, lanes.longest, value_bytes),
        cluster=clustered and splits > 1,
    )
    if partial is not None:
        launching.launch(finish, (-(-rows // 128), count), 128, (partial, *epilogued, splits, padded_rows))


def _by_blocks(lanes: Lanes, x_NK: torch.Tensor, y_NM: torch.Tensor) -> None:
    """Write the sums of panels that are written out in 16 bits, some after another."""
    (panels, chunks), cols = lanes.masks_PCL4.shape[:2], x_NK.shape[1]
    step = max(1, _SCRATCH_BYTES // (2 * PANEL_ROWS * CHUNK_COLUMNS * chunks))
    for first in range(0, panels, step):
        block_MK = decode(lanes, first, min(first + step, panels), x_NK.dtype)
        y_part = y_NM[:, PANEL_ROWS * first : PANEL_ROWS * first + len(block_MK)]
        y_part.copy_(torch.mm(x_NK, block_MK[: y_part.shape[1], :cols].T, out_dtype=torch.float32))


def decode(lanes: Lanes, first: int, last: int, x_type: torch.dtype) -> torch.Tensor:
    """Return the rows of panels `first` to `last` (excluded) with their padding, in 16 bits; int8 without scales."""
    chunks, device = lanes.masks_PCL4.shape[1], lanes.values_RS.device
    dense_MK = torch.empty(PANEL_ROWS * (last - first), CHUNK_COLUMNS * chunks, dtype=x_type, device=device)
    grid = (-(-(last - first) * chunks // WARPS), 1)
    kernel = _kernels(device, options_of(x_type, lanes.values_RS.dtype, 1))[2]
    launching.launch(kernel, grid, 32 * WARPS, (*lanes[:4], dense_MK, first, last - first, chunks))
    return dense_MK


def _kernels(device: torch.device, options: dict[str, int]) -> tuple[Any, ...]:
    return launching.loaded(device.index or 0, SOURCE, tuple(options.items()), KERNELS, most_shared="product")
