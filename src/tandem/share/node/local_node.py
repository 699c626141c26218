"""This machine as a node: the cores, memory and GPUs that one daemon may give out."""

import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tandem.core import gpu as gpus_of
from tandem.core import machine
from tandem.core.errors import ConfigError, QuantityError
from tandem.core.units import human_size, parse_size
from tandem.share.model import Gpu, Node
from tandem.share.node import bandwidth

OPTIONS = ("cores", "mem", "membw", "labels")

_log = logging.getLogger(__name__)
_NOT_A_TYPE = {"nvidia", "geforce", "tesla", "quadro"}


@dataclass(frozen=True, slots=True)
class LocalNode:
    """The node and what the engine needs to know beside it.

    Attributes:
        uuids: GPU index -> the uuid that CUDA takes.
    """

    node: Node
    uuids: Mapping[int, str]


def discover(options: Mapping[str, str], cache: Path, hardware: machine.Hardware | None = None) -> LocalNode:
    """Look at this machine.

    Args:
        options: ``cores`` ("0-1": only these), ``mem`` ("8G": only so much), ``membw`` (MB/s, or "off": not metered;
            measured once where it is not given), ``labels`` ("a,b").
        cache: A file that keeps the measured memory bandwidth.
        hardware: What there is, if it is known already.

    Raises:
        ConfigError: An unknown option, cores that this process may not use, or more memory than there is.
    """
    for key in options:
        if key not in OPTIONS:
            raise ConfigError(
                given=f"the setting {key!r} of this machine", allowed=", ".join(OPTIONS), todo="choose one of these"
            )
    found = hardware or machine.discover(usable=_cores(options.get("cores")))
    memory_bytes = found.memory_bytes if "mem" not in options else _memory_bytes(options["mem"], found.memory_bytes)
    node = Node(
        id=found.hostname or "localhost",
        cpu_milli=1000 * len(found.cores),
        mem_mib=memory_bytes >> 20,
        gpus=tuple(Gpu(gpu.index, gpu_type(gpu.name), gpu.memory_bytes >> 20, gpu.uuid) for gpu in found.gpus),
        cores=tuple(core.index for core in found.cores),
        numa=tuple(core.numa for core in found.cores),
        membw_mbs=_bandwidth(options.get("membw"), found, cache),
        labels=frozenset(label for label in options.get("labels", "").split(",") if label),
    )
    return LocalNode(node, {gpu.index: gpu.uuid for gpu in found.gpus})


def gpu_type(name: str) -> str:
    """Return the short type that a demand names, from the driver's name of the model.

    >>> gpu_type("NVIDIA H100 80GB HBM3"), gpu_type("NVIDIA GeForce RTX 4090"), gpu_type("NVIDIA A100-SXM4-40GB")
    ('h100', 'rtx4090', 'a100')
    """
    words = [word for word in re.split(r"[ -]", name.lower()) if word and word not in _NOT_A_TYPE]
    return "".join(words[: 2 if words[:1] in (["rtx"], ["gtx"]) else 1])


def strangers(node: LocalNode, attempts: Path) -> frozenset[int]:
    """Return the GPUs on which a process computes that no job under the folder `attempts` started."""
    if not node.uuids:
        return frozenset()
    running = gpus_of.processes()
    return frozenset(
        index
        for index, uuid in node.uuids.items()
        if any(not _has_mark(process.pid, attempts) for process in running.get(uuid, ()))
    )


def _has_mark(pid: int, attempts: Path) -> bool:
    """Whether the process descends from one of our jobs: its keeper left a mark in the environment."""
    mark = f"TANDEM_ATTEMPT={attempts.resolve()}/".encode()
    try:
        return any(entry.startswith(mark) for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return False


def _memory_bytes(given: str, there_bytes: int) -> int:
    """So much as is given: less than there is leaves the rest to others, more would be promised in vain."""
    try:
        wanted = parse_size(given, bare_unit_bytes=1 << 20)
    except QuantityError as error:
        raise ConfigError(given=f"mem = {given!r}", allowed=error.allowed, todo=error.todo) from None
    if not 1 << 20 <= wanted <= there_bytes:
        raise ConfigError(
            given=f"mem = {given!r}",
            allowed=f"from 1MiB to what is there, {human_size(there_bytes)}",
            todo="give less, or leave it out for all of it",
        )
    return wanted


def _cores(given: str | None) -> list[int] | None:
    if given is None:
        return None
    usable = os.sched_getaffinity(0)
    try:
        wanted = machine.parse_cpu_list(given)
    except ValueError:
        wanted = []
    if not wanted or not usable.issuperset(wanted):
        raise ConfigError(
            given=f"cores = {given!r}",
            allowed=f"a list such as 0-3,8 out of {','.join(map(str, sorted(usable)))}",
            todo="correct the list",
        )
    return wanted


def _bandwidth(given: str | None, found: machine.Hardware, cache: Path) -> int | None:
    """Memory bandwidth in MB/s: as given, as measured before on these very cores, or measured now."""
    if given == "off":
        return None
    if given is not None:
        return int(parse_size(given, bare_unit_bytes=10**6) // 10**6)
    kept = bandwidth.kept(cache)
    if kept is not None and bandwidth.is_of(kept, found):
        return kept.mbs
    measured = bandwidth.measure(found, time.time())
    try:
        bandwidth.keep(cache, measured)
    except OSError as error:  # on a full disk too there are jobs to adopt and to cancel
        _log.warning("the measured memory bandwidth is not kept: %s", error)
    return measured.mbs
