"""A day in which everything happens: random nodes, jobs and events, and an engine that answers late, or twice.

`days()` draws one for Hypothesis as plain data; `live` plays it against a machine and returns every step, checked by
`tests.share.recount`; at the end the engine becomes honest, so that every job must come to its end.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tandem.core.errors import DependencyError, ImpossibleDemandError
from tandem.share import events as ev
from tandem.share.model import ENDS, After, Gpu, Job, JobClass, Need, Node, Part, State
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine, Step
from tests.share.recount import Recount

Action = tuple[str, int, int, float]
Told = tuple[float, tuple[ev.Event, ...], Step]

KINDS = (
    ["submit"] * 6
    + ["answer"] * 8
    + ["end"] * 4
    + ["refuse", "cancel", "cancel", "hold", "release", "lose", "join", "join", "foreign", "measure", "measure"]
    + ["told", "measure", "tick", "wake", "again", "stranger", "back", "full", "room"]
)


@dataclass(frozen=True)
class Unruly:
    """What is played."""

    nodes: tuple[Node, ...]
    jobs: tuple[Job, ...]
    actions: tuple[Action, ...]


@st.composite
def nodes(draw: st.DrawFn) -> tuple[Node, ...]:
    """Two to four nodes: pinned cores in NUMA domains, or counted ones; GPUs, bandwidths and labels or none."""
    made = []
    for i in range(draw(st.integers(2, 4))):
        cores = draw(st.sampled_from([4, 8]))
        pinned = draw(st.booleans())
        made.append(
            Node(
                f"n{i}",
                1000 * cores,
                draw(st.sampled_from([16, 64])),
                tuple(Gpu(g, draw(st.sampled_from(["a", "a", "b"])), 16) for g in range(draw(st.integers(0, 2)))),
                cores=tuple(range(cores)) if pinned else (),
                numa=tuple(core // 2 for core in range(cores)) if pinned and draw(st.booleans()) else (),
                membw_mbs=draw(st.sampled_from([None, 100])),
                nic_mbs=draw(st.sampled_from([None, 50])),
                labels=frozenset({"x"}) if draw(st.booleans()) else frozenset(),
            )
        )
    return tuple(made)


def told_anew(node: Node, how: int) -> Node:
    """The same node with fewer cores and GPUs, with less memory and bandwidth, or with more of all."""
    gpus = node.gpus
    kept = node.cores[: len(node.cores) // 2] if how % 2 else node.cores[1:]
    fewer = replace(node, cpu_milli=1000 * len(kept) or 2000, cores=kept, numa=(), gpus=gpus[how % 3 :])
    less = replace(node, mem_mib=5, membw_mbs=None if node.membw_mbs is None else 50, gpus=gpus[:1])
    larger = (*node.cores, 9) if node.cores else ()
    more = replace(node, cpu_milli=9000 if not larger else 1000 * len(larger), mem_mib=70, cores=larger, numa=())
    return (fewer, less, more)[how % 3]


@st.composite
def needs(draw: st.DrawFn) -> Need:
    """Of one node: mostly small."""
    gpus, fraction = draw(st.sampled_from([(0, 0), (0, 0), (1, 0), (2, 0), (0, 300), (0, 600)]))
    return Need(
        cpu_milli=draw(st.sampled_from([0, 500, 1000, 1000, 2000, 3000, 4000])),
        mem_mib=draw(st.sampled_from([0, 0, 4, 10])),
        membw_mbs=draw(st.sampled_from([0, 0, 40, 60])),
        nic_mbs=draw(st.sampled_from([0, 0, 20])),
        gpus=gpus,
        gpu_milli=fraction,
        gpu_type=draw(st.sampled_from(["", "", "a", "a|b"])) if gpus or fraction else "",
        labels=frozenset({"x"}) if draw(st.integers(0, 9)) == 0 else frozenset(),
    )


@st.composite
def jobs(draw: st.DrawFn, least: int, most: int) -> tuple[Job, ...]:
    """Gangs, heterogeneous gangs, both classes, priorities, limits, retries, dependencies, arrays."""
    made: list[Job] = []
    for i in range(1, draw(st.integers(least, most)) + 1):
        parts = draw(st.lists(st.builds(Part, needs(), st.sampled_from([1, 1, 1, 2])), min_size=1, max_size=2))
        earlier = st.builds(After, st.integers(1, max(1, i - 1)), st.booleans())
        array = made[-1].array or (i - 1, 0) if made and draw(st.integers(0, 4)) == 0 else None
        made.append(
            Job(
                i,
                tuple(parts),
                app=draw(st.sampled_from(["", "cg", "fft", "train"])),
                klass=draw(st.sampled_from([JobClass.PRIMARY, JobClass.HARVEST])),
                limit_s=draw(st.sampled_from([None, None, 20.0, 90.0])),
                expected_s=draw(st.sampled_from([None, 3.0, 30.0])),
                priority=draw(st.sampled_from([0, 0, 0, 5])),
                after=tuple(draw(st.lists(earlier, max_size=2, unique=True))) if i > 1 else (),
                array=(array[0], array[1] + 1) if array is not None else None,
                retries=draw(st.sampled_from([0, 0, 1, 2])),
                checkpoint=draw(st.sampled_from(["", "SIGUSR1"])),
                grace_s=2.0,
                held=draw(st.integers(0, 9)) == 0,
            )
        )
    return tuple(made)


def days() -> st.SearchStrategy[Unruly]:
    """Random days that shrink well; many are short."""
    small = st.integers(0, 1 << 16)
    seconds = st.sampled_from([0.0, 0.0, 0.5, 1.0, 7.0])
    action = st.tuples(st.sampled_from(KINDS), small, small, seconds)
    return st.builds(Unruly, nodes(), jobs(1, 10), st.lists(action, max_size=50).map(tuple))


def crowded() -> st.SearchStrategy[Unruly]:
    """Days on which primary jobs come upon nodes full of harvest jobs, and neighbours are measured."""
    return st.integers(0, 1 << 32).map(_crowded)


def _crowded(seed: int) -> Unruly:
    rng = random.Random(seed)
    cores = rng.choice([4, 8])
    pinned = rng.random() < 0.5
    made = tuple(
        Node(
            f"n{i}",
            1000 * cores,
            64,
            tuple(Gpu(g) for g in range(rng.choice([0, 1, 2]))),
            cores=tuple(range(cores)) if pinned else (),
            membw_mbs=rng.choice([None, 100]),
        )
        for i in range(rng.choice([1, 2, 3]))
    )
    jobs = []
    for i in range(1, 21):
        harvest = rng.random() < (0.9 if i < 8 else 0.3)
        gpus, fraction = rng.choice([(0, 0), (0, 0), (0, 0), (1, 0), (0, 400)])
        need = Need(
            1000 * rng.choice([1, 1, 2, 3, cores]),
            rng.choice([0, 0, 8]),
            membw_mbs=rng.choice([0, 0, 30, 60]),
            gpus=gpus,
            gpu_milli=fraction,
        )
        jobs.append(
            Job(
                i,
                (Part(need, rng.choice([1, 1, 1, 2])),),
                app=rng.choice(["cg", "fft", "train"]),
                klass=JobClass.HARVEST if harvest else JobClass.PRIMARY,
                limit_s=rng.choice([None, None, 60.0]),
                expected_s=rng.choice([5.0, 30.0]),
                retries=rng.choice([0, 1]),
                checkpoint=rng.choice(["", "SIGUSR1"]),
                grace_s=2.0,
            )
        )
    kinds = ["submit"] * 3 + ["answer"] * 8 + ["measure"] * 4 + ["tick", "wake", "end", "end", "again"]
    kinds += rng.choice([[], ["cancel", "lose", "join", "join", "refuse", "foreign", "hold", "release"]])
    actions = [
        (rng.choice(kinds), rng.randrange(1 << 16), rng.randrange(1 << 16), rng.choice([0.0, 0.5, 6.0]))
        for _ in range(150)
    ]
    return Unruly(made, tuple(jobs), tuple(actions))


class Live:
    """One unruly day against one machine."""

    def __init__(self, setup: Setup, day: Unruly) -> None:
        self.machine = Machine(setup)
        self.day = day
        self.now = 1000.0
        self.count = Recount()
        self.steps: list[Told] = []
        self.refused: set[int] = set()
        self._to_come = list(day.jobs)
        self._open: list[ev.Instruction] = []  # instructions that the engine has not answered
        self._going: dict[int, int] = {}  # job -> attempt that has a process
        self._old: list[ev.Event] = []
        self.step(*(ev.NodeJoined(node) for node in day.nodes))

    # ---------------------------------------------------------------------------------- the machine

    def step(self, *events: ev.Event) -> None:
        """Tell the machine, check everything."""
        for event in events:
            self.count.told(event)
        step = self.machine.step(self.now, events)
        self.steps.append((self.now, events, step))
        self.machine.ledger.audit()
        self.count.did(self.now, step.instructions)
        for instruction in step.instructions:
            match instruction:
                case ev.StartJob(job, attempt):
                    assert not self.machine.disk_full, f"{instruction} could not be stored"
                    self._going[job] = attempt
                    self._open.append(instruction)
                case ev.StopJob() | ev.SuspendJob() | ev.ResumeJob():
                    assert self._going[instruction.job] == instruction.attempt, f"{instruction} of no process"
                    self._open.append(instruction)
                case ev.ThrottleJob(_, _, fraction):
                    assert 0 < fraction <= 1
        for quote in step.quotes:
            assert quote.start.low <= quote.start.mid <= quote.start.high
            assert quote.finish.low <= quote.finish.mid <= quote.finish.high
            assert quote.start.mid <= quote.finish.mid

    def submit(self) -> None:
        """The next job, if it is one that can ever run."""
        if not self._to_come:
            return
        job = self._to_come.pop(0)
        try:
            self.machine.check(job)
        except (ImpossibleDemandError, DependencyError):
            self.refused.add(job.id)
            return
        self.step(ev.Submitted(job))

    # ------------------------------------------------------------------------------------ the engine

    def answer(self, which: int = 0) -> None:
        """The engine answers one of the instructions it got, honestly."""
        if not self._open:
            return
        instruction = self._open.pop(which % len(self._open))
        job = instruction.job
        if self._going.get(job) != getattr(instruction, "attempt", None):
            return
        match instruction:
            case ev.StartJob(_, attempt):
                self._tell(ev.Started(job, attempt))
            case ev.SuspendJob(_, attempt):
                self._tell(ev.SuspendDone(job, attempt))
            case ev.ResumeJob(_, attempt) if which % 3 == 1:
                self._tell(ev.ResumeRefused(job, attempt))
            case ev.ResumeJob(_, attempt):
                self._tell(ev.ResumeDone(job, attempt))
            case ev.StopJob(_, attempt, checkpoint):
                self._gone(job)
                self._tell(ev.Ended(job, attempt, signal=15, saved=bool(checkpoint)))

    def end(self, which: int, how: int) -> None:
        """A process ends by itself."""
        if self._going:
            job = sorted(self._going)[which % len(self._going)]
            attempt = self._going[job]
            self._gone(job)
            self._tell(
                (
                    ev.Ended(job, attempt),
                    ev.Ended(job, attempt),
                    ev.Ended(job, attempt, code=1),
                    ev.Ended(job, attempt, signal=9, reason="killed"),
                    ev.Ended(job, attempt, lost=True),
                    ev.Ended(job, attempt, code=2, saved=True),
                )[how % 6]
            )

    def refuse(self, which: int) -> None:
        """A start does not work out."""
        starts = [one for one in self._open if isinstance(one, ev.StartJob) and self._going.get(one.job) == one.attempt]
        if starts:
            start = starts[which % len(starts)]
            self._gone(start.job)
            self._tell(ev.StartRefused(start.job, start.attempt, "a core was taken"))

    def _gone(self, job: int) -> None:
        del self._going[job]
        self._open = [one for one in self._open if one.job != job]

    def _tell(self, event: ev.Event) -> None:
        self._old.append(event)
        self.step(event)

    # ----------------------------------------------------------------------------------- what happens

    def act(self, action: Action) -> None:
        """One action of the day."""
        kind, a, b, seconds = action
        self.now += seconds
        node = self.day.nodes[a % len(self.day.nodes)]
        job = 1 + a % len(self.day.jobs)
        match kind:
            case "submit":
                self.submit()
            case "answer":
                self.answer(a)
            case "end":
                self.end(a, b)
            case "refuse":
                self.refuse(a)
            case "cancel":
                self.step(ev.CancelAsked(job))
            case "hold":
                self.step(ev.HoldAsked(job))
            case "release":
                self.step(ev.ReleaseAsked(job))
            case "lose":
                self.lose(node)
            case "join":
                self.step(ev.NodeJoined(node))
            case "told":
                self.step(ev.NodeJoined(told_anew(node, b)))
            case "foreign":
                cores = tuple(core for core in node.cores if b >> core & 1)
                self.step(ev.ForeignUse(node.id, cores, tuple(g.index for g in node.gpus if b >> (8 + g.index) & 1)))
            case "measure":
                beside = ((), ("cg",), ("fft", "train"))[b % 3]
                self.step(ev.Measured(job, (4.0, 2.0, 3.0)[b % 3], 0.25, beside, (b % 10) / 10, b % 7 == 0))
            case "tick":
                self.step(ev.Tick())
            case "wake":
                wake = self.machine.next_wake()
                if wake is not None:
                    self.now = max(self.now, wake)
                    self.step(ev.Tick())
            case "again":
                if self._old:
                    self.repeat(self._old[a % len(self._old)])
            case "stranger":
                self.step(ev.Ended(10**6 + a, 1), ev.Started(job, 99), ev.NodeLost("nowhere"), ev.ForeignUse("nowhere"))
            case "full" | "room":
                self.step(ev.DiskFull(kind == "full"))
            case "back":
                self.now -= 5.0
                self.step(ev.Tick())

    def lose(self, node: Node) -> None:
        """A node goes; processes that were only there are gone without a word."""
        self.step(ev.NodeLost(node.id))
        for job in list(self._going):
            if job not in self.count.held or self.count.attempt[job] != self._going[job]:
                self._gone(job)

    def repeat(self, event: ev.Event) -> None:
        """The engine says something a second time."""
        self.step(event)

    def settle(self) -> None:
        """Everybody becomes honest, and time passes, until every job has ended."""
        while self._to_come:
            self.submit()
        for job in self.day.jobs:
            self.step(ev.ReleaseAsked(job.id))
        for node in self.day.nodes:
            self.step(ev.NodeJoined(node), ev.ForeignUse(node.id))
        self.step(ev.DiskFull(False))
        for _ in range(40 + 8 * len(self.day.jobs)):
            while self._open:
                self.answer()
            if not self.machine.jobs or all(life.state in ENDS for life in self.machine.jobs.values()):
                break
            self.now += 20.0
            self.step(ev.Tick())
            if self._going and not self._open:
                self.end(0, 0)
        submitted = {job.id for job in self.day.jobs} - self.refused
        left = {job: self.machine.jobs[job].state for job in submitted - self.count.ends.keys()}
        assert not left, f"jobs that never end: {left}"
        assert set(self.count.ends.values()) <= {1}
        assert not self.count.held

    def run(self) -> "Live":
        """The whole day."""
        for action in self.day.actions:
            self.act(action)
        self.settle()
        return self


def live(setup: Setup, day: Unruly) -> Live:
    """Play a day to its end."""
    return Live(setup, day).run()


def states(machine: Machine) -> dict[int, State]:
    """Where every live job is."""
    return {job: life.state for job, life in machine.jobs.items()}


def continued(setup: Setup, steps: Sequence[Told], at: int) -> tuple[list[Step], list[Step]]:
    """What two machines answer from step ``at`` on: one that goes on, and one made from its snapshot, as text."""
    first = Machine(setup)
    for now, events, _ in steps[:at]:
        first.step(now, events)
    second = Machine(replace(setup, snapshot=json.loads(json.dumps(first.snapshot(), allow_nan=False))))
    second.ledger.audit()
    return (
        [first.step(now, events) for now, events, _ in steps[at:]],
        [second.step(now, events) for now, events, _ in steps[at:]],
    )
