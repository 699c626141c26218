"""The scheduler's state machine: ``(state, events) -> decisions and instructions``, without any input or output.

The daemon and the simulator drive this same class. It reads no clock, starts no process and draws no random number:
what was simulated is what runs, and a stored day, replayed, gives every decision again (`share.simulate.replay`).

A step takes the events that happened since the last one, changes the jobs' states (`transitions`), lets
the policy decide, and carries the decisions over into allocations and instructions.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tandem.share import events as ev
from tandem.share.codec import from_json
from tandem.share.deciding.going_on import go_on, left_behind
from tandem.share.model import Job, JobClass, Quote, State
from tandem.share.scheduler import snapshot as snap
from tandem.share.scheduler.admission import check
from tandem.share.scheduler.cluster import Cluster, Knowledge, Setup
from tandem.share.scheduler.rehearsal import rehearse
from tandem.share.scheduler.transitions import Transitions
from tandem.share.scheduler.waiting import held_ahead, out_of_reach, why_it_waits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from tandem.share.quoting.quotes import Play, Rehearsed
    from tandem.share.state.life import Life
    from tandem.share.state.view import View


@dataclass(frozen=True, slots=True)
class Step:
    """What one step brought."""

    instructions: tuple[ev.Instruction, ...] = ()
    decisions: tuple[ev.Decision, ...] = ()
    quotes: tuple[Quote, ...] = ()
    ignored: tuple[str, ...] = ()
    """Events that came twice or too late, in words."""
    taken_back: tuple[int, ...] = ()
    """Jobs of which a hold took back what was promised."""


NOTHING = Step()


class Machine(Cluster):
    """The cluster, and what drives it. Deterministic: equal setups and equal steps give equal answers."""

    def __init__(self, setup: Setup, known: Knowledge | None = None) -> None:
        super().__init__(setup, known)
        self.transitions = Transitions(self)
        self._started: list[Life] = []  # in this step
        self.quoter.rehearse = self._rehearse
        if setup.snapshot is not None:
            snap.load(self, setup.snapshot, _same if known is not None else from_json)
        self._wake = self._asked_wake()

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
        self._out, self._quotes, self._ignored, self._taken_back = [], [], [], []
        for event in events:
            self.transitions.apply(event)
        self._fire_timers()
        self._dirty |= self._wake is not None and self._wake <= self.now
        decisions = self._decide() if self._dirty and not self.disk_full else ()
        self._wake = self._asked_wake()
        self._quote()
        if not (self._out or decisions or self._quotes or self._ignored or self._taken_back):
            return NOTHING
        quotes, ignored = tuple(self._quotes), tuple(self._ignored)
        return Step(tuple(self._out), tuple(decisions), quotes, ignored, tuple(self._taken_back))

    def next_wake(self) -> float | None:
        """When a `Tick` is due (time limits, the policy's own timers), or None."""
        while self.timers and not self.is_due(self.timers[0]):
            heapq.heappop(self.timers)
        times = [self.timers[0][0]] if self.timers else []
        if self.overdue and self._keeps_cores():
            times.append(max(self.now, self.overdue[0][0]))
        if self._wake is not None:
            times.append(self._wake)
        return min(times, default=None)

    def _asked_wake(self) -> float | None:
        """When the policy wants to look again, if it ever does; also if something else comes just then."""
        asked = getattr(self.policy, "wake_at", None)
        wake = asked(self.view) if asked is not None else None
        return wake if wake is not None and wake > self.now else None

    def why(self, job: int) -> str:
        """Why a job waits, in words; its last decision's reason if it does not wait."""
        return why_it_waits(self, self.jobs[job])

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state, to start another machine from (``Setup.snapshot``)."""
        return snap.save(self)

    # ----------------------------------------------------------------------------------- details

    def _rehearse(self, plays: Sequence[Play], wanted: Collection[int]) -> list[Rehearsed]:
        """Play the queue forward with this policy, once for each of ``plays``; this machine does not change."""
        state = snap.copy(self, _same)
        setup = Setup(self.setup.policy, self.setup.estimator, {**self.setup.options, "quotes": 0}, state)
        known = Knowledge(self.policy, self.history, self.estimator)
        return [rehearse(Machine(setup, known), play, wanted) for play in plays]

    def _fire_timers(self) -> None:
        while self.timers and self.timers[0][0] <= self.now:
            timer = heapq.heappop(self.timers)
            if self.is_due(timer):
                self.transitions.timer(self.jobs[timer[1]])
                self._dirty = True
        while self.overdue and self.overdue[0][0] <= self.now:
            when, job, attempt = heapq.heappop(self.overdue)
            life = self.on_nodes.get(job)
            if life is not None and life.attempt == attempt and life.planned_end == when:
                # It took longer than planned: expect half as much again as it has run, at least a second.
                self.plan_end(life, self.now + max(1.0, 0.5 * life.ran(self.now)))
                self._dirty |= self._keeps_cores()

    def _keeps_cores(self) -> bool:
        """Whether cores may be kept for a suspended job, which goes by when others are expected to end."""
        lives = self.view.curbed.values() if self._resumes else left_behind(self.view)
        return any(life.state is State.SUSPENDED for life in lives)

    def _quote(self) -> None:
        """Quote who was submitted, and who was started, in this step: after deciding, as they may be the same."""
        if self._unquoted:
            lives = dict.fromkeys(self._unquoted)  # one that was held in between is there twice
            there = [life for life in lives if life.state in (State.QUEUED, State.BLOCKED, State.STARTING)]
            self._unquoted = []
            held: dict[int, int | None] = {}
            never: dict[int, int | None] = {}
            for life in there:  # else it is quoted once that is let go, or a node has come that could hold it
                life.counted = held_ahead(self, life, held) is None and not out_of_reach(self, life, never)
            self._quotes += self.quoter.submitted(self.view, [life for life in there if life.counted])
        if self._started:
            self._quotes += self.quoter.started(self.view, self._started)
            self._started = []

    def _decide(self) -> list[ev.Decision]:
        self._dirty, self.decided_at = False, self.now
        carried: list[ev.Decision] = []
        for decide in (self._let_go_on, self.policy.decide):
            for decision in decide(self.view, self.now):
                life = self.jobs[decision.job]
                if _CARRY[type(decision)](self, life, decision):
                    carried.append(decision)
        self.ledger.keep_nothing_free()
        if self.view.placed:
            msg = f"the policy placed jobs {sorted(self.view.placed)} and decided nothing about them"
            raise AssertionError(msg)
        return carried

    def _let_go_on(self, view: View, now: float) -> list[ev.Decision]:
        return go_on(view, now, resumes=self._resumes)

    def _start(self, life: Life, decision: ev.Start) -> bool:
        if life.placement is not decision.placement or life.id in self.pending:
            msg = f"the policy starts job {life.id} without having placed it"
            raise AssertionError(msg)
        self.view.placed.discard(life.id)
        before = f"; attempt {life.attempt} could not be started: {life.refused}" if life.refused else ""
        life.attempt += 1
        life.state = State.STARTING
        life.started_at, life.placed_at = None, self.now
        life.reason, life.refused = decision.reason + before, ""
        life.ran_s, life.run_since, life.throttle = 0.0, None, 1.0
        life.done = life.saved_done or None
        life.rate = life.slowdown = life.reserved = None
        life.measured_s = life.measured_alone_s = 0.0
        life.expected, _ = self.history.expect(life.job)  # more may be known than when it was submitted
        self.on_nodes[life.id] = life
        self.view.harvesting += life.job.klass is JobClass.HARVEST
        self.plan_end(life, life.planned_end)
        self._out.append(ev.StartJob(life.id, life.attempt, decision.placement))
        self._started.append(life)
        return True

    def _suspend(self, life: Life, decision: ev.Suspend) -> bool:
        if life.state is not State.RUNNING:
            return False
        life.state, life.reason, life.curbed_before = State.SUSPENDING, decision.reason, False
        self.view.curbed[life.id] = self.view.leaving[life.id] = life
        self._guarded(life)
        self._out.append(ev.SuspendJob(life.id, life.attempt))
        return True

    def _resume(self, life: Life, decision: ev.Resume) -> bool:
        if life.state is not State.SUSPENDED:
            msg = f"the policy resumes job {life.id}, which is {life.state}"
            raise AssertionError(msg)
        self.view.placed.discard(life.id)
        life.state, life.reason, life.placement = State.RESUMING, decision.reason, decision.placement
        life.reserved = None
        self.plan_end(life, self.now + max(1.0, life.plan_s - life.ran_s))
        self._out.append(ev.ResumeJob(life.id, life.attempt, decision.placement))
        return True

    def _throttle(self, life: Life, decision: ev.Throttle) -> bool:
        if life.state is not State.RUNNING or life.throttle == decision.fraction:
            return False
        life.throttle, life.throttled_at, life.reason = decision.fraction, self.now, decision.reason
        life.curbed_before = False
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
        told = (round(decision.at), decision.nodes) if decision.nodes else None
        if life.reserved == told:
            return False
        life.reserved = told
        if life.state is State.QUEUED:
            life.reason = decision.reason  # a suspended job's says why it was suspended
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


def _same(value: Any) -> Any:  # noqa: ANN401 - whatever a snapshot holds
    return value
