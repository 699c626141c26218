"""A workload written by hand: a TOML file that names nodes, jobs and what is true of them.

    [[nodes]]
    count = 4
    cpus = 40
    gpus = 8

    [[jobs]]
    name = "train"
    count = 100
    cpus = 4
    gpus = 2
    work_s = 3

What a job says (`membw_mbs`) is a budget that policies keep; what it truly takes (`takes_membw_mbs`) is known to the
truth alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from tandem.core import config
from tandem.core.errors import ConfigError
from tandem.estimate.corun import App, Capacity
from tandem.share.model import GPUS_OF_NODE_MOST, LONGEST_S, NODES_MOST, Gpu, Job, JobClass, Need, Node, Part
from tandem.share.simulate.truth import Bandwidth, Truth, Undisturbed
from tandem.share.workloads.workload import Arrival, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

JOBS_MOST = 1_000_000
"""The most jobs of one line of a case."""

_AMOUNT_MOST = 1e9
_PRIORITY_MOST = 1e6
_SHORTEST_S = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseNodes:
    """``count`` equal nodes, called NAME1, NAME2, ...; others of that name are numbered on."""

    cpus: int
    count: int = 1
    name: str = "node"
    gpus: int = 0
    gpu_type: str = ""
    mem_mib: int = 0
    membw_mbs: int | None = None
    nic_mbs: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseJobs:
    """``count`` equal jobs, the first submitted at ``at_s`` and each further one ``every_s`` later.

    Attributes:
        work_s: how long each truly takes alone; no policy sees it.
        expected_s: what the user says of that; None says nothing.
        time_s: time limit; None is none.
        max_slowdown: makes them primary, with this bound; None makes them harvest.
        priority: higher goes first.
        takes_membw_mbs, takes_nic_mbs: what they truly take of a node, where it is not what they say.
    """

    name: str
    work_s: float
    count: int = 1
    at_s: float = 0.0
    every_s: float = 0.0
    nodes: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    mem_mib: int = 0
    membw_mbs: int = 0
    nic_mbs: int = 0
    takes_membw_mbs: int | None = None
    takes_nic_mbs: int | None = None
    expected_s: float | None = None
    time_s: float | None = None
    max_slowdown: float | None = None
    priority: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseTruth:
    """What happens when jobs share a node.

    Attributes:
        model: "undisturbed" (neighbours cost nothing) or "bandwidth" (memory and network saturate).
        membw_mbs, nic_mbs: what a node truly has, where the nodes do not say it.
        fraction: part of its run time that an application waits for bandwidth; ``fractions`` by name.
    """

    model: Literal["undisturbed", "bandwidth"] = "undisturbed"
    membw_mbs: int | None = None
    nic_mbs: int | None = None
    fraction: float = 1.0
    fractions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """The whole file; ``policies`` are those that are compared where none are asked for."""

    title: str = ""
    policies: tuple[str, ...] = ()
    truth: CaseTruth = field(default_factory=CaseTruth)
    nodes: tuple[CaseNodes, ...]
    jobs: tuple[CaseJobs, ...]


@dataclass(frozen=True, slots=True)
class TrueDemands:
    """A truth in which applications take other amounts than they say.

    Attributes:
        takes: (memory, network) bandwidth in MB/s by application key; other applications take what they say.
        membw_mbs, nic_mbs: capacity of nodes that do not say theirs.
    """

    inner: Truth
    takes: dict[str, tuple[int, int]]
    membw_mbs: int | None = None
    nic_mbs: int | None = None

    def rates(
        self, members: tuple[App, ...], capacity: Capacity, throttles: tuple[float, ...] = ()
    ) -> tuple[float, ...]:
        """See `Truth.rates`."""
        return self.inner.rates(self._true(members), self._whole(capacity), throttles)

    def quiet(self, members: tuple[App, ...], capacity: Capacity | None = None) -> bool:
        """See `Truth.quiet`."""
        return self.inner.quiet(self._true(members), capacity and self._whole(capacity))

    def _true(self, members: tuple[App, ...]) -> tuple[App, ...]:
        known = ((app, self.takes.get(app.key)) for app in members)
        return tuple(
            app if takes is None else replace(app, membw_mbs=takes[0], nic_mbs=takes[1]) for app, takes in known
        )

    def _whole(self, capacity: Capacity) -> Capacity:
        return Capacity(
            capacity.cpu_milli,
            self.membw_mbs if capacity.membw_mbs is None else capacity.membw_mbs,
            self.nic_mbs if capacity.nic_mbs is None else capacity.nic_mbs,
        )


def load(path: Path, overrides: tuple[str, ...] = ()) -> Case:
    """Read a case.

    Args:
        overrides: settings such as ``jobs.0.count=10``.

    Raises:
        ConfigError: a key or a value is wrong; says which and what is allowed.
    """
    case = config.load(Case, path, overrides)
    for nodes in case.nodes:
        what = f"nodes {nodes.name!r}"
        _within(path, what, 0, NODES_MOST, count=nodes.count)
        _within(path, what, 1, _AMOUNT_MOST, cpus=nodes.cpus)
        _within(path, what, 0, GPUS_OF_NODE_MOST, gpus=nodes.gpus)
    twice = [name for name, count in Counter(name for _, name in _named(case.nodes)).items() if count > 1]
    if twice:
        raise ConfigError(
            given=f"{path}: two nodes are called {twice[0]!r}",
            allowed="names of [[nodes]] whose numbered nodes differ",
            todo="give one of the groups another name",
        )
    for jobs in case.jobs:
        what = f"jobs {jobs.name!r}"
        _within(path, what, 0, JOBS_MOST, count=jobs.count)
        _within(path, what, 1, _AMOUNT_MOST, nodes=jobs.nodes, max_slowdown=jobs.max_slowdown)
        _within(path, what, 0, _AMOUNT_MOST, cpus=jobs.cpus, gpus=jobs.gpus)
        _within(path, what, -_PRIORITY_MOST, _PRIORITY_MOST, priority=jobs.priority)
        _within(path, what, 0, LONGEST_S, work_s=jobs.work_s, every_s=jobs.every_s, at_s=jobs.at_s)
        _within(path, what, _SHORTEST_S, LONGEST_S, expected_s=jobs.expected_s, time_s=jobs.time_s)
        if jobs.gpus > 1 and jobs.gpus != int(jobs.gpus):
            raise ConfigError(
                given=f"{path}, {what}: gpus = {jobs.gpus}",
                allowed="whole GPUs, or a fraction of one",
                todo="write 0.5, 1, 2, ...",
            )
    return case


def workload(case: Case) -> Workload:
    """The nodes and arrivals of a case; jobs are numbered in order of submission, ties in the file's order."""
    nodes = []
    for kind, name in _named(case.nodes):
        gpus = tuple(Gpu(i, kind.gpu_type) for i in range(kind.gpus))
        nodes.append(Node(name, 1000 * kind.cpus, kind.mem_mib, gpus, membw_mbs=kind.membw_mbs, nic_mbs=kind.nic_mbs))
    submissions = enumerate(sorted(_submissions(case), key=lambda pair: pair[0]), start=1)
    arrivals = [Arrival(at_s, _job(number, jobs), jobs.work_s) for number, (at_s, jobs) in submissions]
    return Workload(tuple(nodes), tuple(arrivals), case.title)


def _named(groups: Sequence[CaseNodes]) -> Iterator[tuple[CaseNodes, str]]:
    """Each node's group and name: the group's, numbered on where several groups are called the same."""
    numbered = sum(group.count for group in groups) > 1
    seen: Counter[str] = Counter()
    for group in groups:
        for _ in range(group.count):
            seen[group.name] += 1
            yield group, f"{group.name}{seen[group.name]}" if numbered else group.name


def truth(case: Case) -> Truth:
    """What is true of a case."""
    if case.truth.model == "undisturbed":
        return Undisturbed()
    takes = {
        jobs.name: (
            jobs.membw_mbs if jobs.takes_membw_mbs is None else jobs.takes_membw_mbs,
            jobs.nic_mbs if jobs.takes_nic_mbs is None else jobs.takes_nic_mbs,
        )
        for jobs in case.jobs
    }
    inner = Bandwidth(case.truth.fraction, case.truth.fractions)
    return TrueDemands(inner, takes, case.truth.membw_mbs, case.truth.nic_mbs)


def _submissions(case: Case) -> Iterator[tuple[float, CaseJobs]]:
    for jobs in case.jobs:
        for i in range(jobs.count):
            yield jobs.at_s + i * jobs.every_s, jobs


def _job(number: int, jobs: CaseJobs) -> Job:
    whole = jobs.gpus >= 1
    need = Need(
        cpu_milli=round(1000 * jobs.cpus),
        mem_mib=jobs.mem_mib,
        membw_mbs=jobs.membw_mbs,
        nic_mbs=jobs.nic_mbs,
        gpus=int(jobs.gpus) if whole else 0,
        gpu_milli=0 if whole else round(1000 * jobs.gpus),
    )
    return Job(
        number,
        (Part(need, jobs.nodes),),
        name=jobs.name,
        app=jobs.name,
        klass=JobClass.HARVEST if jobs.max_slowdown is None else JobClass.PRIMARY,
        max_slowdown=jobs.max_slowdown or 1.10,
        limit_s=jobs.time_s,
        expected_s=jobs.expected_s,
        priority=jobs.priority,
    )


def _within(path: Path, what: str, least: float, most: float, **given: float | None) -> None:
    """Refuse a number that is given and lies outside, or is none (nan)."""
    for key, value in given.items():
        if value is not None and not least <= value <= most:
            allowed = f"{least:g} or more" if value < least else f"at most {_said(most, key)}"
            raise ConfigError(given=f"{path}, {what}: {key} = {value:g}", allowed=allowed, todo=f"correct {key}")


def _said(most: float, key: str) -> str:
    return "ten years" if key.endswith("_s") else f"{most:,.0f}"
