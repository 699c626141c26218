"""What a policy sees, and how it tries things out.

Placing is live: `View.place` deducts at once, so a policy that asks next whether another job fits gets the true
answer, and it cannot give anything out twice. Each placement must end up in a decision; the state machine checks.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from tandem.estimate.corun import App, Capacity, Estimator
from tandem.share.model import ON_NODE, Need, Placement, Share, State

if TYPE_CHECKING:
    from tandem.share.demand_index import DemandIndex, Shape
    from tandem.share.history import History
    from tandem.share.ledger import Ledger
    from tandem.share.life import Life
    from tandem.share.pending import Key, Pending

Accept = Callable[[int, Need], bool]
"""Asked for (node number, need) after the need was deducted there; False undoes it."""

Order = Callable[[np.ndarray, Need], list[int]]
"""Puts candidate nodes in the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """``job`` can start at ``at`` on the nodes with these numbers, if nothing takes what frees up there."""

    job: int
    vectors: tuple[tuple[int, ...], ...]  # what it needs of each of ``nodes``, in the same order
    nodes: tuple[int, ...]
    at: float


class View:
    """The cluster and its queue at one instant."""

    def __init__(
        self,
        ledger: Ledger,
        index: DemandIndex,
        pending: Pending,
        jobs: Mapping[int, Life],
        on_nodes: Mapping[int, Life],
        estimator: Estimator,
        history: History,
        options: Mapping[str, float],
    ) -> None:
        self.ledger = ledger
        self.index = index
        self.pending = pending
        self.jobs = jobs
        self.on_nodes = on_nodes
        """Jobs that hold something, in order of their start."""
        self.estimator = estimator
        self.history = history
        self.options = options
        self.now = 0.0
        self.stamp = 0
        """Changes whenever anything but the end of the queue does."""
        self.harvesting = 0
        """Harvest jobs on nodes."""
        self.has_gpus = False
        self.contended = False
        """Whether anything is known by which neighbours could slow each other down."""
        self._forecasts: dict[tuple[tuple[int, ...], Need], _Earliest] = {}

    # ------------------------------------------------------------------------------------- queue

    def head(self) -> Life | None:
        """The first waiting job."""
        key = self.pending.head()
        return None if key is None else self.jobs[key[2]]

    def first_of_shapes(self, keys: list[Key], most: int) -> list[Life]:
        """The first ``most`` jobs in order among the shapes whose first jobs are ``keys``."""
        queues = [self.pending.shape(self.jobs[key[2]].shape) for key in keys[:most]]
        merged = heapq.merge(*(itertools.islice(queue, most) for queue in queues))
        return [self.jobs[key[2]] for key in itertools.islice(merged, most)]

    def startable(self, fits: Callable[[Shape], bool] | None = None) -> Iterator[Life]:
        """Waiting jobs whose need fits now, in order; looked at afresh after each, so place them or lose them.

        A shape whose job was offered and not placed is not offered again in this pass.
        """
        barred: set[Shape] = set()
        while True:
            best = None
            for shape in self.pending.fitting():
                if shape not in barred and (fits is None or fits(shape)):
                    key = self.pending.shape(shape).first()
                    if key is not None and (best is None or key < best):
                        best = key
            if best is None:
                return
            life = self.jobs[best[2]]
            yield life
            if best[2] in self.pending:
                barred.add(life.shape)

    # ------------------------------------------------------------------------------------- nodes

    def neighbours(self, n: int, but: int | None = None) -> list[Life]:
        """Jobs that run (not suspended) on node ``n``."""
        return [
            self.jobs[job] for job, holdings in self.ledger.holders(n).items() if job != but and not holdings[0].paused
        ]

    def capacity(self, n: int) -> Capacity:
        """The node as estimators see it."""
        node = self.ledger.nodes[n]
        return Capacity(node.cpu_milli, node.membw_mbs, node.nic_mbs)

    def app(self, life: Life) -> App:
        """The job as estimators see it (the need of its first part)."""
        need = life.job.parts[0].need
        return App(life.job.app, need.cpu_milli, need.membw_mbs, need.nic_mbs)

    # ----------------------------------------------------------------------------------- placing

    def place(self, life: Life, order: Order, accept: Accept | None = None) -> Placement | None:
        """Take what ``life`` needs now, all of it or nothing.

        Args:
            order: the policy's preference among the nodes that fit.
            accept: may refuse a node for reasons beyond counting (a reservation, a neighbour's bound).
        """
        shares: list[Share] = []
        taken: list[int] = []
        life.planned_end = self.now + life.plan_s
        for part, row in zip(life.shape.parts, life.shape.rows, strict=True):
            wanted = part.nodes
            for n in order(self.index.nodes_now(row), part.need):
                share = self.ledger.take(life.id, n, part.need)
                if accept is not None and not accept(n, part.need):
                    self.ledger.drop_last(life.id, n)
                    continue
                shares.append(share)
                taken.append(n)
                wanted -= 1
                if not wanted:
                    break
            if wanted:
                self._lose(life, taken)
                return None
        return self._placed(life, Placement(tuple(shares)), taken)

    def place_whole(self, life: Life) -> Placement | None:
        """Take whole empty nodes for ``life``, pinned to the cores it asked for."""
        shares: list[Share] = []
        taken: list[int] = []
        for part, row in zip(life.shape.parts, life.shape.rows, strict=True):
            empty = [int(n) for n in self.index.nodes_now(row) if self.ledger.is_empty(int(n))][: part.nodes]
            shares += [self.ledger.take(life.id, n, part.need, whole=True) for n in empty]
            taken += empty
            if len(empty) < part.nodes:
                self._lose(life, taken)
                return None
        return self._placed(life, Placement(tuple(shares), whole=True), taken)

    def place_resumed(self, life: Life) -> Placement | None:
        """Give a suspended job its cores again on its nodes, if all of them have them."""
        if life.placement is None or not all(self.ledger.can_unpause(life.id, n) for n in life.numbers):
            return None
        by_node = {self.ledger.nodes[n].id: list(self.ledger.unpause(life.id, n)) for n in life.numbers}
        shares = tuple(by_node[share.node].pop(0) for share in life.placement.shares)
        return Placement(shares, life.placement.whole)

    def _lose(self, life: Life, taken: list[int]) -> None:
        """Give back what a gang took before it turned out that not all of it fits."""
        life.planned_end = math.inf
        for n in dict.fromkeys(taken):
            self.ledger.give_back(life.id, n)

    def _placed(self, life: Life, placement: Placement, taken: list[int]) -> Placement:
        life.numbers = tuple(dict.fromkeys(taken))
        life.placement = placement
        life.planned_end = self.now + life.plan_s
        self.pending.remove(life.id)
        return placement

    # ------------------------------------------------------------------------------- looking ahead

    def earliest(self, life: Life) -> Reservation | None:
        """When and where ``life`` can start if only the running jobs' planned ends free anything.

        None if no set of nodes that are up can ever hold it so.
        """
        nodes: list[int] = []
        vectors: list[tuple[int, ...]] = []
        at = self.now
        for part, row in zip(life.shape.parts, life.shape.rows, strict=True):
            times = self._earliest(row, part.need, life.shape)
            if nodes:
                free = [n for n in np.argsort(times, kind="stable").tolist() if n not in nodes]
            else:
                free = [int(times.argmin())] if part.nodes == 1 else np.argsort(times, kind="stable").tolist()
            chosen = free[: part.nodes]
            if len(chosen) < part.nodes or math.isinf(times[chosen[-1]]):
                return None
            at = max(at, float(times[chosen[-1]]))
            nodes += chosen
            vectors += [part.need.vector()] * part.nodes
        return Reservation(life.id, tuple(vectors), tuple(nodes), at)

    def keeps(self, reservation: Reservation, n: int) -> bool:
        """Whether the reservation still holds on node ``n`` with everything that is taken there now."""
        if n not in reservation.nodes:
            return True
        forecast = self.ledger.forecast(n)
        for job, holdings in self.ledger.holders(n).items():
            if self.jobs[job].planned_end <= reservation.at:
                forecast.leave(job, holdings)
        return forecast.fits(reservation.vectors[reservation.nodes.index(n)])

    def _earliest(self, row: int, need: Need, shape: Shape) -> np.ndarray:
        cache = self._forecasts.get((shape.rows, need))
        if cache is None or cache.layout != self.ledger.layout:
            if len(self._forecasts) >= 4:
                _, old = self._forecasts.popitem()
                self.ledger.unwatch(old.touched)
            cache = _Earliest(self.ledger.watch(), self.ledger.layout, np.full(len(self.ledger.nodes), math.inf))
            self._forecasts[(shape.rows, need)] = cache
        if cache.touched:
            ever = self.index.nodes_ever(row)
            for n in cache.touched:
                cache.times[n] = self._when(n, need.vector()) if ever[n] else math.inf
            cache.touched.clear()
        return cache.times

    def _when(self, n: int, vector: tuple[int, ...]) -> float:
        """When node ``n`` fits ``vector``, from the planned ends of its holders; 0 if it does now."""
        if not self.ledger.is_up(n):
            return math.inf
        forecast = self.ledger.forecast(n)
        if forecast.fits(vector):
            return 0.0
        holders = self.ledger.holders(n)
        for end, job in sorted((self.jobs[job].planned_end, job) for job in holders):
            forecast.leave(job, holders[job])
            if forecast.fits(vector):
                return end
        return math.inf


@dataclass(slots=True)
class _Earliest:
    """Cached answers of `View._when` for one need: recomputed for nodes that changed only."""

    touched: set[int]
    layout: int
    times: np.ndarray


def runs(life: Life) -> bool:
    """Whether the job is on its nodes and goes (or is about to)."""
    return life.state in ON_NODE and life.state not in (State.SUSPENDED, State.STOPPING)


# Preferences among nodes -------------------------------------------------------------------------


def first_fit(nodes: np.ndarray, need: Need) -> list[int]:
    """Nodes in their own order."""
    del need
    return cast("list[int]", nodes.tolist())


def best_fit(ledger: Ledger) -> Order:
    """The fullest node first: fewest free GPUs, then the smallest free fraction, then fewest free cores."""
    free = ledger.free

    def order(nodes: np.ndarray, need: Need) -> list[int]:
        del need
        if len(nodes) < 2:
            return cast("list[int]", nodes.tolist())
        score = free[nodes, 4] * 10**14 + free[nodes, 5] * 10**10 + np.minimum(free[nodes, 0], 10**10 - 1)
        return cast("list[int]", nodes[score.argsort(kind="stable")].tolist())

    return order


def node_names(view: View, numbers: tuple[int, ...]) -> tuple[str, ...]:
    """The ids of nodes by number."""
    return tuple(view.ledger.nodes[n].id for n in numbers)
