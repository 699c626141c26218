"""A workload: the nodes, and which job arrives when and how long it truly takes alone.

The truth (`Arrival.work_s`) is kept apart from what the user said (`Job.limit_s`, `Job.expected_s`): a policy that is
simulated sees only the job. Readers of histories are in `tandem.share.traces`; `trace_detect.read_trace`
picks one. The functions here reshape a workload; each is a pure function of its arguments, seed included, and says in
`Workload.notes` what it did.
"""

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tandem.core.errors import ConfigError
from tandem.core.units import counted, human_duration
from tandem.share.model import Job, Node, Part
from tandem.share.state.demand_index import could_ever_fit


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job that is submitted at ``at`` (s from the workload's start) and runs ``work_s`` seconds alone."""

    at: float
    job: Job
    work_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """Offered load: resource-time asked for over resource-time there is between first and last arrival.

    Above 1 the queue grows without end. Infinite where everything arrives at once; ``gpu`` is 0 without GPUs.
    """

    cpu: float
    gpu: float
    span_s: float


@dataclass(frozen=True, slots=True)
class Workload:
    """Nodes and arrivals, the latter sorted by time. Job ids are unique.

    Attributes:
        notes: what was assumed, skipped or counted on the way here, in words.
    """

    nodes: tuple[Node, ...]
    arrivals: tuple[Arrival, ...]
    name: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the order of arrivals."""
        assert all(a.at <= b.at for a, b in itertools.pairwise(self.arrivals)), "arrivals are sorted by time"

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last arrival."""
        return self.arrivals[-1].at - self.arrivals[0].at if self.arrivals else 0.0

    def load(self) -> Load:
        """Offered CPU and GPU load against the nodes' capacity."""
        cpu = sum(a.work_s * a.job.cpu_milli for a in self.arrivals)
        gpu = sum(a.work_s * a.job.gpu_total_milli for a in self.arrivals)
        cores = sum(node.cpu_milli for node in self.nodes)
        gpus = 1000 * sum(len(node.gpus) for node in self.nodes)
        return Load(_load(cpu, cores * self.span_s), _load(gpu, gpus * self.span_s), self.span_s)

    def first(self, n: int) -> "Workload":
        """Only the first ``n`` arrivals."""
        if n >= len(self.arrivals):
            return self
        note = f"only the first {n} of {len(self.arrivals)} jobs"
        return replace(self, arrivals=self.arrivals[:n], notes=(*self.notes, note))


def merge(first: Workload, second: Workload, name: str = "") -> Workload:
    """Both streams of jobs on the nodes of ``first``. Jobs are numbered anew from 1, in order of arrival."""
    tagged = [(a, 0) for a in first.arrivals] + [(a, 1) for a in second.arrivals]
    tagged.sort(key=lambda pair: pair[0].at)
    return Workload(
        first.nodes,
        _numbered(tagged),
        name or f"{first.name} + {second.name}",
        (*first.notes, *second.notes),
    )


def limits_with_error(
    workload: Workload, seed: int, factor: Callable[[random.Random], float] | None = None
) -> Workload:
    """Give each job a time limit of its true run time times a random factor, as users overestimate.

    Args:
        workload: what to change.
        seed: the same seed gives the same limits.
        factor: draws one factor, at least 1; by default uniform on [1, 5], the f-model with f = 4 of Mu'alem and
            Feitelson (IEEE TPDS 12(6), 2001), in which an estimate is uniform on [t, (1 + f) t].

    Raises:
        ConfigError: The distribution gave a factor below 1.
    """
    rng = random.Random(seed)
    draw = factor or (lambda r: r.uniform(1.0, 5.0))
    arrivals = []
    for arrival in workload.arrivals:
        given = draw(rng)
        if not 1.0 <= given < math.inf:
            raise ConfigError(
                given=f"limit factor {given}",
                allowed="1 or more: a limit below the true run time would kill the job",
                todo="change the distribution of factors",
            )
        job = replace(arrival.job, limit_s=arrival.work_s * given)
        arrivals.append(Arrival(arrival.at, job, arrival.work_s))
    words = "uniform on [1, 5]" if factor is None else "drawn from the given distribution"
    note = f"time limits are the true run time times a factor {words} (seed {seed})"
    return replace(workload, arrivals=tuple(arrivals), notes=(*workload.notes, note))


def compress(
    workload: Workload,
    *,
    gpu_load: float | None = None,
    cpu_load: float | None = None,
    cap_s: float | None = None,
    keep_bursts: bool = True,
    seed: int = 0,
) -> Workload:
    """Cap run times and squeeze (or stretch) the arrivals until the offered load is as asked for.

    With both loads given the span is set by the GPU load, and then CPU-only jobs are left out or repeated at random,
    whole jobs at a time, until the CPU load is as near as they allow; the CPU demand of GPU jobs is never touched.

    Args:
        workload: what to change; at least two arrivals.
        gpu_load, cpu_load: offered loads to reach (`Workload.load`); at least one.
        cap_s: longest run time kept, in seconds; longer ones are cut to it.
        keep_bursts: True scales the gaps between arrivals; False draws arrival times uniformly over the new span
            (a Poisson stream, given its count) and keeps only the order.
        seed: for the draws.

    Raises:
        ConfigError: No load was given, or the workload offers nothing of what should be reached.
    """
    rng = random.Random(seed)
    notes = list(workload.notes)
    arrivals = list(workload.arrivals)
    if cap_s is not None:
        notes.append(f"{counted(sum(a.work_s > cap_s for a in arrivals), 'run time')} cut to {human_duration(cap_s)}")
        arrivals = [a if a.work_s <= cap_s else replace(a, work_s=cap_s) for a in arrivals]
    span_s = _span_for(replace(workload, arrivals=tuple(arrivals)), gpu_load, cpu_load)
    if gpu_load is not None and cpu_load is not None:
        arrivals, words = _fill_with_cpu_jobs(workload.nodes, arrivals, cpu_load, span_s, rng)
        notes.append(words)
    start = arrivals[0].at if arrivals else 0.0
    old_s = arrivals[-1].at - start if arrivals else 0.0
    if keep_bursts and old_s > 0:
        arrivals = [replace(a, at=(a.at - start) * span_s / old_s) for a in arrivals]
        notes.append(f"gaps between arrivals times {span_s / old_s:.4g}")
    else:
        times = sorted([0.0, span_s, *(rng.uniform(0.0, span_s) for _ in arrivals[2:])])[: len(arrivals)]
        arrivals = [replace(a, at=at) for a, at in zip(arrivals, times, strict=True)]
        notes.append(f"arrivals spread at random over {human_duration(span_s)} (seed {seed})")
    return replace(workload, arrivals=_numbered([(a, 0) for a in arrivals]), notes=tuple(notes))


def steady(workload: Workload, span_s: float, load: float, *, gpus: bool, cap_s: float, seed: int = 0) -> Workload:
    """Draw a stationary stream: the offered load is the same over every part of the span that is longer than jobs are.

    Jobs are drawn evenly over the order of their demand (resource-time), each as often as the load asks for, and each
    twenty neighbours in that order spread evenly over the span: stratified in size and in time.

    Args:
        workload: whose nodes and jobs; the times of its arrivals do not count.
        span_s: time over which jobs arrive.
        load: what the jobs offer of the nodes' GPUs or cores.
        gpus: draw the jobs with GPUs, and to a load of GPUs; else those without, and to a load of cores.
        cap_s: longest run time kept, in seconds; longer ones are cut to it.
        seed: for the draws.

    Raises:
        ConfigError: There are no such jobs or nodes, or the load, the span or the cap is not above 0.
    """
    rng = random.Random(seed)

    def demand(a: Arrival) -> float:
        return a.work_s * (a.job.gpu_total_milli if gpus else a.job.cpu_milli)

    kind = "GPU" if gpus else "CPU-only"
    cut = [replace(a, work_s=min(a.work_s, cap_s)) for a in workload.arrivals if bool(a.job.gpu_total_milli) == gpus]
    cut.sort(key=lambda a: (demand(a), a.job.id))
    capacity = sum(1000 * len(node.gpus) if gpus else node.cpu_milli for node in workload.nodes)
    offered = sum(map(demand, cut))
    if not offered or not capacity or min(load, span_s, cap_s) <= 0:
        raise ConfigError(
            given=f"a load of {load} over {span_s} s from {len(cut)} {kind} jobs on {len(workload.nodes)} nodes",
            allowed="a load and times above 0, and jobs and nodes of that kind",
            todo="draw from a workload that has them",
        )
    count = max(1, round(load * span_s * capacity * len(cut) / offered))
    offset = rng.random()
    arrivals = []
    for first in range(0, count, _STRATUM):
        size = min(_STRATUM, count - first)
        slots = rng.sample(range(size), size)
        for k, slot in enumerate(slots, start=first):
            drawn = cut[min(len(cut) - 1, int((k + offset) * len(cut) / count))]
            arrivals.append(replace(drawn, at=(slot + rng.random()) * span_s / size))
    arrivals.sort(key=lambda a: a.at)
    words = f"{counted(count, 'job')} drawn from {len(cut)} {kind} ones over {human_duration(span_s)}"
    note = f"{words} to offer a load of {load:.3g} (seed {seed})"
    return replace(workload, arrivals=_numbered([(a, 0) for a in arrivals]), notes=(*workload.notes, note))


_STRATUM = 20


def sample_nodes(workload: Workload, share: float, seed: int = 0) -> Workload:
    """Keep a part of the nodes, stratified by GPU type and size; jobs that then fit nowhere are left out and counted.

    Each kind of node (same cores, memory and GPUs) keeps its part, rounded so that the total is right (largest
    remainder); which nodes of a kind stay is drawn.

    Args:
        workload: what to thin out.
        share: part of the nodes to keep, in (0, 1].
        seed: for the draw.
    """
    if not 0.0 < share <= 1.0:
        raise ConfigError(given=f"share of nodes {share}", allowed="above 0, at most 1", todo="0.1 is 10 %")
    rng = random.Random(seed)
    strata: dict[tuple[object, ...], list[Node]] = defaultdict(list)
    for node in workload.nodes:
        kind = (node.cpu_milli, node.mem_mib, len(node.gpus), node.gpus[0].type if node.gpus else "")
        strata[kind].append(node)
    counts = _largest_remainder([len(nodes) * share for nodes in strata.values()])
    kept = {n.id for ns, k in zip(strata.values(), counts, strict=True) for n in rng.sample(ns, k)}
    nodes = tuple(node for node in workload.nodes if node.id in kept)
    arrivals = _that_fit(workload.arrivals, nodes)
    note = f"{len(nodes)} of {len(workload.nodes)} nodes, stratified by {len(strata)} kinds (seed {seed})"
    lost = len(workload.arrivals) - len(arrivals)
    lost_note = [f"{counted(lost, 'job')} left out: too large for any node that is left"] if lost else []
    notes = (*workload.notes, note, *lost_note)
    return replace(workload, nodes=nodes, arrivals=arrivals, notes=notes)


def _load(demand: float, capacity: float) -> float:
    if demand == 0:
        return 0.0
    return demand / capacity if capacity > 0 else math.inf


def _span_for(workload: Workload, gpu_load: float | None, cpu_load: float | None) -> float:
    """Return the span, in seconds, over which the arrivals offer the load (the GPU load where both are given)."""
    wanted, kind = (cpu_load, "CPU") if gpu_load is None else (gpu_load, "GPU")
    per_second = replace(workload, arrivals=_at_ends(workload.arrivals)).load()
    offered = per_second.cpu if kind == "CPU" else per_second.gpu
    if wanted is None or wanted <= 0 or not 0 < offered < math.inf:
        raise ConfigError(
            given=f"{kind} load {wanted} for {len(workload.arrivals)} jobs on {len(workload.nodes)} nodes",
            allowed="a load above 0, and at least two jobs and one node that have the resource",
            todo="give gpu_load or cpu_load",
        )
    return offered / wanted


def _at_ends(arrivals: Sequence[Arrival]) -> tuple[Arrival, ...]:
    """Put the first arrival at 0 and all others at 1 s: the load of that is demand over capacity per second."""
    return tuple(replace(a, at=float(i > 0)) for i, a in enumerate(arrivals))


def _fill_with_cpu_jobs(
    nodes: Sequence[Node], arrivals: list[Arrival], load: float, span_s: float, rng: random.Random
) -> tuple[list[Arrival], str]:
    """Leave out or repeat CPU-only jobs until all arrivals offer ``load`` of the CPU over ``span_s``."""
    target = load * span_s * sum(node.cpu_milli for node in nodes)
    target -= sum(a.work_s * a.job.cpu_milli for a in arrivals if a.job.gpu_total_milli)
    ours = [i for i, a in enumerate(arrivals) if not a.job.gpu_total_milli and a.work_s > 0 and a.job.cpu_milli]
    order = rng.sample(ours, len(ours))
    counts: Counter[int] = Counter()
    for i in itertools.cycle(order):
        work = arrivals[i].work_s * arrivals[i].job.cpu_milli
        if target < work / 2:
            break
        counts[i] += 1
        target -= work
    known = set(ours)
    filled = [a for i, a in enumerate(arrivals) for _ in range(counts[i] if i in known else 1)]
    return filled, f"{len(ours)} CPU-only jobs became {counts.total()} to offer a CPU load of {load}"


def _largest_remainder(shares: Sequence[float]) -> list[int]:
    """Round so that the sum is the rounded sum of ``shares`` (Hamilton's method)."""
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i], i))
    for i in by_remainder[: round(sum(shares)) - sum(counts)]:
        counts[i] += 1
    return counts


def _that_fit(arrivals: Iterable[Arrival], nodes: Sequence[Node]) -> tuple[Arrival, ...]:
    known: dict[tuple[Part, ...], bool] = {}

    def fits(parts: tuple[Part, ...]) -> bool:
        if parts not in known:
            known[parts] = all(sum(could_ever_fit(node, part.need) for node in nodes) >= part.nodes for part in parts)
        return known[parts]

    return tuple(a for a in arrivals if fits(a.job.parts))


def _numbered(tagged: Sequence[tuple[Arrival, int]]) -> tuple[Arrival, ...]:
    """Give ids 1, 2, ... in this order; dependencies and arrays follow, each within its own stream (the tag).

    A dependency or array whose first job is not among the arrivals is dropped with it.
    """
    new_id: dict[tuple[int, int], int] = {}
    for i, (arrival, tag) in enumerate(tagged, start=1):
        new_id.setdefault((tag, arrival.job.id), i)
    numbered = []
    for i, (arrival, tag) in enumerate(tagged, start=1):
        job = arrival.job
        after = tuple(replace(a, job=new_id[tag, a.job]) for a in job.after if (tag, a.job) in new_id)
        array = (new_id[tag, job.array[0]], job.array[1]) if job.array and (tag, job.array[0]) in new_id else None
        numbered.append(Arrival(arrival.at, replace(job, id=i, after=after, array=array), arrival.work_s))
    return tuple(numbered)
