"""The scheduler's state machine: ``(state, events) -> decisions and instructions``, without any input or output.

The daemon and the simulator drive this same class. It reads no clock, starts no process and draws no random number:
what was simulated is what runs, and a stored day, replayed, gives every decision again (`tandem.share.replay`).

A step takes the events that happened since the last one, changes the jobs' states (`tandem.share.transitions`), lets
the policy decide, and carries the decisions over into allocations and instructions.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tandem.estimate import estimators
from tandem.share import events as ev
from tandem.share import policy
from tandem.share import snapshot as snap
from tandem.share.admission import check
from tandem.share.demand_index import DemandIndex, Shape
from tandem.share.history import History
from tandem.share.ledger import Ledger
from tandem.share.life import Life
from tandem.share.model import Job, JobClass, Part, Quote, State
from tandem.share.pending import Pending
from tandem.share.quotes import Quoter
from tandem.share.transitions import Transitions
from tandem.share.view import View
from tandem.share.waiting import why_it_waits

if TYPE_CHECKING:
    from tandem.estimate.corun import CoRun

CORUNS = 5000
"""Observations of co-runs that a snapshot carries over."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a machine starts from: the first entry of an event log.

    Attributes:
        policy, estimator: plug-in names.
        options: numbers that the policy reads (each policy documents its own), and ``quotes``: 0 makes none,
            1 (the default) quotes every job, k every k-th.
        snapshot: state carried over from an earlier log, or None.
    """

    policy: str = "hybrid"
    estimator: str = "proportional"
    options: Mapping[str, float] = field(default_factory=dict)
    snapshot: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step brought."""

    instructions: tuple[ev.Instruction, ...] = ()
    decisions: tuple[ev.Decision, ...] = ()
    quotes: tuple[Quote, ...] = ()
    ignored: tuple[str, ...] = ()
    """Events that came twice or too late, in words."""


class Machine:
    """All nodes and jobs. Deterministic: equal setups and equal steps give equal answers."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.now = 0.0
        self.jobs: dict[int, Life] = {}
        """Live jobs; a job that ended stays until the next step."""
        self.ended: dict[int, State] = {}
        """How every job ended."""
        self.policy = policy.load(setup.policy)
        self._starts_only: bool = getattr(self.policy, "STARTS_ONLY", False)
        self.ledger = Ledger()
        self.index = DemandIndex(self.ledger)
        self.pending = Pending(self.index)
        self.history = History()
        self.coruns: deque[CoRun] = deque(maxlen=CORUNS)
        self.on_nodes: dict[int, Life] = {}
        self.next_id = 1
        self._shapes: dict[tuple[Part, ...], Shape] = {}
        self.timers: list[tuple[float, int, int]] = []  # (when, job, attempt): look at the job then
        self.overdue: list[tuple[float, int, int]] = []
        self._gone: list[int] = []
        self._dirty = False
        self._out: list[ev.Instruction] = []
        self._quotes: list[Quote] = []
        self._unquoted: list[Life] = []  # let into the queue in this step
        self._ignored: list[str] = []
        if setup.snapshot is not None:
            self.history = History.restore(setup.snapshot["history"])
            self.coruns.extend(snap.corun(row) for row in setup.snapshot["coruns"])
        self.estimator = estimators.make(setup.estimator, tuple(self.coruns))
        self.quoters: dict[str, Any] = {}
        """What quoters have learned under each policy that was used before (JSON-able)."""
        self.quoter = Quoter(self.policy, int(setup.options.get("quotes", 1)))
        self.view = View(
            self.ledger, self.index, self.pending, self.jobs, self.on_nodes, self.estimator, self.history, setup.options
        )
        self.transitions = Transitions(self)
        if setup.snapshot is not None:
            snap.load(self, setup.snapshot)

    # ------------------------------------------------------------------------------------ outside

    def check(self, job: Job, *, batch: Sequence[Job] = ()) -> None:
        """Refuse a submission that could never run.

        Args:
            batch: jobs submitted together with it and before it (it may depend on them).

        Raises:
            ImpossibleDemandError: no node, even empty, gives what it asks for; says which resource.
            DependencyError: it depends on a job that does not exist.
        """
        together = {other.id for other in batch} if job.after else ()
        check(job, self.ledger.nodes, (self.jobs, self.ended, together))

    def step(self, now: float, events: Iterable[ev.Event]) -> Step:
        """Take ``events``, in order, at ``now`` (Unix seconds; a clock that jumped back counts as standing still)."""
        self.now = self.view.now = max(self.now, now)
        for job in self._gone:
            self.jobs.pop(job, None)
        self._gone = []
        self._out, self._quotes, self._ignored = [], [], []
        for event in events:
            self.transitions.apply(event)
        self._fire_timers()
        self._quote_submissions()
        decisions = self._decide() if self._dirty else ()
        return Step(tuple(self._out), tuple(decisions), tuple(self._quotes), tuple(self._ignored))

    def next_wake(self) -> float | None:
        """When a `Tick` is due (time limits, the policy's own timers), or None."""
        while self.timers and not self.is_due(self.timers[0]):
            heapq.heappop(self.timers)
        return self.timers[0][0] if self.timers else None

    def why(self, job: int) -> str:
        """Why a job waits, in words; its last decision's reason if it does not wait."""
        return why_it_waits(self, self.jobs[job])

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state, to start another machine from (``Setup.snapshot``)."""
        return snap.save(self)

    # ------------------------------------------------------------- used by transitions and snapshot

    def shape(self, parts: tuple[Part, ...]) -> Shape:
        """The interned shape of ``parts``."""
        shape = self._shapes.get(parts)
        if shape is None:
            shape = self._shapes[parts] = Shape(parts)
        return shape

    def admit(self, job: Job, state: State) -> Life:
        """A new job's life, planned but not yet queued."""
        expected, basis = self.history.expect(job)
        life = Life(job, self.shape(job.parts), state, self.now, expected, 0.0, reason=basis)
        life.plan_s = self.policy.plan_s(life)
        self.view.contended = self.view.contended or self.estimator.knows(self.view.app(life))
        return life

    def enqueue(self, life: Life) -> None:
        """The job waits for its turn from now on."""
        life.state = State.QUEUED
        life.hindered, life.has_room = "", False
        life.queued_at = self.now
        life.rank = self.policy.rank(life, self.setup.options)
        key = (-life.job.priority, life.rank, life.id)
        self.pending.add(key, life.shape, life.plan_s)
        if not self._starts_only or self.index.may_fit(life.shape) or self.pending.head() == key:
            self._dirty = True

    @property
    def is_dirty(self) -> bool:
        """Whether the policy has not looked at the last change yet."""
        return self._dirty

    def dirty(self) -> None:
        """Something changed that the policy should look at."""
        self._dirty = True

    @staticmethod
    def is_strained(life: Life) -> bool:
        """Whether a primary job was last measured to go slower than its bound."""
        beyond = life.slowdown is not None and life.slowdown > life.job.max_slowdown
        return beyond and life.job.klass is JobClass.PRIMARY

    def judge(self, life: Life) -> None:
        """The job's slowdown was measured: have the policy look where a bound is broken, or no longer is."""
        if self.is_strained(life):
            self.view.strained[life.id] = life
            self._dirty = True
        elif self.view.strained.pop(life.id, None) is not None:
            self._dirty = True

    def leave_nodes(self, life: Life) -> None:
        """The job gives back all it holds."""
        life.pause_clock(self.now)
        self.view.stamp += 1
        for n in life.numbers:
            self.ledger.give_back(life.id, n)
        life.numbers = ()
        life.planned_end = math.inf
        if self.on_nodes.pop(life.id, None) is not None:
            self.view.harvesting -= life.job.klass is JobClass.HARVEST
            self.view.strained.pop(life.id, None)
            self.view.curbed.pop(life.id, None)
        self._dirty = True

    def finish(self, life: Life, state: State, reason: str) -> None:
        """The job has reached its end; said to the outside exactly once."""
        life.state, life.reason, life.ended_at = state, reason, self.now
        self.ended[life.id] = state
        self._gone.append(life.id)
        self._out.append(ev.JobEnded(life.id, state, reason))
        self.quoter.ended(life, self.now)

    def instruct(self, instruction: ev.Instruction) -> None:
        """Tell the engine."""
        self._out.append(instruction)

    def ignore(self, words: str) -> None:
        """An event that changes nothing, said in words."""
        self._ignored.append(words)

    def quote_submission(self, life: Life) -> None:
        """Promise when the job starts and finishes, once the step's events are all known; once for each job."""
        if not life.counted:
            life.counted = True
            self._unquoted.append(life)

    def wake_at(self, when: float, life: Life) -> None:
        """Have a `Tick` at ``when`` as long as the job is in this attempt."""
        heapq.heappush(self.timers, (when, life.id, life.attempt))

    def is_due(self, timer: tuple[float, int, int]) -> bool:
        """Whether the job of a timer is still on its nodes in that attempt."""
        life = self.jobs.get(timer[1])
        return life is not None and not life.ended and life.attempt == timer[2] and life.id in self.on_nodes

    def set_alarms(self, life: Life) -> None:
        """Have a `Tick` when the policy wants to look at the running job again, if it ever does."""
        alarm = getattr(self.policy, "alarm", None)
        seconds = (
            alarm(life, self.now, self.setup.options) if alarm is not None and life.run_since is not None else None
        )
        if seconds is not None:
            self.wake_at(self.now + seconds, life)

    def plan_end(self, life: Life, when: float) -> None:
        """Expect the running attempt to end at ``when``; planned anew when that passes."""
        self.view.stamp += 1
        life.planned_end = when
        if not math.isinf(when):
            heapq.heappush(self.overdue, (when, life.id, life.attempt))
        for n in life.numbers:
            self.ledger.replanned(n)

    # ----------------------------------------------------------------------------------- details

    def _fire_timers(self) -> None:
        while self.timers and (self.timers[0][0] <= self.now or not self.is_due(self.timers[0])):
            timer = heapq.heappop(self.timers)
            if self.is_due(timer):
                self.transitions.timer(self.jobs[timer[1]])
                self._dirty = True
        while self.overdue and self.overdue[0][0] <= self.now:
            when, job, attempt = heapq.heappop(self.overdue)
            life = self.jobs.get(job)
            if life is not None and life.attempt == attempt and life.planned_end == when and job in self.on_nodes:
                # It took longer than planned: expect half as much again as it has run, at least a second.
                self.plan_end(life, self.now + max(1.0, 0.5 * life.ran(self.now)))

    def _quote_submissions(self) -> None:
        if self._unquoted:
            waiting = [life for life in self._unquoted if life.state in (State.QUEUED, State.BLOCKED)]
            self._unquoted = []
            self._quotes += self.quoter.submitted(self.view, waiting)

    def _decide(self) -> list[ev.Decision]:
        self._dirty = False
        carried: list[ev.Decision] = []
        for decision in self.policy.decide(self.view, self.now):
            life = self.jobs[decision.job]
            if _CARRY[type(decision)](self, life, decision):
                carried.append(decision)
        if self.view.placed:
            msg = f"the policy placed jobs {sorted(self.view.placed)} and decided nothing about them"
            raise AssertionError(msg)
        return carried

    def _start(self, life: Life, decision: ev.Start) -> bool:
        if life.placement is not decision.placement or life.id in self.pending:
            msg = f"the policy starts job {life.id} without having placed it"
            raise AssertionError(msg)
        self.view.placed.discard(life.id)
        life.attempt += 1
        life.state = State.STARTING
        life.started_at = None
        life.reason = decision.reason
        life.ran_s, life.run_since, life.throttle = 0.0, None, 1.0
        life.done = life.saved_done or None
        life.rate = life.slowdown = life.reserved = None
        life.measured_s = life.measured_alone_s = 0.0
        life.expected, _ = self.history.expect(life.job)  # more may be known than when it was submitted
        self.on_nodes[life.id] = life
        self.view.harvesting += life.job.klass is JobClass.HARVEST
        self.plan_end(life, life.planned_end)
        self._out.append(ev.StartJob(life.id, life.attempt, decision.placement))
        quote = self.quoter.started(self.view, life)
        if quote is not None:
            self._quotes.append(quote)
        return True

    def _suspend(self, life: Life, decision: ev.Suspend) -> bool:
        if life.state is not State.RUNNING:
            return False
        life.state, life.reason = State.SUSPENDING, decision.reason
        self.view.curbed[life.id] = life
        self._guarded(life)
        self._out.append(ev.SuspendJob(life.id, life.attempt))
        return True

    def _resume(self, life: Life, decision: ev.Resume) -> bool:
        if life.state is not State.SUSPENDED:
            msg = f"the policy resumes job {life.id}, which is {life.state}"
            raise AssertionError(msg)
        self.view.placed.discard(life.id)
        life.state, life.reason, life.placement = State.RESUMING, decision.reason, decision.placement
        self.plan_end(life, self.now + max(1.0, life.plan_s - life.ran_s))
        self._out.append(ev.ResumeJob(life.id, life.attempt, decision.placement))
        return True

    def _throttle(self, life: Life, decision: ev.Throttle) -> bool:
        if life.state is not State.RUNNING or life.throttle == decision.fraction:
            return False
        life.throttle, life.throttled_at, life.reason = decision.fraction, self.now, decision.reason
        self.view.curbed[life.id] = life
        if decision.fraction == 1.0:
            del self.view.curbed[life.id]
        self._guarded(life)
        self._out.append(ev.ThrottleJob(life.id, life.attempt, decision.fraction))
        return True

    def _guarded(self, life: Life) -> None:
        """What was measured of its neighbours before now no longer tells how they are."""
        for n in life.numbers:
            for neighbour in self.view.neighbours(n, but=life.id):
                neighbour.guarded_at = self.now

    def _requeue(self, life: Life, decision: ev.Requeue) -> bool:
        if life.state not in (State.RUNNING, State.SUSPENDED):
            return False
        self.transitions.stop(life, State.QUEUED, decision.reason)
        return True

    def _reserve(self, life: Life, decision: ev.Reserve) -> bool:
        told = (round(decision.at), decision.nodes)
        if life.reserved == told:
            return False
        life.reserved, life.reason = told, decision.reason
        return True


_CARRY: dict[type, Callable[[Machine, Life, Any], bool]] = {
    ev.Start: Machine._start,
    ev.Suspend: Machine._suspend,
    ev.Resume: Machine._resume,
    ev.Throttle: Machine._throttle,
    ev.Requeue: Machine._requeue,
    ev.Reserve: Machine._reserve,
}
"""How each kind of decision is carried over; each answers whether it changed anything."""

__all__ = ["Machine", "Setup", "Step"]
