"""`SparseLinear`: a linear layer whose weight is stored compressed, for inference and for training under a fixed mask.

    layer = SparseLinear.from_dense(torch.nn.Linear(4096, 4096))   # its zeros are left out
    y = layer(x)

The kept weights are the parameter `values`; it takes no gradient until `trainable()` is called, and zeros stay zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn
from torch.autograd import forward_ad

from tandem.kernels.sparse import choosing, reference
from tandem.kernels.sparse.format import TAIL, SparseWeight, pack, starts_of
from tandem.kernels.sparse.layers import changed
from tandem.kernels.sparse.mistakes import SparseShapeError
from tandem.kernels.sparse.ops import check_x, sparse_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_PARTS = ("masks", "starts", "values", "scales")


@final
class SparseLinear(nn.Module):
    """A linear layer with a packed weight, a bias and an activation.

    Args:
        weight: The packed weight.
        bias_M: One number a row, or None.
        activation: One of `reference.ACTIVATIONS`, fused into the product where no gradient is asked for.
        backend: The name of a backend; empty for the best that runs where x is.

    Raises:
        SparseShapeError: An unknown activation, or a bias of another length than the weight has rows.
        UnknownPluginError: There is no backend of that name.
        BackendError: It cannot run on this machine.
    """

    masks: torch.Tensor
    starts: torch.Tensor
    scales: torch.Tensor | None

    def __init__(
        self,
        weight: SparseWeight,
        bias_M: torch.Tensor | None = None,
        *,
        activation: str = "none",
        backend: str = "",
    ) -> None:
        super().__init__()
        if activation not in reference.ACTIVATIONS:
            raise SparseShapeError(
                given=f"activation {activation!r}",
                allowed=", ".join(reference.ACTIVATIONS),
                todo="apply others to the result",
            )
        if bias_M is not None and bias_M.shape != (weight.rows,):
            raise SparseShapeError(
                given=f"a bias of shape {tuple(bias_M.shape)}",
                allowed=f"one number for each of {weight.rows} rows",
                todo="pass the bias of the layer that the weight is from",
            )
        if backend:
            choosing.backend(backend)
        self.out_features, self.in_features = weight.rows, weight.cols
        self.activation, self.backend = activation, backend
        self.register_buffer("masks", weight.masks_ST)
        self.register_buffer("starts", weight.starts_S)
        self.register_buffer("scales", weight.scales_M)
        self.values = nn.Parameter(weight.values_P, requires_grad=False)
        self.bias = None if bias_M is None else nn.Parameter(bias_M.detach(), requires_grad=False)

    @classmethod
    def from_dense(
        cls,
        linear: nn.Linear,
        dtype: torch.dtype = torch.bfloat16,
        *,
        mask_MK: torch.Tensor | None = None,
        activation: str = "none",
        backend: str = "",
    ) -> SparseLinear:
        """Pack a dense layer; arguments as for `format.pack`.

        Raises:
            SparseShapeError: More than its weight and bias makes its results (hooks, `torch.nn.utils.prune`), or the
                weight cannot be packed.
        """
        if why := changed(linear):
            raise SparseShapeError(
                given=f"a layer to pack that does more than its own parameters say: {why}",
                allowed="layers that give x @ weight.T + bias of the parameters that they hold",
                todo="undo what was done to this one, or leave it dense",
            )
        weight = pack(linear.weight, dtype, mask_MK=mask_MK)
        return cls(weight, linear.bias, activation=activation, backend=backend)

    @property
    def weight(self) -> SparseWeight:
        """The packed weight: the same tensors, no copy."""
        return SparseWeight(self.out_features, self.in_features, self.masks, self.values.data, self.starts, self.scales)

    def trainable(self, on: bool = True) -> SparseLinear:
        """Let the kept weights and the bias take gradients, or no more.

        Raises:
            SparseShapeError: int8 weights, which no gradient can move.
        """
        if on and not self.values.is_floating_point():
            raise SparseShapeError(
                given="int8 weights to be trained",
                allowed="torch.bfloat16 or torch.float16",
                todo="train in one of these, then pack as int8",
            )
        self.values.requires_grad_(on)
        if self.bias is not None:
            self.bias.requires_grad_(on)
        return self

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return `activation(x @ weight.T + bias)` in x's type, or that of `torch.autocast`, `[..., M]`.

        Args:
            input: x, `[..., K]`; called as nn.Linear calls it.

        Raises:
            SparseShapeError: x does not fit the weight, or is differentiated by a transform of torch.func or forwards.
        """
        x = input
        if not isinstance(x, torch.Tensor):
            raise SparseShapeError(
                given=f"x as {type(x).__name__}", allowed="a tensor", todo="convert it, such as by torch.as_tensor"
            )
        if x.is_nested:
            check_x(x, self.out_features, self.in_features, x.device)  # refuses it; the operator would not be reached
        kind = x.device.type
        if x.is_floating_point() and x.dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))  # as nn.Linear does
        inputs = [tensor for tensor in (x, self.values, self.bias) if tensor is not None]
        _refuse_transforms(inputs)
        training = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
        y = sparse_linear(
            x,
            self.masks,
            self.values,
            self.starts,
            self.scales,
            self.bias,
            self.out_features,
            self.in_features,
            "none" if training else self.activation,
            self.backend,
        )
        return reference.activated(y, None, self.activation) if training else y

    def _load_from_state_dict(self, *given: Any) -> None:  # noqa: ANN401 - as torch has it
        """Take the parts of a weight only if they go together: kernels believe what they read."""
        # behind hooks that may change the parts
        last = self.register_load_state_dict_pre_hook(_refuse_contradictions)  # type: ignore[no-untyped-call]
        try:
            super()._load_from_state_dict(*given)
        finally:
            last.remove()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> SparseLinear:
        """Move as `fn` does, but stay packed in the same type: `model.half()` and the like change no packed weight."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            made = fn(tensor)
            packed = tensor is self.values or tensor is self.values.grad or tensor is self.scales
            return tensor.to(made.device) if packed and made.dtype != tensor.dtype else made

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]  # torch has no type for it
        return self

    def extra_repr(self) -> str:
        """Return shape, density and size for `print(model)`."""
        told = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{told}, density={self.weight.density:.3f}, bits_per_weight={self.weight.bits_per_weight:.2f}"


def _refuse_contradictions(
    layer: SparseLinear,
    state: dict[str, Any],
    prefix: str,
    local: dict[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Take a layer's parts out of a state that is to be loaded, and tell why, where they contradict each other."""
    del strict, missing, unexpected
    own = {name: getattr(layer, name) for name in _PARTS}
    given = {name: state[prefix + name] for name in _PARTS if prefix + name in state}
    if why := _unfit(own, given, assigned=bool(local.get("assign_to_params_buffers"))):
        for name in (*given, "bias"):
            state.pop(prefix + name, None)
        errors.append(f"{prefix.rstrip('.') or 'a sparse layer'}: parts of no such weight: {why}")


def _unfit(own: Mapping[str, torch.Tensor | None], given: Mapping[str, Any], *, assigned: bool) -> str:
    """Return why parts cannot take the place of a layer's own; empty where they can.

    Args:
        own: The layer's, by their names; None for those that it has not.
        given: What is to take their place; what is not among them stays.
        assigned: They become the layer's as they are; else they are converted.
    """
    for name, part in given.items():
        mine = own[name]
        if mine is None:
            return f"{name} is one too many"
        if not isinstance(part, torch.Tensor) or part.layout != torch.strided:
            return f"{name} is {part.layout if isinstance(part, torch.Tensor) else type(part).__name__}"
        if part.shape != mine.shape:
            return f"{name} is {tuple(part.shape)} for {tuple(mine.shape)}"
        exactly = (
            part.dtype == torch.int32 if name == "starts" else part.is_floating_point() and mine.is_floating_point()
        )
        if part.dtype != mine.dtype and (assigned or not exactly):
            return f"{name} is {part.dtype} for {mine.dtype}"
        if assigned and not part.is_contiguous():
            return f"{name} is not contiguous"
    if "values" in given and own["scales"] is not None and "scales" not in given:
        return "scales is missing"
    parts = {name: part for name, part in {**own, **given}.items() if part is not None}
    if not given.keys() & {"masks", "starts", "values"}:
        return ""
    for name in ("masks", "starts"):
        if not _is_read(parts[name]):
            alike = type(parts[name]) is type(own[name]) and not parts[name].is_meta
            return (
                ""
                if assigned or alike
                else f"{name} cannot be read: {type(parts[name]).__name__} on {parts[name].device}"
            )
    masks, starts, mine = parts["masks"].detach(), parts["starts"].detach(), own["masks"]
    found = starts_of(masks)
    if not torch.equal(found, starts.to(found)):
        return "starts are not where the bitmap of masks has them"
    kept, values = int(found[-1]), parts["values"].numel() - TAIL
    if kept != values:
        return f"masks keep {kept} of {values} values"
    is_other = (
        "values" not in given and mine is not None and _is_read(mine) and not torch.equal(masks, mine.to(masks.device))
    )
    return "values are missing, and masks are others than the layer's" if is_other else ""


def _is_read(part: torch.Tensor) -> bool:
    """Tell whether numbers of a part can be looked at: those of a tensor of torch's own, with memory."""
    return type(part) in (torch.Tensor, nn.Parameter) and not part.is_meta


def _refuse_transforms(inputs: Iterable[torch.Tensor]) -> None:
    """Refuse what the operators have no formula for: torch would make zeros of a tangent."""
    if torch.compiler.is_compiling():
        if forward_ad._current_level < 0:
            return
        raise SparseShapeError(  # a compiler sees no tangents
            given="a product to be compiled while derivatives are taken forwards",
            allowed="gradients in reverse mode: backward, torch.autograd.grad",
            todo="differentiate by one of these",
        )
    wrapped = torch._C._functorch
    if wrapped.peek_interpreter_stack() is None and forward_ad._current_level < 0:
        return  # no transform is at work; looking at each tensor takes 9 us
    for tensor in inputs:
        inner = tensor
        while wrapped.is_batchedtensor(inner):
            inner = wrapped.get_unwrapped(inner)
        differentiates = wrapped.is_gradtrackingtensor(inner)
        if differentiates or forward_ad.unpack_dual(inner).tangent is not None:  # type: ignore[no-untyped-call]  # as torch has it
            raise SparseShapeError(
                given="a derivative by torch.func (grad, vjp, jvp, jacrev), or forwards by torch.autograd.forward_ad",
                allowed="gradients in reverse mode: backward, torch.autograd.grad",
                todo="differentiate by one of these",
            )
