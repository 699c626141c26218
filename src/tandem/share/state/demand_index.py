"""Which nodes could give a need now, for every need that is waiting: one boolean matrix, kept up to date.

A row is a distinct `Need`, a column a node. When a node's free resources change, its column is looked up among those
seen for the same kind of node with the same resources free, or computed for all needs in one vectorised comparison; the
shapes whose rows changed are judged again. So asking "does anything that waits fit anywhere?" costs nothing, however
long the queue is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tandem.share.model import RESOURCES, Need, Node, Part

if TYPE_CHECKING:
    from tandem.share.state.ledger import Ledger

SEEN = 4096
"""Columns remembered at most."""

IDLE = 16
"""Needs at most that keep their row though nothing asks for them: the next job often asks for what the last one did."""


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

    __slots__ = ("cpu_milli", "gpu_milli", "parts", "rows")

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts
        self.cpu_milli = sum(part.nodes * part.need.cpu_milli for part in parts)
        self.gpu_milli = sum(part.nodes * (1000 * part.need.gpus + part.need.gpu_milli) for part in parts)
        self.rows: tuple[int, ...] = ()  # its rows in the demand index, while anything of this shape waits


class DemandIndex:
    """Rows of needs against the nodes of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._touched = ledger.watch()
        self._layout = -1
        self._kinds: list[Node] = []  # one of each kind of node
        self._kind: list[int] = []  # the kind of every node
        self._row: dict[Need, int] = {}
        self._shapes: list[list[Shape]] = []  # by row, those with a part of that need; twice if two parts have it
        self._idle: dict[Need, None] = {}  # in place of a set, for its order
        self._spare: list[int] = []
        self._needs = np.zeros((0, len(RESOURCES)), dtype=np.int64)
        self._static = np.zeros((0, 0), dtype=bool)
        self._fits = np.zeros((0, 0), dtype=bool)
        self._count: list[int] = []  # nodes that fit now, by row
        self._bits: list[int | None] = []  # a node's column of the matrix as an integer; None: not packed yet
        self._seen: dict[tuple[int, tuple[int, ...]], int] = {}  # (kind of node, what is free on it) -> its column
        self._fitting: dict[Shape, None] = {}  # in place of a set, for its order
        self._listed: list[Shape] | None = None

    def add(self, shape: Shape) -> None:
        """Something of this shape waits from now on: give it rows."""
        self.sync()
        shape.rows = tuple(self._add_need(part.need, shape) for part in shape.parts)
        self._judge(shape)

    def drop(self, shape: Shape) -> None:
        """Nothing of this shape waits any more."""
        for part in shape.parts:
            self._drop_need(part.need, shape)
        shape.rows = ()
        if shape in self._fitting:
            del self._fitting[shape]
            self._listed = None

    def sync(self) -> None:
        """Bring the matrix up to the ledger."""
        if self._layout != self._ledger.layout:
            self._rebuild()
        elif self._touched:
            changed = 0
            for n in self._touched:
                changed |= self._look_at(n)
            for row in _ones(changed):
                for shape in self._shapes[row]:
                    self._judge(shape)
        else:
            return
        self._touched.clear()

    def fitting(self) -> list[Shape]:
        """Shapes that `may_fit` now."""
        self.sync()
        if self._listed is None:
            self._listed = list(self._fitting)
        return self._listed

    def may_fit(self, shape: Shape) -> bool:
        """Whether each part alone has enough nodes now (exact for a job of one part)."""
        self.sync()
        return shape in self._fitting

    def mask_now(self, row: int) -> np.ndarray:
        """Mask of the nodes that give the row's need now."""
        self.sync()
        mask: np.ndarray = self._fits[row]
        return mask

    def nodes_now(self, row: int) -> np.ndarray:
        """Numbers of the nodes that give the row's need now."""
        self.sync()
        found: np.ndarray = self._fits[row].nonzero()[0]
        return found

    def count_now(self, row: int) -> int:
        """How many nodes give the row's need now."""
        self.sync()
        return self._count[row]

    def nodes_ever(self, row: int) -> np.ndarray:
        """Mask of the nodes that would give the row's need if they were empty (up or not)."""
        self.sync()
        mask: np.ndarray = self._static[row]
        return mask

    def _look_at(self, n: int) -> int:
        """Bring the node's column up to what is free on it; returns the rows that changed, as bits."""
        free = self._ledger.rows[n]
        column = self._seen.get((self._kind[n], free))
        if column is None:
            if len(self._seen) >= SEEN:
                self._seen.clear()
            column = _packed((self._needs <= free).all(axis=1) & self._static[:, n])
            self._seen[self._kind[n], free] = column
        before = self._bits[n]
        if before is None:
            before = _packed(self._fits[:, n])
        self._bits[n] = column
        changed = column ^ before
        for row in _ones(changed):
            fits = column >> row & 1
            self._fits[row, n] = fits
            self._count[row] += 1 if fits else -1
        return changed

    def _judge(self, shape: Shape) -> None:
        """Note whether the shape may fit now."""
        fits = True
        for row, part in zip(shape.rows, shape.parts, strict=True):
            fits = fits and self._count[row] >= part.nodes
        if fits != (shape in self._fitting):
            self._listed = None
            if fits:
                self._fitting[shape] = None
            else:
                del self._fitting[shape]

    def _add_need(self, need: Need, shape: Shape) -> int:
        row = self._row.get(need)
        if row is None:
            row = self._spare.pop() if self._spare else self._grow()
            self._row[need] = row
            self._fill(need, row)
            self._forget_columns()
        self._idle.pop(need, None)
        self._shapes[row].append(shape)
        return row

    def _drop_need(self, need: Need, shape: Shape) -> None:
        row = self._row[need]
        self._shapes[row].remove(shape)
        if not self._shapes[row]:
            self._idle[need] = None
        if len(self._idle) > IDLE:
            self._clear(next(iter(self._idle)))

    def _clear(self, need: Need) -> None:
        """Take the row away from a need that nothing asks for."""
        del self._idle[need]
        row = self._row.pop(need)
        self._needs[row] = 0
        self._static[row] = False
        self._fits[row] = False
        self._count[row] = 0
        self._spare.append(row)
        self._forget_columns()

    def _forget_columns(self) -> None:
        """A row has another meaning than before."""
        self._seen.clear()
        self._bits = [None] * len(self._bits)

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
        self._needs, self._static, self._fits = needs, static, fits
        self._count += [0] * (new - row)
        self._shapes += [[] for _ in range(new - row)]
        self._spare = list(range(new - 1, row, -1))
        return row

    def _fill(self, need: Need, row: int) -> None:
        self._needs[row] = need.vector()
        self._static[row] = np.array([could_ever_fit(node, need) for node in self._kinds], dtype=bool)[self._kind]
        self._fits[row] = (self._ledger.free >= self._needs[row]).all(axis=1) & self._static[row]
        self._count[row] = int(self._fits[row].sum())

    def _rebuild(self) -> None:
        nodes = len(self._ledger.nodes)
        size = len(self._needs)
        kinds: dict[Node, int] = {}
        self._kind = [kinds.setdefault(replace(node, id="", numa=()), len(kinds)) for node in self._ledger.nodes]
        self._kinds = list(kinds)
        self._static = np.zeros((size, nodes), dtype=bool)
        self._fits = np.zeros((size, nodes), dtype=bool)
        self._bits = [None] * nodes
        self._seen.clear()
        self._layout = self._ledger.layout
        for need, row in self._row.items():
            self._fill(need, row)
        for shapes in self._shapes:
            for shape in shapes:
                self._judge(shape)


def _packed(column: np.ndarray) -> int:
    """The booleans as the bits of an integer, the first one lowest."""
    return int.from_bytes(np.packbits(column, bitorder="little").tobytes(), "little")


def _ones(bits: int) -> list[int]:
    """The places of the bits that are set."""
    places = []
    while bits:
        lowest = bits & -bits
        places.append(lowest.bit_length() - 1)
        bits ^= lowest
    return places
