"""When a measurement has to be over: asked before each part of it, so that what does not fit is not begun.

    deadline = Deadline.after(55.0)
    while deadline.fits(window_s):
        ...

Limits: what is under way is not interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment, and the clock that tells how far it is.

    Attributes:
        at_s: the moment, by ``clock``.
        clock: seconds that only grow.
    """

    at_s: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Self:
        """The moment so many seconds from now.

        >>> Deadline.after(5.0, clock=lambda: 100.0).at_s
        105.0
        """
        return cls(clock() + seconds, clock)

    def left_s(self) -> float:
        """Seconds until then; negative once it is past."""
        return self.at_s - self.clock()

    def fits(self, seconds: float) -> bool:
        """Whether what takes so long would be over in time."""
        return seconds <= self.left_s()

    def share(self, part: float) -> Deadline:
        """The moment after this part, in [0, 1], of what is left."""
        return Deadline.after(part * max(0.0, self.left_s()), self.clock)
