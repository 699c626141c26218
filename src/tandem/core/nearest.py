"""The right word nearest to a wrong one, for errors."""

import difflib
from collections.abc import Iterable

_ALIKE = 0.5
"""Words less alike than this (`difflib`'s ratio) are not suggested."""


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that is most like ``given``; None where none is like it."""
    found = difflib.get_close_matches(given, list(known), n=1, cutoff=_ALIKE)
    return found[0] if found else None


def did_you_mean(given: str, known: Iterable[str], otherwise: str = "choose one of these") -> str:
    """What to do about a word that is none of those known.

    >>> did_you_mean("hybird", ["share", "hybrid"])
    "did you mean 'hybrid'?"
    >>> did_you_mean("42", ["share", "hybrid"])
    'choose one of these'
    """
    near = nearest(given, known)
    return otherwise if near is None else f"did you mean {near!r}?"
