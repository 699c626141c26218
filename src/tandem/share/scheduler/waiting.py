"""Why a job waits, in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tandem.share.model import RESOURCES, Part, State
from tandem.share.state.demand_index import could_ever_fit

if TYPE_CHECKING:
    from tandem.share.scheduler.cluster import Cluster
    from tandem.share.state.life import Life


def why_it_waits(cluster: Cluster, life: Life) -> str:
    """One sentence; for a job that does not wait, the reason of its last decision."""
    if life.state is State.HELD:
        return "it is held: `tandem release` lets it go"
    if life.state is State.BLOCKED:
        jobs = ", ".join(str(job) for job in sorted(life.waits_for))
        return f"it waits for job{'s' if len(life.waits_for) > 1 else ''} {jobs} to end"
    if life.state is not State.QUEUED:
        return life.reason
    words = []
    head = cluster.pending.head()
    if head is not None and head[2] != life.id:
        words.append(f"job {head[2]} is first in the queue")
    lacking = [w for part in life.shape.parts if (w := _lacking(cluster, part))]
    words += lacking or [f"it would fit, but {life.hindered or 'its turn has not come'}"]
    if life.reserved is not None and head is not None and head[2] == life.id and life.reserved[0] > cluster.now:
        at, nodes = life.reserved
        when = time.strftime("%H:%M:%S", time.localtime(at))
        words.append(f"it is promised {', '.join(nodes[:4])}{' ...' if len(nodes) > 4 else ''} by {when}")
    if life.attempt and life.reason:
        words.append(life.reason)
    return "; ".join(words)


def _lacking(cluster: Cluster, part: Part) -> str:
    """What is missing on the node that comes nearest."""
    ledger = cluster.ledger
    vector = part.need.vector()
    best: list[int] | None = None
    up = [n for n, node in enumerate(ledger.nodes) if ledger.is_up(n) and could_ever_fit(node, part.need)]
    fitting = 0
    for n in up:
        short = [i for i in range(len(RESOURCES)) if vector[i] > ledger.free[n, i]]
        if not short:
            fitting += 1
        elif best is None or len(short) < len(best):
            best = short
    if fitting >= part.nodes:
        return ""
    if not up:
        return "no node that could take it is up"
    if fitting:
        return f"it needs {part.nodes} nodes at once, and {fitting} can give its share now"
    missing = " and ".join(_NAMES[RESOURCES[i]] for i in best or [])
    return f"not enough free {missing} on any node"


_NAMES = {
    "cpu_milli": "cores",
    "mem_mib": "memory",
    "membw_mbs": "memory bandwidth",
    "nic_mbs": "network bandwidth",
    "gpus": "GPUs",
    "gpu_milli": "GPU",
}
