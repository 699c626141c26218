"""What is refused because it could never run, or would never be read: one clear sentence each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tandem.core.errors import ConfigError, DependencyError, ImpossibleDemandError
from tandem.core.nearest import did_you_mean
from tandem.core.units import human_size
from tandem.share.deciding import policy
from tandem.share.model import RESOURCES, Job, Node, Part
from tandem.share.state.demand_index import could_ever_fit
from tandem.share.state.gang import fit_on_empty

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

_WORDS = {
    "cpu_milli": ("cores", 1000),
    "membw_mbs": ("MB/s of memory bandwidth", 1),
    "nic_mbs": ("MB/s of network", 1),
    "gpus": ("whole GPUs", 1),
    "gpu_milli": ("of a GPU", 1000),
}
_EXACT_MIB = 1_000_000
_LESS = "ask for less, or see `tandem nodes` for what there is"


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
            allowed, todo = _lacking(part, nodes, able)
            raise ImpossibleDemandError(given=_asked(part), allowed=allowed, todo=todo)
    if len(job.parts) > 1 and not fit_on_empty(job.parts, nodes):
        raise ImpossibleDemandError(
            given=" with ".join(_asked(part) for part in job.parts),
            allowed="each of these alone, but not all of them at once",
            todo=_LESS,
        )


def never(jobs: Iterable[Job], nodes: Sequence[Node]) -> dict[int, str]:
    """Which of ``jobs``, in order of submission, could never run on ``nodes`` (empty ones), and why, in words.

    A job that waits for the end of such a one is one too.
    """
    why: dict[tuple[Part, ...], str] = {}
    found: dict[int, str] = {}
    for job in jobs:
        if job.parts not in why:
            why[job.parts] = why_never(job, nodes)
        doomed = next((after.job for after in job.after if after.job in found), None)
        if why[job.parts]:
            found[job.id] = why[job.parts]
        elif doomed is not None:
            found[job.id] = f"waits for job {doomed}, which can never run"
    return found


def why_never(job: Job, nodes: Sequence[Node]) -> str:
    """What the job asks for that ``nodes`` (empty ones) never give it, and what they do; empty where they would."""
    try:
        check(replace(job, after=()), nodes, ())
    except ImpossibleDemandError as error:
        return f"asks for {error.given} ({error.allowed})"
    return ""


def check_options(policies: Sequence[str], options: Mapping[str, float]) -> None:
    """Refuse options that none of the policies reads, and numbers that they cannot have.

    Args:
        policies: names of policies; one from elsewhere that declares no ``OPTIONS`` is believed to read any.

    Raises:
        UnknownPluginError: there is no such policy.
        ConfigError: names the options there are, or the numbers that one may have.
    """
    ranges = {"quotes": policy.Range(0)}
    for name in policies:
        ranges |= getattr(policy.load(name), "RANGES", {})
    for option, value in options.items():
        if option in ranges and value not in ranges[option]:
            raise ConfigError(
                given=f"option {option}={value:g}", allowed=str(ranges[option]), todo="correct it, or leave it out"
            )
    _check_known(policies, options)


def _check_known(policies: Sequence[str], options: Iterable[str]) -> None:
    known = {"quotes": "0: no job is quoted, k: every k-th"}
    for name in policies:
        declared: Mapping[str, str] | None = getattr(policy.load(name), "OPTIONS", None)
        if declared is None:
            return
        known |= declared
    for option in options:
        if option not in known:
            others = [name for name in policy.names() if option in getattr(policy.load(name), "OPTIONS", ())]
            raise ConfigError(
                given=f"option {option!r} of the policy {', '.join(policies)}",
                allowed=", ".join(f"{name} ({what})" for name, what in known.items()),
                todo=f"it is an option of {', '.join(others)}" if others else did_you_mean(option, known),
            )


def _asked(part: Part) -> str:
    words = [_amount(name, value) for name, value in zip(RESOURCES, part.need.vector(), strict=True) if value]
    if part.need.gpu_type:
        words.append(f"GPU type {part.need.gpu_type}")
    if part.need.gpu_mem_mib:
        words.append(f"{_size(part.need.gpu_mem_mib)} of GPU memory")
    if part.need.labels:
        words.append("label " + ", ".join(sorted(part.need.labels)))
    where = f"each of {part.nodes} nodes" if part.nodes > 1 else "one node"
    return f"{', '.join(words) or 'nothing'} on {where}"


def _lacking(part: Part, nodes: Sequence[Node], able: int) -> tuple[str, str]:
    """The resource that is missing, in words, and what to do."""
    need = part.need
    if not nodes:
        return "nothing yet: no node has joined", "try again in a moment"
    if able:
        return f"{able} node{'s' if able > 1 else ''} at a time can give that", _LESS
    if (need.gpus or need.gpu_milli) and not any(node.gpus for node in nodes):
        return "no GPU: there is none here", "ask for none, or see `tandem doctor` for why none is found"
    if need.labels or need.gpu_type:
        bare = replace(need, labels=frozenset(), gpu_type="")
        if any(could_ever_fit(node, bare) for node in nodes):
            labels = sorted({label for node in nodes for label in node.labels})
            types = sorted({gpu.type for node in nodes for gpu in node.gpus if gpu.type})
            there = f"labels here: {', '.join(labels) or 'none'}; GPU types here: {', '.join(types) or 'none'}"
            return there, "ask for one of these, or for none"
    for i, name in enumerate(RESOURCES):
        most = max(node.capacity()[i] for node in nodes)
        if need.vector()[i] > most:
            return f"at most {_amount(name, most)} on a node", _LESS
    if need.cpu_milli % 1000 and any(node.cores for node in nodes):
        return "whole cores (jobs are pinned here)", f"ask for {-(-need.cpu_milli // 1000)}"
    if need.gpu_mem_mib:
        most = max((gpu.mem_mib for node in nodes for gpu in node.gpus), default=0)
        if need.gpu_mem_mib > most:
            return f"at most {_size(most)} of GPU memory", _LESS
    return "no single node has all of it together", _LESS


def _amount(resource: str, value: int) -> str:
    if resource == "mem_mib":
        return f"{_size(value)} of memory"
    words, unit = _WORDS[resource]
    if value == unit and resource in ("cpu_milli", "gpus"):
        return f"1 {words.removesuffix('s')}"
    return f"{f'{value / unit:.3f}'.rstrip('0').rstrip('.')} {words}"


def _size(mib: int) -> str:
    """Exact as long as that can be read."""
    return f"{mib} MiB" if mib < _EXACT_MIB else human_size(mib << 20)
