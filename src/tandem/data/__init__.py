"""The data path: spaces that hold many small files as one fast, safe, seekable thing, and loaders over them.

The names below are imported when they are first used: who only opens a space does not pay for a loader.
"""

from __future__ import annotations

import importlib

from tandem.core.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from typing import Any

    from tandem.data.decoding import Decode
    from tandem.data.loader import Loader
    from tandem.data.mixture import Mixture
    from tandem.data.space import Space
    from tandem.data.steps import Batches

__all__ = ["Batches", "Decode", "Loader", "Mixture", "open"]

_HOMES = {"Batches": "steps", "Decode": "decoding", "Loader": "loader", "Mixture": "mixture"}


def open(folder: str | os.PathLike[str], **options: Any) -> Space:  # noqa: ANN401 - those of `Space.open`
    """Open a space in a folder or at a URL: `Space.open`, under a shorter name.

    >>> import tandem.data  # doctest: +SKIP
    >>> space = tandem.data.open("https://example.org/train.space")  # doctest: +SKIP
    """
    from tandem.data.space import Space

    return Space.open(folder, **options)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
