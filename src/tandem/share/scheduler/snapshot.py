"""The state machine's whole state as JSON, so that a new log can begin where an old one ended."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tandem.core.errors import StoreError
from tandem.share.codec import from_json, to_json
from tandem.share.model import ON_NODE, Interval, Job, JobClass, State
from tandem.share.state.life import Life
from tandem.share.state.view import makes_way

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tandem.share.scheduler.cluster import Cluster
    from tandem.share.state.ledger import Ledger

ENDS_KEPT = 20_000
"""Ends of old jobs that a new log still knows of (for dependencies on them)."""

FORMAT = 1
"""Of what `save` writes. It is raised when an older Tandem could not go on from it; `check` then says so there."""

_PLAIN = (
    "submitted_at",
    "plan_s",
    "rank",
    "attempt",
    "failures",
    "stop_why",
    "queued_at",
    "placed_at",
    "first_start",
    "started_at",
    "run_since",
    "ran_s",
    "attained_core_s",
    "attained_gpu_s",
    "throttle",
    "done",
    "saved_done",
    "continues",
    "counted",
    "quoted",
    "rate",
    "slowdown",
    "reason",
    "hindered",
    "refused",
    "has_room",
    "curbed_before",
    "measured_s",
    "measured_alone_s",
    "rest_s",
)
_INSTANTS = ("planned_end", "throttled_at", "suspended_at", "measured_from", "guarded_at", "rests_until", "fine_at")


def save(cluster: Cluster) -> dict[str, Any]:
    """The state between two steps."""
    ends = list(cluster.ended.items())[-ENDS_KEPT:]
    return copy(cluster, to_json) | {
        "format": FORMAT,
        "ended": [[job, state.value] for job, state in ends],
        "history": cluster.history.snapshot(),
        "quoters": {**cluster.quoters, cluster.setup.policy: cluster.quoter.snapshot()},
        "profiles": [to_json(profile) for profile in cluster.profiles.values()],
        "drift": cluster.drift.snapshot(),
        "coruns": [[c.app, list(c.beside), c.rate, c.seconds] for c in cluster.coruns],
    }


def check(state: Mapping[str, Any]) -> None:
    """Refuse a snapshot that this version cannot go on from; one without a number is of the first format.

    Raises:
        StoreError: It is of an unknown format; says which there are.
    """
    found = state.get("format", 1)
    if found != FORMAT:
        raise StoreError(
            given=f"a snapshot of format {found!r}",
            allowed=f"format {FORMAT}",
            todo="run the version that wrote it, or set TANDEM_HOME to another folder; nothing was overwritten",
        )


def copy(cluster: Cluster, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """Nodes, jobs and timers alone, without what was learned; jobs, nodes and placements as ``encode`` makes them."""
    ledger = cluster.ledger
    return {
        "now": cluster.now,
        "policy": cluster.setup.policy,
        "dirty": cluster.is_dirty,
        "decided_at": None if math.isinf(cluster.decided_at) else cluster.decided_at,
        "disk_full": cluster.disk_full,
        "contended": cluster.view.contended,
        "timers": [list(timer) for timer in sorted(cluster.timers) if cluster.is_due(timer)],
        "overdue": [
            list(timer) for timer in sorted(cluster.overdue) if cluster.is_due(timer) and _is_planned(cluster, timer)
        ],
        "next_id": cluster.next_id,
        "nodes": [_save_node(ledger, n, encode) for n in range(len(ledger.nodes))],
        "jobs": [_save_life(cluster, life, encode) for life in cluster.jobs.values() if not life.ended],
        "on_nodes": list(cluster.on_nodes),
        "ended": [],
        "quoters": {},
    }


def load(cluster: Cluster, state: Mapping[str, Any], decode: Callable[[Any], Any] = from_json) -> None:
    """Bring a fresh machine into the saved state (its history and co-runs are read by its constructor)."""
    cluster.now = cluster.view.now = state["now"]
    cluster.next_id = state["next_id"]
    cluster.ended.update((job, State(end)) for job, end in state["ended"])
    cluster.quoters.update(state["quoters"])
    if cluster.setup.policy in cluster.quoters:  # how quotes under another policy erred says nothing of this one's
        cluster.quoter.restore(cluster.quoters[cluster.setup.policy])
    for row in state["nodes"]:
        n = cluster.ledger.join(decode(row.get("described", row["node"])))
        cores, gpus = row["foreign"]
        cluster.ledger.foreign(n, frozenset(cores), frozenset(gpus))
        if not row["up"]:
            cluster.ledger.lose(n)
    same_policy = state["policy"] == cluster.setup.policy
    rows = {job.id: (job, row) for job, row in ((decode(row["job"]), row) for row in state["jobs"])}
    for job, row in rows.values():
        _load_life(cluster, job, row, replan=not same_policy)
    for quoter in cluster.quoters.values():  # an older Tandem kept there who was quoted
        for number in [*(number for number, _ in quoter["open"]), *quoter.get("taken_back", ())]:
            if number in cluster.jobs and "quoted" not in rows[number][1]:
                cluster.jobs[number].quoted = True
    for life in cluster.jobs.values():
        if life.state is State.HELD:  # an older Tandem left it its quote
            cluster.take_back(life)
    for number in state["on_nodes"]:  # in the order in which they took their nodes
        cluster.on_nodes[number] = cluster.jobs[number]
        _load_holdings(cluster, cluster.jobs[number], rows[number][1], decode)
    for row in state["nodes"]:
        if "described" in row:  # which is in force but for what is held beyond it
            n = cluster.ledger.join(decode(row["node"]))
            cluster.ledger.foreign(n, *map(frozenset, row["foreign"]))
    cluster.timers += [(when, job, attempt) for when, job, attempt in state["timers"]]  # sorted, so it is a heap
    cluster.overdue += [(when, job, attempt) for when, job, attempt in state["overdue"]]
    cluster.view.harvesting = sum(life.job.klass is JobClass.HARVEST for life in cluster.on_nodes.values())
    cluster.view.leaving.update((life.id, life) for life in cluster.on_nodes.values() if makes_way(life))
    for life in cluster.on_nodes.values():
        if cluster.is_strained(life):
            cluster.view.strained[life.id] = life
        if life.throttle < 1.0 or life.state in (State.SUSPENDING, State.SUSPENDED, State.RESUMING):
            cluster.view.curbed[life.id] = life
            life.curbed_before |= cluster.starts_only or not same_policy
    cluster.disk_full = state.get("disk_full", False)
    decided_at = state.get("decided_at")
    cluster.decided_at = -math.inf if decided_at is None else decided_at
    cluster.view.contended = state["contended"]
    cluster.view.has_gpus = any(node.gpus for node in cluster.ledger.nodes)
    if state["dirty"] or not same_policy:
        cluster.dirty()
    if not same_policy:
        for life in cluster.on_nodes.values():
            cluster.set_alarms(life)


def _save_node(ledger: Ledger, n: int, encode: Callable[[Any], Any]) -> dict[str, Any]:
    node, described = ledger.nodes[n], ledger.described(n)
    out = {"node": encode(node), "up": ledger.is_up(n), "foreign": [sorted(x) for x in ledger.foreign_seen(n)]}
    return out if described == node else out | {"described": encode(described)}


def _is_planned(cluster: Cluster, timer: tuple[float, int, int]) -> bool:
    return cluster.jobs[timer[1]].planned_end == timer[0]


def _save_life(cluster: Cluster, life: Life, encode: Callable[[Any], Any]) -> dict[str, Any]:
    out: dict[str, Any] = {name: getattr(life, name) for name in _PLAIN}
    out |= {name: None if math.isinf(v := getattr(life, name)) else v for name in _INSTANTS}
    return out | {
        "job": encode(life.job),
        "state": life.state.value,
        "stop_as": life.stop_as.value if life.stop_as is not None else None,
        "expected": [life.expected.low, life.expected.mid, life.expected.high],
        "placement": encode(life.placement) if life.state in ON_NODE else None,
        "held_on": [cluster.ledger.nodes[n].id for n in life.numbers],
        "paused": any(cluster.ledger.holders(n)[life.id][0].paused for n in life.numbers),
        "beside": list(life.beside),
        "slowed": sorted(life.rests_from.items()),
        "in_vain": sorted(life.in_vain_for.items()),
        "waits_for": sorted(life.waits_for),
        "reserved": [life.reserved[0], list(life.reserved[1])] if life.reserved else None,
    }


def _load_life(cluster: Cluster, job: Job, row: Mapping[str, Any], *, replan: bool) -> None:
    life = Life(
        job,
        cluster.shape(job.parts),
        State(row["state"]),
        expected=Interval(*row["expected"]),
        **{name: row[name] for name in _PLAIN if name in row},
    )
    cluster.jobs[job.id] = life
    for name, missing in zip(_INSTANTS, (math.inf, *[-math.inf] * 6), strict=True):
        value = row.get(name)
        setattr(life, name, missing if value is None else value)
    life.stop_as = State(row["stop_as"]) if row["stop_as"] is not None else None
    life.beside = tuple(row["beside"])
    life.rests_from = dict(row.get("slowed", ()))  # older snapshots have these two in other forms, as other keys
    life.in_vain_for = dict(row.get("in_vain", ()))
    life.waits_for = set(row["waits_for"])
    life.reserved = (row["reserved"][0], tuple(row["reserved"][1])) if row["reserved"] and not replan else None
    cluster.link(life)
    if replan:
        life.plan_s, life.rank = cluster.policy.plan_s(life), cluster.policy.rank(life, cluster.setup.options)
    if life.state is State.QUEUED:
        cluster.pending.add((-job.priority, life.rank, job.id), life.shape, life.plan_s)


def _load_holdings(
    cluster: Cluster, life: Life, row: Mapping[str, Any], decode: Callable[[Any], Any] = from_json
) -> None:
    life.placement = decode(row["placement"])
    assert life.placement is not None
    life.numbers = tuple(cluster.ledger.number[node] for node in row["held_on"])
    left = tuple(
        share for share in life.placement.shares if share.node in row["held_on"]
    )  # a node of a gang may be lost
    cluster.ledger.restore(life.id, replace(life.placement, shares=left), paused=row["paused"])
