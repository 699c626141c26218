"""Jobs called by the names that the lab's file gives them: their numbers are the daemon's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_JOB = re.compile(r"\bjob (\d+)\b(?!_)")


def named(text: str, names: Mapping[int, str]) -> str:
    """The text with the names of jobs that have one.

    >>> named("beside it primary job 61 would break a bound", {61: "pressure solver"})
    'beside it primary job pressure solver would break a bound'
    """
    return _JOB.sub(lambda match: f"job {names[int(match[1])]}" if int(match[1]) in names else match[0], text)
