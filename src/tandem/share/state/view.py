"""What a policy sees, and how it tries things out.

Placing is live: `View.place` deducts at once, so a policy that asks next whether another job fits gets the true
answer, and it cannot give anything out twice. Each placement must end up in a decision; the state machine checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tandem.estimate.corun import App, Capacity, Estimator
from tandem.share.model import Need, Part, Placement, Share, State
from tandem.share.state.gang import fit_on_empty, fit_together
from tandem.share.state.life import Life

if TYPE_CHECKING:
    from tandem.share.state.accounts import Forecast
    from tandem.share.state.demand_index import DemandIndex, Shape
    from tandem.share.state.history import History
    from tandem.share.state.ledger import Ledger
    from tandem.share.state.pending import Pending

Accept = Callable[[int, Need], bool]
"""Asked for (node number, need) after the need was deducted there; False undoes it."""

Order = Callable[[np.ndarray, Need], Iterable[int]]
"""Puts candidate nodes in the order in which they are tried."""


Yields = Callable[[Life], bool]
"""Whether a job would be suspended for another."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """``job`` can start at ``at`` if nothing takes what frees up until then.

    Attributes:
        needs: node number -> what the job takes there.
        yields: which jobs would be suspended for it: they hold memory and GPUs alone.
    """

    job: int
    needs: Mapping[int, tuple[Need, ...]]
    at: float
    yields: Yields | None = None

    @property
    def nodes(self) -> tuple[int, ...]:
        """The numbers of the nodes."""
        return tuple(self.needs)

    def displaces(self, life: Life) -> bool:
        """Whether ``life`` would be suspended for it."""
        return self.yields is not None and self.yields(life)


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
        self.strained: dict[int, Life] = {}
        """Primary jobs whose last measurement was beyond their bound (noise not yet considered)."""
        self.curbed: dict[int, Life] = {}
        """Jobs that are throttled, suspended, or on the way there."""
        self.leaving: dict[int, Life] = {}
        """Jobs that began to make way; ask `making_way` for those that still do."""
        self.harvesting = 0
        """Harvest jobs on nodes."""
        self.has_gpus = False
        self.contended = False
        """Whether anything is known by which neighbours could slow each other down."""
        self.placed: set[int] = set()
        """Jobs that were placed in this pass and not yet decided about."""
        self.kept: dict[type, Any] = {}
        """What those who decide keep from pass to pass, each under its own class."""
        self._told: Reservation | None = None
        self._standing = -1
        self._holds: dict[Shape, bool] = {}  # whether the nodes would hold it, as they stood then
        self._forecasts: dict[tuple[tuple[int, ...], Need, int | None], _Earliest] = {}

    # ------------------------------------------------------------------------------------- queue

    def head(self) -> Life | None:
        """The first waiting job; what the nodes that are up could never hold keeps nobody waiting."""
        key = self.pending.head()
        if key is not None and not self.could_hold(self.jobs[key[2]].shape):
            firsts = (queue.first() for shape, queue in self.pending.shapes().items() if self.could_hold(shape))
            key = min((first for first in firsts if first is not None), default=None)
        return None if key is None else self.jobs[key[2]]

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

    def making_way(self) -> list[Life]:
        """Jobs that are about to give up what they hold, or their cores."""
        over = [job for job, life in self.leaving.items() if job not in self.on_nodes or not makes_way(life)]
        for job in over:
            del self.leaving[job]
        return list(self.leaving.values())

    def capacity(self, n: int) -> Capacity:
        """The node as estimators see it."""
        node = self.ledger.nodes[n]
        return Capacity(node.cpu_milli, node.membw_mbs, node.nic_mbs)

    def app(self, life: Life, n: int | None = None) -> App:
        """The job as estimators see it on node ``n``: with what it holds there, or the need of its first part."""
        need = life.job.parts[0].need
        if len(life.job.parts) == 1 or n is None:
            return App(life.job.app, need.cpu_milli, need.membw_mbs, need.nic_mbs)
        held = [holding.share.need for holding in self.ledger.holders(n).get(life.id, ())] or [need]
        return App(
            life.job.app,
            sum(one.cpu_milli for one in held),
            sum(one.membw_mbs for one in held),
            sum(one.nic_mbs for one in held),
        )

    # ----------------------------------------------------------------------------------- placing

    def place(self, life: Life, order: Order, accept: Accept | None = None) -> Placement | None:
        """Take what ``life`` needs now, all of it or nothing.

        Args:
            order: the policy's preference among the nodes that fit.
            accept: may refuse a node for reasons beyond counting (a reservation, a neighbour's bound).
        """
        life.planned_end = self.now + life.plan_s
        shares = self._take(life, order, accept)
        if shares is None and len(life.shape.parts) > 1 and order is not first_fit:
            shares = self._take(life, first_fit, accept)
        return self._placed(life, shares)

    def place_whole(self, life: Life) -> Placement | None:
        """Take whole empty nodes for ``life``, pinned to the cores it asked for. Its parts may share a node."""

        def empty(nodes: np.ndarray, need: Need) -> list[int]:
            del need
            return [n for n in nodes.tolist() if self.ledger.is_empty(n) or life.id in self.ledger.holders(n)]

        shares = self._take(life, empty, None)
        for n in self._numbers(shares or []):
            self.ledger.seal(life.id, n)
        return self._placed(life, shares, whole=True)

    def place_again(self, life: Life, placement: Placement) -> Placement:
        """Take for ``life`` just what it was given when this was decided."""
        self.ledger.restore(life.id, placement, paused=False)
        again = self._placed(life, list(placement.shares), whole=placement.whole)
        assert again is not None
        return again

    def place_resumed(self, life: Life) -> Placement | None:
        """Give a suspended job its cores again on its nodes, if all of them have them."""
        if life.placement is None or not all(self.ledger.can_unpause(life.id, n) for n in life.numbers):
            return None
        given = [share for n in life.numbers for share in self.ledger.unpause(life.id, n)]
        shares = []
        for old in life.placement.shares:
            new = next(one for one in given if (one.node, one.need, one.gpus) == (old.node, old.need, old.gpus))
            given.remove(new)
            shares.append(new)
        self.placed.add(life.id)
        return Placement(tuple(shares), life.placement.whole)

    def _take(self, life: Life, order: Order, accept: Accept | None) -> list[Share] | None:
        """Take each part's share of ``life``, the part with the fewest nodes to go to first; nothing if not all fit."""
        if len(life.shape.parts) == 1:
            shares = self._take_part(life, life.shape.parts[0], life.shape.rows[0], order, accept)
            if len(shares) == life.shape.parts[0].nodes:
                return shares
            if shares:
                self._give_back(life, shares)
            return None
        parts = list(enumerate(zip(life.shape.parts, life.shape.rows, strict=True)))
        taken: list[list[Share]] = [[] for _ in parts]
        while parts:
            parts.sort(key=lambda one: (self.index.count_now(one[1][1]) - one[1][0].nodes, one[0]), reverse=True)
            i, (part, row) = parts.pop()
            taken[i] = self._take_part(life, part, row, order, accept)
            if len(taken[i]) < part.nodes:
                self._give_back(life, [share for some in taken for share in some])
                return None
        return [share for some in taken for share in some]

    def _take_part(self, life: Life, part: Part, row: int, order: Order, accept: Accept | None) -> list[Share]:
        """Take the part's share of as many nodes as it wants, or as there are."""
        shares: list[Share] = []
        for n in order(self.index.nodes_now(row), part.need):
            share = self.ledger.take(life.id, n, part.need)
            if accept is not None and not accept(n, part.need):
                self.ledger.drop_last(life.id, n)
                continue
            shares.append(share)
            if len(shares) == part.nodes:
                break
        return shares

    def _give_back(self, life: Life, shares: list[Share]) -> None:
        for n in self._numbers(shares):
            self.ledger.give_back(life.id, n)

    def _numbers(self, shares: list[Share]) -> tuple[int, ...]:
        """Node numbers, each once."""
        return tuple(dict.fromkeys([self.ledger.number[share.node] for share in shares]))

    def _placed(self, life: Life, shares: list[Share] | None, *, whole: bool = False) -> Placement | None:
        if shares is None:
            life.planned_end = math.inf
            return None
        placement = Placement(tuple(shares), whole)
        life.numbers = self._numbers(shares)
        life.placement = placement
        life.planned_end = self.now + life.plan_s
        self.pending.remove(life.id)
        self.placed.add(life.id)
        return placement

    # ------------------------------------------------------------------------------- looking ahead

    def earliest(self, life: Life, yields: Yields | None = None) -> Reservation | None:
        """When and where ``life`` can start if only the running jobs' planned ends free anything.

        None if no set of nodes that are up can ever hold it so.

        Args:
            yields: which jobs would be suspended for one of its priority (nobody asks with others), if it is of one
                part.
        """
        if len(life.shape.parts) > 1:
            return self._earliest_together(life)
        part = life.shape.parts[0]
        cache = self._earliest(life, yields)
        held, times = cache.held, cache.times
        if held is not None and held.job == life.id and held.at > self.now:
            return held
        if len(times) < part.nodes:
            return None
        nodes = [int(times.argmin())] if part.nodes == 1 else times.argsort(kind="stable")[: part.nodes].tolist()
        at = float(times[nodes[-1]])
        if math.isinf(at):
            return None
        cache.held = Reservation(life.id, dict.fromkeys(nodes, (part.need,)), max(self.now, at), yields)
        return cache.held

    def is_news(self, reservation: Reservation) -> bool:
        """Whether this is not the reservation that was asked for last, of which its job has been told."""
        told = self._told is reservation and self.jobs[reservation.job].reserved is not None
        self._told = reservation
        return not told

    def keeps(self, reservation: Reservation, n: int) -> bool:
        """Whether the reservation still holds on node ``n`` with everything that is taken there now."""
        needs = reservation.needs.get(n)
        if needs is None:
            return True
        forecast = self._forecast(n, reservation.at, reservation.yields)
        for need in needs[:-1]:
            if not forecast.fits(need.vector()):
                return False
            forecast.take(need)
        return forecast.fits(needs[-1].vector())

    def would_keep(self, reservation: Reservation, n: int, need: Need) -> bool:
        """Whether the reservation would hold on node ``n`` with ``need`` taken there for longer than until then.

        A cheap look ahead of `keeps`, which decides once it is taken; True where only taking tells (parts of GPUs).
        """
        needs = reservation.needs.get(n)
        if needs is None or need.gpu_milli:
            return True
        forecast = self._forecast(n, reservation.at, reservation.yields)
        for one in (need, *needs[:-1]):
            if not forecast.fits(one.vector()):
                return False
            forecast.take(one)
        return forecast.fits(needs[-1].vector())

    def _forecast(self, n: int, at: float, yields: Yields | None) -> Forecast:
        """What node ``n`` has at ``at`` if only the planned ends free anything, and those who yield are suspended."""
        forecast = self.ledger.forecast(n)
        for job, holdings in self.ledger.holders(n).items():
            life = self.jobs[job]
            if life.planned_end <= at:
                forecast.leave(job, holdings)
            elif yields is not None and yields(life):
                forecast.pause(holdings)
        return forecast

    def _earliest_together(self, life: Life) -> Reservation | None:
        """As `earliest`, for a job of several parts, which may meet on a node: bisection over the planned ends."""
        able = [self.index.nodes_ever(row) for row in life.shape.rows]
        ever = np.logical_or.reduce(able).nonzero()[0].tolist()
        ends = {self.jobs[job].planned_end for n in ever for job in self.ledger.holders(n)}
        times = sorted({self.now, *(end for end in ends if self.now < end < math.inf)})
        low, high = 0, len(times) - 1
        best = self._together(life, ever, able, times[high])
        if best is None:
            return None
        while low < high:
            middle = (low + high) // 2
            found = self._together(life, ever, able, times[middle])
            if found is None:
                low = middle + 1
            else:
                high, best = middle, found
        return best

    def could_hold(self, shape: Shape) -> bool:
        """Whether the nodes that are up would hold a job of this shape if nothing ran there."""
        if self._standing != self.ledger.standing:
            self._standing = self.ledger.standing
            self._holds.clear()
        found = self._holds.get(shape)
        if found is None:
            up = [node for n, node in enumerate(self.ledger.nodes) if self.ledger.is_up(n)]
            found = self._holds[shape] = fit_on_empty(shape.parts, up)
        return found

    def _together(self, life: Life, ever: list[int], able: list[np.ndarray], at: float) -> Reservation | None:
        """Places for all parts at ``at``, the part with the fewest nodes to go to first; None if they do not fit."""
        forecasts = {n: self._forecast(n, at, None) for n in ever if self.ledger.is_up(n)}
        needs = fit_together(life.shape.parts, able, forecasts)
        return None if needs is None else Reservation(life.id, needs, at)

    def _earliest(self, life: Life, yields: Yields | None) -> _Earliest:
        row, need = life.shape.rows[0], life.shape.parts[0].need
        which = life.shape.rows, need, None if yields is None else life.job.priority
        cache = self._forecasts.get(which)
        if cache is None or cache.layout != self.ledger.layout:
            if len(self._forecasts) >= 4:
                _, old = self._forecasts.popitem()
                self.ledger.unwatch(old.touched)
            cache = _Earliest(
                self.ledger.watch(ends=True), self.ledger.layout, np.full(len(self.ledger.nodes), math.inf)
            )
            self._forecasts[which] = cache
        if cache.touched:
            ever, now, vector = self.index.nodes_ever(row), self.index.mask_now(row), need.vector()
            for n in cache.touched:
                at = 0.0 if now[n] else self._when(n, vector, yields) if ever[n] else math.inf
                if at != cache.times[n]:
                    cache.times[n], cache.held = at, None
            cache.touched.clear()
        return cache

    def _when(self, n: int, vector: tuple[int, ...], yields: Yields | None) -> float:
        """When node ``n``, which does not fit ``vector`` now, does so: from the planned ends of its holders.

        0 where it would if those who yield were suspended.
        """
        if not self.ledger.is_up(n):
            return math.inf
        holders = self.ledger.holders(n)
        ends = sorted((self.jobs[job].planned_end, job) for job in holders)
        if yields is not None and any(yields(self.jobs[job]) for job in holders):
            moments = (0.0, *(end for end, _ in ends if end < math.inf))
            return next((at for at in moments if self._forecast(n, at, yields).fits(vector)), math.inf)
        forecast = self.ledger.forecast(n)
        for end, job in ends:
            forecast.leave(job, holders[job])
            if forecast.fits(vector):
                return end
        return math.inf


@dataclass(slots=True)
class _Earliest:
    """Cached answers of `View._when` for one need: asked anew for nodes that changed only."""

    touched: set[int]
    layout: int
    times: np.ndarray
    held: Reservation | None = None  # the last answer to `View.earliest` that these times gave


def makes_way(life: Life) -> bool:
    """Whether the job is about to give up what it holds, or its cores."""
    return life.state in (State.SUSPENDING, State.STOPPING)


# Preferences among nodes -------------------------------------------------------------------------


def first_fit(nodes: np.ndarray, need: Need) -> list[int]:
    """Nodes in their own order."""
    del need
    return cast("list[int]", nodes.tolist())


def best_fit(ledger: Ledger) -> Callable[[np.ndarray, Need], list[int]]:
    """The fullest node first: fewest free GPUs, then the smallest free fraction, then fewest free cores."""

    def order(nodes: np.ndarray, need: Need) -> list[int]:
        del need
        if len(nodes) < 2:
            return cast("list[int]", nodes.tolist())
        return cast("list[int]", nodes[ledger.emptiness[nodes].argsort(kind="stable")].tolist())

    return order


def node_names(view: View, numbers: tuple[int, ...]) -> tuple[str, ...]:
    """The ids of nodes by number."""
    return tuple(view.ledger.nodes[n].id for n in numbers)
