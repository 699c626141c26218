"""When cores, GPUs or whole nodes come free, in several draws at once, for the play of the queue behind a quote."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tandem.share.state.view import View

UNITS = 512
"""At most so many units are told apart; larger clusters are counted in bundles."""


class Room:
    """What comes free for whom: to a job that others are displaced for, it is as if those were not there.

    Args:
        displaced: whether there are any such others.

    Attributes:
        turn: when all have started that were put ahead of the next job and for which nobody is displaced: no job has
            others displaced before it is first in the queue.
    """

    def __init__(self, view: View, whole_nodes: bool, *, displaced: bool) -> None:
        self._units = Units(view, whole_nodes)
        self._without = Units(view, whole_nodes) if displaced else None
        self.displaced = displaced
        self.draws = self._units.draws
        self.turn = self.now = self._units.now

    def put(
        self,
        wants: tuple[float, float],
        seconds: np.ndarray,
        ready: np.ndarray,
        *,
        gives_way: bool = False,
        displaces: bool = False,
    ) -> np.ndarray:
        """A job takes the units that come free first, from ``ready`` on; returns its start in each draw.

        Args:
            gives_way: it is displaced for others.
            displaces: others are displaced for it.
        """
        start = self._units.put(wants, seconds, ready)
        if self._without is None or gives_way:
            return start
        sooner = self._without.put(wants, seconds, ready)
        return sooner if displaces else start

    def spread(self, more: float) -> None:
        """``more`` times the work that was put so far, which was not played one by one, delays every unit alike."""
        for units in (self._units, self._without):
            if units is not None:
                units.spread(more)
        self.turn = self.turn + more * (self.turn - self.now)


class Units:
    """When each core and GPU (or each node) comes free, in several draws at once: arrays (draw, unit)."""

    def __init__(self, view: View, whole_nodes: bool) -> None:
        up = [node for n, node in enumerate(view.ledger.nodes) if view.ledger.is_up(n)]
        cores = float(len(up)) if whole_nodes else sum(node.cpu_milli for node in up) / 1000
        gpus = 0.0 if whole_nodes else float(sum(len(node.gpus) for node in up))
        self._bundle = (max(1.0, cores / UNITS), max(1.0, gpus / UNITS))
        counts = [
            max(1, math.ceil(amount / bundle)) for amount, bundle in zip((cores, gpus), self._bundle, strict=True)
        ]
        self.draws = 64 if max(counts) <= 64 else 16
        self.now = np.full(self.draws, view.now)
        self._free = [np.full((self.draws, count), view.now) for count in counts]
        self._work = [np.zeros(self.draws) for _ in counts]  # that was put, in units' seconds

    def put(self, wants: tuple[float, float], seconds: np.ndarray, ready: np.ndarray) -> np.ndarray:
        """A job takes the units that come free first, from ``ready`` on; returns its start in each draw."""
        taken = [self._columns(kind, amount) for kind, amount in enumerate(wants)]
        start = ready.copy()
        for kind, columns in enumerate(taken):
            if columns:
                free = self._free[kind]
                free.sort(axis=1)
                np.maximum(start, free[:, columns - 1], out=start)
        for kind, columns in enumerate(taken):
            if columns:
                self._free[kind][:, :columns] = (start + seconds)[:, None]
                self._work[kind] += columns * seconds
        return start

    def spread(self, more: float) -> None:
        """``more`` times the work that was put so far, which was not played one by one, delays every unit alike."""
        for free, work in zip(self._free, self._work, strict=True):
            free += more * work[:, None] / free.shape[1]

    def _columns(self, kind: int, amount: float) -> int:
        if amount <= 0:
            return 0
        return min(max(1, round(amount / self._bundle[kind])), self._free[kind].shape[1])
