"""The state machine's whole state as JSON, so that a new log can begin where an old one ended."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tandem.estimate.corun import CoRun
from tandem.share.codec import from_json, to_json
from tandem.share.life import Life
from tandem.share.model import ON_NODE, Interval, JobClass, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tandem.share.machine import Machine

ENDS_KEPT = 20_000
"""Ends of old jobs that a new log still knows of (for dependencies on them)."""

_PLAIN = (
    "submitted_at",
    "plan_s",
    "rank",
    "attempt",
    "failures",
    "stop_why",
    "queued_at",
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
    "rate",
    "slowdown",
    "reason",
    "hindered",
    "has_room",
    "measured_s",
    "measured_alone_s",
)
_INSTANTS = ("planned_end", "throttled_at", "suspended_at", "measured_from", "guarded_at")


def save(machine: Machine) -> dict[str, Any]:
    """The state between two steps."""
    ledger = machine.ledger
    ends = list(machine.ended.items())[-ENDS_KEPT:]
    return {
        "now": machine.now,
        "policy": machine.setup.policy,
        "dirty": machine.is_dirty,
        "contended": machine.view.contended,
        "timers": [list(timer) for timer in sorted(machine.timers) if machine.is_due(timer)],
        "overdue": [
            list(timer) for timer in sorted(machine.overdue) if machine.is_due(timer) and _is_planned(machine, timer)
        ],
        "next_id": machine.next_id,
        "nodes": [
            {"node": to_json(node), "up": ledger.is_up(n), "foreign": [sorted(x) for x in ledger.foreign_use(n)]}
            for n, node in enumerate(ledger.nodes)
        ],
        "jobs": [_save_life(machine, life) for life in machine.jobs.values() if not life.ended],
        "on_nodes": list(machine.on_nodes),
        "ended": [[job, state.value] for job, state in ends],
        "history": machine.history.snapshot(),
        "quoters": {**machine.quoters, machine.setup.policy: machine.quoter.snapshot()},
        "coruns": [[c.app, list(c.beside), c.rate, c.seconds] for c in machine.coruns],
    }


def load(machine: Machine, state: Mapping[str, Any]) -> None:
    """Bring a fresh machine into the saved state (its history and co-runs are read by its constructor)."""
    machine.now = machine.view.now = state["now"]
    machine.next_id = state["next_id"]
    machine.ended.update((job, State(end)) for job, end in state["ended"])
    machine.quoters.update(state["quoters"])
    if machine.setup.policy in machine.quoters:  # how quotes under another policy erred says nothing of this one's
        machine.quoter.restore(machine.quoters[machine.setup.policy])
    for row in state["nodes"]:
        n = machine.ledger.join(from_json(row["node"]))
        cores, gpus = row["foreign"]
        machine.ledger.foreign(n, frozenset(cores), frozenset(gpus))
        if not row["up"]:
            machine.ledger.lose(n)
    same_policy = state["policy"] == machine.setup.policy
    rows = {row["job"]["id"]: row for row in state["jobs"]}
    for row in rows.values():
        _load_life(machine, row, replan=not same_policy)
    for job in state["on_nodes"]:  # in the order in which they took their nodes
        machine.on_nodes[job] = machine.jobs[job]
        _load_holdings(machine, machine.jobs[job], rows[job])
    machine.timers += [(when, job, attempt) for when, job, attempt in state["timers"]]  # sorted, so it is a heap
    machine.overdue += [(when, job, attempt) for when, job, attempt in state["overdue"]]
    machine.view.harvesting = sum(life.job.klass is JobClass.HARVEST for life in machine.on_nodes.values())
    for life in machine.on_nodes.values():
        if machine.is_strained(life):
            machine.view.strained[life.id] = life
        if life.throttle < 1.0 or life.state in (State.SUSPENDING, State.SUSPENDED, State.RESUMING):
            machine.view.curbed[life.id] = life
    machine.view.contended = state["contended"]
    machine.view.has_gpus = any(node.gpus for node in machine.ledger.nodes)
    if state["dirty"] or not same_policy:
        machine.dirty()
    if not same_policy:
        for life in machine.on_nodes.values():
            machine.set_alarms(life)


def corun(row: list[Any]) -> CoRun:
    """One stored observation."""
    app, beside, rate, seconds = row
    return CoRun(app, tuple(beside), rate, seconds)


def _is_planned(machine: Machine, timer: tuple[float, int, int]) -> bool:
    return machine.jobs[timer[1]].planned_end == timer[0]


def _save_life(machine: Machine, life: Life) -> dict[str, Any]:
    out: dict[str, Any] = {name: getattr(life, name) for name in _PLAIN}
    out |= {name: None if math.isinf(v := getattr(life, name)) else v for name in _INSTANTS}
    return out | {
        "job": to_json(life.job),
        "state": life.state.value,
        "stop_as": life.stop_as.value if life.stop_as is not None else None,
        "expected": [life.expected.low, life.expected.mid, life.expected.high],
        "placement": to_json(life.placement) if life.state in ON_NODE else None,
        "held_on": [machine.ledger.nodes[n].id for n in life.numbers],
        "paused": any(machine.ledger.holders(n)[life.id][0].paused for n in life.numbers),
        "beside": list(life.beside),
        "waits_for": sorted(life.waits_for),
        "reserved": [life.reserved[0], list(life.reserved[1])] if life.reserved else None,
    }


def _load_life(machine: Machine, row: Mapping[str, Any], *, replan: bool) -> None:
    job = from_json(row["job"])
    life = Life(
        job,
        machine.shape(job.parts),
        State(row["state"]),
        expected=Interval(*row["expected"]),
        **{name: row[name] for name in _PLAIN},
    )
    machine.jobs[job.id] = life
    for name, missing in zip(_INSTANTS, (math.inf, *[-math.inf] * 4), strict=True):
        setattr(life, name, missing if row[name] is None else row[name])
    life.stop_as = State(row["stop_as"]) if row["stop_as"] is not None else None
    life.beside = tuple(row["beside"])
    life.waits_for = set(row["waits_for"])
    life.reserved = (row["reserved"][0], tuple(row["reserved"][1])) if row["reserved"] else None
    machine.transitions.link(life)
    if replan:
        life.plan_s, life.rank = machine.policy.plan_s(life), machine.policy.rank(life, machine.setup.options)
    if life.state is State.QUEUED:
        machine.pending.add((-job.priority, life.rank, job.id), life.shape, life.plan_s)


def _load_holdings(machine: Machine, life: Life, row: Mapping[str, Any]) -> None:
    life.placement = from_json(row["placement"])
    life.numbers = tuple(machine.ledger.number[node] for node in row["held_on"])
    left = tuple(
        share for share in life.placement.shares if share.node in row["held_on"]
    )  # a node of a gang may be lost
    machine.ledger.restore(life.id, replace(life.placement, shares=left), paused=row["paused"])
