"""Instants and promises as they are written for people: local time, as precise as they are meant."""

from __future__ import annotations

import math
import time

from tandem.core.errors import QuantityError
from tandem.core.units import human_duration, parse_duration

NONE = "\N{EN DASH}"
"""What stands where there is nothing to say."""

_NEAR_S = 6 * 86400
_SECONDS_MATTER_S = 300
_LATEST = 253_402_000_000.0  # the year 9999: what calendars can write


def clock_time(at: float | None, now: float, *, seconds: bool = True) -> str:
    """Write an instant (unix seconds): the time alone today, with the weekday within a week, else with the date."""
    if at is None or not math.isfinite(at) or abs(at) > _LATEST:
        return NONE if at is None else "no idea"
    there, here = time.localtime(at), time.localtime(now)
    clock = time.strftime("%H:%M:%S" if seconds else "%H:%M", there)
    if there[:3] == here[:3]:
        return clock
    if abs(at - now) < _NEAR_S:
        return f"{time.strftime('%a', there)} {clock}"
    date = time.strftime("%b %d", there) if there.tm_year == here.tm_year else time.strftime("%Y-%m-%d", there)
    return f"{date} {clock[:5]}"


def promised(low: float, mid: float, high: float, now: float) -> str:
    """Write a quoted instant with its interval; with seconds only where the interval is narrow or near.

    >>> promised(math.inf, math.inf, math.inf, 0.0)
    'no idea'
    """
    if not math.isfinite(mid):
        return "no idea"
    seconds = high - low < _SECONDS_MATTER_S
    first = clock_time(mid, now, seconds=seconds)
    last = clock_time(high, mid, seconds=seconds) if math.isfinite(high) else "?"
    return f"{first} ({clock_time(low, mid, seconds=seconds)}-{last})"


def span(seconds: float | None) -> str:
    """Write a duration, or a dash."""
    return NONE if seconds is None else human_duration(seconds)


def option_s(option: str, text: str) -> float:
    """Read an option that is a duration, in seconds.

    Raises:
        QuantityError: it cannot be read; names the option.
    """
    try:
        return parse_duration(text)
    except QuantityError as error:
        raise QuantityError(given=f"{option} {text!r}", allowed=error.allowed, todo=error.todo) from None
