"""The allocation ledger: who holds what on which node. It cannot over-allocate.

Every change goes through `take`, `give_back`, `pause` and `unpause`; each checks its node before it writes and
raises `OverAllocationError` otherwise, which is a defect of the caller and never a user's mistake. Free resources
are kept as one tuple a node; the integer matrix of them (node x resource), for whole columns to be compared, is brought
up to date when somebody asks for it.

A node that is told anew, with more or less than before, is so at once, though jobs are on it: what they hold beyond it
stays with them, and is nobody's once they give it back.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from tandem.share.model import RESOURCES, Need, Node, Placement, Share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NOTHING = -1
"""Free amount of every resource on a node that gives nothing now (down, or given out whole)."""

_NOTHING_AT_ALL = (NOTHING,) * len(RESOURCES)


class OverAllocationError(AssertionError):
    """A caller tried to give out what is not there."""


@dataclass(slots=True)
class Holding:
    """What one job holds on one node; ``paused`` holdings keep memory and GPUs, and give back the rest."""

    share: Share
    paused: bool = False


@dataclass(frozen=True, slots=True)
class _Beyond:
    """What is held on a node that is told to have less."""

    amounts: tuple[int, ...]  # cpu where it is counted, mem, membw, nic
    cores: frozenset[int]
    gpus: frozenset[int]


@dataclass(slots=True)
class _Books:
    """One node's accounts."""

    node: Node  # as it was told, and what is held beyond that
    capacity: tuple[int, ...]
    gpu_place: dict[int, int]  # the position of each GPU index
    up: bool = True
    used: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # cpu, mem, membw, nic
    gpu_free: list[int] = field(default_factory=list)
    free_cores: set[int] = field(default_factory=set)
    foreign_cores: frozenset[int] = frozenset()
    foreign_gpus: frozenset[int] = frozenset()
    beyond: _Beyond | None = None
    holdings: dict[int, list[Holding]] = field(default_factory=dict)
    whole_by: int | None = None
    kept: tuple[int, ...] | None = None  # of what is free

    def free_row(self) -> tuple[int, ...]:
        """Free resources in the order of ``RESOURCES``."""
        if not self.up or self.whole_by is not None:
            return _NOTHING_AT_ALL
        node, used = self.node, self.used
        cpu = 1000 * len(self.free_cores) if node.cores else node.cpu_milli - used[0]
        capacity = self.capacity
        free_gpus = self.gpu_free
        if not free_gpus:
            return (cpu, node.mem_mib - used[1], capacity[2] - used[2], capacity[3] - used[3], 0, 0)
        if self.foreign_gpus or self.beyond:
            free_gpus = [free_gpus[place] for place in self.usable_gpus()]
        return (
            cpu,
            node.mem_mib - used[1],
            capacity[2] - used[2],
            capacity[3] - used[3],
            free_gpus.count(1000),
            max(free_gpus, default=0),
        )

    def usable_gpus(self) -> Sequence[int]:
        """The positions of the GPUs that nobody else uses, and that are the node's."""
        barred = self.foreign_gpus if self.beyond is None else self.foreign_gpus | self.beyond.gpus
        if not barred:
            return range(len(self.gpu_free))
        return [place for index, place in self.gpu_place.items() if index not in barred]

    def barred_cores(self) -> frozenset[int]:
        """Cores that nobody gets when those who hold them leave."""
        return self.foreign_cores if self.beyond is None else self.foreign_cores | self.beyond.cores

    def describe(self, told: Node) -> None:
        """The node is as told from now on, but for what is held beyond that."""
        held = [holding.share for holdings in self.holdings.values() for holding in holdings]
        if held and bool(told.cores) != bool(self.node.cores):
            return  # counted before and pinned now, or the other way round: there is no account of both
        cores = {core for share in held for core in share.cores}
        gpus = frozenset(index for share in held for index in share.gpus).difference(gpu.index for gpu in told.gpus)
        more = frozenset(cores.difference(told.cores))
        over = [max(0, used - has) for used, has in zip(self.used, told.capacity(), strict=False)]
        over[0] = 0 if told.cores else over[0]
        free = {gpu.index: self.gpu_free[self.gpu_place[gpu.index]] for gpu in self.node.gpus}
        self.beyond = _Beyond(tuple(over), more, gpus) if more or gpus or any(over) else None
        self.node = told if self.beyond is None else _with(told, self.beyond, self.node)
        self.capacity = self.node.capacity()
        self.gpu_place = {gpu.index: place for place, gpu in enumerate(self.node.gpus)}
        self.gpu_free = [free.get(gpu.index, 1000) for gpu in self.node.gpus]
        self.free_cores = set(told.cores) - cores - self.foreign_cores


class Forecast:
    """What a node would have free if some of its holders left. A copy: changes nothing."""

    __slots__ = ("_books", "_cpu", "_gpus", "_mem", "_membw", "_nic", "_whole_by")

    def __init__(self, books: _Books, free: tuple[int, ...]) -> None:
        self._books = books
        self._whole_by = books.whole_by
        self._cpu, self._mem, self._membw, self._nic, _, _ = free
        self._gpus = books.gpu_free.copy()
        if books.beyond is not None:  # who leaves gives back so much less
            cpu, mem, membw, nic = books.beyond.amounts
            self._cpu, self._mem = self._cpu - cpu, self._mem - mem
            self._membw, self._nic = self._membw - membw, self._nic - nic

    @property
    def cpu_milli(self) -> int:
        """Free CPU."""
        return self._cpu

    def row(self) -> tuple[int, int, int, int]:
        """What is free, without GPUs, in the order of ``RESOURCES``."""
        return (self._cpu, self._mem, self._membw, self._nic)

    def leave(self, job: int, holdings: list[Holding]) -> None:
        """``job`` goes with all it holds here."""
        for holding in holdings:
            need = holding.share.need
            self._mem += need.mem_mib
            if not holding.paused:
                self._run_off(holding.share)
            for index in holding.share.gpus:
                self._gpus[self._books.gpu_place[index]] += need.gpu_milli or 1000
        if self._whole_by == job:
            self._whole_by = None

    def pause(self, holdings: list[Holding]) -> None:
        """A job here is suspended: cores and bandwidth come free, memory and GPUs do not."""
        for holding in holdings:
            if not holding.paused:
                self._run_off(holding.share)

    def take(self, need: Need) -> None:
        """Somebody gets ``need``, which `fits`; a fraction comes from the fullest GPU with room, as in `take`."""
        self._cpu -= need.cpu_milli
        self._mem -= need.mem_mib
        self._membw -= need.membw_mbs
        self._nic -= need.nic_mbs
        for _ in range(need.gpus):
            self._gpus[next(place for place in self._books.usable_gpus() if self._gpus[place] == 1000)] = 0
        if need.gpu_milli:
            room = [place for place in self._books.usable_gpus() if self._gpus[place] >= need.gpu_milli]
            self._gpus[min(room, key=self._gpus.__getitem__)] -= need.gpu_milli

    def _run_off(self, share: Share) -> None:
        need, barred = share.need, self._books.barred_cores()
        self._cpu += need.cpu_milli if not barred else need.cpu_milli - 1000 * len(barred.intersection(share.cores))
        self._membw += need.membw_mbs
        self._nic += need.nic_mbs

    def fits(self, vector: tuple[int, ...]) -> bool:
        """Whether a need with this resource vector would fit."""
        if self._whole_by is not None:
            return False
        cpu, mem, membw, nic, gpus, gpu_milli = vector
        if cpu > self._cpu or mem > self._mem or membw > self._membw or nic > self._nic:
            return False
        if not gpus and not gpu_milli:
            return True
        free = self._gpus
        if self._books.foreign_gpus or self._books.beyond:
            free = [free[place] for place in self._books.usable_gpus()]
        return free.count(1000) >= gpus and max(free, default=0) >= gpu_milli


class Ledger:
    """All nodes' accounts, addressed by node number (position in order of first appearance)."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.number: dict[str, int] = {}
        self._books: list[_Books] = []
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
        """A node is there: new, or back, or told anew. Returns its number."""
        known = self.number.get(node.id)
        if known is not None:
            books = self._books[known]
            self.nodes[known] = node
            if books.holdings:
                books.up = True
                books.describe(node)
            else:
                self._books[known] = _open_books(node)
            self.layout += 1
            self.standing += 1
            self._refresh(known)
            return known
        n = len(self.nodes)
        self.nodes.append(node)
        self.number[node.id] = n
        self._books.append(_open_books(node))
        self.rows.append(_NOTHING_AT_ALL)
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
        """Cores and GPUs that somebody else uses, as last told."""
        return self._books[n].foreign_cores, self._books[n].foreign_gpus

    def holders(self, n: int) -> dict[int, list[Holding]]:
        """Job id -> its holdings on the node (live view; do not change it)."""
        return self._books[n].holdings

    def forecast(self, n: int) -> Forecast:
        """A copy of the node's accounts in which holders can leave, for looking ahead."""
        books = self._books[n]
        return Forecast(books, self.rows[n] if books.whole_by is None else _free_of_owner(books))

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
        _charge(books, need, 1)
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
                _charge(books, need, -1)
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
        _charge(books, share.need, -1)
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
            _charge(books, need, -1)
            books.used[1] += need.mem_mib
            books.free_cores.update(c for c in holding.share.cores if c not in books.foreign_cores)
            holding.share = replace(holding.share, cores=())
            holding.paused = True
        self._gave_back(n)

    def can_unpause(self, job: int, n: int) -> bool:
        """Whether the cores and bandwidth of a suspended job are free on its node."""
        books = self._books[n]
        if not books.up or books.whole_by not in (None, job):
            return False
        free = self.rows[n] if books.whole_by is None else _free_of_owner(books)
        wanted = [0, 0, 0, 0]
        for holding in books.holdings.get(job, []):
            if not holding.paused:
                return False
            for i, v in enumerate(holding.share.need.vector()[:4]):
                wanted[i] += v if i != 1 else 0
        return all(w <= f for w, f in zip(wanted, free, strict=False))

    def unpause(self, job: int, n: int) -> tuple[Share, ...]:
        """The job gets cores and bandwidth again, perhaps other cores than before."""
        if not self.can_unpause(job, n):
            msg = f"job {job} cannot be resumed on {self.nodes[n].id}"
            raise OverAllocationError(msg)
        books = self._books[n]
        for holding in books.holdings[job]:
            need = holding.share.need
            _charge(books, need, 1)
            books.used[1] -= need.mem_mib
            holding.share = replace(holding.share, cores=self._take_cores(books, need, books.node.id))
            holding.paused = False
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
            cores = () if paused else share.cores
            if not set(cores) <= books.free_cores | books.foreign_cores:
                msg = f"cores {cores} of {share.node} are held twice"
                raise OverAllocationError(msg)
            share = replace(share, cores=cores)
            books.holdings.setdefault(job, []).append(Holding(share, paused))
            books.free_cores.difference_update(share.cores)
            if paused:
                books.used[1] += share.need.mem_mib
            else:
                _charge(books, share.need, 1)
            for index in share.gpus:
                books.gpu_free[books.gpu_place[index]] -= share.need.gpu_milli or 1000
            if placement.whole:
                books.whole_by = job
            self._refresh(n)

    # ----------------------------------------------------------------------------------- details

    @staticmethod
    def _take_cores(books: _Books, need: Need, node: str) -> tuple[int, ...]:
        """The lowest free cores, all of one NUMA domain if one has enough."""
        if not books.node.cores or need.cpu_milli == 0:
            return ()
        count = need.cpu_milli // 1000
        if len(books.free_cores) < count:
            msg = f"{count} cores wanted on {node}, free: {sorted(books.free_cores)}"
            raise OverAllocationError(msg)
        chosen = _pick_cores(books, count)
        books.free_cores.difference_update(chosen)
        return chosen

    @staticmethod
    def _take_gpus(books: _Books, need: Need) -> tuple[int, ...]:
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
    def _give_gpus(books: _Books, share: Share) -> None:
        for index in share.gpus:
            books.gpu_free[books.gpu_place[index]] += share.need.gpu_milli or 1000

    def _gave_back(self, n: int) -> None:
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
            _audit_node(books)


def _open_books(node: Node) -> _Books:
    places = {gpu.index: place for place, gpu in enumerate(node.gpus)}
    return _Books(node, node.capacity(), places, gpu_free=[1000] * len(node.gpus), free_cores=set(node.cores))


def _with(told: Node, beyond: _Beyond, before: Node) -> Node:
    """The node as told, and what is held beyond that as it was ``before``."""
    cpu, mem, membw, nic = beyond.amounts
    cores = tuple(sorted(beyond.cores))
    domains = dict(zip(before.cores, before.numa, strict=False))
    return replace(
        told,
        cpu_milli=told.cpu_milli + cpu + 1000 * len(cores),
        mem_mib=told.mem_mib + mem,
        membw_mbs=None if told.membw_mbs is None else told.membw_mbs + membw,
        nic_mbs=None if told.nic_mbs is None else told.nic_mbs + nic,
        cores=told.cores + cores,
        numa=told.numa and told.numa + tuple(domains.get(core, 0) for core in cores),
        gpus=told.gpus + tuple(gpu for gpu in before.gpus if gpu.index in beyond.gpus),
    )


def _charge(books: _Books, need: Need, sign: int) -> None:
    used = books.used
    used[0] += sign * need.cpu_milli
    used[1] += sign * need.mem_mib
    used[2] += sign * need.membw_mbs
    used[3] += sign * need.nic_mbs


def _free_of_owner(books: _Books) -> tuple[int, ...]:
    owner, books.whole_by = books.whole_by, None
    free = books.free_row()
    books.whole_by = owner
    return free


def _pick_cores(books: _Books, count: int) -> tuple[int, ...]:
    numa = books.node.numa
    if numa:
        domain = dict(zip(books.node.cores, numa, strict=True))
        by_domain: dict[int, list[int]] = {}
        for core in sorted(books.free_cores):
            by_domain.setdefault(domain[core], []).append(core)
        enough = [cores for cores in by_domain.values() if len(cores) >= count]
        if enough:
            return tuple(min(enough, key=lambda cores: (len(cores), cores))[:count])
    return tuple(sorted(books.free_cores)[:count])


def _audit_node(books: _Books) -> None:
    node = books.node
    used = [0, 0, 0, 0]
    gpu_used = [0] * len(node.gpus)
    cores: list[int] = []
    for holding in (h for hs in books.holdings.values() for h in hs):
        vector = holding.share.need.vector()
        for i in range(4):
            used[i] += vector[i] if not holding.paused or i == 1 else 0
        cores += holding.share.cores
        for i, gpu in enumerate(node.gpus):
            if gpu.index in holding.share.gpus:
                gpu_used[i] += holding.share.need.gpu_milli or 1000
    over = [u > c for u, c in zip(used, node.capacity(), strict=False)]
    if any(over) or used != books.used or len(cores) != len(set(cores)) or any(u > 1000 for u in gpu_used):
        msg = f"{node.id}: used {used} (booked {books.used}), cores {cores}, GPUs {gpu_used}"
        raise OverAllocationError(msg)
    if [1000 - u for u in gpu_used] != books.gpu_free or books.free_cores & set(cores):
        msg = f"{node.id}: GPU books {books.gpu_free} against {gpu_used}, cores {cores}"
        raise OverAllocationError(msg)
    if books.whole_by is not None and set(books.holdings) != {books.whole_by}:
        msg = f"{node.id} is given whole to {books.whole_by}, and held by {set(books.holdings)}"
        raise OverAllocationError(msg)
