"""Is the final number right? 1 where it is, 0 where it is not.

A number stands behind the last `####` or `A:`, as in GSM8K's two formats; without a marker it is the last there is.
Signs of money and thousands do not count.

Source: Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021, and its code for the marker.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+")
_MARKER = re.compile(r"####|\bA:")


def score(prompts: Sequence[str], responses: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Return 1 for each response whose number is the answer's."""
    del prompts
    return [float(_right(response, answer)) for response, answer in zip(responses, answers, strict=True)]


def final_number(text: str) -> Decimal | None:
    """Return the number that a solution ends with.

    >>> final_number("48 + 24 = 72, so #### $1,072.00")
    Decimal('1072.00')
    """
    marked = _MARKER.split(text)
    found = _NUMBER.findall(marked[-1])
    if not found:
        return None
    chosen = found[0] if len(marked) > 1 else found[-1]
    try:
        return Decimal(chosen.replace("$", "").replace(",", ""))
    except InvalidOperation:
        return None


def _right(response: str, answer: str) -> bool:
    wanted = final_number(answer)
    return wanted is not None and final_number(response) == wanted
