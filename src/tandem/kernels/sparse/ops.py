"""Sparse products as torch operators: they trace, compile without a break, and differentiate.

`sparse_linear` multiplies; its gradients for x and for the kept weights (a fixed mask) are operators of their own, from
blocks of rows that are unpacked one after another, so that no dense copy of a weight ever exists. Tensors follow
`format`: x is `[..., K]`, results `[..., M]` in x's type.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec

import torch

from tandem.kernels.sparse import running
from tandem.kernels.sparse.format import TAIL, TILE, VALUE_TYPES, SparseWeight, kept_of, shape_of_masks
from tandem.kernels.sparse.mistakes import SparseShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BLOCK_ROWS = 512
_Rest = ParamSpec("_Rest")


def in_own_types(
    body: Callable[Concatenate[torch.Tensor, _Rest], torch.Tensor],
) -> Callable[Concatenate[torch.Tensor, _Rest], torch.Tensor]:
    """Return an operator's body that `torch.autocast` changes no product in: sums are float32, whoever calls it."""

    @functools.wraps(body)
    def without_autocast(tensor: torch.Tensor, /, *rest: _Rest.args, **named: _Rest.kwargs) -> torch.Tensor:
        kind = tensor.device.type
        if not torch.is_autocast_enabled(kind):  # what follows takes several us
            return body(tensor, *rest, **named)
        with torch.autocast(kind, enabled=False):
            return body(tensor, *rest, **named)

    return without_autocast


@torch.library.custom_op("tandem::sparse_linear", mutates_args=())
@in_own_types
def sparse_linear(
    x: torch.Tensor,
    masks: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    scales: torch.Tensor | None,
    bias: torch.Tensor | None,
    rows: int,
    cols: int,
    activation: str,
    backend: str,
) -> torch.Tensor:
    """Return `activation(x @ weight.T + bias)`; `backend` is a name, or empty for the best that runs here.

    Raises:
        SparseShapeError: x has other columns than the weight, another device, or is not of a floating type.
    """
    weight = SparseWeight(rows, cols, masks, values, starts, scales)
    check(weight, x, bias)
    y_NM = running.multiply(weight, rows_of(x, cols), bias, activation, backend)
    return stacked(y_NM.to(x.dtype), x)


@sparse_linear.register_fake
def _(
    x: torch.Tensor,
    masks: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    scales: torch.Tensor | None,
    bias: torch.Tensor | None,
    rows: int,
    cols: int,
    activation: str,
    backend: str,
) -> torch.Tensor:
    check(SparseWeight(rows, cols, masks, values, starts, scales), x, bias)
    return x.new_empty(*x.shape[:-1], rows)


@torch.library.custom_op("tandem::sparse_linear_grad_x", mutates_args=())
@in_own_types
def grad_x(
    grad: torch.Tensor,
    masks: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    scales: torch.Tensor | None,
    rows: int,
    cols: int,
) -> torch.Tensor:
    """Return `grad @ weight`, `[..., K]`."""
    weight = SparseWeight(rows, cols, masks, values, starts, scales)
    grad_NM = rows_of(grad, rows).float()
    sum_NK = torch.zeros(len(grad_NM), cols, dtype=torch.float32, device=grad.device)
    for first, last in _blocks(weight):
        block_MK = running.unpacked(weight, first, last)
        sum_NK.addmm_(grad_NM[:, first * TILE : first * TILE + len(block_MK)], block_MK)
    return stacked(sum_NK.to(grad.dtype), grad)


@grad_x.register_fake
def _(
    grad: torch.Tensor,
    masks: torch.Tensor,
    values: torch.Tensor,
    starts: torch.Tensor,
    scales: torch.Tensor | None,
    rows: int,
    cols: int,
) -> torch.Tensor:
    del masks, values, starts, scales, rows
    return grad.new_empty(*grad.shape[:-1], cols)


@torch.library.custom_op("tandem::sparse_linear_grad_values", mutates_args=())
@in_own_types
def grad_values(
    grad: torch.Tensor, x: torch.Tensor, masks: torch.Tensor, values: torch.Tensor, rows: int, cols: int
) -> torch.Tensor:
    """Return `grad.T @ x` at the kept places, in the values' order and type, with zeros for the tail."""
    grad_NM, x_NK = rows_of(grad, rows).float(), rows_of(x, cols).float()
    parts = [values.new_zeros(0)]
    for first in range(0, len(masks), _BLOCK_ROWS // TILE):
        block = masks[first : first + _BLOCK_ROWS // TILE]
        dense_MK = grad_NM[:, first * TILE : (first + len(block)) * TILE].T @ x_NK
        parts.append(kept_of(dense_MK, block).to(values.dtype))
    return torch.cat([*parts, values.new_zeros(TAIL)])


@grad_values.register_fake
def _(
    grad: torch.Tensor, x: torch.Tensor, masks: torch.Tensor, values: torch.Tensor, rows: int, cols: int
) -> torch.Tensor:
    del grad, x, masks, rows, cols
    return torch.empty_like(values)


def check(weight: SparseWeight, x: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Refuse what does not fit the weight.

    Raises:
        SparseShapeError: Says what was given.
    """
    _check_weight(weight)
    check_x(x, weight.rows, weight.cols, weight.device)
    if bias is not None and (bias.shape != (weight.rows,) or bias.device != weight.device):
        raise SparseShapeError(
            given=f"a bias of shape {tuple(bias.shape)} on {bias.device}",
            allowed=f"shape ({weight.rows},) on {weight.device}",
            todo="pass one number for each row of the weight",
        )


def check_x(x: torch.Tensor, rows: int, cols: int, device: torch.device) -> None:
    """Refuse x that does not fit a weight of so many rows and columns on a device.

    Raises:
        SparseShapeError: Says what was given.
    """
    if x.layout != torch.strided or x.is_nested:
        kind = "nested" if x.is_nested else x.layout
        todo = "pass rows of one length, padded" if x.is_nested else "pass x.to_dense()"
        raise SparseShapeError(given=f"x as a {kind} tensor", allowed="dense x", todo=todo)
    if x.ndim == 0 or x.shape[-1] != cols or not x.is_floating_point():
        raise SparseShapeError(
            given=f"x of shape {tuple(x.shape)} and type {x.dtype} for a weight of {rows} x {cols}",
            allowed=f"floating types with {cols} columns last",
            todo="transpose or convert x",
        )
    if x.device != device:
        raise SparseShapeError(
            given=f"x on {x.device} and the weight on {device}",
            allowed="both on one device",
            todo="move one of them",
        )


def rows_of(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """Return all rows as a matrix; with a width of 0, too, where -1 would be ambiguous."""
    return tensor.reshape(tensor.shape[:-1].numel(), width)


def stacked(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return rows in stacks like another tensor's; no view, which torch lets nobody change in place, nor a copy."""
    view: torch.Tensor = torch.ops.aten._unsafe_view(rows, [*like.shape[:-1], rows.shape[1]])
    return view


def _check_weight(weight: SparseWeight) -> None:
    """Refuse parts that kernels would read beyond their ends, or as what they are not."""
    tiles = shape_of_masks(weight.rows, weight.cols)
    values, scales = weight.values_P, weight.scales_M
    parts = [weight.masks_ST, values, weight.starts_S, *([] if scales is None else [scales])]
    fits = (
        tuple(weight.masks_ST.shape) == tiles
        and weight.masks_ST.dtype == weight.starts_S.dtype == torch.int64
        and tuple(weight.starts_S.shape) == (tiles[0] + 1,)
        and values.ndim == 1
        and values.numel() >= TAIL
        and (scales is None) == (values.dtype != torch.int8)
        and (scales is None or (scales.shape == (weight.rows,) and scales.dtype == torch.float32))
        and all(part.device == values.device for part in parts)
    )
    if not fits or values.dtype not in VALUE_TYPES or not all(part.is_contiguous() for part in parts):
        told = ", ".join(f"{tuple(part.shape)} {part.dtype} on {part.device}" for part in parts)
        raise SparseShapeError(
            given=f"parts of a sparse weight of {weight.rows} x {weight.cols} that do not fit together: {told}",
            allowed=f"masks {tiles} int64, values of {', '.join(VALUE_TYPES.values())} with {TAIL} behind the last, "
            f"starts ({tiles[0] + 1},) int64, float32 scales for int8 alone, all contiguous and on one device",
            todo="make it with tandem.kernels.sparse.format.pack",
        )


def _blocks(weight: SparseWeight) -> Iterator[tuple[int, int]]:
    strips, step = len(weight.masks_ST), _BLOCK_ROWS // TILE
    return ((first, min(first + step, strips)) for first in range(0, strips, step))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ANN401 - as torch has it
    del output
    x, masks, values, starts, scales, _, rows, cols, activation, _ = inputs
    if activation != "none":
        message = "a fused activation has no gradient: multiply with activation='none' and apply it to the result"
        raise RuntimeError(message)
    ctx.save_for_backward(x, masks, values, starts, scales)
    ctx.rows, ctx.cols = rows, cols


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - as torch has it
    x, masks, values, starts, scales = ctx.saved_tensors
    wants_x, _, wants_values, _, _, wants_bias, *_ = ctx.needs_input_grad
    of_x = grad_x(grad, masks, values, starts, scales, ctx.rows, ctx.cols) if wants_x else None
    of_values = grad_values(grad, x, masks, values, ctx.rows, ctx.cols) if wants_values else None
    of_bias = rows_of(grad, ctx.rows).sum(0) if wants_bias else None
    return of_x, None, of_values, None, None, of_bias, None, None, None, None


sparse_linear.register_autograd(_backward, setup_context=_keep)


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ANN401 - as torch has it
    del ctx, inputs, output


def _refuse_second(ctx: Any, grad: torch.Tensor) -> NoReturn:  # noqa: ANN401 - as torch has it
    del ctx, grad
    raise SparseShapeError(
        given="a second derivative of a sparse product",
        allowed="first derivatives",
        todo="leave out create_graph=True, or use a dense layer",
    )


for first_derivative in (grad_x, grad_values):
    first_derivative.register_autograd(_refuse_second, setup_context=_keep_nothing)
