"""What the state machine is told (events), what it decides, and what it tells the engine (instructions).

All three are frozen values. `tandem.share.codec` turns each into JSON and back, so that a day can be stored
and replayed.
"""

from __future__ import annotations

from dataclasses import dataclass

from tandem.estimate.profile import Profile
from tandem.share.model import Job, Node, Placement, State

# ---------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A node is there (again). A known id replaces the node's description if nothing runs on it."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node is gone, and every process on it."""

    node: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class ForeignUse:
    """Cores and GPUs of a node that somebody outside this scheduler uses; replaces the last such word."""

    node: str
    cores: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Submitted:
    job: Job


@dataclass(frozen=True, slots=True)
class CancelAsked:
    job: int
    by: int = 0


@dataclass(frozen=True, slots=True)
class HoldAsked:
    job: int


@dataclass(frozen=True, slots=True)
class ReleaseAsked:
    job: int


@dataclass(frozen=True, slots=True)
class Started:
    """The engine says that the attempt's programme runs, since ``at`` (Unix seconds; None: since now)."""

    job: int
    attempt: int
    at: float | None = None


@dataclass(frozen=True, slots=True)
class StartRefused:
    """The engine could not start the attempt for a reason that is not the job's fault (a core was taken by
    another user's scheduler). The job goes back to the queue and the attempt does not count."""

    job: int
    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is over. ``code`` is the exit status, ``signal`` the killing signal or 0; ``at`` is when it ended
    (Unix seconds; None: now), which may be long ago if nobody was there to see it.

    ``timed_out`` is set where its keeper ended it at its time limit, while no scheduler was there to do it.
    ``lost`` is set where the true end is unknown (keeper killed, machine restarted)."""

    job: int
    attempt: int
    code: int = 0
    signal: int = 0
    reason: str = ""
    lost: bool = False
    saved: bool = False  # a checkpoint was written before the end: a requeued job continues from it
    at: float | None = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class SuspendDone:
    job: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ResumeDone:
    job: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ResumeRefused:
    """Somebody else took cores of the attempt as it was to be resumed: it stays suspended."""

    job: int
    attempt: int


@dataclass(frozen=True, slots=True)
class WentOn:
    """A suspended attempt ran without a scheduler from ``at`` (Unix seconds) on, until ``until`` (None: now)."""

    job: int
    attempt: int
    at: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """How fast a job went over a stretch in which its neighbours did not change.

    Attributes:
        rate: steps per second over the stretch, from the job's records.
        seconds: length of the stretch.
        beside: application keys of the neighbours during the stretch, sorted; () is alone.
        done: fraction of the job's work that is done, or None where it did not say.
        throttled: the job itself was throttled during the stretch (then the rate says nothing of neighbours).
        phase: the phase that the job announced; "" where it announced none, None where that changed meanwhile.
        phases: phases that take turns, with the rate of each that was met alone for some seconds, all in all, since
            it was told last.
    """

    job: int
    rate: float
    seconds: float
    beside: tuple[str, ...] = ()
    done: float | None = None
    throttled: bool = False
    phase: str | None = ""
    phases: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Profiled:
    """An application was profiled here; from now on the estimator believes this instead of an older profile."""

    profile: Profile


@dataclass(frozen=True, slots=True)
class DiskFull:
    """Whether there is room to store more than ends and cancellations; while there is not, nothing is decided."""

    full: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; limits and timers are looked at."""


Event = (
    NodeJoined
    | NodeLost
    | ForeignUse
    | Submitted
    | CancelAsked
    | HoldAsked
    | ReleaseAsked
    | Started
    | StartRefused
    | Ended
    | SuspendDone
    | ResumeDone
    | ResumeRefused
    | WentOn
    | Measured
    | Profiled
    | DiskFull
    | Tick
)

# ------------------------------------------------------------------------------------------- decisions


@dataclass(frozen=True, slots=True)
class Start:
    job: int
    placement: Placement
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Suspend:
    job: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    job: int
    placement: Placement
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Throttle:
    """Run the job at ``fraction`` of its cores; 1.0 lifts the throttle."""

    job: int
    fraction: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Requeue:
    """Stop the job (checkpoint signal, grace, kill) and queue it again; the attempt does not count."""

    job: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reserve:
    """Nothing is done: the job at the head, or a suspended one, is promised ``nodes`` at ``at``; none: no longer.

    Shown as why it waits.
    """

    job: int
    at: float
    nodes: tuple[str, ...]
    reason: str = ""


Decision = Start | Suspend | Resume | Throttle | Requeue | Reserve

# ---------------------------------------------------------------------------------------- instructions


@dataclass(frozen=True, slots=True)
class StartJob:
    job: int
    attempt: int
    placement: Placement


@dataclass(frozen=True, slots=True)
class StopJob:
    """Checkpoint signal if ``checkpoint`` is set, SIGTERM, then after ``grace_s`` SIGKILL to the whole tree."""

    job: int
    attempt: int
    checkpoint: str
    grace_s: float
    why: str


@dataclass(frozen=True, slots=True)
class SuspendJob:
    job: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ResumeJob:
    job: int
    attempt: int
    placement: Placement


@dataclass(frozen=True, slots=True)
class ThrottleJob:
    job: int
    attempt: int
    fraction: float


@dataclass(frozen=True, slots=True)
class JobEnded:
    """Word to the outside that the job has reached its end; given exactly once a job."""

    job: int
    state: State
    reason: str


Instruction = StartJob | StopJob | SuspendJob | ResumeJob | ThrottleJob | JobEnded
