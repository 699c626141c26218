"""One node's accounts in the ledger: what it has, who holds what, what is free, and what would be.

A node that is told anew, with more or less than before, is so at once, though jobs are on it: what they hold beyond it
stays with them, and is nobody's once they give it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tandem.share.model import RESOURCES, Need, Node, Share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NOTHING = -1
"""Free amount of every resource on a node that gives nothing now (down, or given out whole)."""

NOTHING_AT_ALL = (NOTHING,) * len(RESOURCES)


class OverAllocationError(AssertionError):
    """A caller tried to give out what is not there."""


@dataclass(slots=True)
class Holding:
    """What one job holds on one node; ``paused`` holdings keep memory and GPUs, and give back the rest."""

    share: Share
    paused: bool = False
    before: tuple[int, ...] = ()  # the cores that it had when it was paused


@dataclass(frozen=True, slots=True)
class Beyond:
    """What is held on a node that is told to have less."""

    amounts: tuple[int, ...]  # cpu where it is counted, mem, membw, nic
    cores: frozenset[int]
    gpus: frozenset[int]


@dataclass(slots=True)
class Books:
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
    beyond: Beyond | None = None
    holdings: dict[int, list[Holding]] = field(default_factory=dict)
    whole_by: int | None = None
    kept: tuple[int, ...] | None = None  # of what is free

    def free_row(self) -> tuple[int, ...]:
        """Free resources in the order of ``RESOURCES``."""
        if not self.up or self.whole_by is not None:
            return NOTHING_AT_ALL
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

    def cores_gone(self, job: int) -> list[int]:
        """Cores that a suspended job had, and that are nobody's now."""
        had = {core for holding in self.holdings[job] for core in holding.before}
        return sorted(had.difference(self.node.cores, self.foreign_cores))

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
        self.beyond = Beyond(tuple(over), more, gpus) if more or gpus or any(over) else None
        self.node = told if self.beyond is None else _with(told, self.beyond, self.node)
        self.capacity = self.node.capacity()
        self.gpu_place = {gpu.index: place for place, gpu in enumerate(self.node.gpus)}
        self.gpu_free = [free.get(gpu.index, 1000) for gpu in self.node.gpus]
        self.free_cores = set(told.cores) - cores - self.foreign_cores


class Forecast:
    """What a node would have free if some of its holders left. A copy: changes nothing."""

    __slots__ = ("_books", "_cpu", "_gpus", "_mem", "_membw", "_nic", "_whole_by")

    def __init__(self, books: Books, free: tuple[int, ...]) -> None:
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


def open_books(node: Node) -> Books:
    """The accounts of a node that nobody uses."""
    places = {gpu.index: place for place, gpu in enumerate(node.gpus)}
    return Books(node, node.capacity(), places, gpu_free=[1000] * len(node.gpus), free_cores=set(node.cores))


def _with(told: Node, beyond: Beyond, before: Node) -> Node:
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


def charge(books: Books, need: Need, sign: int) -> None:
    """Book what is used of cores, memory and bandwidth: ``sign`` 1 when it is taken, -1 when it is given back."""
    used = books.used
    used[0] += sign * need.cpu_milli
    used[1] += sign * need.mem_mib
    used[2] += sign * need.membw_mbs
    used[3] += sign * need.nic_mbs


def to_run(holdings: Iterable[Holding]) -> tuple[int, int, int, int]:
    """What suspended holdings need to run again: they have their memory."""
    cpu = membw = nic = 0
    for holding in holdings:
        need = holding.share.need
        cpu, membw, nic = cpu + need.cpu_milli, membw + need.membw_mbs, nic + need.nic_mbs
    return cpu, 0, membw, nic


def free_of_owner(books: Books) -> tuple[int, ...]:
    """What is free for the one job that a node is given whole to, in the order of ``RESOURCES``."""
    owner, books.whole_by = books.whole_by, None
    free = books.free_row()
    books.whole_by = owner
    return free


def pick_cores(books: Books, count: int) -> tuple[int, ...]:
    """So many free cores, of one NUMA domain if one has enough."""
    numa = books.node.numa
    if numa:
        domain = dict(zip(books.node.cores, numa, strict=True))
        by_domain: dict[int, list[int]] = {}
        for core in sorted(books.free_cores):
            by_domain.setdefault(domain.get(core, -1), []).append(core)
        enough = [cores for cores in by_domain.values() if len(cores) >= count]
        if enough:
            return tuple(min(enough, key=lambda cores: (len(cores), cores))[:count])
    return tuple(sorted(books.free_cores)[:count])


def audit_node(books: Books) -> None:
    """Recompute a node's accounts from its holdings and compare.

    Raises:
        OverAllocationError: something is given out twice, or more than there is.
    """
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
