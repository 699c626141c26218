"""Which layers of a model a sparse one can stand for, and why others stay dense.

A layer qualifies if what it does is `x @ weight.T + bias`: `nn.Linear`, GPT-2's `Conv1D`, and a class derived from
`nn.Linear` where a trial shows it. Nothing here knows an architecture by name.
"""

from __future__ import annotations

import copy
import dis
import functools
import inspect
import itertools
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def is_conv1d(part: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, whose weight is stored as inputs x outputs."""
    return type(part).__name__ == "Conv1D" and hasattr(part, "nf")


def linear_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of all linear layers, outputs x inputs, by the layers' names; views, no copies.

    Those of a layer that has none, or none yet, are on device meta.
    """
    found = {}
    for name, part in model.named_modules():
        if is_conv1d(part) or isinstance(part, nn.Linear):
            weight: Any = part.weight
            if weight is None or nn.parameter.is_lazy(weight):
                size = (part.nf, part.nx) if is_conv1d(part) else (part.out_features, part.in_features)
                found[name] = torch.empty(size, device="meta")
            else:
                found[name] = weight.T if is_conv1d(part) else weight
    return found


def why_not(model: nn.Module, name: str, unread: Collection[str]) -> str:
    """Why a sparse layer cannot stand for a linear one; empty where it can. No module reads the weights of `unread`."""
    part, (*above, last) = model.get_submodule(name), name.split(".")
    if why := changed(part):
        return why
    if not (type(part) is nn.Linear or is_conv1d(part) or _multiplies(part)):
        return f"{type(part).__name__} is not known to give x @ weight.T + bias"
    if last in unread:
        return ""
    owners = [type(model.get_submodule(".".join(above[:depth]))) for depth in range(len(above), -1, -1)]
    readers = (kind.__name__ for kind in owners if last in _read_weights(kind))  # type: ignore[arg-type]  # mypy: not hashable
    return next((f"{reader} reads its weight by itself" for reader in readers), "")


def changed(part: Any) -> str:  # noqa: ANN401 - a linear layer of any class
    """What else than the weight and bias it holds makes this one layer's results; empty for nothing."""
    if part.weight is None or nn.parameter.is_lazy(part.weight):
        return "it has no weight" if part.weight is None else "its weight has no size yet: run the model once"
    for name in ("weight", "bias"):
        held = getattr(part, name)
        if held is not None and not isinstance(held, nn.Parameter):
            return f"its {name} is computed, by torch.nn.utils.prune or the like: make it a parameter (prune.remove)"
    if "forward" in vars(part):
        return "this one layer's forward was replaced"
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return "it has hooks: remove them" if any(vars(part)[kind] for kind in hooks) else ""


def _multiplies(part: nn.Module) -> bool:
    """Whether a layer with a forward of its own gives what `nn.Linear` does: tried in float64 on drawn inputs."""
    if {name for name, _ in [*part.named_parameters(), *part.named_buffers()]} - {"weight", "bias"}:
        return False
    if len(inspect.signature(part.forward).parameters) != 1:  # what others than x would do, no trial shows
        return False
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # one that draws changes nobody's numbers
            return all(_gives_product(copy.deepcopy(part).double().train(mode)) for mode in (False, True))
    except Exception:  # whatever a forward of any kind may raise: it is no nn.Linear then
        return False


def _gives_product(tried: Any) -> bool:  # noqa: ANN401 - a layer of any class
    """Whether it gives `x @ weight.T + bias` of rows and of stacks of rows, from zeros to very large ones."""
    rng = torch.Generator().manual_seed(0)
    for shape, size in itertools.product([(3,), (2, 3)], [0.0, 1.0, 1e6, 1e30]):
        x = size * torch.randn(*shape, tried.weight.shape[1], generator=rng, dtype=torch.float64)
        x = x.to(tried.weight.device)
        expected = nn.functional.linear(x, tried.weight, tried.bias)
        if not torch.allclose(tried(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())):
            return False
    return True


@functools.cache
def _read_weights(kind: type[nn.Module]) -> frozenset[str]:
    """Return the parts whose weight a class's forward, or what it calls of its own, reads: `.NAME.weight`."""
    waiting, seen, found = {"forward"}, set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        member: Any = getattr(kind, name, None)
        for code in _codes(getattr(inspect.unwrap(member), "__code__", None)):
            read = [step.argval for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
            found |= {part for part, then in itertools.pairwise(read) if then == "weight" and isinstance(part, str)}
            waiting |= set(code.co_names) - seen
    return frozenset(found)


def _codes(code: object) -> Iterator[CodeType]:
    """A function's code and that of functions within it."""
    if isinstance(code, CodeType):
        yield code
        for inner in code.co_consts:
            yield from _codes(inner)
