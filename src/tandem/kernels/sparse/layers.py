"""Which layers of a model a sparse one can stand for, and why others stay dense.

A layer qualifies if what it does is `x @ weight.T + bias`: `nn.Linear`, GPT-2's `Conv1D`, and a class derived from
`nn.Linear` where a trial shows it. Nothing here knows an architecture by name.
"""

from __future__ import annotations

import copy
import dis
import functools
import inspect
from itertools import pairwise
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_conv1d(part: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, whose weight is stored as inputs x outputs."""
    return type(part).__name__ == "Conv1D" and hasattr(part, "nf")


def linear_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of all linear layers, outputs x inputs, by the layers' names; views, no copies."""
    found = {}
    for name, part in model.named_modules():
        if is_conv1d(part) or isinstance(part, nn.Linear):
            weight = part.weight
            assert isinstance(weight, torch.Tensor)
            found[name] = weight.T if is_conv1d(part) else weight
    return found


def why_not(model: nn.Module, name: str) -> str:
    """Why a sparse layer cannot stand for a linear one; empty where it can."""
    part, (*above, last) = model.get_submodule(name), name.split(".")
    if not (type(part) is nn.Linear or is_conv1d(part) or _multiplies(part)):
        return f"{type(part).__name__} is not known to give x @ weight.T + bias"
    owners = [type(model.get_submodule(".".join(above[:depth]))) for depth in range(len(above), -1, -1)]
    readers = (kind.__name__ for kind in owners if last in _read_weights(kind))  # type: ignore[arg-type]  # mypy: not hashable
    return next((f"{reader} reads its weight by itself" for reader in readers), "")


def _multiplies(part: nn.Module) -> bool:
    """Whether a layer with a forward of its own gives what `nn.Linear` does: tried in float64 on drawn inputs."""
    if {name for name, _ in [*part.named_parameters(), *part.named_buffers()]} - {"weight", "bias"}:
        return False
    try:
        with torch.no_grad():
            tried: Any = copy.deepcopy(part).double()
            rng = torch.Generator().manual_seed(0)
            x_NK = torch.randn(3, tried.weight.shape[1], generator=rng, dtype=torch.float64).to(tried.weight.device)
            expected_NM = nn.functional.linear(x_NK, tried.weight, tried.bias)
            return torch.allclose(
                tried.forward(x_NK), expected_NM, rtol=1e-5, atol=1e-5 * float(expected_NM.abs().max())
            )
    except Exception:  # whatever a forward of any kind may raise: it is no nn.Linear then
        return False


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
            found |= {part for part, then in pairwise(read) if then == "weight" and isinstance(part, str)}
            waiting |= set(code.co_names) - seen
    return frozenset(found)


def _codes(code: object) -> Iterator[CodeType]:
    """A function's code and that of functions within it."""
    if isinstance(code, CodeType):
        yield code
        for inner in code.co_consts:
            yield from _codes(inner)
