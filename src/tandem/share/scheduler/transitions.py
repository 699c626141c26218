"""What each event does to the jobs' states. Every event is legal in every state: late and double ones are ignored.

HELD/BLOCKED -> QUEUED -> STARTING -> RUNNING <-> SUSPENDING/SUSPENDED/RESUMING
any of these -> STOPPING -> (an end, or QUEUED again)          ends: DONE FAILED CANCELLED TIMEOUT LOST
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from tandem.estimate.corun import CoRun
from tandem.estimate.observed import LEAST_S
from tandem.share import events as ev
from tandem.share.deciding.resting import REST_S, in_vain_for, rest
from tandem.share.model import ON_NODE, After, State
from tandem.share.scheduler.waiting import label, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tandem.share.scheduler.cluster import Cluster
    from tandem.share.state.life import Life


_OfAttempt = ev.Started | ev.StartRefused | ev.Ended | ev.SuspendDone | ev.ResumeDone | ev.ResumeRefused | ev.WentOn


class Transitions:
    """The event handlers of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._m = cluster
        self._handlers: dict[type, Callable[[Any], None]] = {
            ev.NodeJoined: self._node_joined,
            ev.NodeLost: self._node_lost,
            ev.ForeignUse: self._foreign_use,
            ev.Submitted: self._submitted,
            ev.CancelAsked: self._cancel_asked,
            ev.HoldAsked: self._hold_asked,
            ev.ReleaseAsked: self._release_asked,
            ev.Started: self._started,
            ev.StartRefused: self._start_refused,
            ev.Ended: self._ended,
            ev.SuspendDone: self._suspend_done,
            ev.ResumeDone: self._resume_done,
            ev.ResumeRefused: self._resume_refused,
            ev.WentOn: self._went_on,
            ev.Measured: self._measured,
            ev.Profiled: lambda event: self._m.profiled(event.profile),
            ev.DiskFull: self._disk_full,
            ev.Tick: lambda _: self._m.dirty(),
        }

    def apply(self, event: ev.Event) -> None:
        """Carry one event into the state."""
        self._handlers[type(event)](event)

    def timer(self, life: Life) -> None:
        """A timer of the job rang: look at its time limit."""
        limit = life.job.limit_s
        now = self._m.now
        if life.state is State.STOPPING:
            return
        self._m.set_alarms(life)
        if limit is None:
            return
        left = limit - life.ran(now)
        if left <= 1e-6 * max(1.0, limit):
            self.stop(life, State.TIMEOUT, _limit_over(limit))
        elif life.run_since is not None:
            self._m.wake_at(now + left, life)

    def stop(self, life: Life, end: State, why: str) -> None:
        """Have the engine stop a job on its nodes; it will end as ``end`` (QUEUED: it waits again)."""
        first = life.state is not State.STOPPING
        life.state, life.stop_as, life.stop_why, life.reason = State.STOPPING, end, why, why
        if first:
            job = life.job
            self._m.view.leaving[job.id] = life
            self._m.plan_end(life, self._m.now + job.grace_s)
            self._m.instruct(ev.StopJob(job.id, life.attempt, job.checkpoint, job.grace_s, why))

    # ------------------------------------------------------------------------------------- nodes

    def _node_joined(self, event: ev.NodeJoined) -> None:
        self._m.ledger.join(event.node)
        self._m.view.stamp += 1
        self._m.view.has_gpus = self._m.view.has_gpus or bool(event.node.gpus)
        self._m.dirty()
        for life in self._m.jobs.values():
            if life.state in (State.QUEUED, State.BLOCKED) and not life.counted:  # perhaps no node could hold it
                self._m.quote_submission(life)

    def _node_lost(self, event: ev.NodeLost) -> None:
        m = self._m
        n = m.ledger.number.get(event.node)
        if n is None or not m.ledger.is_up(n):
            m.ignore(f"node {event.node} is lost, which was not there")
            return
        m.ledger.lose(n)
        m.view.stamp += 1
        why = f"node {event.node} was lost" + (f": {event.why}" if event.why else "")
        for job in list(m.ledger.holders(n)):
            life = m.jobs[job]
            m.ledger.give_back(job, n)
            life.numbers = tuple(k for k in life.numbers if k != n)
            if life.numbers and any(m.ledger.is_up(k) for k in life.numbers):
                end = life.stop_as if life.state is State.STOPPING and life.stop_as is not None else State.LOST
                self.stop(life, end, why)
            else:
                self._over(life, lost=True, well=False, why=why)
        m.dirty()

    def _foreign_use(self, event: ev.ForeignUse) -> None:
        m = self._m
        n = m.ledger.number.get(event.node)
        if n is None:
            m.ignore(f"foreign use of node {event.node}, which is not known")
            return
        m.ledger.foreign(n, frozenset(event.cores), frozenset(event.gpus))
        m.dirty()

    def _disk_full(self, event: ev.DiskFull) -> None:
        self._m.disk_full = event.full
        self._m.dirty()

    # -------------------------------------------------------------------------------- submitters

    def _submitted(self, event: ev.Submitted) -> None:
        m, job = self._m, event.job
        if job.id in m.jobs or job.id in m.ended:
            m.ignore(f"job {job.id} was submitted already")
            return
        m.next_id = max(m.next_id, job.id + 1)
        life = m.admit(job, State.HELD)
        doomed = None
        for after in job.after:
            end = m.ended.get(after.job)
            if end is None and after.job in m.jobs:
                life.waits_for.add(after.job)
            elif after.ok and end is not State.DONE:
                doomed = after.job
        m.jobs[job.id] = life  # only now: a job that names itself names one that does not exist
        m.link(life)
        if doomed is not None:
            self._doom(life, doomed)
            return
        if not job.held:
            self._let_go(life)

    def _let_go(self, life: Life) -> None:
        if life.waits_for:
            life.state = State.BLOCKED
        else:
            self._m.enqueue(life)
        self._m.quote_submission(life)

    def _cancel_asked(self, event: ev.CancelAsked) -> None:
        m = self._m
        life = m.jobs.get(event.job)
        if life is None or life.ended:
            m.ignore(f"job {event.job} has ended already, nothing to cancel")
            return
        if life.state in ON_NODE:
            self.stop(life, State.CANCELLED, "it was cancelled")
        else:
            self._drop(life, State.CANCELLED, "it was cancelled")

    def _hold_asked(self, event: ev.HoldAsked) -> None:
        m = self._m
        life = m.jobs.get(event.job)
        if life is None or life.state not in (State.QUEUED, State.BLOCKED):
            m.ignore(f"job {event.job} does not wait, so it cannot be held")
            return
        if life.state is State.QUEUED:
            m.pending.remove(life.id)
            m.dirty()
        life.state, life.reserved = State.HELD, None
        m.take_back(life)

    def _release_asked(self, event: ev.ReleaseAsked) -> None:
        life = self._m.jobs.get(event.job)
        if life is None or life.state is not State.HELD:
            self._m.ignore(f"job {event.job} is not held")
            return
        self._let_go(life)
        self._quote_behind(life)

    def _quote_behind(self, life: Life) -> None:
        """Quote those that waited for the job while it was held, at any remove."""
        chain = [life.id]
        for job in chain:
            for waiter in self._m.blocked_by(job):
                if not waiter.counted:
                    self._m.quote_submission(waiter)
                    chain.append(waiter.id)

    def _doom(self, life: Life, dependency: int) -> None:
        self._drop(life, State.CANCELLED, _doomed_by(name_of(self._m, dependency)))

    def _drop(self, life: Life, end: State, why: str) -> None:
        """A job that is on no node ends."""
        if life.state is State.QUEUED:
            self._m.pending.remove(life.id)
            self._m.dirty()
        self._finish(life, end, why)

    def _finish(self, life: Life, end: State, why: str, when: float | None = None) -> None:
        """A job ends, and all that could run only after its success end with it (a chain may be long: no recursion)."""
        m = self._m
        m.finish(life, end, why, when)
        over = deque([life])
        while over:
            gone = over.popleft()
            for job in sorted(m.dependents.pop(gone.id, ())):
                waiter = m.jobs.get(job)
                if waiter is None or waiter.ended:
                    continue
                waiter.waits_for.discard(gone.id)
                if gone.state is not State.DONE and After(gone.id) in waiter.job.after:
                    m.finish(waiter, State.CANCELLED, _doomed_by(label(gone.job)))
                    over.append(waiter)
                elif waiter.state is State.BLOCKED:
                    if not waiter.waits_for:
                        m.enqueue(waiter)
                    if not (gone.counted or waiter.counted):  # it was held, or behind one that is: no longer in the way
                        m.quote_submission(waiter)
                        self._quote_behind(waiter)

    # ------------------------------------------------------------------------------------ engine

    def _attempt(self, event: _OfAttempt) -> Life | None:
        """The life the event speaks of, if it speaks of the attempt that is on."""
        life = self._m.jobs.get(event.job)
        if life is None or life.attempt != event.attempt or life.state not in ON_NODE:
            self._m.ignore(f"{type(event).__name__} of job {event.job}, attempt {event.attempt}: no such attempt is on")
            return None
        return life

    def _awaited(self, event: _OfAttempt, state: State, what: str) -> Life | None:
        """The life the event speaks of, if it is in the state in which that is awaited."""
        life = self._attempt(event)
        if life is not None and life.state is not state:
            self._m.ignore(f"job {life.id} is {life.state}, not being {what}")
            return None
        return life

    def _started(self, event: ev.Started) -> None:
        life = self._attempt(event)
        if life is None:
            return
        m = self._m
        if life.state is State.STARTING:
            life.state = State.RUNNING
        elif life.state is not State.STOPPING or life.started_at is not None:
            m.ignore(f"job {life.id} has started already")
            return
        since = m.now if event.at is None else min(m.now, max(event.at, life.placed_at))
        life.run_since = life.started_at = since
        if life.first_start is None:
            life.first_start = since
        if life.job.limit_s is not None:
            m.wake_at(since + life.job.limit_s, life)
        if life.state is State.RUNNING:
            if life.planned_end != since + life.plan_s:
                m.plan_end(life, since + life.plan_s)
            m.set_alarms(life)

    def _start_refused(self, event: ev.StartRefused) -> None:
        life = self._attempt(event)
        if life is None:
            return
        m = self._m
        if life.started_at is not None:
            m.ignore(f"job {life.id} has started already, so its start cannot be refused")
        elif life.state is State.STOPPING and life.stop_as is not State.QUEUED:
            self._over(life, lost=False, well=False, why=event.why)
        else:
            m.leave_nodes(life)
            life.stop_as = None
            m.enqueue(life)
            life.reason = life.refused = event.why

    def _ended(self, event: ev.Ended) -> None:
        life = self._attempt(event)
        if life is None:
            return
        if event.saved:
            life.continues = True
            life.saved_done = life.done if life.done is not None else life.saved_done
        if event.timed_out and life.stop_as is None and life.job.limit_s is not None:
            life.stop_as, life.stop_why = State.TIMEOUT, _limit_over(life.job.limit_s)
        well = event.code == 0 and event.signal == 0 and not event.lost
        self._over(life, lost=event.lost, well=well, why=event.reason or how_it_ended(event), at=event.at)

    def _over(self, life: Life, *, lost: bool, well: bool, why: str, at: float | None = None) -> None:
        """The attempt is over, since ``at``: the job ends, or waits again."""
        m = self._m
        stood = life.suspended_at if life.state is State.SUSPENDED else m.now
        since = life.run_since if life.run_since is not None else stood  # no clock is turned back
        when = m.now if at is None else min(m.now, max(at, since))
        ran = life.ran(when)
        alone = ran * life.measured_alone_s / life.measured_s if life.measured_s else ran
        m.leave_nodes(life, when)
        stop_as, life.stop_as = life.stop_as, None
        if stop_as is State.LOST:
            lost, well, why, stop_as = True, False, life.stop_why, None
        life.last_end = (life.attempt, why if stop_as is None else life.stop_why, life.started_at)
        if stop_as is State.QUEUED:
            m.enqueue(life)
            return
        if stop_as is not None:
            self._finish(life, stop_as, life.stop_why, when)
        elif well:
            if not life.continues and life.throttled_at < (life.started_at or m.now):
                m.history.ended(life.job, alone)
            self._finish(life, State.DONE, why, when)
        elif life.failures < life.job.retries:
            life.failures += 1
            m.enqueue(life)
            life.reason = f"attempt {life.attempt} ended badly ({why}); retry {life.failures} of {life.job.retries}"
        else:
            self._finish(life, State.LOST if lost else State.FAILED, why, when)

    def _suspend_done(self, event: ev.SuspendDone) -> None:
        life = self._awaited(event, State.SUSPENDING, "suspended")
        if life is None:
            return
        m = self._m
        rest(m.view, life, m.now)
        life.pause_clock(m.now)
        life.state, life.suspended_at = State.SUSPENDED, m.now
        for n in life.numbers:
            m.ledger.pause(life.id, n)
        m.plan_end(life, math.inf)
        m.wake_at(m.now + REST_S, life)
        if life.rest_s > REST_S:
            m.wake_at(life.rests_until, life)
        m.dirty()

    def _resume_done(self, event: ev.ResumeDone) -> None:
        life = self._awaited(event, State.RESUMING, "resumed")
        if life is None:
            return
        m = self._m
        life.state, life.run_since = State.RUNNING, m.now
        life.in_vain_for = in_vain_for(m.view, life)
        if life.throttle == 1.0:
            m.view.curbed.pop(life.id, None)
        else:
            m.dirty()  # perhaps nobody needs its throttle any more
        if life.job.limit_s is not None:
            m.wake_at(m.now + life.job.limit_s - life.ran_s, life)
        m.set_alarms(life)

    def _resume_refused(self, event: ev.ResumeRefused) -> None:
        life = self._awaited(event, State.RESUMING, "resumed")
        if life is None:
            return
        m = self._m
        life.state, life.reason = State.SUSPENDED, "somebody else took its cores as it was to go on"
        for n in life.numbers:
            m.ledger.pause(life.id, n)
        m.plan_end(life, math.inf)
        m.dirty()

    def _went_on(self, event: ev.WentOn) -> None:
        life = self._attempt(event)
        if life is None:
            return
        m = self._m
        if not life.stood_still(event.at):
            m.ignore(f"job {life.id} went on at {event.at:.0f}, which is counted already")
            return
        until = m.now if event.until is None else min(m.now, event.until)
        life.run_since = life.suspended_at = event.at  # what it did from there is counted once
        life.pause_clock(max(event.at, until))
        life.rests_until = -math.inf  # nobody needed its cores: it runs on where that is still so
        m.dirty()

    def _measured(self, event: ev.Measured) -> None:
        m = self._m
        life = m.jobs.get(event.job)
        if life is None or life.state not in ON_NODE:
            m.ignore(f"a measurement of job {event.job}, which is on no node")
            return
        life.rate = event.rate
        if event.done is not None:
            life.done = max(life.saved_done, min(1.0, event.done))
            self._plan_from_progress(life)
        app = life.job.app
        if event.throttled or not app:
            return
        counted = None if event.beside else m.history.observe_rate(life.job, event.rate, event.seconds)
        alone = m.history.alone_rate(life.job)
        if alone is not None and event.rate > 0:
            life.slowdown, life.beside = max(1.0, alone / event.rate), event.beside
            life.measured_from = m.now - event.seconds
            life.measured_s += event.seconds
            life.measured_alone_s += event.seconds / life.slowdown
            m.judge(life)
        if m.history.takes_over(life.job):
            m.forget(app)
        rate = m.history.reference_rate(life.job, event.rate)
        if rate is not None:
            scale = rate / event.rate
            shown: dict[str | None, float] = dict(event.phases)
            if counted is not None:  # of moments that make one rate nobody knows the phase
                shown[event.phase if event.seconds >= LEAST_S else None] = counted
            m.observe(
                CoRun(app, event.beside, rate, event.seconds), {phase: scale * own for phase, own in shown.items()}
            )
        m.view.contended = m.view.contended or m.estimator.knows(m.view.app(life))
        m.look_again()

    def _plan_from_progress(self, life: Life) -> None:
        """Expect the end from the share of work done, once a fifth of it is."""
        m = self._m
        if life.done is None or life.done < 0.2 or life.state is not State.RUNNING or m.policy.PLANS_BY_LIMIT:
            return
        fresh = life.done - life.saved_done
        if fresh > 0.1:
            ran = life.ran(m.now)
            m.plan_end(life, m.now + ran * (1 - life.done) / fresh)


def _limit_over(limit_s: float) -> str:
    return f"its time limit of {limit_s:g} s is over"


def _doomed_by(dependency: str) -> str:
    return f"job {dependency}, on whose success it depends, did not end well"


def how_it_ended(event: ev.Ended) -> str:
    """An end in words, where the engine gives no reason of its own."""
    if event.lost:
        return "its end is not known: its keeper was killed, or the machine restarted"
    if event.signal:
        return f"killed by signal {event.signal}"
    return f"exit status {event.code}"
