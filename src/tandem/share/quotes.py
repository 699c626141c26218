"""Promises: when a job will start and finish, with a 90 % interval. Made once, stored, never rewritten.

At submission the queue is played forward: the durations of running and waiting jobs are drawn from what is known of
them (a two-sided lognormal through each job's 5 %, median and 95 % points), and each job in order takes the units
(cores, GPUs or whole nodes) that come free first. The spread of the new job's start and finish over the draws is the
interval; how wrong earlier intervals were stretches or narrows it on each side (split conformal: the factor is the
95 % quantile of past errors in units of the quoted half-width). Deterministic: the draws are a fixed table.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tandem.share.history import Quantiles
from tandem.share.model import Interval, Quote, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tandem.share.life import Life
    from tandem.share.view import View

AHEAD = 256
"""Waiting jobs ahead that are played one by one; the rest is spread evenly over all units."""

UNITS = 512
"""At most so many units are told apart; larger clusters are counted in bundles."""

Z90 = 1.6449
"""Standard normal quantile at 95 %."""

MEMORY = 200
"""Errors remembered for calibration."""

_DRAWS = np.random.default_rng(20_260_101).standard_normal((1024, 64))


class Quoter:
    """Makes quotes and learns how wrong they were."""

    def __init__(self, policy: str, every: int) -> None:
        self._whole_nodes = policy == "exclusive"
        self._every = every
        self._count = 0
        self._open: dict[int, dict[str, Interval]] = {}
        self._late = {"submit": Quantiles(MEMORY), "start": Quantiles(MEMORY)}
        self._early = {"submit": Quantiles(MEMORY), "start": Quantiles(MEMORY)}
        self._stretch = Quantiles(MEMORY)  # log(run time / expected alone)
        self._queue: _Played | None = None

    def quote(self, view: View, life: Life, moment: str) -> Quote | None:
        """The promise for ``life`` now, or None if only every k-th job is quoted and this is not one."""
        if moment == "submit":
            self._count += 1
            if not self._every or self._count % self._every:
                return None
            start, seconds = self._play(view, life)
        elif moment == "start" and self._every and (self._every == 1 or life.id in self._open):
            start, seconds = np.array([view.now]), self._run_time(view, life)
        else:
            return None
        raw = _interval(start + seconds)
        finish = self._calibrated(moment, raw, view.now)
        begin = _interval(start)
        begin = self._calibrated(moment, begin, view.now) if moment == "submit" else begin
        self._open.setdefault(life.id, {})[moment] = raw
        basis = life.reason if moment == "submit" else "its neighbours now"
        return Quote(life.id, view.now, moment, begin, finish, basis)

    def ended(self, life: Life, now: float) -> None:
        """A job has ended: compare with what was quoted."""
        quoted = self._open.pop(life.id, {})
        if life.state is not State.DONE:
            return
        for moment, raw in quoted.items():
            floor = max(0.02 * (raw.mid - life.submitted_at), 1e-3)
            error = now - raw.mid
            self._late[moment].add(error / max(raw.high - raw.mid, floor))
            self._early[moment].add(-error / max(raw.mid - raw.low, floor))
        if life.started_at is not None and quoted and now > life.started_at and life.expected.mid > 0:
            self._stretch.add(math.log((now - life.started_at) / life.expected.mid))

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return {
            "count": self._count,
            "open": [
                [job, {m: [i.low, i.mid, i.high] for m, i in quoted.items()}] for job, quoted in self._open.items()
            ],
            "late": {m: list(q.recent) for m, q in self._late.items()},
            "early": {m: list(q.recent) for m, q in self._early.items()},
            "stretch": list(self._stretch.recent),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `snapshot`."""
        self._count = state["count"]
        self._open = {job: {m: Interval(*i) for m, i in quoted.items()} for job, quoted in state["open"]}
        self._late = {m: Quantiles(MEMORY, values) for m, values in state["late"].items()}
        self._early = {m: Quantiles(MEMORY, values) for m, values in state["early"].items()}
        self._stretch = Quantiles(MEMORY, state["stretch"])

    # ------------------------------------------------------------------------------------ details

    def _calibrated(self, moment: str, raw: Interval, now: float) -> Interval:
        up, down = self._factor(self._late[moment]), self._factor(self._early[moment])
        low = max(now, raw.mid - down * (raw.mid - raw.low))
        return Interval(min(low, raw.mid), raw.mid, raw.mid + up * (raw.high - raw.mid))

    @staticmethod
    def _factor(errors: Quantiles) -> float:
        """How much wider (or narrower) one side has to be, shrunk towards 1 while little is known."""
        if not len(errors):
            return 1.0
        trust = len(errors) / (len(errors) + 10)
        return min(8.0, max(0.3, trust * errors.at(0.95) + (1 - trust)))

    def _draw(self, life: Life) -> np.ndarray:
        """Run times of a job, one for each draw."""
        low, mid, high = life.expected.low, life.expected.mid, life.expected.high
        if not 0 < mid < math.inf:
            mid = 1e-3
        z = _DRAWS[life.id % len(_DRAWS)]
        below = math.log(mid / max(low, 1e-3 * mid)) / Z90
        above = math.log(max(high, mid) / mid) / Z90
        trust = len(self._stretch) / (len(self._stretch) + 8)
        stretch = math.exp(trust * self._stretch.at(0.5)) if len(self._stretch) else 1.0
        seconds: np.ndarray = stretch * mid * np.exp(np.where(z < 0, below, above) * z)
        if life.job.limit_s is not None:
            np.minimum(seconds, life.job.limit_s, out=seconds)
        return seconds

    def _run_time(self, view: View, life: Life) -> np.ndarray:
        """Run times from its start, beside the neighbours it has now."""
        worst = 1.0
        for n in life.numbers:
            neighbours = view.neighbours(n, but=life.id)
            if neighbours:
                apps = tuple(view.app(one) for one in [life, *neighbours])
                worst = max(worst, view.estimator.predict(apps, view.capacity(n))[0].mid)
        seconds = self._draw(life)
        return seconds if worst == 1.0 else np.maximum(seconds, seconds * worst / max(1.0, self._typical()))

    def _typical(self) -> float:
        return math.exp(self._stretch.at(0.5)) if len(self._stretch) else 1.0

    def _play(self, view: View, life: Life) -> tuple[np.ndarray, np.ndarray]:
        """Start times and run times of a new job, one for each draw."""
        queue = self._queue
        mine = (-life.job.priority, life.rank, life.id)
        if queue is None or queue.stamp != view.stamp or queue.last > mine or queue.size != len(view.pending) - 1:
            queue = self._play_queue(view, mine)
        seconds = self._draw(life)
        start = queue.units.put(self._wants(life), seconds[: queue.units.draws], view.now)
        self._queue = _Played(view.stamp, mine, len(view.pending), queue.units)
        return start, seconds[: queue.units.draws]

    def _play_queue(self, view: View, mine: tuple[float, float, int]) -> _Played:
        units = _Units(view, self._whole_nodes)
        for one in view.on_nodes.values():
            units.occupy(self._wants(one), self._left(view, one)[: units.draws], view.now)
        ahead = list(itertools.takewhile(lambda key: key < mine, itertools.islice(view.pending.in_order(), AHEAD)))
        for key in ahead:
            one = view.jobs[key[2]]
            units.put(self._wants(one), self._draw(one)[: units.draws], view.now)
        if len(ahead) == AHEAD:
            units.spread(view.pending.core_s, view.pending.gpu_s, len(ahead) / len(view.pending))
        return _Played(view.stamp, mine, len(view.pending) - 1, units)

    def _left(self, view: View, life: Life) -> np.ndarray:
        """Seconds that a job on its nodes still takes."""
        ran = life.ran(view.now)
        if life.done is not None and life.done > 0.1 and ran > 0:
            fresh = max(life.done - life.saved_done, 1e-3)
            return np.full(64, ran * (1 - life.done) / fresh)
        seconds = self._draw(life)
        return np.where(seconds > ran, seconds - ran, 0.2 * (ran + seconds))

    def _wants(self, life: Life) -> tuple[float, float]:
        if self._whole_nodes:
            return float(sum(part.nodes for part in life.job.parts)), 0.0
        return life.job.cpu_milli / 1000, life.job.gpu_total_milli / 1000


@dataclass(slots=True)
class _Played:
    """The queue as it was played up to its last job."""

    stamp: int
    last: tuple[float, float, int]
    size: int
    units: _Units


class _Units:
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
        self._free = [np.full((self.draws, count), view.now) for count in counts]

    def put(self, wants: tuple[float, float], seconds: np.ndarray, now: float) -> np.ndarray:
        """A job takes the units that come free first; returns its start in each draw."""
        taken = [self._columns(kind, amount) for kind, amount in enumerate(wants)]
        start = np.full(self.draws, now)
        for kind, columns in enumerate(taken):
            if columns:
                free = self._free[kind]
                free.sort(axis=1)
                np.maximum(start, free[:, columns - 1], out=start)
        for kind, columns in enumerate(taken):
            if columns:
                self._free[kind][:, :columns] = (start + seconds)[:, None]
        return start

    def occupy(self, wants: tuple[float, float], seconds: np.ndarray, now: float) -> None:
        """A running job holds units for ``seconds`` more."""
        self.put(wants, seconds, now)

    def spread(self, core_s: float, gpu_s: float, counted: float) -> None:
        """The part of the waiting work that was not played one by one delays every unit alike."""
        for kind, work in enumerate((core_s, gpu_s)):
            free = self._free[kind]
            free += (1 - counted) * work / (free.shape[1] * self._bundle[kind])

    def _columns(self, kind: int, amount: float) -> int:
        if amount <= 0:
            return 0
        return min(max(1, round(amount / self._bundle[kind])), self._free[kind].shape[1])


def _interval(draws: np.ndarray) -> Interval:
    low, mid, high = np.quantile(draws, (0.05, 0.5, 0.95)) if len(draws) > 1 else (draws[0],) * 3
    return Interval(float(low), float(mid), float(high))
