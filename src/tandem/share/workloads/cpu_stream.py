"""A generated stream of CPU jobs: what a lab's simulations and preprocessing ask for, to merge with GPU jobs.

The distribution, all of it drawn from one seed:

* ``apps`` applications; each has a memory-bandwidth demand a core (from ``membw_mbs_per_core``) and a median run time,
  lognormal around ``median_s``.
* Jobs arrive as a Poisson stream over ``span_s`` (uniform times, given the count), each of a uniformly drawn
  application, with cores from ``cores``, until the stream offers ``cpu_load`` of the nodes.
* A job's run time is lognormal around its application's median. Of the total variance ``sigma`` squared of the
  logarithm, ``within`` is between the jobs of one application (what history cannot predict), the rest between
  applications. Run times are cut to [1 s, ``cap_s``].
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tandem.core.errors import ConfigError
from tandem.core.units import human_duration
from tandem.share.model import Job, JobClass, Need, Node, Part
from tandem.share.workloads.workload import Arrival, Workload

Choices = tuple[tuple[int, float], ...]
"""Values with their weights."""


@dataclass(frozen=True, slots=True)
class CpuStream:
    """The numbers of the distribution (module docstring).

    ``harvest_share`` is the part of the jobs that are harvest; the others are primary. ``mem_mib_per_core`` is
    asked for by every job. ``users`` submit equally often.
    """

    apps: int = 12
    median_s: float = 600.0
    sigma: float = 1.2
    within: float = 0.1
    cap_s: float = 21_600.0
    cores: Choices = ((1, 0.30), (2, 0.25), (4, 0.25), (8, 0.15), (16, 0.05))
    membw_mbs_per_core: Choices = ((200, 0.5), (1_500, 0.3), (4_000, 0.2))
    mem_mib_per_core: int = 1_024
    harvest_share: float = 1.0
    users: int = 10


@dataclass(frozen=True, slots=True)
class _Application:
    key: str
    median_s: float
    membw_mbs_per_core: int


def cpu_stream(
    nodes: Sequence[Node], cpu_load: float, span_s: float, seed: int, stream: CpuStream | None = None
) -> Workload:
    """Draw a stream of CPU jobs.

    Args:
        nodes: whose cores ``cpu_load`` is a part of; jobs larger than the largest node are not drawn.
        cpu_load: load the stream offers, above 0.
        span_s: time over which jobs arrive, in seconds.
        seed: everything is drawn from it.
        stream: the distribution.

    Returns:
        The stream as a workload on ``nodes``; user ids start at 1.

    Raises:
        ConfigError: The load or the span is not above 0, or no choice of cores fits a node.
    """
    numbers = stream or CpuStream()
    largest = max((node.cpu_milli for node in nodes), default=0)
    cores = tuple((n, weight) for n, weight in numbers.cores if n * 1000 <= largest)
    if cpu_load <= 0 or span_s <= 0 or not cores or numbers.apps < 1:
        raise ConfigError(
            given=f"a CPU load of {cpu_load} over {span_s} s on nodes of up to {largest / 1000:g} cores",
            allowed="a load and a span above 0, an application, and a choice of cores that fits a node",
            todo="change the numbers of the stream",
        )
    rng = random.Random(seed)
    applications = _applications(numbers, rng)
    left = cpu_load * span_s * sum(node.cpu_milli for node in nodes) / 1000
    drawn: list[tuple[Job, float]] = []
    while left > 0:
        job, work_s = _job(len(drawn) + 1, rng.choice(applications), numbers, cores, rng)
        drawn.append((job, work_s))
        left -= work_s * job.cpu_milli / 1000
    times = sorted(rng.uniform(0.0, span_s) for _ in drawn)
    arrivals = tuple(Arrival(at, job, work_s) for at, (job, work_s) in zip(times, drawn, strict=True))
    note = (
        f"{len(drawn)} generated CPU jobs of {numbers.apps} applications over {human_duration(span_s)}: lognormal run "
        f"times around {human_duration(numbers.median_s)} (sigma {numbers.sigma}), seed {seed}"
    )
    return Workload(tuple(nodes), arrivals, "generated CPU jobs", (note,))


def with_bandwidth(workload: Workload, *, node_mbs_per_core: int, job_mbs_per_core: Choices, seed: int) -> Workload:
    """Give nodes a memory bandwidth, and jobs that state none a demand, where a trace knows neither.

    Args:
        workload: what to change; nodes and jobs that have a value keep it.
        node_mbs_per_core: capacity of a node for each of its cores, in MB/s.
        job_mbs_per_core: demands for each core of a job, in MB/s, with weights. Jobs with the same application key
            draw alike, and never more than the whole of the smallest node.
        seed: for the draws.
    """
    nodes = tuple(
        n if n.membw_mbs is not None else replace(n, membw_mbs=node_mbs_per_core * n.cpu_milli // 1000)
        for n in workload.nodes
    )
    most = min((n.membw_mbs for n in nodes if n.membw_mbs is not None), default=0)
    arrivals = []
    stated = 0
    for arrival in workload.arrivals:
        job = arrival.job
        if any(part.need.membw_mbs for part in job.parts):
            arrivals.append(arrival)
            continue
        stated += 1
        per_core = _pick(job_mbs_per_core, random.Random(f"{seed}/{job.app or job.id}"))
        parts = tuple(
            replace(p, need=replace(p.need, membw_mbs=min(most, per_core * p.need.cpu_milli // 1000)))
            for p in job.parts
        )
        arrivals.append(replace(arrival, job=replace(job, parts=parts)))
    note = (
        f"memory bandwidth: {node_mbs_per_core} MB/s a core of a node; {stated} jobs drew their demand a core from "
        f"{', '.join(f'{mbs} MB/s ({weight:g})' for mbs, weight in job_mbs_per_core)} (seed {seed})"
    )
    return replace(workload, nodes=nodes, arrivals=tuple(arrivals), notes=(*workload.notes, note))


def _applications(numbers: CpuStream, rng: random.Random) -> list[_Application]:
    between = numbers.sigma * math.sqrt(1.0 - numbers.within)
    return [
        _Application(
            f"cpu-{k:02d}",
            numbers.median_s * math.exp(rng.gauss(0.0, between)),
            _pick(numbers.membw_mbs_per_core, rng),
        )
        for k in range(numbers.apps)
    ]


def _job(number: int, app: _Application, numbers: CpuStream, cores: Choices, rng: random.Random) -> tuple[Job, float]:
    work_s = app.median_s * math.exp(rng.gauss(0.0, numbers.sigma * math.sqrt(numbers.within)))
    count = _pick(cores, rng)
    need = Need(
        cpu_milli=1000 * count,
        mem_mib=numbers.mem_mib_per_core * count,
        membw_mbs=app.membw_mbs_per_core * count,
    )
    klass = JobClass.HARVEST if rng.random() < numbers.harvest_share else JobClass.PRIMARY
    job = Job(number, (Part(need),), name=app.key, app=app.key, uid=1 + rng.randrange(numbers.users), klass=klass)
    return job, min(max(work_s, 1.0), numbers.cap_s)


def _pick(choices: Choices, rng: random.Random) -> int:
    return rng.choices([value for value, _ in choices], [weight for _, weight in choices])[0]
