"""What is refused at submission because it could never run: one clear sentence each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tandem.core.errors import DependencyError, ImpossibleDemandError
from tandem.share.model import RESOURCES, Job, Node, Part
from tandem.share.state.demand_index import could_ever_fit
from tandem.share.state.gang import fit_together
from tandem.share.state.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

_WORDS = {
    "cpu_milli": ("cores", 1000),
    "mem_mib": ("MiB of memory", 1),
    "membw_mbs": ("MB/s of memory bandwidth", 1),
    "nic_mbs": ("MB/s of network", 1),
    "gpus": ("whole GPUs", 1),
    "gpu_milli": ("of a GPU", 1000),
}


def check(job: Job, nodes: Sequence[Node], known: Sequence[Container[int]]) -> None:
    """Refuse ``job`` if no set of ``nodes`` (empty ones) could ever run it, or if it waits for an unknown job.

    Args:
        known: where the ids of jobs that were submitted may be found.

    Raises:
        ImpossibleDemandError: says which resource, what was asked for, and the most there is.
        DependencyError: a job it depends on was never submitted.
    """
    for after in job.after:
        if not any(after.job in some for some in known):
            raise DependencyError(
                given=f"a dependency on job {after.job}",
                allowed="jobs that were submitted before",
                todo="see `tandem queue` and `tandem history` for their ids",
            )
    for part in job.parts:
        able = sum(could_ever_fit(node, part.need) for node in nodes)
        if able < part.nodes:
            raise ImpossibleDemandError(
                given=_asked(part),
                allowed=_lacking(part, nodes, able),
                todo="ask for less, or see `tandem nodes` for what there is",
            )
    if len(job.parts) > 1 and not _fit_together(job.parts, nodes):
        raise ImpossibleDemandError(
            given=" with ".join(_asked(part) for part in job.parts),
            allowed="each of these alone, but not all of them at once",
            todo="ask for less, or see `tandem nodes` for what there is",
        )


def _fit_together(parts: Sequence[Part], nodes: Sequence[Node]) -> bool:
    """Whether all parts find places on the empty nodes, in the way in which they will be placed."""
    ledger = Ledger()
    for node in nodes:
        ledger.join(node)
    able = [np.array([could_ever_fit(node, part.need) for node in nodes]) for part in parts]
    return fit_together(parts, able, {n: ledger.forecast(n) for n in range(len(nodes))}) is not None


def _asked(part: Part) -> str:
    words = [_amount(name, value) for name, value in zip(RESOURCES, part.need.vector(), strict=True) if value]
    if part.need.gpu_type:
        words.append(f"GPU type {part.need.gpu_type}")
    if part.need.gpu_mem_mib:
        words.append(f"{part.need.gpu_mem_mib} MiB of GPU memory")
    if part.need.labels:
        words.append("label " + ", ".join(sorted(part.need.labels)))
    where = f"each of {part.nodes} nodes" if part.nodes > 1 else "one node"
    return f"{', '.join(words) or 'nothing'} on {where}"


def _lacking(part: Part, nodes: Sequence[Node], able: int) -> str:
    """The resource that is missing, in words."""
    need = part.need
    if not nodes:
        return "nothing yet: no node has joined"
    if able:
        return f"{able} node{'s' if able > 1 else ''} at a time can give that"
    if need.labels or need.gpu_type:
        bare = replace(need, labels=frozenset(), gpu_type="")
        if any(could_ever_fit(node, bare) for node in nodes):
            labels = sorted({label for node in nodes for label in node.labels})
            types = sorted({gpu.type for node in nodes for gpu in node.gpus if gpu.type})
            return f"labels here: {', '.join(labels) or 'none'}; GPU types here: {', '.join(types) or 'none'}"
    for i, name in enumerate(RESOURCES):
        most = max(node.capacity()[i] for node in nodes)
        if need.vector()[i] > most:
            return f"at most {_amount(name, most)} on a node"
    if need.cpu_milli % 1000 and any(node.cores for node in nodes):
        return "whole cores (jobs are pinned here)"
    if need.gpu_mem_mib:
        most = max((gpu.mem_mib for node in nodes for gpu in node.gpus), default=0)
        if need.gpu_mem_mib > most:
            return f"at most {most} MiB of GPU memory"
    return "no single node has all of it together"


def _amount(resource: str, value: int) -> str:
    words, unit = _WORDS[resource]
    if value == 1 and resource == "gpus":
        return "1 whole GPU"
    if value == unit == 1000 and resource == "cpu_milli":
        return "1 core"
    return f"{value / unit:g} {words}"
