"""Why a job waits, in words."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tandem.core.units import ranges
from tandem.share.deciding.going_on import left_behind
from tandem.share.deciding.neighbours import BOUND_BREAKS, NODES, Neighbours
from tandem.share.deciding.resting import REST_S, rests
from tandem.share.model import ON_NODE, RESOURCES, Job, Part, State
from tandem.share.scheduler import admission
from tandem.share.state.demand_index import could_ever_fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tandem.share.scheduler.cluster import Cluster
    from tandem.share.state.life import Life

_JOB = re.compile(r"\bjob (\d+)\b(?!_)")
_NAMED = 6
_OVERTAKERS = 3
_ASKED = 3  # of a group, of which there may be a hundred thousand: reasons differ between the first and the others


def why_it_waits(cluster: Cluster, life: Life, known: dict[int, int | None] | None = None) -> str:
    """One sentence; for a job that neither waits nor is suspended, the reason of its last decision.

    Args:
        known: as in `held_ahead`.
    """
    if life.state is State.HELD:
        return "it is held: `tandem release` lets it go"
    if life.state is State.BLOCKED:
        return _blocked(cluster, life, known)
    if life.state is State.SUSPENDED:
        return named(cluster, _suspended(cluster, life))
    if life.state is not State.QUEUED:
        return named(cluster, life.reason)
    words = ["the disk that the queue is kept on is full, and nothing starts until there is room"] * cluster.disk_full
    head = cluster.view.head()
    if head is not None and head is not life:
        words.append(f"job {head.id} is first in the queue")
    if life.has_room:
        words.append("harvest jobs give way to it")
    lacking = [w for part in life.shape.parts if (w := _lacking(cluster, part))]
    words += lacking or [f"it would fit, but {_hindered(cluster, life) or _kept(cluster) or 'its turn has not come'}"]
    if life.reserved is not None and head is life and life.reserved[0] > cluster.now:
        at, nodes = life.reserved
        words.append(f"it is promised {', '.join(nodes[:4])}{' ...' if len(nodes) > 4 else ''} by {_clock(at)}")
    if life.attempt and life.reason:
        words.append(life.reason)
    return named(cluster, "; ".join(words))


def held_ahead(cluster: Cluster, life: Life, known: dict[int, int | None] | None = None) -> int | None:
    """A held job that the job waits for, itself or through others that wait for it; None where there is none.

    Args:
        known: what was found for other jobs in the same state of the cluster; all that is found is added.
    """
    return _ahead(cluster, life, {} if known is None else known, lambda one: one.state is State.HELD)


def out_of_reach(cluster: Cluster, life: Life, known: dict[int, int | None]) -> bool:
    """Whether the nodes that are up could hold the job never, or not one that it waits for: nobody knows when they do.

    Args:
        known: what was found for other jobs in the same state of the cluster; all that is found is added.
    """

    def never(one: Life) -> bool:
        return one.state in (State.QUEUED, State.BLOCKED) and not cluster.view.could_hold(one.shape)

    return never(life) or _ahead(cluster, life, known, never) is not None


def _ahead(cluster: Cluster, life: Life, known: dict[int, int | None], what: Callable[[Life], bool]) -> int | None:
    """The first job of such a kind that the job waits for, itself or through others."""
    jobs, stack = cluster.jobs, [life.id]
    while stack:
        job = stack[-1]
        if job in known:
            stack.pop()
            continue
        waits = sorted(jobs[job].waits_for)
        found = next((one for one in waits if what(jobs[one])), None)
        unknown = [] if found is not None else [one for one in waits if one not in known]
        stack += unknown
        if not unknown:
            known[job] = next((known[one] for one in waits if known[one] is not None), None) if found is None else found
    return known[life.id]


def together(lives: Iterable[Life]) -> list[list[Life]]:
    """Jobs in groups: elements of one array that follow each other and wait alike are one group, any other job one."""
    groups: list[list[Life]] = []
    for life in lives:
        before = groups[-1][-1] if groups else None
        if before is not None and life.job.array is not None and _wait_alike(before, life):
            groups[-1].append(life)
        else:
            groups.append([life])
    return groups


def why_together(cluster: Cluster, group: Sequence[Life], known: dict[int, int | None]) -> str:
    """Why a group waits: what the first of its first few is told that does not wait for another of them.

    Args:
        known: as in `held_ahead`.
    """
    told = [why_it_waits(cluster, life, known) for life in group[:_ASKED]]
    array = group[0].job.array
    if len(group) == 1 or array is None:
        return told[0]
    its_own = re.compile(rf"\bjobs? {array[0]}_\d")
    return next((why for why in told if not its_own.search(why)), told[0])


def _wait_alike(one: Life, other: Life) -> bool:
    waits = one.state is other.state and one.state not in ON_NODE
    return waits and (one.job.array or (None,))[0] == (other.job.array or (None,))[0]


def overtaken(cluster: Cluster, life: Life) -> str:
    """Who was submitted after a waiting job and runs before it, and why; empty where nobody does."""
    if life.state is not State.QUEUED or not cluster.view.could_hold(life.shape):
        return ""
    ahead = [
        other
        for other in cluster.on_nodes.values()
        if other.submitted_at > life.submitted_at and other.placed_at >= life.queued_at and other.placed_at
    ]
    latest = sorted(ahead, key=lambda other: other.placed_at)[-_OVERTAKERS:]
    told = [f"job {other.id} runs before it: {_why_first(other, life)}" for other in latest]
    more = f"; so do {len(ahead) - len(latest)} more" if len(ahead) > len(latest) else ""
    return named(cluster, "; ".join(told) + more)


def _why_first(other: Life, life: Life) -> str:
    """Why a job that came later runs already."""
    if other.job.priority > life.job.priority:
        return "its priority is higher"
    if life.reserved is not None and other.planned_end <= life.reserved[0]:
        return "it fits in the gap"
    if other.job.cpu_milli < life.job.cpu_milli or other.job.gpu_total_milli < life.job.gpu_total_milli:
        return "it asks for less, and fits"
    return other.reason or "the policy chose it"


def array_throttle(job: Job) -> int:
    """How many of the job's array may run at once; 0 where that is not limited.

    Such a job waits for the one that many places before it.
    """
    before = [after.job for after in job.after if _same_array(job, after.job)]
    return job.id - max(before) if before else 0


def named(cluster: Cluster, text: str) -> str:
    """The text with elements of arrays named as users name them: `job 10_3`."""
    return renamed(text, partial(name_of, cluster))


def renamed(text: str, name: Callable[[int], str]) -> str:
    """The text with jobs, which it calls by number, called as ``name`` says."""
    return _JOB.sub(lambda match: f"job {name(int(match[1]))}", text)


def name_of(cluster: Cluster, job: int) -> str:
    """A job's id as users give it, where the job is still known."""
    life = cluster.jobs.get(job)
    return str(job) if life is None else label(life.job)


def label(job: Job) -> str:
    """The job's id as users give it."""
    return str(job.id) if job.array is None else f"{job.array[0]}_{job.array[1]}"


def _same_array(job: Job, other: int) -> bool:
    return job.array is not None and job.array[0] <= other < job.id


def _blocked(cluster: Cluster, life: Life, known: dict[int, int | None] | None) -> str:
    most = array_throttle(life.job)
    jobs = [job for job in sorted(life.waits_for) if not _same_array(life.job, job)]
    words = [f"its array runs at most {most} at a time"] if most and len(jobs) < len(life.waits_for) else []
    held = held_ahead(cluster, life, known)
    if held is not None and jobs == [held]:
        return "; ".join([*words, f"it waits for job {name_of(cluster, held)}, which is held"])
    if jobs:
        names = ", ".join(name_of(cluster, job) for job in jobs[:_NAMED])
        more = f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""
        words.append(f"it waits for job{'s' if len(jobs) > 1 else ''} {names}{more} to end")
    if held is not None:
        words.append(f"job {name_of(cluster, held)} is held")
    return "; ".join(words)


def _suspended(cluster: Cluster, life: Life) -> str:
    """Why a job is suspended, or is still though those that it was suspended for are gone."""
    why = [int(job) for job in _JOB.findall(life.reason)]
    if not why or any(job in cluster.jobs and not cluster.jobs[job].ended for job in why):
        words = [life.reason]
        if life.rest_s > REST_S and rests(cluster.view, life, cluster.now):
            words.append(f"it is tried beside it again at {_clock(life.rests_until)}")
    else:
        free = all(cluster.ledger.can_unpause(life.id, n) for n in life.numbers)
        lacks = "not all the cores it needs are free"
        if free and rests(cluster.view, life, cluster.now):
            lacks = f"it rests beside other primary jobs until {_clock(life.rests_until)}"
        elif free:
            lacks = "its turn has not come"
        words = [f"job {why[0]}, for which it was suspended, has ended, but {lacks}"]
    if life.reserved is not None:
        words.append(f"the cores it lacks are kept for it, expected by {_clock(life.reserved[0])}")
    return "; ".join(words)


def _hindered(cluster: Cluster, life: Life) -> str:
    """What kept a job that fits from being placed when that was tried last; "" where nothing did."""
    if life.hindered != BOUND_BREAKS or len(life.shape.parts) > 1:
        return life.hindered
    near = Neighbours.of(cluster.view)
    fitting = cluster.view.index.nodes_now(life.shape.rows[0])[:NODES].tolist()
    whose = next((words for n in fitting if (words := near.broken(n, life))), "")
    return f"{BOUND_BREAKS}: {whose}" if whose else BOUND_BREAKS


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _kept(cluster: Cluster) -> str:
    """For whom free cores are kept that are not given out, where they are."""
    for life in left_behind(cluster.view):
        if life.reserved is not None:
            nodes = ", ".join(life.reserved[1])
            return f"the free cores of {nodes} are kept for job {life.id}, which was suspended"
    return ""


def _lacking(cluster: Cluster, part: Part) -> str:
    """What is missing on the node that comes nearest."""
    ledger = cluster.ledger
    vector = part.need.vector()
    best: list[int] | None = None
    nearest = -1
    up = [n for n, node in enumerate(ledger.nodes) if ledger.is_up(n) and could_ever_fit(node, part.need)]
    fitting = 0
    for n in up:
        short = [i for i in range(len(RESOURCES)) if vector[i] > ledger.free[n, i]]
        if not short:
            fitting += 1
        elif best is None or len(short) < len(best):
            best, nearest = short, n
    if fitting >= part.nodes:
        return ""
    if not up:
        return f"no node that could take it is up{_too_small(cluster, part)}"
    if fitting:
        return f"it needs {part.nodes} nodes at once, and {fitting} can give its share now"
    missing = " and ".join(_NAMES[RESOURCES[i]] for i in best or [])
    others = _held_by_others(cluster, nearest) if nearest >= 0 else ""
    return f"not enough free {missing} on any node{others and ': ' + others}"


def _too_small(cluster: Cluster, part: Part) -> str:
    """What the nodes that are up lack of what a part asks for, where there are any."""
    up = [node for n, node in enumerate(cluster.ledger.nodes) if cluster.ledger.is_up(n)]
    return f": it {admission.why_never(Job(0, (replace(part, nodes=1),)), up)}" if up else ""


def _held_by_others(cluster: Cluster, n: int) -> str:
    """Which cores and GPUs of a node are not this scheduler's to give now."""
    ledger = cluster.ledger
    use = zip(("core", "GPU"), ledger.foreign_use(n), strict=True)
    held = [f"{what}{'s' if len(which) > 1 else ''} {ranges(sorted(which))}" for what, which in use if which]
    if not held:
        return ""
    where = f" of {ledger.nodes[n].id}" if len(ledger.nodes) > 1 else ""
    one = sum(map(len, ledger.foreign_use(n))) == 1
    verb = "is" if one else "are"
    who = "another scheduler or by `tandem profile`"
    if ledger.foreign_use(n)[1]:
        who = "another scheduler, by `tandem profile` or by a process on the GPU that is no job"
    return f"{' and '.join(held)}{where} {verb} held by {who}, nobody knows how long"


_NAMES = {
    "cpu_milli": "cores",
    "mem_mib": "memory",
    "membw_mbs": "memory bandwidth",
    "nic_mbs": "network bandwidth",
    "gpus": "GPUs",
    "gpu_milli": "GPU",
}
