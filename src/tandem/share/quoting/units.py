"""When cores, GPUs and memory, or whole nodes, come free: in several draws at once, for the play behind a quote."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from tandem.share.state.life import Life
    from tandem.share.state.view import View

UNITS = 512
"""At most so many units are told apart; larger clusters are counted in bundles."""

PIECES = 64
"""Into so many the memory of all nodes is divided."""


Wants = tuple[float, float, float]
"""Cores (or nodes), GPUs and MiB of memory."""

Leaves = tuple[float, float]
"""How many cores for each free GPU, and until when (unix seconds)."""


class Room:
    """What comes free for whom: to a job that others are displaced for, it is as if those held nothing but memory.

    Args:
        gives_way: whether a job is such another.

    Attributes:
        displaced: whether a job that runs is such another.
        kept: how many cores jobs leave to others, by the CPU that they take of a node.
        turn: when all have started that were put ahead of the next job and for which nobody is displaced: no job has
            others displaced before it is first in the queue.
        first_end: when the first of the jobs that run ends; infinite where none does.
        first_end_without: when the first of those ends that are not displaced.
    """

    def __init__(self, view: View, whole_nodes: bool, gives_way: Callable[[Life], bool]) -> None:
        self.gives_way = gives_way
        self.kept: dict[int, float] = {}
        self.displaced = any(map(gives_way, view.on_nodes.values()))
        self._units = Units(view, whole_nodes)
        self._without = Units(view, whole_nodes) if self.displaced else None
        self.draws = self._units.draws
        self.turn = self.now = self._units.now
        self.first_end = self.first_end_without = np.full(self.draws, math.inf)
        self._free: np.ndarray | None = None

    def put(
        self,
        wants: Wants,
        seconds: np.ndarray,
        ready: np.ndarray,
        *,
        gives_way: bool = False,
        displaces: bool = False,
        leaves: Leaves = (0.0, -math.inf),
    ) -> np.ndarray:
        """A job takes the units that come free first, from ``ready`` on; returns its start in each draw.

        Args:
            gives_way: it is displaced for others.
            displaces: others are displaced for it.
            leaves: what it leaves to others that may come, of whatever gives no way to them.
        """
        start = self._units.put(wants, seconds, ready, leaves)
        if self._without is None:
            return start
        if gives_way:
            if wants[2]:
                self._without.put((0.0, 0.0, wants[2]), seconds, start)
            return start
        sooner = self._without.put(wants, seconds, ready, leaves)
        return sooner if displaces else start

    def free_without(self, view: View) -> np.ndarray:
        """What the nodes have free now (node, resource), with the cores and bandwidth of those that are displaced."""
        if self._free is None:
            self._free = view.ledger.free.copy()
            for life in filter(self.gives_way, view.on_nodes.values()):
                for n in life.numbers:
                    for holding in view.ledger.holders(n)[life.id]:
                        need = holding.share.need
                        if not holding.paused:
                            self._free[n, [0, 2, 3]] += (need.cpu_milli, need.membw_mbs, need.nic_mbs)
        return self._free

    def hold(self, mem_mib: float, until: np.ndarray) -> None:
        """A job that is on its nodes keeps its memory, whether it goes or stands still."""
        for units in (self._units, self._without):
            if units is not None and mem_mib:
                units.put((0.0, 0.0, mem_mib), until - self.now, self.now)

    def spread(self, more: float) -> None:
        """``more`` times the work that was put so far, which was not played one by one, delays every unit alike."""
        for units in (self._units, self._without):
            if units is not None:
                units.spread(more)
        self.turn = self.turn + more * (self.turn - self.now)


class Units:
    """When each core, GPU and piece of memory (or each node) comes free, in several draws: arrays (draw, unit)."""

    def __init__(self, view: View, whole_nodes: bool) -> None:
        up = [node for n, node in enumerate(view.ledger.nodes) if view.ledger.is_up(n)]
        cores = float(len(up)) if whole_nodes else sum(node.cpu_milli for node in up) / 1000
        gpus = 0.0 if whole_nodes else float(sum(len(node.gpus) for node in up))
        mem = 0.0 if whole_nodes else float(sum(node.mem_mib for node in up))
        self._bundle = (max(1.0, cores / UNITS), max(1.0, gpus / UNITS), max(1.0, mem / PIECES))
        counts = [
            max(1, math.ceil(amount / bundle)) for amount, bundle in zip((cores, gpus, mem), self._bundle, strict=True)
        ]
        self.draws = 64 if max(counts[:2]) <= 64 else 16
        self.now = np.full(self.draws, view.now, dtype=float)
        self._free = [np.full((self.draws, count), view.now, dtype=float) for count in counts]
        self._rows = np.arange(self.draws)[:, None]
        self._back = np.arange(1, max(counts) + 1)
        self._owed = [0.0 for _ in counts]
        self._work = [np.zeros(self.draws) for _ in counts]  # that was put, in units' seconds

    def put(
        self, wants: Wants, seconds: np.ndarray, ready: np.ndarray, leaves: Leaves = (0.0, -math.inf)
    ) -> np.ndarray:
        """A job starts when enough units are free, from ``ready`` on; returns its start in each draw.

        Where that is later than these units come free, it takes those that do last until then: the others stay for
        others.
        """
        start = ready.copy()
        for kind, amount in enumerate(wants):
            if amount > 0:
                free = self._free[kind]
                free.sort(axis=1)
                last = max(0, self._columns(kind, amount) - 1)
                at = free[:, last]
                if kind == 0 and leaves[0]:
                    at = np.minimum(self._leaving(last, leaves[0], at), np.maximum(at, leaves[1]))
                np.maximum(start, at, out=start)
        for kind, amount in enumerate(wants):
            columns = self._columns(kind, amount)
            self._owed[kind] += amount / self._bundle[kind] - columns
            if columns:
                free, until = self._free[kind], (start + seconds)[:, None]
                if (free[:, columns - 1] == start).all():
                    free[:, :columns] = until
                else:
                    last = (free <= start[:, None]).sum(axis=1, keepdims=True)
                    free[self._rows, last - self._back[:columns]] = until
                self._work[kind] += columns * seconds
        return start

    def _leaving(self, last: int, each: float, at: np.ndarray) -> np.ndarray:
        """When, from ``at`` on, so many more cores are free as are left for the GPUs that are free then."""
        for _ in range(2):  # later more GPUs may be
            gpus = (self._free[1] <= at[:, None]).sum(axis=1, keepdims=True) * self._bundle[1]
            column = np.rint(last + each * gpus / self._bundle[0]).astype(int)
            at = self._free[0][self._rows, np.minimum(column, self._free[0].shape[1] - 1)][:, 0]
        return at

    def spread(self, more: float) -> None:
        """``more`` times the work that was put so far, which was not played one by one, delays every unit alike."""
        for free, work in zip(self._free, self._work, strict=True):
            free += more * work[:, None] / free.shape[1]

    def _columns(self, kind: int, amount: float) -> int:
        """How many units that is, with what is owed of earlier jobs' parts of units: in sum it is right."""
        return min(max(0, round(amount / self._bundle[kind] + self._owed[kind])), self._free[kind].shape[1])
