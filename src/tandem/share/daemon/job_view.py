"""What a caller sees of a job: everything of their own, little of somebody else's."""

from collections.abc import Mapping, Sequence
from typing import Any

from tandem.share.codec import from_json
from tandem.share.model import Job, State
from tandem.share.scheduler.waiting import array_throttle
from tandem.share.state.life import Life

View = dict[str, Any]


def of_life(life: Life, *, own: bool, why: str = "", promise: View | None = None, beside: Sequence[str] = ()) -> View:
    """Describe a live job.

    Args:
        own: Whether the caller may see all of it.
        beside: Who is on its nodes now, in words.
        why: Why it waits, in words.
        promise: Its last quote.
    """
    job = life.job
    shares = life.placement.shares if life.placement is not None and life.state is not State.QUEUED else ()
    view: View = {
        **_demand(job),
        "state": life.state.value,
        "submitted_at": life.submitted_at,
        "started_at": life.started_at,
        "ended_at": life.ended_at,
        "ran_s": life.ran_s,
        "run_since": life.run_since,
        "attempt": life.attempt,
        "node": ",".join(share.node for share in shares),
        "cores": [list(share.cores) for share in shares],
        "gpus_given": [list(share.gpus) for share in shares],
        "throttle": life.throttle,
        "own": own,
    }
    if own:
        view |= _private(job)
        view |= {"done": life.done, "rate": life.rate, "slowdown": life.slowdown, "beside": list(beside)}
        view |= {"why": why, "reason": life.reason, "promise": promise}
    return view


def of_row(row: Mapping[str, Any], *, own: bool) -> View:
    """Describe a job that the store knows (see `store.queries`)."""
    job: Job = from_json(row["job"])
    names = ("state", "submitted_at", "started_at", "ended_at", "ran_s", "attempt", "node", "cores")
    view: View = {**_demand(job), **{name: row[name] for name in names}}
    view |= {"run_since": None, "gpus_given": row["gpus"], "throttle": 1.0, "own": own}
    if own:
        view |= _private(job) | {"exit_code": row["exit_code"], "signal": row["signal"], "reason": row["reason"]}
    return view


def _demand(job: Job) -> View:
    """What everybody may see: id, user, class and demand."""
    first = job.parts[0].need
    return {
        "id": job.id,
        "uid": job.uid,
        "class": job.klass.value,
        "nodes": sum(part.nodes for part in job.parts),
        "cpus": job.cpu_milli / 1000,
        "gpus": job.gpu_total_milli / 1000,
        "mem_mib": sum(part.nodes * part.need.mem_mib for part in job.parts),
        "membw_mbs": first.membw_mbs,
        "priority": job.priority,
        "array": list(job.array) if job.array is not None else None,
    }


def _private(job: Job) -> View:
    return {
        "name": job.name,
        "app": job.app,
        "max_slowdown": job.max_slowdown,
        "limit_s": job.limit_s,
        "expected_s": job.expected_s,
        "after": [{"job": after.job, "ok": after.ok} for after in job.after],
        "array_most": array_throttle(job) or None,
        "retries": job.retries,
        "checkpoint": job.checkpoint,
        "grace_s": job.grace_s,
    }
