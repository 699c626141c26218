"""The data path: spaces that hold many small files as one fast, safe, seekable thing, and loaders over them.

The names below are imported when they are first used: who only opens a space does not pay for a loader.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tandem.data.decoding import Decode
    from tandem.data.loader import Loader
    from tandem.data.mixture import Mixture
    from tandem.data.steps import Batches

__all__ = ["Batches", "Decode", "Loader", "Mixture"]

_HOMES = {"Batches": "steps", "Decode": "decoding", "Loader": "loader", "Mixture": "mixture"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
