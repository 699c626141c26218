"""Promises: when a job will start and finish, with a 90 % interval. Made once, stored, never rewritten; a hold takes
them back, and the job is quoted anew when it is let go.

At submission the queue is played forward: the durations of running and waiting jobs are drawn from what is known of
them (a two-sided lognormal through each job's 5 %, median and 95 % points), and each job in order takes the units
(cores, GPUs and memory, or whole nodes) that come free first. The spread of the new job's start and finish over the
draws is the interval; how wrong earlier ones were stretches it or narrows it (`calibration`). Deterministic: the draws
are a fixed table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tandem.core.units import human_duration
from tandem.share.model import Interval, JobClass, Quote, State
from tandem.share.quoting.calibration import Calibration, Predicted
from tandem.share.quoting.draws import (
    COMMON,
    DRAWS,
    JITTER,
    PESSIMISM,
    PLAYS,
    STRANGERS_S,
    lognormal,
    longer,
    quantiles,
)
from tandem.share.quoting.units import Leaves, Room, Wants
from tandem.share.state.history import PRIOR_S, is_guess
from tandem.share.state.pending import Key
from tandem.share.state.quantiles import Quantiles

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from tandem.share.deciding.policy import Policy
    from tandem.share.state.life import Life
    from tandem.share.state.view import View

AHEAD = 256
"""Waiting jobs ahead that are played one by one; the rest is spread evenly over all units."""

MEMORY = 200
"""Ratios of run time to expectation remembered."""

PROGRESS_SPREAD = 0.1
"""Spread of log(time left) where a job says how far it is."""

FRESH_S = 1.0
"""So long a play of the queue serves further submissions: what runs has not gone much further."""

SHUFFLED_MOST = 64
"""With more waiting jobs than this the order in which a policy takes them matters little, and is not varied."""

DRIFT = (0.12, 0.12)
"""An interval reaches at least so far below and above its middle, as parts of the time until then, until errors have
shown that less is enough: machines are not equally fast on all days."""

CHOSEN = (0.35, 0.5)
"""The same where the policy chooses among waiting jobs, so that jobs yet to come may go first."""

PUT_OFF = (0.5, 1.0)
"""The same for harvest jobs there: they give way to every primary job yet to come."""

STARTING_S = 0.1
"""What starting a job may take: promised instants are later by up to this."""

TOGETHER = 0.6
"""Correlation of every job's error with a common one: a slow hour of the machine makes all jobs slow."""

REHEARSED_MOST = 32
"""With no more nodes and jobs than this, the policy itself plays the queue."""

REST_S = 0.05
"""After a rehearsal there is none for so long for each node and job in it: many small submissions are not held up."""

_BY_USER = " by its user"

_STANDS = (State.SUSPENDING, State.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Play:
    """What is given for one play of the queue.

    Attributes:
        seconds: what each job, waiting or running, still takes alone, in seconds.
        pessimism: which slowdown of the estimator's interval holds: -1 its lower end, 0 its middle, 1 its upper.
        strangers_s: after how many seconds what others hold comes free; infinite: never.
    """

    seconds: Mapping[int, float]
    pessimism: float
    strangers_s: float = math.inf


Rehearsed = dict[int, tuple[float, float]]
"""Job -> its start and end in one play, in Unix seconds."""


class Quoter:
    """Makes quotes and learns how wrong they were."""

    def __init__(self, policy: Policy, every: int) -> None:
        """Set up.

        Args:
            policy: it may say how it deviates from strict order: see `tandem.share.deciding.policy.Policy`.
            every: quote every k-th job; 0 quotes none.
        """
        self._whole_nodes = getattr(policy, "WHOLE_NODES", False)
        self._window = getattr(policy, "WINDOW", 0)
        self._barred_until: Callable[[View, Life], float] | None = getattr(policy, "barred_until", None)
        self._displaces: Callable[[Life], bool] = getattr(policy, "displaces", _never)
        self._gives_way: Callable[[Life], bool] = getattr(policy, "gives_way", _never)
        self._held_back_until: Callable[[View, Life], float] | None = getattr(policy, "held_back_until", None)
        self._kept_milli: Callable[[View, int], float] | None = getattr(policy, "kept_milli", None)
        self._every = every
        self._count = 0
        self._open: dict[int, dict[str, Predicted]] = {}
        self._learned: dict[str, Calibration] = {}
        """What is known of errors, by the moment of the promise, the class of the job (harvest jobs give way to
        others), and whether runs with the same arguments are known: they say little of how their users err."""
        self._stretch = Quantiles(MEMORY)  # log(run time / expected alone)
        self._queue: _Played | None = None
        self.rehearse: Callable[[Sequence[Play], Collection[int]], list[Rehearsed]] | None = None
        """Has the policy play the queue; None where nobody can."""
        self._rehearsed_at = -math.inf
        self.plays = 0
        """How often the queue was played from its beginning."""

    def submitted(self, view: View, lives: Sequence[Life]) -> list[Quote]:
        """Promises for jobs that have just begun to wait, or started at once: for all of them, or for every k-th."""
        if not self._every:
            return []
        quoted = set()
        for life in lives:
            self._count += not life.quoted
            if life.quoted or self._count % self._every == 0:
                life.quoted = True  # it is let go after a hold if it was, maybe under another policy
                quoted.add(life.id)
        if not quoted:
            return []
        played = self._play(view, lives)
        return [
            self._promise(
                view,
                life,
                "submit",
                *played[life.id],
                view.history.expect(life.job)[1] + _supposed(view, played[life.id][0]),
            )
            for life in lives
            if life.id in quoted
        ]

    def started(self, view: View, lives: Sequence[Life]) -> list[Quote]:
        """Promises for jobs that start now; where only every k-th job is quoted, for those among them."""
        quoted = [life for life in lives if self._every == 1 or (self._every and life.id in self._open)]
        if not quoted:
            return []
        for life in quoted:
            raw = self._open.get(life.id, {}).pop("begin", None)
            if raw is not None:
                self._learn(raw, view.now)
        start = np.array([view.now])
        rehearsed = self._rehearsal(view, quoted)
        return [
            self._promise(
                view,
                life,
                "start",
                start,
                rehearsed[life.id][1] if life.id in rehearsed else self._run_time(view, life),
                f"its neighbours now, and {view.history.expect(life.job)[1]}",
            )
            for life in quoted
        ]

    def _promise(
        self, view: View, life: Life, moment: str, start: np.ndarray, seconds: np.ndarray, basis: str
    ) -> Quote:
        begin = Interval(view.now, view.now, view.now + STARTING_S)
        if start.max() > view.now:
            begin = self._promised(view, life, "begin", start)
        finish = self._promised(view, life, moment, start + seconds)
        pairs = zip((begin.low, begin.mid, begin.high), (finish.low, finish.mid, finish.high), strict=True)
        begin = Interval(*map(min, pairs))  # each is calibrated by itself, and nothing starts after it has ended
        return Quote(life.id, view.now, moment, begin, finish, basis)

    def _promised(self, view: View, life: Life, what: str, draws: np.ndarray) -> Interval:
        low, mid, high = quantiles(draws)
        early, late = self._unforeseen(life.job.klass) if what != "start" else DRIFT
        low, high = min(low, mid - early * (mid - view.now)), max(high, mid + late * (mid - view.now) + STARTING_S)
        kept = self._open.setdefault(life.id, {})
        guessed = not _informed(_expected(view, life)) or view.history.knows_only_others(life.job)
        if guessed or (what != "start" and _strangers(view)):
            return Interval(low, mid, high)  # how it errs says nothing of other quotes
        rests_on = "" if view.history.rests_on_runs(life.job) else _BY_USER
        raw = Predicted(view.now, low, mid, high, kind=f"{what} {life.job.klass.value}{rests_on}")
        promised = self._learned.get(raw.kind, Calibration()).promise(raw)
        kept[what] = replace(raw, promised_low=promised.low, promised_high=promised.high)
        return promised

    def _unforeseen(self, klass: JobClass) -> tuple[float, float]:
        if not self._window:
            return DRIFT
        return PUT_OFF if klass is JobClass.HARVEST else CHOSEN

    def _learn(self, raw: Predicted, true: float) -> None:
        self._learned.setdefault(raw.kind, Calibration()).learn(raw, true)

    def take_back(self, job: int) -> None:
        """What was promised of a job holds no more; if it was, it is quoted anew when it is let go."""
        self._open.pop(job, None)

    def ended(self, life: Life, now: float) -> None:
        """A job has ended: compare with what was quoted."""
        was_guessed = "start" not in self._open.get(life.id, {"start": None})
        quoted = self._open.pop(life.id, {})
        if life.state is not State.DONE:
            return
        for moment, raw in quoted.items():
            if moment != "begin":
                self._learn(raw, now)
        by_user = any(raw.kind.endswith(_BY_USER) for raw in quoted.values())  # says nothing of what neighbours do
        if life.started_at is None or was_guessed or by_user or not _informed(life.expected):
            return
        if now > life.started_at and life.expected.mid > 0:
            self._stretch.add(math.log((now - life.started_at) / life.expected.mid))

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state. What was played is forgotten, so that a machine made from this goes on as this one does."""
        self._queue = None
        return {
            "count": self._count,
            "open": [[job, {m: list(astuple(raw)) for m, raw in quoted.items()}] for job, quoted in self._open.items()],
            "learned": {what: learned.snapshot() for what, learned in self._learned.items()},
            "stretch": list(self._stretch.recent),
            "rehearsed_at": self._rehearsed_at if math.isfinite(self._rehearsed_at) else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `snapshot`."""
        self._count = state["count"]
        self._open = {job: {m: Predicted(*raw) for m, raw in quoted.items()} for job, quoted in state["open"]}
        self._learned = {what: Calibration.restore(learned) for what, learned in state["learned"].items()}
        self._stretch = Quantiles(MEMORY, state["stretch"])
        at = state.get("rehearsed_at")
        self._rehearsed_at = -math.inf if at is None else at

    # ------------------------------------------------------------------------------------ details

    def _draw(self, view: View, life: Life, *, disturbed: bool = True) -> np.ndarray:
        """Run times of a job, one for each draw: among neighbours, or alone."""
        expected = _expected(view, life)
        low, mid, high = expected.low, expected.mid, expected.high
        if not 0 < mid < math.inf:
            mid = 1e-3
        z = TOGETHER * COMMON + math.sqrt(1 - TOGETHER**2) * DRAWS[life.id % len(DRAWS)]
        trust = len(self._stretch) / (len(self._stretch) + 8)
        known = disturbed and len(self._stretch) and _informed(expected)
        stretch = math.exp(trust * self._stretch.at(0.5)) if known else 1.0
        seconds = stretch * lognormal(max(low, 1e-3 * mid), mid, max(high, mid), z)
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
        seconds = self._draw(view, life)
        return seconds if worst == 1.0 else np.maximum(seconds, seconds * worst / max(1.0, self._typical()))

    def _typical(self) -> float:
        return math.exp(self._stretch.at(0.5)) if len(self._stretch) else 1.0

    def _play(self, view: View, lives: Sequence[Life]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Start times and run times, one for each draw, of ``lives``, which have just begun to wait or started."""
        rehearsed = self._rehearsal(view, lives)
        if rehearsed.keys() >= {life.id for life in lives}:
            return rehearsed
        played = {
            life.id: (np.array([view.now]), self._run_time(view, life)) for life in lives if life.id in view.on_nodes
        }
        lives = [life for life in lives if life.id not in played]
        return played | self._play_queue(view, lives) if lives else played

    def _play_queue(self, view: View, lives: Sequence[Life]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        if self._window and len(view.pending) <= SHUFFLED_MOST and all(life.id in view.pending for life in lives):
            return self._play_shuffled(view, lives)
        waiting = sorted((view.pending.key(life.id), life) for life in lives if life.id in view.pending)
        blocked = [life for life in lives if life.id not in view.pending]
        played: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        ends: dict[int, np.ndarray] = {}
        queue, priority = self._queue, _lowest(lives)
        self._queue = None
        if queue is None or blocked or not queue.ends_before(view, [key for key, _ in waiting], priority):
            room = self._play_running(view, ends, priority)
            last = view.pending.last() if blocked else None  # what blocked jobs wait for may be anywhere
            self._play_waiting(
                view, room, {key for key, _ in waiting} | ({last} if last is not None else set()), played, ends
            )
        else:
            room = queue.room
            for _, life in waiting:
                played[life.id] = self._put_in_turn(view, room, life)
        if blocked:
            for life in blocked:
                played[life.id] = self._put(view, room, life, self._ready(view, life, ends, room))
        elif waiting and waiting[-1][0] == view.pending.last():
            at, last = float(room.now[0]), waiting[-1][0]
            self._queue = _Played(view.stamp, at, last, len(view.pending), priority, room)
        return played

    def _rehearsal(self, view: View, lives: Sequence[Life]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Start times and run times as the policy itself would have them; nothing of jobs that it cannot tell of."""
        around = len(view.jobs) + len(view.ledger.nodes)
        soon = view.now < self._rehearsed_at + REST_S * around
        if self.rehearse is None or around > REHEARSED_MOST or soon:
            return {}
        self._rehearsed_at = view.now
        work = {life.id: self._work(view, life) for life in view.jobs.values() if not life.ended}
        plays = [
            Play({job: float(w[k]) for job, w in work.items()}, float(PESSIMISM[k]), float(STRANGERS_S[k]))
            for k in range(PLAYS)
        ]
        played = self.rehearse(plays, [life.id for life in lives])
        found = {}
        for life in lives:
            times = np.array([play[life.id] for play in played if life.id in play])
            if len(times) > PLAYS // 2:
                found[life.id] = times[:, 0], times[:, 1] - times[:, 0]
        return found

    def _work(self, view: View, life: Life) -> np.ndarray:
        """Seconds alone that the job still takes."""
        if life.id not in view.on_nodes:
            return self._draw(view, life, disturbed=False)
        alone = life.ran(view.now) * life.throttle / (life.slowdown or 1.0)
        return self._rest(view, life, alone, disturbed=False)

    def _play_shuffled(self, view: View, lives: Sequence[Life]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """The same for a policy that chooses among the first few: several orders, each as likely as the next."""
        order = [key[2] for key in view.pending.in_order()]
        barred = {}
        if self._barred_until is not None:
            barred = {job: self._barred_until(view, view.jobs[job]) for job in order}
        found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {life.id: [] for life in lives}
        for jitter in JITTER:
            room = self._play_running(view, {}, _lowest(lives))
            place: dict[int, float] = {}
            latest = 0.0  # of those for whom others would be displaced: nobody else behind them goes before them
            for i, job in enumerate(order):
                place[job] = i + self._reach(view, job, len(order)) * jitter[job % len(jitter)]
                if self._displaces(view.jobs[job]):
                    latest = max(latest, place[job])
                else:
                    place[job] = max(place[job], latest)
            for job in self._in_turn(view, room, place):
                start, seconds = self._put_in_turn(view, room, view.jobs[job], barred.get(job))
                if job in found:
                    found[job].append((start, seconds))
        return {
            job: (np.concatenate([s for s, _ in plays]), np.concatenate([t for _, t in plays]))
            for job, plays in found.items()
        }

    def _in_turn(self, view: View, room: Room, place: Mapping[int, float]) -> list[int]:
        """The waiting jobs by priority and place; where cores are left for GPU jobs, those come first."""
        lives = [view.jobs[job] for job in place]
        first = any(self._leaves(view, room, life)[0] for life in lives)

        def key(life: Life) -> tuple[int, bool, float]:
            left_for = first and life.job.gpu_total_milli > 0 and self._displaces(life)
            return -life.job.priority, not left_for, place[life.id]

        return [life.id for life in sorted(lives, key=key)]

    def _reach(self, view: View, job: int, waiting: int) -> int:
        """How many places later a job may be taken: any, for a harvest job, which others of its priority pass."""
        return waiting if view.jobs[job].job.klass is JobClass.HARVEST else self._window

    def _play_running(self, view: View, ends: dict[int, np.ndarray], priority: int) -> Room:
        """What is on the nodes; who stands still takes units only behind those who go, and those of a higher priority.

        Args:
            priority: that of the job for whose sake the queue is played: who has a higher one gives no way to it.
        """
        self.plays += 1
        room = Room(view, self._whole_nodes, lambda one: one.job.priority <= priority and self._gives_way(one))
        lives = view.on_nodes.values()
        standing = [one for one in lives if one.state in _STANDS]
        for one in lives:
            if one.state not in _STANDS:
                self._put_rest(view, room, one, ends)
        for cores, gpus in _strangers(view):
            wants = (1.0, 0.0, 0.0) if self._whole_nodes else (float(cores), float(gpus), 0.0)
            room.put(wants, STRANGERS_S[: room.draws], room.now)
        for one in standing:
            self._put_rest(view, room, one, ends, behind=self._gives_way(one) and one.job.priority < priority)
        return room

    def _put_rest(
        self, view: View, room: Room, life: Life, ends: dict[int, np.ndarray], *, behind: bool = False
    ) -> None:
        """What a job on its nodes still takes; one that stands still ``behind`` those that wait has no cores."""
        left = self._rest(view, life, life.ran(view.now), disturbed=True)[: room.draws]
        cores, gpus, mem_mib = self._wants(life)
        start = room.put((0.0 if behind else cores, gpus, 0.0), left, room.now, gives_way=room.gives_way(life))
        ends[life.id] = start + left
        room.hold(mem_mib, ends[life.id])
        if life.state not in _STANDS:
            room.first_end = np.minimum(room.first_end, ends[life.id])
            if not room.gives_way(life):
                room.first_end_without = np.minimum(room.first_end_without, ends[life.id])

    def _play_waiting(
        self,
        view: View,
        room: Room,
        left: set[Key],
        played: dict[int, tuple[np.ndarray, np.ndarray]],
        ends: dict[int, np.ndarray],
    ) -> None:
        """Put the waiting jobs in order up to the last of ``left``; beyond `AHEAD`, the others only in sum."""
        for count, key in enumerate(view.pending.in_order()):
            if not left:
                return
            if count == AHEAD:
                room.spread((len(view.pending) - count - len(left)) / count)
                break
            left.discard(key)
            life = view.jobs[key[2]]
            start, seconds = played[life.id] = self._put_in_turn(view, room, life)
            ends[life.id] = start + seconds
        for key in sorted(left):
            life = view.jobs[key[2]]
            start, seconds = played[life.id] = self._put_in_turn(view, room, life)
            ends[life.id] = start + seconds

    def _ready(self, view: View, life: Life, ends: dict[int, np.ndarray], room: Room) -> np.ndarray:
        """When all that a blocked job waits for has ended."""
        chain, found = [life.id], {life.id}
        for job in chain:
            more = [one for one in view.jobs[job].waits_for if one not in ends and one not in found]
            chain += more
            found.update(more)
        ready = room.now
        for job in sorted(chain):  # a job waits only for earlier ones
            one = view.jobs[job]
            ready = np.maximum.reduce([room.now, *(ends[k] for k in one.waits_for if k in ends)])
            if job != life.id:
                ends[job] = ready + self._draw(view, one)[: room.draws]
        return ready

    def _put_in_turn(
        self, view: View, room: Room, life: Life, earliest: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Put a waiting job that all those ahead of it in the queue were put before."""
        displaces = room.displaced and self._displaces(life)
        ready = np.maximum(room.turn if displaces else room.now, view.now if earliest is None else earliest)
        first_end = room.first_end_without if displaces else room.first_end
        if np.isfinite(first_end).all() and not self._may_fit(view, room, life, displaces=displaces):
            ready = np.maximum(ready, first_end)  # together the nodes may have enough for it, but none of them
        start, seconds = self._put(view, room, life, ready)
        if room.displaced and not displaces:
            room.turn = np.maximum(room.turn, start)
        return start, seconds

    @staticmethod
    def _may_fit(view: View, room: Room, life: Life, *, displaces: bool) -> bool:
        """Whether enough nodes have enough for each part of a waiting job now, or would if others were displaced."""
        if not displaces or view.index.may_fit(life.shape):
            return view.index.may_fit(life.shape)
        free = room.free_without(view)
        return all(
            np.count_nonzero((free >= part.need.vector()).all(axis=1) & view.index.nodes_ever(row)) >= part.nodes
            for part, row in zip(life.shape.parts, life.shape.rows, strict=True)
        )

    def _put(self, view: View, room: Room, life: Life, ready: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seconds = self._draw(view, life)[: room.draws]
        gives_way, displaces = (room.gives_way(life), self._displaces(life)) if room.displaced else (False, False)
        leaves = self._leaves(view, room, life)
        start = room.put(self._wants(life), seconds, ready, gives_way=gives_way, displaces=displaces, leaves=leaves)
        return start, seconds

    def _leaves(self, view: View, room: Room, life: Life) -> Leaves:
        """What a waiting job leaves to others though it lacks cores."""
        if self._held_back_until is None or self._kept_milli is None:
            return 0.0, -math.inf
        until = self._held_back_until(view, life)
        if until <= view.now:
            return 0.0, until
        each = life.job.parts[0].need.cpu_milli
        if each not in room.kept:
            room.kept[each] = self._kept_milli(view, each) / 1000
        return room.kept[each], until

    def _rest(self, view: View, life: Life, ran: float, *, disturbed: bool) -> np.ndarray:
        """Seconds, among neighbours or alone, that a job on its nodes still takes after ``ran`` such seconds."""
        if life.done is not None and life.done > 0.1 and ran > 0:
            left = ran * (1 - life.done) / max(life.done - life.saved_done, 1e-3)
            around: np.ndarray = left * np.exp(PROGRESS_SPREAD * DRAWS[life.id % len(DRAWS)])
            return around
        return longer(self._draw(view, life, disturbed=disturbed), ran)

    def _wants(self, life: Life) -> Wants:
        if self._whole_nodes:
            return float(sum(part.nodes for part in life.job.parts)), 0.0, 0.0
        mem_mib = sum(part.nodes * part.need.mem_mib for part in life.job.parts)
        return life.job.cpu_milli / 1000, life.job.gpu_total_milli / 1000, float(mem_mib)


@dataclass(slots=True)
class _Played:
    """The queue as it was played up to its last job."""

    stamp: int
    at: float
    last: Key
    size: int
    priority: int
    room: Room

    def ends_before(self, view: View, new: list[Key], priority: int) -> bool:
        """Whether nothing has changed but that ``new`` (sorted), of that priority, has come to the end of the queue."""
        same = (
            priority == self.priority
            and self.stamp == view.stamp
            and self.size + len(new) == len(view.pending)
            and self.last < new[0]
        )
        return same and view.now - self.at <= FRESH_S


def _lowest(lives: Sequence[Life]) -> int:
    return min(life.job.priority for life in lives)


def _never(life: Life) -> bool:
    del life
    return False


def _strangers(view: View) -> list[tuple[int, int]]:
    """How many cores and GPUs of each node others hold, where they hold any."""
    ledger = view.ledger
    use = [ledger.foreign_use(n) for n in range(len(ledger.nodes)) if ledger.is_up(n)]
    return [(len(cores), len(gpus)) for cores, gpus in use if cores or gpus]


def _supposed(view: View, start: np.ndarray) -> str:
    """What a quote supposes of cores and GPUs that others hold, in words; nothing of a job that starts at once."""
    held = _strangers(view)
    if not held or start.max() <= view.now:
        return ""
    sums = zip(("core", "GPU"), map(sum, zip(*held, strict=True)), strict=True)
    which = " and ".join(f"{count} {what}{'s' if count > 1 else ''}" for what, count in sums if count)
    return f"; {which} held by others, supposed to come free within {human_duration(PRIOR_S[2])}"


def _expected(view: View, life: Life) -> Interval:
    """How long the job runs alone: for one that waits, from what is known now and not only when it was submitted."""
    return view.history.expect(life.job)[0] if life.state in (State.QUEUED, State.BLOCKED) else life.expected


def _informed(expected: Interval) -> bool:
    """Whether something is known of the job: what is quoted from a prior alone says nothing of how quotes err."""
    return not is_guess(expected)
