"""How fast a loader hands out samples, and how much of the time the training waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tandem.core.clock import Clock


class Meter:
    """Counts samples and the time in which they are waited for; what lies between iterations does not count.

    Args:
        clock: Tells the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._samples = 0
        self._waited_s = self._passed_s = 0.0
        self._running = False
        self._since_s = self._waits_since_s = 0.0

    def begin(self) -> None:
        """An iteration begins."""
        self._running, self._since_s = True, self._now()

    def wait(self) -> None:
        """The training asks for what is not there yet."""
        self._waits_since_s = self._now()

    def had(self) -> None:
        """Now it is there."""
        self._waited_s += self._now() - self._waits_since_s

    def count(self, samples: int) -> None:
        """So many samples are handed out."""
        self._samples += samples

    def end(self) -> None:
        """The iteration ends."""
        if self._running:
            self._passed_s += self._now() - self._since_s
            self._running = False

    def read(self) -> dict[str, float]:
        """Samples a second and the share of time waited since the last call; both 0 where no time has passed."""
        if self._running:
            now_s = self._now()
            self._passed_s, self._since_s = self._passed_s + now_s - self._since_s, now_s
        passed_s, waited_s, samples = self._passed_s, self._waited_s, self._samples
        self._passed_s, self._waited_s, self._samples = 0.0, 0.0, 0
        if passed_s <= 0:
            return {"samples_per_s": 0.0, "data_wait_share": 0.0}
        return {"samples_per_s": samples / passed_s, "data_wait_share": min(1.0, waited_s / passed_s)}
