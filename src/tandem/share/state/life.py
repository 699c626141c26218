"""One job's life inside the state machine: the only mutable record of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tandem.share.model import ENDS, Interval, Job, Placement, State
from tandem.share.state.demand_index import Shape


@dataclass(slots=True, eq=False)
class Life:
    """What has happened to a job so far, and what is planned.

    Attributes:
        attempt: number of the current or last start, from 1; 0 before the first.
        failures: attempts that counted against ``job.retries``.
        stop_as: why a stopping job is being stopped: the state it will end in, or QUEUED for a requeue.
        expected: how long the job runs alone, from the user's word, history or the limit.
        plan_s: the duration the policy plans with.
        planned_end: when the policy expects the running attempt to end; infinite where it has no idea.
        run_since, ran_s: start of the current stretch of running, and seconds of running in this attempt
            before it (suspension does not count).
        attained: core-seconds and GPU-seconds over all attempts (least attained service).
        throttle: fraction of its cores that the job may use now.
        rests_until: before then the suspended job is not resumed beside primary jobs, or, from `REST_S` after it was
            suspended on, beside ``rests_from``: those for whose bounds that was, with their slowdowns then.
        in_vain_for: those of them that went no faster while it stood still, with the instant when it was suspended.
        rest_s: how long it rested last.
        done: fraction of the work that is done, from the job's own records; ``saved_done`` from its checkpoint.
        counted: whether the job's submission was shown to the quoter; not while it is held or waits for one that is.
        quoted: whether its submission was quoted, under any policy; it is quoted anew whenever it is let go.
        continues: an earlier attempt left a checkpoint, so an attempt's duration is not the job's.
        measured_from: when the stretch of that measurement began.
        guarded_at: when a neighbour was last throttled or suspended.
        fine_at: when it was last measured to keep its bound.
        measured_s, measured_alone_s: seconds of the attempt that were measured, and what they would have been alone.
        last_end: the last attempt that is over, how it ended in words, and when it had started, if it had.
        hindered: why the policy did not place the waiting job though it fits by count.
        refused: why its last start was refused, until it is started again.
        curbed_before: it was suspended or throttled by a policy that no longer decides.
        has_room: others were displaced for the waiting job.
        slowdown: last measured slowdown against running alone, with the neighbours it was measured beside.
    """

    job: Job
    shape: Shape
    state: State
    submitted_at: float
    expected: Interval
    plan_s: float
    rank: float = 0.0
    attempt: int = 0
    failures: int = 0
    stop_as: State | None = None
    stop_why: str = ""
    placement: Placement | None = None
    numbers: tuple[int, ...] = ()  # node numbers of the placement, each once
    queued_at: float = 0.0
    placed_at: float = 0.0  # when the policy started this attempt
    first_start: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    planned_end: float = math.inf
    run_since: float | None = None
    ran_s: float = 0.0
    attained_core_s: float = 0.0
    attained_gpu_s: float = 0.0
    throttle: float = 1.0
    throttled_at: float = -math.inf
    suspended_at: float = -math.inf
    rests_until: float = -math.inf
    rests_from: Mapping[int, float] = field(default_factory=dict)
    in_vain_for: Mapping[int, float] = field(default_factory=dict)
    rest_s: float = 0.0
    done: float | None = None
    saved_done: float = 0.0
    continues: bool = False
    counted: bool = False
    quoted: bool = False
    rate: float | None = None
    slowdown: float | None = None
    beside: tuple[str, ...] = ()
    measured_from: float = -math.inf
    guarded_at: float = -math.inf
    fine_at: float = -math.inf
    measured_s: float = 0.0
    measured_alone_s: float = 0.0
    reserved: tuple[float, tuple[str, ...]] | None = None
    reason: str = ""
    hindered: str = ""
    refused: str = ""
    last_end: tuple[int, str, float | None] = (0, "", None)
    has_room: bool = False
    curbed_before: bool = False
    waits_for: set[int] = field(default_factory=set)
    id: int = field(init=False)  # the job's

    def __post_init__(self) -> None:
        """Take over the job's id, which is asked for everywhere."""
        self.id = self.job.id

    @property
    def ended(self) -> bool:
        """Whether the job has reached its end."""
        return self.state in ENDS

    def ran(self, now: float) -> float:
        """Seconds this attempt has run, suspension left out."""
        return self.ran_s + (now - self.run_since if self.run_since is not None else 0.0)

    def pause_clock(self, now: float) -> None:
        """The job stops running (it is suspended, or it ends)."""
        if self.run_since is not None:
            seconds = now - self.run_since
            self.ran_s += seconds
            self.attained_core_s += seconds * self.shape.cpu_milli / 1000
            self.attained_gpu_s += seconds * self.shape.gpu_milli / 1000
            self.run_since = None

    def stood_still(self, at: float) -> bool:
        """Whether it counts as suspended at this instant (of the present attempt), which is not before that began."""
        return self.run_since is None and at > self.suspended_at

    def attained(self, now: float) -> float:
        """Attained service: GPU-seconds for a GPU job, core-seconds otherwise (Tiresias' two-dimensional LAS)."""
        running = now - self.run_since if self.run_since is not None else 0.0
        if self.shape.gpu_milli:
            return self.attained_gpu_s + running * self.shape.gpu_milli / 1000
        return self.attained_core_s + running * self.shape.cpu_milli / 1000
