"""A stage's state in one file, whole or not there: weights, optimisers, and how many steps are done.

Tensors of a GPU are written as the processor's. Of several ranks the first writes what all have, put together: a stage
may go on with another number of them.

Nothing else is needed: which rows a step takes and what it draws follow from the recipe's seed and the step's number.
"""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING, Any, Protocol

import torch

from tandem.chat.errors import ResumeError
from tandem.core.durable import written_aside
from tandem.learn import sharding

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


ADDED = ("rows",)
"""Parts that older versions did not write."""


class Stateful(Protocol):
    """What can be saved and go on."""

    def state_dict(self) -> Any:  # noqa: ANN401 - each has its own
        """Return tensors and plain values."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:  # noqa: ANN401 - each has its own
        """Take them over."""
        ...


def save(path: Path, step: int, parts: Mapping[str, Stateful], *, writes: bool = True) -> None:
    """Write a checkpoint in the place of the one before. Collective.

    Args:
        path: The file.
        step: Steps that are done.
        parts: What to save, by name.
        writes: Whether this rank is the one that does.

    Raises:
        OSError: It cannot be written; the one before stays.
    """
    whole = {name: sharding.gathered(part.state_dict(), keep=writes) for name, part in parts.items()}
    if not writes:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as file:
        try:
            torch.save({"step": step, "parts": whole}, file)
        except RuntimeError as error:  # closing its archive failed too, and is all that torch tells
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def restore(path: Path, parts: Mapping[str, Stateful]) -> int:
    """Take a checkpoint over and return how many steps are done; 0 where there is none. Collective.

    Raises:
        ResumeError: It cannot be read, or is of other parts.
    """
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        wanted = [name for name in parts if name in state["parts"] or name not in ADDED]
        _check_names(list(state["parts"]), wanted)
        for name in wanted:
            parts[name].load_state_dict(state["parts"][name])
        return int(state["step"])
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ResumeError(
            given=f"checkpoint {path} cannot be taken over: {error}",
            allowed="a checkpoint that this recipe wrote",
            todo="delete it, and the stage begins anew",
        ) from error


def _check_names(held: list[str], wanted: list[str]) -> None:
    if sorted(held) != sorted(wanted):
        message = f"it holds {', '.join(held)}, not {', '.join(wanted)}"
        raise ValueError(message)
