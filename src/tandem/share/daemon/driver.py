"""Drives the state machine: collects what happened, steps, stores, and only then answers and acts.

One turn is one step and one transaction. A submission is acknowledged, and an instruction handed to the engine, only
after the step that holds it is durable; so the `StartJob` of a committed step is the durable intent to start.

On a full disk the store still has a reserve. What ends or cancels jobs is stored from it; everything else is refused,
and nothing starts. If even the reserve is used up, a step is undone: the machine is rebuilt from what was stored,
all requests are refused, what the engine reported is kept and tried again every second.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tandem.core import machine as hardware
from tandem.core.clock import Clock
from tandem.core.errors import TandemError
from tandem.core.process.spec import TimeLimit
from tandem.estimate.profiling import store as profiles
from tandem.share import crash
from tandem.share import events as ev
from tandem.share.daemon.meter import Meter, Metered
from tandem.share.model import ON_NODE, Job, State
from tandem.share.node.engine import Adoptee, Engine
from tandem.share.node.launch import Launch
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine, Step
from tandem.share.state.life import Life
from tandem.share.store.database import StoreFullError
from tandem.share.store.entry import AttemptOver, Beside, Entry
from tandem.share.store.store import Store

STEPS_IN_EPOCH = 100_000
"""After so many steps a new epoch begins, so that a restart does not take long."""

AGAIN_S = 1.0
"""How long a full disk is left alone before storing is tried again, in seconds."""

METER_S = 1.0
"""How often records are read, in seconds."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """What one request asks of the state machine.

    Attributes:
        done: Called once the step is durable, with the step, or with the error if it could not be stored.
    """

    events: tuple[ev.Event, ...]
    launches: Mapping[int, Launch] = field(default_factory=dict)
    done: Callable[[Step | TandemError], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Turn:
    """One durable step, for those who watch."""

    now: float
    step: Step
    touched: tuple[Life, ...]


class Driver:
    """The state machine with its store, engine and meter."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        clock: Clock,
        setup: Mapping[str, Any] | None = None,
        meter: Meter | None = None,
    ) -> None:
        """Go on from the store's last step.

        Args:
            setup: Fields of `Setup` that are other than the stored ones from now on.

        Raises:
            StoreError: The log cannot be read; or there is no room for its first epoch, or for one of another setup.
            UnknownPluginError, MissingPackageError: A policy or estimator, given or stored, cannot be had.
        """
        self.store = store
        self.engine = engine
        self.clock = clock
        self.listeners: list[Callable[[Turn], None]] = []
        self.full: StoreFullError | None = None  # nothing at all could be stored
        self.short: StoreFullError | None = None  # there is room for ends and cancellations only
        self.unread_profiles: list[str] = []  # why, for each that was left aside
        self._meter = meter or Meter()
        self._changes: list[Change] = []
        self._events: list[ev.Event] = []  # not yet durable
        self._besides: dict[tuple[int, int, float], Beside] = {}  # by job, attempt and begin
        self._try_at = 0.0
        self._meter_at = 0.0
        machine = store.restore(setup)
        self._setup = replace(machine.setup if machine is not None else Setup(), **(setup or {}))
        # A clock that was set back since the last daemon: time goes on from where the log stands, it does not halt.
        self._ahead_s = max(0.0, machine.now - clock.now()) if machine is not None else 0.0
        try:
            self._begin_epoch(machine.snapshot() if machine is not None else None)
        except StoreFullError:
            if machine is None or self._setup != machine.setup:
                raise
            self.machine = machine  # the old epoch goes on
        self._take_over()

    def now(self) -> float:
        """Return the time of the log, in unix seconds; it never goes back, not even over restarts."""
        return self.clock.now() + self._ahead_s

    # ------------------------------------------------------------------------------------- requests

    def ask(self, change: Change) -> None:
        """Put a request into the next step."""
        self._changes.append(change)

    # ---------------------------------------------------------------------------------------- turns

    def due_at(self) -> float | None:
        """Return when a turn is due even if nothing happens (monotonic seconds)."""
        if self.full is None and (self._events or self._changes):
            return self.clock.monotonic()
        times = [self._try_at] if self.full or self.short else []
        wake = self.machine.next_wake()
        if wake is not None and self.full is None:
            times.append(self.clock.monotonic() + max(0.0, wake - self.now()))
        engine = self.engine.wake_at()
        if engine is not None:
            times.append(engine)
        if len(self._meter):
            times.append(self._meter_at)
        return min(times, default=None)

    def turn(self) -> bool:
        """Take a step if there is anything to take in; returns whether there was."""
        self._collect()
        if self.full is not None and self.clock.monotonic() < self._try_at and not self._may_have_room():
            self._refuse(self.full)
            return False
        self._look_for_room()
        wake = self.machine.next_wake()
        now = self.now()
        due = wake is not None and wake <= now
        stretches = self._besides and self.short is None
        if not (self._events or self._changes or due or stretches or self._is_news_of_room()):
            self.full = None
            return False
        self._advance(now, due)
        return True

    def close(self, *, settle: bool = True) -> None:
        """Let go, so that jobs run on, and before that, to ``settle``, store what is left to store."""
        if settle:
            self._settle()
        self.engine.close()
        self.store.close()

    def _settle(self) -> None:
        self._collect()
        self._meter.close(self.now())
        self._keep(self._meter.take()[1])
        if self._events or self._besides:
            with contextlib.suppress(StoreFullError):  # the engine tells its news again; stretches are lost
                step = self.machine.step(self.now(), self._events)
                self.store.commit(self._entry(self._events, (), step, self._touched(self._events, step)))

    def _collect(self) -> None:
        """Take in what the engine and the meter have to say."""
        news = self.engine.poll()
        alone = [beside for event in news if isinstance(event, ev.WentOn) for beside in self._alone(event)]
        for event in news:
            if isinstance(event, ev.Ended):  # what it did until its end is told before its end
                self._meter.ended(self.now(), event.job, event.attempt, event.at)
        monotonic = self.clock.monotonic()
        if monotonic >= self._meter_at and len(self._meter):
            self._meter.poll(self.now())
            self._meter_at = monotonic + METER_S
        measured, besides = self._meter.take()
        self._events += [*measured, *news]
        self._keep([*besides, *alone])

    def _keep(self, besides: Sequence[Beside]) -> None:
        self._besides |= {(one.job, one.attempt, one.began_at): one for one in besides}

    def _alone(self, event: ev.WentOn) -> list[Beside]:
        """What a job ran without a daemon: beside nobody, or its keeper would not have let it go on."""
        life = self.machine.jobs.get(event.job)
        if life is None or life.attempt != event.attempt or not life.stood_still(event.at):
            return []
        nodes = ",".join(share.node for share in life.placement.shares) if life.placement is not None else ""
        until = self.now() if event.until is None else event.until
        return [Beside(life.id, life.attempt, life.job.app, nodes, event.at, max(event.at, until), (), None, False)]

    def _advance(self, now: float, due: bool) -> None:
        changes, self._changes = self._changes, []
        asked = [event for change in changes for event in change.events]
        room = [ev.DiskFull(self.short is not None)] if self._is_news_of_room() else []
        events = [*room, *self._events, *asked] or ([ev.Tick()] if due else [])
        crash.point("before_step")
        step = self.machine.step(now, events)
        crash.point("after_step")
        touched = self._touched(events, step)
        try:
            self._commit(self._entry(events, changes, step, touched))
        except StoreFullError as error:
            self._undo(error, changes)
            return
        self.full = None
        self._events = []
        self._besides = self._besides if self.short else {}
        for change in changes:
            change.done(step)
        self._act(events, step, touched)
        for listener in self.listeners:
            listener(Turn(self.machine.now, step, tuple(touched)))
        if self.store.steps_in_epoch >= STEPS_IN_EPOCH and self.short is None:
            with contextlib.suppress(StoreFullError):  # the old epoch goes on
                self._begin_epoch(self.machine.snapshot())

    def _entry(self, events: list[ev.Event], changes: Sequence[Change], step: Step, touched: list[Life]) -> Entry:
        return Entry(
            now=self.machine.now,
            events=events,
            decisions=step.decisions,
            quotes=step.quotes,
            taken_back=step.taken_back,
            refused=[event.job for event in events if isinstance(event, ev.StartRefused)],
            launches={job: launch for change in changes for job, launch in change.launches.items()},
            submitted=[self.machine.jobs[event.job.id] for event in events if isinstance(event, ev.Submitted)],
            touched=touched,
            exits={event.job: (event.code, event.signal) for event in events if isinstance(event, ev.Ended)},
            attempts=[over for event in events if isinstance(event, ev.Ended) and (over := self._over(event))],
            besides=() if self.short else tuple(self._besides.values()),
        )

    def _over(self, event: ev.Ended) -> AttemptOver | None:
        """The attempt that ended, where its job waits (or runs) again."""
        life = self.machine.jobs.get(event.job)
        if life is None or life.ended or life.last_end[0] != event.attempt:
            return None
        at = self.machine.now if event.at is None else min(self.machine.now, event.at)
        _, why, started_at = life.last_end
        return AttemptOver(event.job, event.attempt, started_at, at, event.code, event.signal, why)

    def _commit(self, entry: Entry) -> None:
        """Store the step, past the points at which tests let the daemon die."""
        kinds = {type(decision).__name__ for decision in entry.decisions} | {type(e).__name__ for e in entry.events}
        points = {"Start": "intent", "Started": "record", "Ended": "exit"}
        passed = [name for kind, name in points.items() if kind in kinds]
        for name in (*passed, "commit"):
            crash.point(f"before_{name}")
        self.store.commit(entry)
        for name in ("commit", *passed):
            crash.point(f"after_{name}")

    def _act(self, events: list[ev.Event], step: Step, touched: list[Life]) -> None:
        """The step is durable: hand its instructions to the engine."""
        for event in events:
            if isinstance(event, ev.Ended | ev.StartRefused):
                self.engine.forget(event.job, event.attempt)
        for instruction in step.instructions:
            starts = isinstance(instruction, ev.StartJob)
            launch = self.store.launch(instruction.job, last_use=True) if starts else None
            if launch is not None:
                launch = _limited(launch, self.machine.jobs[instruction.job].job)
            self.engine.execute(instruction, launch)
        for life in touched:
            self._meter_life(life)
        for instruction in step.instructions:
            if isinstance(instruction, ev.ThrottleJob):
                self._meter.throttled(self.machine.now, instruction.job, instruction.fraction)

    def _touched(self, events: list[ev.Event], step: Step) -> list[Life]:
        """The jobs that the step spoke of."""
        asked = [getattr(event, "job", None) for event in events if not isinstance(event, ev.Measured)]
        spoken = [item.job for item in (*step.instructions, *step.decisions)]
        ids = dict.fromkeys([job for job in (*asked, *spoken) if isinstance(job, int)])
        ids |= dict.fromkeys(event.job.id for event in events if isinstance(event, ev.Submitted))
        return [self.machine.jobs[job] for job in ids if job in self.machine.jobs]

    def _meter_life(self, life: Life) -> None:
        """The meter follows the jobs that run."""
        if life.state is State.RUNNING and life.placement is not None:
            run_dir = str(self.store.paths.job_dir(life.id))
            nodes = tuple(share.node for share in life.placement.shares)
            who = Metered(life.id, life.attempt, life.job.app, life.job.uid, nodes, run_dir)
            self._meter.runs(self.machine.now, who, life.throttle)
        elif life.state not in (State.SUSPENDING, State.STOPPING):
            self._meter.rests(self.machine.now, life.id)

    # ------------------------------------------------------------------------------------ full disk

    def _look_for_room(self) -> None:
        """See whether the store has to keep its reserve for ends and cancellations; then refuse and drop the rest."""
        monotonic = self.clock.monotonic()
        if self.short is None or self._changes or monotonic >= self._try_at:
            short = self.store.short_of_room()
            if short is not None and self.short is None:
                _log.error("%s", short)
            self.short = short
            self._try_at = monotonic + AGAIN_S
        if self.short is not None:
            self._events = [event for event in self._events if not isinstance(event, ev.Measured)]
            refused = [change for change in self._changes if not _only_cancels(change)]
            self._changes = [change for change in self._changes if _only_cancels(change)]
            for change in refused:
                change.done(self.short)

    def _may_have_room(self) -> bool:
        """Whether somebody asks, and room was made since the last step failed."""
        return bool(self._changes) and self.store.short_of_room() is None

    def _is_news_of_room(self) -> bool:
        """Whether the machine has yet to be told how the disk is."""
        return self.machine.disk_full != (self.short is not None)

    def _undo(self, error: StoreFullError, changes: Sequence[Change]) -> None:
        """Nothing was stored: be again as the store says, keep what the engine told, refuse the rest."""
        if self.full is None:
            _log.error("%s", error)
        self.full = error
        self._try_at = self.clock.monotonic() + AGAIN_S
        machine = self.store.restore()
        assert machine is not None
        self.machine = machine
        self._changes = list(changes)
        self._refuse(error)

    def _refuse(self, error: StoreFullError) -> None:
        changes, self._changes = self._changes, []
        for change in changes:
            change.done(error)

    # ------------------------------------------------------------------------------ epochs, restarts

    def _begin_epoch(self, snapshot: Mapping[str, Any] | None) -> None:
        """Begin a new log from a state; the machine is built from it, as a replay would."""
        setup = replace(self._setup, snapshot=snapshot)
        self.machine = Machine(setup)  # before it is stored: no later daemon could go on from one that fails
        self.store.begin_epoch(self.now(), setup)

    def _take_over(self) -> None:
        """Tell the machine what this node is, and go on with what a daemon before had begun."""
        lives = [life for life in self.machine.jobs.values() if life.state in ON_NODE and life.placement]
        launches = self.store.launches([life.id for life in lives])
        self.engine.adopt(
            [
                Adoptee(
                    life.id,
                    life.attempt,
                    life.placement,
                    _limited(launches[life.id], life.job),
                    started=life.started_at is not None,
                )
                for life in lives
                if life.placement
            ]
        )
        for life in lives:
            self._meter_life(life)
            if life.throttle < 1:
                self.engine.execute(ev.ThrottleJob(life.id, life.attempt, life.throttle), None)
            again = _unfinished(life)
            if again is not None:
                self.engine.execute(again, None)
        self._events += [ev.NodeJoined(node) for node in self.engine.nodes()]
        self._events += self.profiled()

    def profiled(self) -> list[ev.Profiled]:
        """Profiles in the data folder, of this machine, that the scheduler does not know yet."""
        loaded = profiles.load(self.store.paths.data, hardware.discover().fingerprint)
        said, self.unread_profiles = self.unread_profiles, [str(error) for error in loaded.unread.values()]
        for words in self.unread_profiles:  # it can do without them
            if words not in said:
                _log.warning("a profile is left aside: %s", words)
        known = self.machine.profiles
        return [ev.Profiled(one) for key, one in loaded.usable.items() if known.get(key) != one]


def _only_cancels(change: Change) -> bool:
    return all(isinstance(event, ev.CancelAsked) for event in change.events)


def _limited(launch: Launch, job: Job) -> Launch:
    """The launch with the time limit that the job's keeper holds while no daemon is there."""
    if job.limit_s is None:
        return launch
    limit = TimeLimit(run_s=job.limit_s, grace_s=job.grace_s, checkpoint=job.checkpoint)
    return replace(launch, time_limit=limit)


def _unfinished(life: Life) -> ev.Instruction | None:
    """The instruction whose outcome a daemon that stopped did not hear."""
    if life.state is State.STOPPING:
        return ev.StopJob(life.id, life.attempt, life.job.checkpoint, life.job.grace_s, life.stop_why)
    if life.state in (State.SUSPENDING, State.SUSPENDED):
        return ev.SuspendJob(life.id, life.attempt)
    if life.state is State.RESUMING and life.placement is not None:
        return ev.ResumeJob(life.id, life.attempt, life.placement)
    return None
