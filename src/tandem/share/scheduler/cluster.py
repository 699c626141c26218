"""All nodes and jobs as the scheduler knows them, and the few ways in which they change.

The state under the state machine: `scheduler.transitions` says what each event does to it, `scheduler.machine` what
each decision does, `scheduler.snapshot` writes it down and `scheduler.waiting` explains it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tandem.estimate import estimators
from tandem.estimate.corun import CoRun, Estimator
from tandem.estimate.keeping import latest_of_each
from tandem.share import events as ev
from tandem.share.codec import from_json
from tandem.share.deciding import policy
from tandem.share.model import Job, JobClass, Part, Quote, State
from tandem.share.quoting.quotes import Quoter
from tandem.share.scheduler.drift import Drift
from tandem.share.scheduler.snapshot import check as check_snapshot
from tandem.share.state.demand_index import DemandIndex, Shape
from tandem.share.state.history import History
from tandem.share.state.ledger import Ledger
from tandem.share.state.life import Life
from tandem.share.state.pending import Pending
from tandem.share.state.view import View

if TYPE_CHECKING:
    from tandem.estimate.profile import Profile

AGAIN_S = 5.0
"""After a pass, what is measured brings on the next one no sooner than this."""

CORUNS = 5000
"""So many observations of co-runs are kept (a quarter more, before they are thinned out): a snapshot carries them over,
and an estimator that is made anew learns from them."""


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
    estimator: str = "learned"
    options: Mapping[str, float] = field(default_factory=dict)
    snapshot: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What another cluster has and has learned, lent to a copy of it that learns nothing itself."""

    policy: policy.Policy
    history: History
    estimator: Estimator


class Cluster:
    """All nodes and jobs, and what may be done to them; what to do is for `transitions` and `machine` to say."""

    def __init__(self, setup: Setup, known: Knowledge | None = None) -> None:
        self.setup = setup
        self.now = 0.0
        self.jobs: dict[int, Life] = {}
        """Live jobs; a job that ended stays until the next step."""
        self.ended: dict[int, State] = {}
        """How every job ended."""
        self.policy = policy.load(setup.policy) if known is None else known.policy
        self._starts_only: bool = getattr(self.policy, "STARTS_ONLY", False)
        self._resumes: bool = getattr(self.policy, "RESUMES", False)
        self.ledger = Ledger()
        self.index = DemandIndex(self.ledger)
        self.pending = Pending(self.index)
        self.history = History()
        self.coruns: list[CoRun] = []
        self.profiles: dict[str, Profile] = {}
        """The newest profile of each application."""
        self.drift = Drift()
        self.on_nodes: dict[int, Life] = {}
        self.next_id = 1
        self.disk_full = False
        """No policy is asked: a start could not be stored."""
        self._shapes: dict[tuple[Part, ...], Shape] = {}
        self.timers: list[tuple[float, int, int]] = []  # (when, job, attempt): look at the job then
        self.overdue: list[tuple[float, int, int]] = []
        self._gone: list[int] = []
        self._dirty = False
        self.decided_at = -math.inf
        """When the policy was asked last."""
        self._out: list[ev.Instruction] = []
        self._quotes: list[Quote] = []
        self._unquoted: list[Life] = []  # let into the queue in this step
        self._ignored: list[str] = []
        self._taken_back: list[int] = []
        if known is not None:
            self.history, self.estimator = known.history.closed(), known.estimator
        else:
            if setup.snapshot is not None:
                check_snapshot(setup.snapshot)
                self.history = History.restore(setup.snapshot["history"])
                self.coruns.extend(_corun(row) for row in setup.snapshot["coruns"])
                self.profiles.update((row["key"], from_json(row)) for row in setup.snapshot.get("profiles", ()))
                self.drift = Drift.restore(setup.snapshot.get("drift", {}))
            self.estimator = self._estimator()
        self.quoters: dict[str, Any] = {}
        """What quoters have learned under each policy that was used before (JSON-able)."""
        self.quoter = Quoter(self.policy, int(setup.options.get("quotes", 1)))
        self.view = View(
            self.ledger, self.index, self.pending, self.jobs, self.on_nodes, self.estimator, self.history, setup.options
        )
        self.dependents: dict[int, set[int]] = {}
        """Who waits for a job's end."""

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

    def profiled(self, profile: Profile) -> None:
        """An application was profiled: what was seen of it before is of what may have been another version."""
        self.drift.profiled(profile.key)
        self.profiles[profile.key] = profile
        self._estimate_anew()

    def observe(self, corun: CoRun, phases: Mapping[str | None, float]) -> None:
        """Learn from a measured stretch; one alone tells whether the application is still what was profiled.

        Args:
            corun: the stretch.
            phases: rates by phase that count, see `tandem.share.events.Measured`.
        """
        self.estimator.observe(corun)
        self.coruns.append(corun)
        if 4 * len(self.coruns) > 5 * CORUNS:
            self.coruns = latest_of_each(self.coruns, CORUNS)
        if corun.beside:
            return
        shown = [self.drift.observe(corun.app, rate, self.profiles, self.now, phase) for phase, rate in phases.items()]
        if any(shown):
            self.coruns = [*(one for one in self.coruns if not _is_of(one, corun.app)), corun]
            self._estimate_anew()

    def forget(self, app: str) -> None:
        """How fast an application went says nothing any more: it was counted in other steps."""
        kept = [one for one in self.coruns if one.app != app]
        if len(kept) < len(self.coruns):
            self.coruns = kept
            self._estimate_anew()

    def _estimator(self) -> Estimator:
        sound = tuple(profile for key, profile in self.profiles.items() if key not in self.drift.words)
        return estimators.make(self.setup.estimator, tuple(self.coruns), sound)

    def _estimate_anew(self) -> None:
        self.estimator = self.view.estimator = self._estimator()
        self.view.contended = any(self.estimator.knows(self.view.app(life)) for life in self.jobs.values())
        self._dirty = True

    def enqueue(self, life: Life) -> None:
        """The job waits for its turn from now on."""
        life.state = State.QUEUED
        life.hindered, life.has_room, life.reserved = "", False, None
        life.queued_at = self.now
        life.rank = self.policy.rank(life, self.setup.options)
        key = (-life.job.priority, life.rank, life.id)
        self.pending.add(key, life.shape, life.plan_s)
        if not self._starts_only or self.index.may_fit(life.shape) or self.view.head() is life:
            self._dirty = True

    @property
    def starts_only(self) -> bool:
        """Whether the policy does nothing but start jobs."""
        return self._starts_only

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
        else:
            life.fine_at = self.now
            self._dirty |= self.view.strained.pop(life.id, None) is not None

    def look_again(self) -> None:
        """Something was measured: who is suspended, or waits though it would fit, may be let onto a node now.

        At most every `AGAIN_S`, as measurements are many.
        """
        refused = self.view.contended and (self.view.curbed or self.pending.fitting())
        if refused and not self._starts_only and self.now >= self.decided_at + AGAIN_S:
            self._dirty = True

    def leave_nodes(self, life: Life, when: float | None = None) -> None:
        """The job gives back all it holds; it stopped running at ``when`` (None: now)."""
        life.pause_clock(self.now if when is None else when)
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

    def finish(self, life: Life, state: State, reason: str, when: float | None = None) -> None:
        """The job has reached its end, at ``when`` (None: now); said to the outside exactly once."""
        life.state, life.reason, life.ended_at = state, reason, self.now if when is None else when
        self.ended[life.id] = state
        self._gone.append(life.id)
        self._out.append(ev.JobEnded(life.id, state, reason))
        self.quoter.ended(life, life.ended_at)

    def instruct(self, instruction: ev.Instruction) -> None:
        """Tell the engine."""
        self._out.append(instruction)

    def ignore(self, words: str) -> None:
        """An event that changes nothing, said in words."""
        self._ignored.append(words)

    def quote_submission(self, life: Life) -> None:
        """Promise when the job starts and finishes, once the step's events are all known, unless it was."""
        if not life.counted:
            life.counted = True
            self._unquoted.append(life)

    def take_back(self, life: Life) -> None:
        """The job is held: what was promised of it holds no more, nor of those that wait for it, at any remove."""
        chain = [life]
        for one in chain:
            if one.counted:  # else nothing behind it is, either
                one.counted = False
                self.quoter.take_back(one.id)
                self._taken_back.append(one.id)
                chain += self.blocked_by(one.id)

    def blocked_by(self, job: int) -> list[Life]:
        """Who waits for a job's end, and is not held."""
        lives = (self.jobs.get(waiter) for waiter in sorted(self.dependents.get(job, ())))
        return [life for life in lives if life is not None and life.state is State.BLOCKED]

    def wake_at(self, when: float, life: Life) -> None:
        """Have a `Tick` at ``when`` as long as the job is in this attempt."""
        heapq.heappush(self.timers, (when, life.id, life.attempt))

    def is_due(self, timer: tuple[float, int, int]) -> bool:
        """Whether the job of a timer is still on its nodes in that attempt."""
        life = self.on_nodes.get(timer[1])
        return life is not None and life.attempt == timer[2]

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

    def link(self, life: Life) -> None:
        """Remember what a blocked job waits for."""
        for dependency in life.waits_for:
            self.dependents.setdefault(dependency, set()).add(life.id)


def _corun(row: Sequence[Any]) -> CoRun:
    """One stored observation."""
    app, beside, rate, seconds = row
    return CoRun(app, tuple(beside), rate, seconds)


def _is_of(corun: CoRun, app: str) -> bool:
    """Whether an application takes part, throttled or not."""
    return app in (corun.app, *corun.beside) or any(one.startswith(f"{app}@") for one in corun.beside)
