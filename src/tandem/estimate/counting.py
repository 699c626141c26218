"""One count of a programme's steps, though its own begins afresh now and then (each epoch, say)."""

from __future__ import annotations


class Counting:
    """Goes on where the programme's count begins afresh.

    The first step of a new count is as far from the last one of the old as that was from the one before it. A step that
    lies less than half below the newest does not begin a count: it is told late, by another of the programme's
    processes, or goes back to a checkpoint.

    >>> counting = Counting()
    >>> [counting.take(step) for step in (98.0, 99.0, 0.0, 1.0)]
    [98.0, 99.0, 100.0, 101.0]
    """

    __slots__ = ("_before", "_stride", "newest")

    def __init__(self) -> None:
        self.newest: float | None = None
        """The programme's own newest step; None before the first."""
        self._before = 0.0
        self._stride: float | None = None

    def take(self, step: float) -> float:
        """The programme is at ``step`` of its own count; returns where that is in the one that goes on."""
        newest = self.newest
        if newest is not None:
            if step > newest:
                self._stride = step - newest
            elif step < newest and step <= newest / 2 and self._stride is not None:
                self._before += newest + self._stride - step
        self.newest = step
        return self._before + step

    def another_run(self) -> None:
        """What follows is another run's count, and has nothing to do with this one's."""
        self.newest, self._before = None, 0.0
