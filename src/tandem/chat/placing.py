"""Where a run computes, and in what type: what a recipe's `device` and `dtype` mean on this machine.

Batches, random numbers and losses of tokens stay on the processor, which makes them the same everywhere; models, their
gradients and their optimisers' moments lie where this says. Whatever asks a model moves its question there and the
answer back (`forward`, `heads`, `engine.generate`).

In bfloat16 models compute with weights of 16 bits, and the optimiser keeps them in float32 beside (`learn.optimiser`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tandem.chat.recipe import DEVICES
from tandem.core.errors import TandemError

if TYPE_CHECKING:
    from tandem.chat.recipe import Dtype, Recipe


class DeviceError(TandemError):
    """A device that is not there, or one that ranks cannot share."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where models lie, and in what type."""

    device: torch.device
    dtype: torch.dtype

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.device} in {in_words(self.dtype)}"


def in_words(dtype: torch.dtype) -> str:
    """Return what a type is called in a recipe."""
    return str(dtype).removeprefix("torch.")


ON_CPU = Place(torch.device("cpu"), torch.float32)


def asked_for(recipe: Recipe, device: str | None) -> Place:
    """Return where one process computes: where `--device` says, or, at None, where the recipe does.

    Raises:
        DeviceError: There is no such device.
    """
    if device is None:
        return placed(recipe.device, recipe.dtype)
    return placed(device, recipe.dtype, named="--device")


def placed(device: str, dtype: Dtype = "auto", strategy: str = "single", *, named: str = "device") -> Place:
    """Return where to compute.

    Args:
        device: `auto` (a GPU where torch sees one and one process trains), `cpu`, `cuda`, or a GPU by its number.
        dtype: `auto` is bfloat16 on a GPU, whose float32 products are many times slower, and float32 on a processor.
        strategy: How ranks share models; any but `single` is for processors in float32.
        named: What the device is called in errors.

    Raises:
        DeviceError: There is no such device, or the strategy cannot use it.
    """
    alone = strategy == "single"
    name = device
    if device == "auto":
        name = "cuda" if alone and torch.cuda.is_available() else "cpu"
    if DEVICES.fullmatch(name) is None:
        raise DeviceError(given=f"{named} {device!r}", allowed="auto, cpu, cuda, cuda:N", todo="choose one of these")
    if not alone and (name != "cpu" or dtype == "bfloat16"):
        raise DeviceError(
            given=f"device {device!r} and dtype {dtype!r} with strategy {strategy!r}",
            allowed="several ranks on processors, in float32",
            todo="leave the strategy out, or set device=cpu and dtype=float32",
        )
    if name == "cpu":
        return Place(torch.device("cpu"), torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    number = int(name.partition(":")[2] or 0)
    there = torch.cuda.device_count()
    if number >= there:
        raise DeviceError(
            given=f"{named} {device!r}, and torch sees {there or 'no'} GPU{'s' * (there != 1)}",
            allowed=", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(there))]),
            todo="choose one of these; torch needs a CUDA build and a driver to see a GPU",
        )
    return Place(torch.device("cuda", number), torch.float32 if dtype == "float32" else torch.bfloat16)
