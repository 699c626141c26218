"""What the scheduler speaks about: nodes, demands, jobs, placements, states.

Everything here is a frozen value without behaviour beyond arithmetic on itself. Quantities are integers, so
that allocation is exact: CPU in thousandths of a core (``cpu_milli``), a GPU fraction in thousandths of one
GPU (``gpu_milli``), memory in MiB, bandwidths in MB/s. Times are seconds, instants are Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

UNLIMITED = 1 << 60
"""Capacity of a resource the node does not meter (for example an unknown memory bandwidth)."""

RESOURCES = ("cpu_milli", "mem_mib", "membw_mbs", "nic_mbs", "gpus", "gpu_milli")
"""The order of every resource vector. ``gpus`` counts whole free GPUs, ``gpu_milli`` is the largest free
fraction of a single GPU; a need asks for one or the other."""

LONGEST_S = 10 * 365 * 86_400.0
"""The longest duration that anybody may speak of (of a job, a limit, a trace), in seconds: ten years."""

NODES_MOST = 50_000
"""The most nodes of one cluster."""

GPUS_OF_NODE_MOST = 1_000
"""The most GPUs of one node."""


class JobClass(StrEnum):
    """Whose slowdown is bounded, and who takes what is idle."""

    PRIMARY = "primary"
    HARVEST = "harvest"


class State(StrEnum):
    """Where a job is in its life. ``ENDS`` holds the final ones."""

    HELD = "held"
    BLOCKED = "blocked"  # waits for other jobs (dependencies)
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    STOPPING = "stopping"  # checkpoint signal, grace, kill are under way
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    LOST = "lost"  # its node went away, or its keeper was killed, and no retry was left


ENDS = frozenset({State.DONE, State.FAILED, State.CANCELLED, State.TIMEOUT, State.LOST})
ON_NODE = frozenset({State.STARTING, State.RUNNING, State.SUSPENDING, State.SUSPENDED, State.RESUMING, State.STOPPING})


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a node. ``mem_mib`` 0 means unknown."""

    index: int
    type: str = ""
    mem_mib: int = 0
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine.

    Attributes:
        cores: the ids of the cores that jobs are pinned to; empty where the node is only counted (simulation).
        numa: the NUMA domain of each core, as long as ``cores``, or empty where unknown.
        membw_mbs, nic_mbs: capacity in MB/s, or None where unknown (then it is not metered).
    """

    id: str
    cpu_milli: int
    mem_mib: int
    gpus: tuple[Gpu, ...] = ()
    cores: tuple[int, ...] = ()
    numa: tuple[int, ...] = ()
    membw_mbs: int | None = None
    nic_mbs: int | None = None
    labels: frozenset[str] = frozenset()

    def capacity(self) -> tuple[int, ...]:
        """The whole node as a resource vector in the order of ``RESOURCES``."""
        return (
            self.cpu_milli,
            self.mem_mib,
            UNLIMITED if self.membw_mbs is None else self.membw_mbs,
            UNLIMITED if self.nic_mbs is None else self.nic_mbs,
            len(self.gpus),
            1000 if self.gpus else 0,
        )


@dataclass(frozen=True, slots=True)
class Need:
    """What one part of a job takes from each of its nodes."""

    cpu_milli: int = 1000
    mem_mib: int = 0
    membw_mbs: int = 0
    nic_mbs: int = 0
    gpus: int = 0
    gpu_milli: int = 0  # a fraction of one GPU; exclusive with ``gpus``
    gpu_type: str = ""
    gpu_mem_mib: int = 0
    labels: frozenset[str] = frozenset()

    def vector(self) -> tuple[int, ...]:
        """The need as a resource vector in the order of ``RESOURCES``."""
        return (self.cpu_milli, self.mem_mib, self.membw_mbs, self.nic_mbs, self.gpus, self.gpu_milli)


@dataclass(frozen=True, slots=True)
class Part:
    """``nodes`` different nodes, each giving ``need``. A job with several parts is a heterogeneous gang."""

    need: Need
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class After:
    """A dependency: ``job`` must have ended, and with ``ok`` it must have ended as DONE."""

    job: int
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it was submitted. Never changes.

    Attributes:
        app: the application's key in history: the name if one was given, else the programme's.
        variant: a digest of its arguments, by which history tells runs of ``app`` apart; "" where all are alike.
        uid: numeric user id of the submitter.
        limit_s: the time limit the user gave (the job is stopped there); None is unlimited.
        expected_s: how long the user expects the job to run alone; None leaves it to history.
        max_slowdown: for a primary job, the largest accepted ratio of its run time to running alone.
        checkpoint: name of the signal that makes the job save its state ("SIGUSR1"), or "".
        array: (array's first job id, index of this element), or None.
    """

    id: int
    parts: tuple[Part, ...]
    name: str = ""
    app: str = ""
    uid: int = 0
    klass: JobClass = JobClass.PRIMARY
    max_slowdown: float = 1.10
    limit_s: float | None = None
    expected_s: float | None = None
    priority: int = 0
    after: tuple[After, ...] = ()
    array: tuple[int, int] | None = None
    retries: int = 0
    checkpoint: str = ""
    grace_s: float = 10.0
    held: bool = False
    variant: str = ""

    @property
    def cpu_milli(self) -> int:
        """CPU over all nodes of the job."""
        return sum(part.nodes * part.need.cpu_milli for part in self.parts)

    @property
    def gpu_total_milli(self) -> int:
        """GPU over all nodes of the job, in thousandths of a GPU."""
        return sum(part.nodes * (1000 * part.need.gpus + part.need.gpu_milli) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Share:
    """What a job holds on one node: pinned core ids (empty on counted nodes) and GPU indices."""

    node: str
    need: Need
    cores: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a job runs. ``whole`` means that its nodes are given to nobody else."""

    shares: tuple[Share, ...]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """A predicted instant or duration with its 90 % interval, in seconds."""

    low: float
    mid: float
    high: float


NOTHING = "nothing: no history, no expected duration, no limit"
"""The basis of how long a job runs of which nothing is known."""

OTHER_ARGUMENTS = "with other arguments"
"""How a basis ends that is runs of the same application, none of them with the job's arguments."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A promise: made once (``moment`` is "submit" or "start"), stored, never rewritten."""

    job: int
    at: float
    moment: str
    start: Interval
    finish: Interval
    basis: str = field(default="", compare=False)

    @property
    def founded(self) -> bool:
        """Whether anything was known of how long the job runs."""
        return is_founded(self.basis)


def is_founded(basis: str) -> bool:
    """Whether a quote with this basis rests on anything: one that does not says nothing of how good quotes are."""
    return NOTHING not in basis
