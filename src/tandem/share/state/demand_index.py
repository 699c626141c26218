"""Which nodes could give a need now, for every need that is waiting: one boolean matrix, kept up to date.

A row is a distinct `Need`, a column a node. When a node's free resources change, its column is recomputed for all
needs in one vectorised comparison; so asking "does anything that waits fit anywhere?" costs one look at the row
counts, however long the queue is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tandem.share.model import RESOURCES, Need, Node, Part

if TYPE_CHECKING:
    from tandem.share.state.ledger import Ledger


def could_ever_fit(node: Node, need: Need) -> bool:
    """Whether an empty ``node`` gives ``need``: capacity, labels, GPU type and memory, whole cores if pinned."""
    if any(c < v for c, v in zip(node.capacity(), need.vector(), strict=True)):
        return False
    if not need.labels <= node.labels:
        return False
    if node.cores and need.cpu_milli % 1000:
        return False
    if need.gpus or need.gpu_milli:
        types = set(need.gpu_type.split("|")) if need.gpu_type else None
        good = [g for g in node.gpus if (types is None or g.type in types) and g.mem_mib >= need.gpu_mem_mib]
        return len(good) == len(node.gpus)  # a node's GPUs are alike: mixed nodes are described as two nodes
    return True


class Shape:
    """The parts of a job, interned: all jobs that ask for the same thing share one (compared by identity)."""

    __slots__ = ("cores", "gpus", "parts", "rows", "vectors")

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts
        self.vectors = tuple(part.need.vector() for part in parts)
        self.cores = sum(part.nodes * part.need.cpu_milli for part in parts) / 1000
        self.gpus = sum(part.nodes * (part.need.gpus + part.need.gpu_milli / 1000) for part in parts)
        self.rows: tuple[int, ...] = ()  # its rows in the demand index, while anything of this shape waits


class DemandIndex:
    """Rows of needs against the nodes of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._touched = ledger.watch()
        self._layout = -1
        self._kinds: list[Node] = []  # one of each kind of node
        self._kind = np.zeros(0, dtype=np.int64)  # the kind of every node
        self._row: dict[Need, int] = {}
        self._uses: dict[Need, int] = {}
        self._spare: list[int] = []
        self._needs = np.zeros((0, len(RESOURCES)), dtype=np.int64)
        self._static = np.zeros((0, 0), dtype=bool)
        self._fits = np.zeros((0, 0), dtype=bool)
        self.count = np.zeros(0, dtype=np.int64)  # nodes that fit now, by row
        self.version = 0  # grows with every change of ``count``

    def add(self, shape: Shape) -> None:
        """Something of this shape waits from now on: give it rows."""
        shape.rows = tuple(self._add_need(part.need) for part in shape.parts)

    def drop(self, shape: Shape) -> None:
        """Nothing of this shape waits any more."""
        for part in shape.parts:
            self._drop_need(part.need)
        shape.rows = ()

    def sync(self) -> None:
        """Bring the matrix up to the ledger."""
        ledger = self._ledger
        if self._layout != ledger.layout:
            self._rebuild()
        elif not self._touched:
            return
        else:
            for n in self._touched:
                fits = (self._needs <= ledger.free[n]).all(axis=1)
                fits &= self._static[:, n]
                self.count += fits
                self.count -= self._fits[:, n]
                self._fits[:, n] = fits
            self.version += 1
        self._touched.clear()

    def nodes_now(self, row: int) -> np.ndarray:
        """Numbers of the nodes that give the row's need now."""
        self.sync()
        found: np.ndarray = self._fits[row].nonzero()[0]
        return found

    def count_now(self, row: int) -> int:
        """How many nodes give the row's need now."""
        self.sync()
        return int(self.count[row])

    def nodes_ever(self, row: int) -> np.ndarray:
        """Mask of the nodes that would give the row's need if they were empty (up or not)."""
        self.sync()
        mask: np.ndarray = self._static[row]
        return mask

    def may_fit(self, shape: Shape) -> bool:
        """Whether each part alone has enough nodes now (exact for a job of one part)."""
        self.sync()
        return all(self.count[row] >= part.nodes for row, part in zip(shape.rows, shape.parts, strict=True))

    def _add_need(self, need: Need) -> int:
        self._uses[need] = self._uses.get(need, 0) + 1
        row = self._row.get(need)
        if row is None:
            self.sync()
            row = self._spare.pop() if self._spare else self._grow()
            self._row[need] = row
            self._fill(need, row)
        return row

    def _drop_need(self, need: Need) -> None:
        self._uses[need] -= 1
        if not self._uses[need]:
            del self._uses[need]
            row = self._row.pop(need)
            self._needs[row] = 0
            self._static[row] = False
            self._fits[row] = False
            self.count[row] = 0
            self._spare.append(row)

    def _grow(self) -> int:
        row = len(self._needs)
        new = max(8, 2 * row)
        nodes = len(self._ledger.nodes)
        needs = np.zeros((new, len(RESOURCES)), dtype=np.int64)
        needs[:row] = self._needs
        static = np.zeros((new, nodes), dtype=bool)
        static[:row] = self._static
        fits = np.zeros((new, nodes), dtype=bool)
        fits[:row] = self._fits
        count = np.zeros(new, dtype=np.int64)
        count[:row] = self.count
        self._needs, self._static, self._fits, self.count = needs, static, fits, count
        self._spare = list(range(new - 1, row, -1))
        return row

    def _fill(self, need: Need, row: int) -> None:
        self._needs[row] = need.vector()
        self._static[row] = np.array([could_ever_fit(node, need) for node in self._kinds], dtype=bool)[self._kind]
        self._fits[row] = (self._ledger.free >= self._needs[row]).all(axis=1) & self._static[row]
        self.count[row] = self._fits[row].sum()

    def _rebuild(self) -> None:
        nodes = len(self._ledger.nodes)
        size = len(self._needs)
        kinds: dict[Node, int] = {}
        self._kind = np.array(
            [kinds.setdefault(replace(node, id="", numa=()), len(kinds)) for node in self._ledger.nodes], dtype=np.int64
        )
        self._kinds = list(kinds)
        self._static = np.zeros((size, nodes), dtype=bool)
        self._fits = np.zeros((size, nodes), dtype=bool)
        self.count = np.zeros(size, dtype=np.int64)
        self.version += 1
        self._layout = self._ledger.layout
        for need, row in self._row.items():
            self._fill(need, row)
