"""Which numbers are taken for integers: Python's, numpy's of any width, and arrays or tensors of a single one.

Truth values are none, though Python takes them for 0 and 1; neither is what a mask hides. Imports nothing: opening a
space is to be cheap.
"""

from __future__ import annotations

import operator


def integer(number: object) -> int | None:
    """An integer as Python has it; None for what is none."""
    if type(number) is int:
        return number
    truth = isinstance(number, bool) or "bool" in str(getattr(number, "dtype", ""))
    if truth or getattr(number, "mask", False):
        return None
    try:
        return operator.index(number)  # type: ignore[arg-type]  # that is the question
    except (TypeError, RuntimeError):  # the latter is torch's for a tensor without values
        return None


def sample_number(number: object) -> int:
    """The number of a sample as it is given.

    Raises:
        TypeError: It is no integer.
    """
    whole = integer(number)
    if whole is None:
        message = f"the number of a sample is an integer, not {number!r}"
        raise TypeError(message)
    return whole
