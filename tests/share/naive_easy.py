"""EASY backfilling in plain lists, written from its definition, to compare the real one with.

Lifka (JSSPP 1995), Mu'alem and Feitelson (TPDS 2001): jobs start in order of submission while they fit. The first that
does not gets a reservation at the earliest moment at which running jobs, going to their limits, leave it enough nodes:
those that come free first. A later job starts now if it fits and does not delay that: its limit ends by then, or what
is left of the reserved nodes by then still holds it. Among nodes that fit the fullest is taken: fewest free
GPUs, then fewest free cores, then the first.
"""

from dataclasses import dataclass, field

from tandem.share.model import Job
from tandem.share.workloads.workload import Workload

Amount = tuple[int, int, int]  # CPU, memory, GPUs


@dataclass(eq=False)
class _Job:
    id: int
    at: float
    work_s: float
    limit_s: float
    count: int
    need: Amount
    nodes: list[int] = field(default_factory=list)
    start: float = 0.0


def starts(workload: Workload) -> dict[int, float]:
    """When each job starts. Jobs have one part, of whole GPUs, and a limit that they keep."""
    total: list[Amount] = [(node.cpu_milli, node.mem_mib, len(node.gpus)) for node in workload.nodes]
    coming = [_read(a.at, a.job, a.work_s) for a in workload.arrivals]
    coming.reverse()
    free = list(total)
    on: list[list[_Job]] = [[] for _ in total]
    queue: list[_Job] = []
    running: list[_Job] = []
    started: dict[int, float] = {}
    while coming or running:
        now = min([job.start + job.work_s for job in running] + [job.at for job in coming[-1:]])
        for job in [job for job in running if job.start + job.work_s <= now]:
            running.remove(job)
            for n in job.nodes:
                on[n].remove(job)
                free[n] = _plus(free[n], job.need)
        while coming and coming[-1].at <= now:
            queue.append(coming.pop())
        for job in _pass(now, queue, free, on):
            queue.remove(job)
            running.append(job)
            started[job.id] = now
    return started


def _pass(now: float, queue: list[_Job], free: list[Amount], on: list[list[_Job]]) -> list[_Job]:
    """Start what may start at ``now``."""
    begun: list[_Job] = []
    fitting: dict[Amount, list[int]] = {}  # for each demand; forgotten when anything starts

    def where(job: _Job) -> list[int]:
        if job.need not in fitting:
            found = [n for n in range(len(free)) if _covers(free[n], job.need)]
            fitting[job.need] = sorted(found, key=lambda n: (free[n][2], free[n][0], n))
        return fitting[job.need]

    def begin(job: _Job, nodes: list[int]) -> None:
        job.nodes, job.start = nodes, now
        for n in nodes:
            free[n] = _minus(free[n], job.need)
            on[n].append(job)
        begun.append(job)
        fitting.clear()

    waiting = list(queue)
    while waiting and len(where(waiting[0])) >= waiting[0].count:
        head = waiting.pop(0)
        begin(head, where(head)[: head.count])
    if not waiting:
        return begun
    head = waiting.pop(0)
    at, reserved = _reservation(now, head, free, on)
    for job in waiting:
        nodes = where(job)
        if len(nodes) < job.count:
            continue
        if now + job.limit_s > at:
            nodes = [n for n in nodes if n not in reserved or _holds(n, at, head, job, free, on)]
        if len(nodes) >= job.count:
            begin(job, nodes[: job.count])
    return begun


def _reservation(now: float, head: _Job, free: list[Amount], on: list[list[_Job]]) -> tuple[float, list[int]]:
    """The earliest moment at which enough nodes hold the head, and the nodes that do so first."""
    moments: list[tuple[float, int]] = []
    for n, amount in enumerate(free):
        when = now
        for job in sorted(on[n], key=lambda job: job.start + job.limit_s):
            if _covers(amount, head.need):
                break
            amount = _plus(amount, job.need)
            when = job.start + job.limit_s
        if _covers(amount, head.need):
            moments.append((when, n))
    first = sorted(moments)[: head.count]
    return first[-1][0], [n for _, n in first]


def _holds(n: int, at: float, head: _Job, job: _Job, free: list[Amount], on: list[list[_Job]]) -> bool:
    """Whether node ``n``, with ``job`` on it beyond ``at``, still has room for the head then."""
    amount = _minus(free[n], job.need)
    for one in on[n]:
        if one.start + one.limit_s <= at:
            amount = _plus(amount, one.need)
    return _covers(amount, head.need)


def _read(at: float, job: Job, work_s: float) -> _Job:
    (part,) = job.parts
    assert job.limit_s is not None
    assert job.limit_s >= work_s
    return _Job(job.id, at, work_s, job.limit_s, part.nodes, (part.need.cpu_milli, part.need.mem_mib, part.need.gpus))


def _covers(amount: Amount, need: Amount) -> bool:
    return all(a >= b for a, b in zip(amount, need, strict=True))


def _plus(a: Amount, b: Amount) -> Amount:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _minus(a: Amount, b: Amount) -> Amount:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])
