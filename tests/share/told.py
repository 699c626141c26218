"""A machine and an obedient engine in one, for cases that are worked out by hand."""

from collections.abc import Mapping

from tandem.share import events as ev
from tandem.share.model import Job, JobClass, Need, Node, Part, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine, Step
from tandem.share.state.life import Life


class Told:
    """Tell it what happens; it answers for the engine at once unless ``answers`` is off."""

    def __init__(
        self, policy: str, *nodes: Node, estimator: str = "none", options: Mapping[str, float] | None = None
    ) -> None:
        self.machine = Machine(Setup(policy, estimator, options or {}))
        self.now = 0.0
        self.answers = True
        self.said: list[ev.Instruction] = []
        self.decided: list[ev.Decision] = []
        self.ignored: list[str] = []
        self.ends: dict[int, tuple[State, str]] = {}
        self.tell(*(ev.NodeJoined(node) for node in nodes))

    def tell(self, *events: ev.Event, at: float | None = None) -> Step:
        """One step, and the engine's answers to it."""
        self.now = self.now if at is None else at
        first = step = self.machine.step(self.now, events)
        while True:
            self.machine.ledger.audit()
            self.said += step.instructions
            self.decided += step.decisions
            self.ignored += step.ignored
            for one in step.instructions:
                if isinstance(one, ev.JobEnded):
                    assert one.job not in self.ends
                    self.ends[one.job] = (one.state, one.reason)
            answers = [a for one in step.instructions if (a := _answer(one)) is not None] if self.answers else []
            if not answers:
                return first
            step = self.machine.step(self.now, answers)

    def submit(self, job: Job, at: float | None = None) -> Step:
        """Check a job and submit it."""
        self.machine.check(job)
        return self.tell(ev.Submitted(job), at=at)

    def end(self, job: int, at: float | None = None, code: int = 0, *, saved: bool = False) -> Step:
        """The job's programme ends by itself."""
        return self.tell(ev.Ended(job, self[job].attempt, code, saved=saved), at=at)

    def tick(self, at: float) -> Step:
        """Time passes."""
        return self.tell(ev.Tick(), at=at)

    def measure(
        self, job: int, rate: float, *beside: str, at: float, seconds: float = 2.0, done: float | None = None
    ) -> Step:
        """The job went at ``rate`` over the last ``seconds``."""
        return self.tell(ev.Measured(job, rate, seconds, beside, done), at=at)

    def __getitem__(self, job: int) -> Life:
        return self.machine.jobs[job]

    def state(self, job: int) -> State:
        """Where a job is, or how it ended."""
        return self.ends[job][0] if job in self.ends else self.machine.jobs[job].state

    def where(self, job: int) -> tuple[str, ...]:
        """The nodes of a job."""
        placement = self.machine.jobs[job].placement
        assert placement is not None
        return tuple(share.node for share in placement.shares)

    def decisions(self, kind: type) -> list[int]:
        """The jobs about which such decisions were taken, in order."""
        return [decision.job for decision in self.decided if isinstance(decision, kind)]

    def running(self) -> set[int]:
        """Jobs that run."""
        return {job for job, life in self.machine.jobs.items() if life.state is State.RUNNING}

    def why(self, job: int) -> str:
        """Why a job waits."""
        return self.machine.why(job)


def _answer(instruction: ev.Instruction) -> ev.Event | None:
    match instruction:
        case ev.StartJob(job, attempt):
            return ev.Started(job, attempt)
        case ev.StopJob(job, attempt, checkpoint):
            return ev.Ended(job, attempt, signal=15, saved=bool(checkpoint))
        case ev.SuspendJob(job, attempt):
            return ev.SuspendDone(job, attempt)
        case ev.ResumeJob(job, attempt):
            return ev.ResumeDone(job, attempt)
    return None


def job(
    number: int,
    cores: float = 1,
    *,
    gpus: int = 0,
    gpu_milli: int = 0,
    nodes: int = 1,
    mem: int = 0,
    membw: int = 0,
    app: str = "",
    limit: float | None = None,
    expected: float | None = None,
    harvest: bool = False,
    bound: float = 1.10,
    **more: object,
) -> Job:
    """A job of one part."""
    need = Need(round(1000 * cores), mem, membw, gpus=gpus, gpu_milli=gpu_milli)
    return Job(
        number,
        (Part(need, nodes),),
        app=app,
        limit_s=limit,
        expected_s=expected,
        klass=JobClass.HARVEST if harvest else JobClass.PRIMARY,
        max_slowdown=bound,
        **more,  # type: ignore[arg-type]
    )
