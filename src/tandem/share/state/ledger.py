"""The allocation ledger: who holds what on which node. It cannot over-allocate.

Every change goes through `take`, `give_back`, `pause` and `unpause`; each checks its node before it writes and
raises `OverAllocationError` otherwise, which is a defect of the caller and never a user's mistake. Free resources
are kept as one tuple a node; the integer matrix of them (node x resource), for whole columns to be compared, is brought
up to date when somebody asks for it.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tandem.share.model import RESOURCES, Need, Node, Placement, Share
from tandem.share.state.accounts import (
    NOTHING_AT_ALL,
    Books,
    Forecast,
    Holding,
    OverAllocationError,
    audit_node,
    charge,
    free_of_owner,
    open_books,
    pick_cores,
    to_run,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


class Ledger:
    """All nodes' accounts, addressed by node number (position in order of first appearance)."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.number: dict[str, int] = {}
        self._books: list[Books] = []
        self.rows: list[tuple[int, ...]] = []
        """What is free on each node, in the order of ``RESOURCES``."""
        self.emptiness: np.ndarray = np.zeros(0, dtype=np.int64)
        """By node, larger where more is free: GPUs first, then the largest free fraction of one, then cores."""
        self._free = np.zeros((0, len(RESOURCES)), dtype=np.int64)
        self._stale: set[int] = set()  # rows of that matrix
        self._of_free: list[set[int]] = []
        self._of_ends: list[set[int]] = []
        self._keeping: list[int] = []  # nodes on which something is kept free
        self.layout = 0  # grows when a node appears or changes its description
        self.standing = 0  # grows when a node appears, changes its description, or goes

    # ------------------------------------------------------------------------------------ nodes

    def join(self, node: Node) -> int:
        """A node is there: new, or back, or told anew; who else uses it is told after that. Returns its number."""
        known = self.number.get(node.id)
        if known is not None:
            books = self._books[known]
            self.nodes[known] = node
            if books.holdings:
                books.up = True
                books.describe(node)
                self.foreign(known, frozenset(), frozenset())
            else:
                self._books[known] = open_books(node)
            self.layout += 1
            self.standing += 1
            self._refresh(known)
            return known
        n = len(self.nodes)
        self.nodes.append(node)
        self.number[node.id] = n
        self._books.append(open_books(node))
        self.rows.append(NOTHING_AT_ALL)
        self.emptiness = np.append(self.emptiness, 0)
        self._free = np.vstack([self._free, np.zeros((1, len(RESOURCES)), dtype=np.int64)])
        self.layout += 1
        self.standing += 1
        self._refresh(n)
        return n

    def lose(self, n: int) -> None:
        """A node is gone; its holdings are forgotten by `give_back` of each job on it."""
        self._books[n].up = False
        self.standing += 1
        self._refresh(n)

    @property
    def free(self) -> np.ndarray:
        """What is free: a matrix of node x resource."""
        for n in self._stale:
            self._free[n] = self.rows[n]
        self._stale.clear()
        return self._free

    def described(self, n: int) -> Node:
        """The node as its accounts are kept: as it was told, and what is held beyond that."""
        return self._books[n].node

    def is_up(self, n: int) -> bool:
        """Whether the node is there."""
        return self._books[n].up

    def foreign(self, n: int, cores: frozenset[int], gpus: frozenset[int]) -> None:
        """Cores and GPUs that somebody else uses now; those held by our own jobs stay theirs until given back."""
        books = self._books[n]
        held = {c for hs in books.holdings.values() for h in hs if not h.paused for c in h.share.cores}
        books.foreign_cores, books.foreign_gpus = cores, gpus
        books.free_cores = set(books.node.cores) - held - cores
        self._refresh(n)

    def foreign_use(self, n: int) -> tuple[frozenset[int], frozenset[int]]:
        """Cores and GPUs of the node that somebody else uses, as last told."""
        node, (cores, gpus) = self.nodes[n], self.foreign_seen(n)
        return cores.intersection(node.cores), gpus.intersection(gpu.index for gpu in node.gpus)

    def foreign_seen(self, n: int) -> tuple[frozenset[int], frozenset[int]]:
        """The same with those that suspended jobs wait for and that are not the node's any more."""
        return self._books[n].foreign_cores, self._books[n].foreign_gpus

    def holders(self, n: int) -> dict[int, list[Holding]]:
        """Job id -> its holdings on the node (live view; do not change it)."""
        return self._books[n].holdings

    def forecast(self, n: int) -> Forecast:
        """A copy of the node's accounts in which holders can leave, for looking ahead."""
        books = self._books[n]
        return Forecast(books, self.rows[n] if books.whole_by is None else free_of_owner(books))

    def is_empty(self, n: int) -> bool:
        """Whether the node is up and nobody, foreign use included, holds anything on it."""
        books = self._books[n]
        return books.up and not books.holdings and not books.foreign_cores and not books.foreign_gpus

    # -------------------------------------------------------------------------------- allocation

    def take(self, job: int, n: int, need: Need) -> Share:
        """Give ``need`` on node ``n`` to ``job``.

        Raises:
            OverAllocationError: the node does not have it.
        """
        books = self._books[n]
        if not all(map(operator.ge, self.rows[n], need.vector())):
            msg = f"job {job} needs {need} on {books.node.id}, which has {self.rows[n]} free"
            raise OverAllocationError(msg)
        share = Share(books.node.id, need, self._take_cores(books, need, books.node.id), self._take_gpus(books, need))
        charge(books, need, 1)
        books.holdings.setdefault(job, []).append(Holding(share))
        self._refresh(n)
        return share

    def seal(self, job: int, n: int) -> None:
        """From now on nobody else gets anything on node ``n``.

        Raises:
            OverAllocationError: somebody else has something there.
        """
        books = self._books[n]
        if books.holdings.keys() != {job} or books.foreign_cores or books.foreign_gpus:
            msg = f"job {job} wants {books.node.id} whole, which others use"
            raise OverAllocationError(msg)
        books.whole_by = job
        self._refresh(n)

    def give_back(self, job: int, n: int) -> None:
        """The job leaves the node."""
        books = self._books[n]
        for holding in books.holdings.pop(job):
            share, need = holding.share, holding.share.need
            if holding.paused:
                books.used[1] -= need.mem_mib
            else:
                charge(books, need, -1)
                books.free_cores.update(c for c in share.cores if c not in books.foreign_cores)
            self._give_gpus(books, share)
        if books.whole_by == job:
            books.whole_by = None
        self._gave_back(n)

    def drop_last(self, job: int, n: int) -> None:
        """Undo the job's last `take` on the node."""
        books = self._books[n]
        holdings = books.holdings[job]
        share = holdings.pop().share
        if not holdings:
            del books.holdings[job]
        charge(books, share.need, -1)
        books.free_cores.update(c for c in share.cores if c not in books.foreign_cores)
        self._give_gpus(books, share)
        self._gave_back(n)

    def pause(self, job: int, n: int) -> None:
        """The job is suspended: it keeps memory and GPUs, and gives back cores and bandwidth."""
        books = self._books[n]
        for holding in books.holdings[job]:
            if holding.paused:
                msg = f"job {job} is suspended on {books.node.id} already"
                raise OverAllocationError(msg)
            need = holding.share.need
            charge(books, need, -1)
            books.used[1] += need.mem_mib
            books.free_cores.update(c for c in holding.share.cores if c not in books.foreign_cores)
            holding.before, holding.share = holding.share.cores, replace(holding.share, cores=())
            holding.paused = True
        self._gave_back(n)

    def can_unpause(self, job: int, n: int) -> bool:
        """Whether the cores and bandwidth of a suspended job are free on its node."""
        books = self._books[n]
        if not books.up or books.whole_by not in (None, job):
            return False
        free = self.rows[n] if books.whole_by is None else free_of_owner(books)
        holdings = books.holdings.get(job, [])
        wanted = to_run(holdings)
        if not all(holding.paused for holding in holdings):
            return False
        if all(map(operator.le, wanted, free)):
            return True
        return all(map(operator.le, map(operator.sub, wanted, self.claim(job, n)), free))

    def claim(self, job: int, n: int) -> tuple[int, int, int, int]:
        """What a suspended job gets again to go on, which it had, beyond all that its node is told to have now.

        In the order of ``RESOURCES``; nothing where the node could give it all.
        """
        books, has = self._books[n], self.nodes[n].capacity()
        wanted = to_run(books.holdings.get(job, ()))
        cpu, mem, membw, nic = (max(0, amount - most) for amount, most in zip(wanted, has, strict=False))
        if cpu and books.node.cores:
            cpu = min(cpu, 1000 * len(books.cores_gone(job)))
        return cpu, mem, membw, nic

    def unpause(self, job: int, n: int) -> tuple[Share, ...]:
        """The job gets cores and bandwidth again, perhaps other cores than before."""
        if not self.can_unpause(job, n):
            msg = f"job {job} cannot be resumed on {self.nodes[n].id}"
            raise OverAllocationError(msg)
        books = self._books[n]
        claim = self.claim(job, n)
        if claim[0] and books.node.cores:
            books.free_cores.update(books.cores_gone(job)[: claim[0] // 1000])
        for holding in books.holdings[job]:
            need = holding.share.need
            charge(books, need, 1)
            books.used[1] -= need.mem_mib
            holding.share = replace(holding.share, cores=self._take_cores(books, need, books.node.id))
            holding.paused = False
        if any(claim):
            books.describe(self.nodes[n])
        self._refresh(n)
        return tuple(h.share for h in books.holdings[job])

    def keep_free(self, n: int, need: Need, leaving: Iterable[int]) -> None:
        """Give nobody what a node would lack of ``need`` once the jobs ``leaving`` are gone, though it is free now."""
        books = self._books[n]
        forecast = self.forecast(n)
        before = [max(0, free) for free in forecast.row()]
        for job in leaving:
            forecast.leave(job, books.holdings[job])
        comes = (*map(operator.sub, [max(0, free) for free in forecast.row()], before), 0, 0)
        books.kept = tuple(max(0, wanted - more) for wanted, more in zip(need.vector(), comes, strict=True))
        self._keeping.append(n)
        self._refresh(n)

    def keep_nothing_free(self) -> None:
        """What `keep_free` kept can be given out again."""
        for n in self._keeping:
            self._books[n].kept = None
            self._refresh(n)
        self._keeping.clear()

    def restore(self, job: int, placement: Placement, *, paused: bool) -> None:
        """Put a placement back as it was (a snapshot is being loaded)."""
        for share in placement.shares:
            n = self.number[share.node]
            books = self._books[n]
            had = share.cores
            cores = () if paused else had
            if not set(cores) <= books.free_cores | books.foreign_cores:
                msg = f"cores {cores} of {share.node} are held twice"
                raise OverAllocationError(msg)
            share = replace(share, cores=cores)
            books.holdings.setdefault(job, []).append(Holding(share, paused, had if paused else ()))
            books.free_cores.difference_update(share.cores)
            if paused:
                books.used[1] += share.need.mem_mib
            else:
                charge(books, share.need, 1)
            for index in share.gpus:
                books.gpu_free[books.gpu_place[index]] -= share.need.gpu_milli or 1000
            if placement.whole:
                books.whole_by = job
            self._refresh(n)

    # ----------------------------------------------------------------------------------- details

    @staticmethod
    def _take_cores(books: Books, need: Need, node: str) -> tuple[int, ...]:
        """The lowest free cores, all of one NUMA domain if one has enough."""
        if not books.node.cores or need.cpu_milli == 0:
            return ()
        count = need.cpu_milli // 1000
        if len(books.free_cores) < count:
            msg = f"{count} cores wanted on {node}, free: {sorted(books.free_cores)}"
            raise OverAllocationError(msg)
        chosen = pick_cores(books, count)
        books.free_cores.difference_update(chosen)
        return chosen

    @staticmethod
    def _take_gpus(books: Books, need: Need) -> tuple[int, ...]:
        """Whole GPUs: the lowest free ones. A fraction: the fullest GPU that still has room."""
        if need.gpus:
            chosen = [i for i in books.usable_gpus() if books.gpu_free[i] == 1000][: need.gpus]
            for i in chosen:
                books.gpu_free[i] = 0
            return tuple(books.node.gpus[i].index for i in chosen)
        if need.gpu_milli:
            room = (i for i in books.usable_gpus() if books.gpu_free[i] >= need.gpu_milli)
            best = min(room, key=lambda i: (books.gpu_free[i], i))
            books.gpu_free[best] -= need.gpu_milli
            return (books.node.gpus[best].index,)
        return ()

    @staticmethod
    def _give_gpus(books: Books, share: Share) -> None:
        for index in share.gpus:
            books.gpu_free[books.gpu_place[index]] += share.need.gpu_milli or 1000

    def _gave_back(self, n: int) -> None:
        """Somebody gave something back, perhaps what the node is not told to have any more."""
        books = self._books[n]
        if books.node is not self.nodes[n]:
            books.describe(self.nodes[n])
        self._refresh(n)

    def _refresh(self, n: int) -> None:
        row = self._books[n].free_row()
        kept = self._books[n].kept
        if kept is not None:
            row = tuple(max(min(0, free), free - less) for free, less in zip(row, kept, strict=True))
        self.rows[n] = row
        self.emptiness[n] = row[4] * 10**14 + row[5] * 10**10 + min(row[0], 10**10 - 1)
        self._stale.add(n)
        for touched in self._of_free:
            touched.add(n)

    def watch(self, *, ends: bool = False) -> set[int]:
        """A set to which the number of every node whose free resources change is added; the caller empties it.

        Args:
            ends: also of every node on which a job's planned end changes.
        """
        touched = set(range(len(self.nodes)))
        self._of_free.append(touched)
        if ends:
            self._of_ends.append(touched)
        return touched

    def unwatch(self, touched: set[int]) -> None:
        """The caller of `watch` looks no longer."""
        self._of_free = [w for w in self._of_free if w is not touched]
        self._of_ends = [w for w in self._of_ends if w is not touched]

    def replanned(self, n: int) -> None:
        """A job on node ``n`` is planned to end at another time."""
        for touched in self._of_ends:
            touched.add(n)

    def audit(self) -> None:
        """Recompute every account from the holdings and compare.

        Raises:
            OverAllocationError: something is given out twice, or more than there is.
        """
        for books in self._books:
            audit_node(books)
