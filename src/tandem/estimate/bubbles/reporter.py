"""A kernel that is sensitive to one resource and tells how fast it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from tandem.estimate.bubbles.process import START_S, Process

if TYPE_CHECKING:
    from pathlib import Path


class Reporter:
    """Feels one resource from a process of its own; paused until `go`. A context manager."""

    def __init__(
        self, kind: str, *, cores: tuple[int, ...], folder: Path | None = None, start_s: float = START_S
    ) -> None:
        """Start it; it does nothing yet.

        Args:
            kind: One of `tandem.estimate.profile.KINDS`.
            cores: Where it runs, a thread on each.
            folder: Where "fs_read" and "fs_write" use the disk; None takes the temporary folder.
            start_s: How long it may take until it is ready; a disk may be slow.

        Raises:
            BubbleError: The kind, a core or the folder cannot be used.
            BubbleMissingError: The native part was not built.
        """
        self._process = Process("reporter", kind, cores, folder, start_s)
        self._going = False

    @property
    def kind(self) -> str:
        """What it is sensitive to."""
        return self._process.kind

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def go(self) -> None:
        """Work; `count` counts from now on."""
        self._process.go()
        self._going = True

    def pause(self) -> None:
        """Sleep, using no processor, until the next `go`."""
        self._process.rest()
        self._going = False

    def rate(self, seconds: float) -> float:
        """Return operations per second over the next `seconds`; one that was paused goes for that long only.

        Where an operation takes milliseconds (a disk's), the window runs from the end of one to the end of another;
        0.0 means that not one was done.
        """
        paused = not self._going
        if paused:
            self.go()
        before, began = self.count()
        time.sleep(seconds)
        after, ended = self.count()
        if paused:
            self.pause()
        return (after - before) / (ended - began) if ended > began else 0.0

    def count(self) -> tuple[int, float]:
        """Return (operations so far, the `time.monotonic()` at which that was so); costs some microseconds."""
        return self._process.count()

    def waited_s(self) -> float:
        """Return the seconds so far in which it was ready to run and somebody else had its cores."""
        return self._process.waited_s()

    def close(self) -> None:
        """End its process; a second call does nothing."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
