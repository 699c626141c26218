"""Time as an argument: the same code runs under the machine's clock and under a virtual one.

Limits: `SystemClock` takes the wall clock once, when it is made; when the wall clock is set later,
`now()` goes on steadily from the old value (a scheduler must not see a jump), and the time spent while
the machine is suspended is not counted.
"""

import time
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """What anything that needs the time asks for."""

    def now(self) -> float:
        """Return the time in unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary origin, never going back."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """Wall time that never goes back and never jumps within the process.

    Attributes:
        offset_s: Unix time minus monotonic time, measured when the clock is made.
    """

    offset_s: float = field(default_factory=lambda: time.time() - time.monotonic())

    def now(self) -> float:
        """Return the time in unix seconds, steady even when the wall clock is set."""
        return self.offset_s + time.monotonic()

    def monotonic(self) -> float:
        """Return `time.monotonic()` in seconds."""
        return time.monotonic()


@dataclass(slots=True)
class VirtualClock:
    """A clock that moves only when it is told to.

    Attributes:
        now_s: The present, in unix seconds.
    """

    now_s: float = 0.0

    def now(self) -> float:
        """Return the virtual time in unix seconds."""
        return self.now_s

    def monotonic(self) -> float:
        """Return the virtual time in seconds (it never goes back either)."""
        return self.now_s

    def advance_to(self, now_s: float) -> None:
        """Move to a later (or the same) time, in unix seconds.

        Raises:
            ValueError: The time lies in the past, or is not a number.
        """
        if not now_s >= self.now_s:
            message = f"a clock cannot go back: asked for {now_s}, it is {self.now_s}"
            raise ValueError(message)
        self.now_s = now_s
