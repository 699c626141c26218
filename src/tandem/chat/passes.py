"""What lies between a training step's products, each in one pass over memory: norms, rotations, gates.

torch makes some fifteen operations of a norm's forward and backward pass, each of which reads and writes all tokens.
Here each is one native call, float32 on a processor with AVX2; `why_not` says where they cannot be used.

A token's numbers, and each piece's share of a weight's gradient, are sums in one order, on any number of threads.

Shapes: M tokens, E width, I width of the MLP, R rows of W tokens, H heads of D numbers.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def why_not() -> str:
    """Return why this machine has no native code for chat models; empty where it has."""
    code = native()
    if code is None:
        return "tandem was installed without its native parts (a C++ compiler was missing)"
    needs = code.CHAT_NEEDS
    if needs is None or not set(needs) <= set(code.cpu_features()):
        return "this processor has no AVX2"
    return ""


def rms_norm(x: Tensor, weight_E: Tensor, eps: float, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return x + added, and the root-mean-square norm of that times a weight, both shaped as x is, [..., E].

    Args:
        x: float32, on the CPU.
        weight_E: What normed tokens are multiplied by.
        eps: Added to the mean of squares.
        added: What is added to x first; None for nothing, and x itself comes back.

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, equation 4.
    """
    if added is None:
        return x, _apply(_Norm, x, weight_E, eps)
    return cast("tuple[Tensor, Tensor]", _apply(_AddedNorm, x, added, weight_E, eps))


def rotated(x_RWHD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Return heads turned by their tokens' angles, [R, W, H, D].

    Args:
        x_RWHD: float32, on the CPU.
        cos_TD: Cosines of W tokens, or of R · W; halves, not neighbours, are pairs, as in GPT-NeoX.
        sin_TD: Sines.

    Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, equation 34.
    """
    return cast("Tensor", _apply(_Rotated, x_RWHD, cos_TD, sin_TD))


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) · up, shaped as they are.

    Source: Shazeer, GLU Variants Improve Transformer, 2020, equation 6 (SwiGLU).
    """
    return cast("Tensor", _apply(_Gated, gate, up))


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_E: Tensor, eps: float) -> Tensor:  # noqa: ANN401  # torch's own context
        x = x.contiguous()
        y, factors_M = torch.empty_like(x), x.new_empty(x.shape[:-1])
        _forward_norm(x, None, x, weight_E, eps, y, factors_M)
        ctx.save_for_backward(x, weight_E, factors_M)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # torch's own context
        dx, dweight_E = _backward_norm(dy, None, *ctx.saved_tensors)
        return dx, dweight_E, None


class _AddedNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # torch's own context
        x: Tensor,
        added: Tensor,
        weight_E: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        x, added = x.contiguous(), added.contiguous()
        sum_, y, factors_M = torch.empty_like(x), torch.empty_like(x), x.new_empty(x.shape[:-1])
        _forward_norm(x, added, sum_, weight_E, eps, y, factors_M)
        ctx.save_for_backward(sum_, weight_E, factors_M)
        ctx.set_materialize_grads(False)
        return sum_, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dsum: Tensor | None, dy: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        if dy is None:
            return dsum, dsum, None, None
        dx, dweight_E = _backward_norm(dy, dsum, *ctx.saved_tensors)
        return dx, dx, dweight_E, None


class _Rotated(Function):
    @staticmethod
    def forward(ctx: Any, x_RWHD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(cos_TD, sin_TD)
        return _turned(x_RWHD, cos_TD, sin_TD, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_RWHD: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # torch's own context
        return _turned(dy_RWHD, *ctx.saved_tensors, back=True), None, None


class _Gated(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:  # noqa: ANN401  # torch's own context
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        native().gate(gate.data_ptr(), up.data_ptr(), gate.numel(), y.data_ptr(), torch.get_num_threads())
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401  # torch's own context
        gate, up = ctx.saved_tensors
        dy, dgate, dup = dy.contiguous(), torch.empty_like(gate), torch.empty_like(up)
        reads, writes = (dy.data_ptr(), gate.data_ptr(), up.data_ptr()), (dgate.data_ptr(), dup.data_ptr())
        native().gate_backward(*reads, gate.numel(), *writes, torch.get_num_threads())
        return dgate, dup


def _forward_norm(
    x: Tensor, added: Tensor | None, sum_: Tensor, weight_E: Tensor, eps: float, y: Tensor, factors_M: Tensor
) -> None:
    weight_E = weight_E.contiguous()
    native().norm(
        factors_M.numel(),
        weight_E.numel(),
        weight_E.data_ptr(),
        eps,
        x.data_ptr(),
        0 if added is None else added.data_ptr(),
        sum_.data_ptr(),
        y.data_ptr(),
        factors_M.data_ptr(),
        torch.get_num_threads(),
    )


def _backward_norm(
    dy: Tensor, dsum: Tensor | None, sum_: Tensor, weight_E: Tensor, factors_M: Tensor
) -> tuple[Tensor, Tensor]:
    code = native()
    dy, weight_E = dy.contiguous(), weight_E.contiguous()
    dsum = None if dsum is None else dsum.contiguous()
    tokens, width = factors_M.numel(), weight_E.numel()
    dx, shares_PE = torch.empty_like(dy), dy.new_empty(-(-tokens // code.PASSES_PIECE_TOKENS), width)
    code.norm_backward(
        tokens,
        width,
        weight_E.data_ptr(),
        dy.data_ptr(),
        0 if dsum is None else dsum.data_ptr(),
        sum_.data_ptr(),
        factors_M.data_ptr(),
        dx.data_ptr(),
        shares_PE.data_ptr(),
        torch.get_num_threads(),
    )
    return dx, shares_PE.sum(dim=0)


def _turned(x_RWHD: Tensor, cos_TD: Tensor, sin_TD: Tensor, *, back: bool) -> Tensor:
    if x_RWHD.stride(-1) != 1:
        x_RWHD = x_RWHD.contiguous()
    cos_TD, sin_TD = cos_TD.contiguous(), sin_TD.contiguous()
    y_RWHD = torch.empty(x_RWHD.shape, dtype=x_RWHD.dtype)
    native().rotate(
        x_RWHD.data_ptr(),
        tuple(x_RWHD.shape),
        x_RWHD.stride()[:3],
        cos_TD.data_ptr(),
        sin_TD.data_ptr(),
        len(cos_TD),
        back,
        y_RWHD.data_ptr(),
        torch.get_num_threads(),
    )
    return y_RWHD


def _apply(function: type[Function], *given: object) -> Any:  # noqa: ANN401  # what torch returns, untyped
    return function.apply(*given)  # type: ignore[no-untyped-call]


def native() -> Any:  # noqa: ANN401  # the module
    """Return the extension; None where it was not built."""
    try:
        return importlib.import_module("tandem._native")
    except ImportError:
        return None
