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
    if is_truth_or_masked(number):
        return None
    try:
        return operator.index(number)  # type: ignore[arg-type]  # that is the question
    except (TypeError, RuntimeError):  # the latter is torch's for a tensor without values
        return None


def is_truth_or_masked(number: object) -> bool:
    """Whether it is a truth value, whoever's, or what a mask hides: no number, though it can be taken for one."""
    truth = isinstance(number, bool) or "bool" in str(getattr(number, "dtype", ""))
    return truth or bool(getattr(number, "mask", False))


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
