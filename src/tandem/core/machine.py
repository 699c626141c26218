"""What this machine has: cores with their NUMA domains, memory, memory bandwidth, GPUs.

`discover()` reads /sys and /proc; the memory bandwidth is measured when it is first asked for. Only what
this process may use is counted: its affinity mask and its control group's memory limit hold. Limits: Linux;
the CPU quota of a surrounding container is not taken into account.
"""

import functools
import hashlib
import importlib
import logging
import os
import platform
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tandem.core import gpu
from tandem.core.gpu import Gpu

_log = logging.getLogger(__name__)

_STREAM_BYTES = 256 << 20  # three arrays, together several times the last-level cache
_STREAM_BYTES_PER_THREAD = 64 << 20
_BURSTS = 5
_BURST_S = 0.1
_PROCESSORS = 1 << 16  # no kernel numbers as many


@dataclass(frozen=True, slots=True, order=True)
class Core:
    """One logical processor.

    Attributes:
        index: The kernel's number, as `taskset -c` takes it.
        numa: Its NUMA domain; 0 where the machine does not say.
        physical: The lowest index among the logical processors that share its physical core.
    """

    index: int
    numa: int
    physical: int


@dataclass(frozen=True)
class Hardware:
    """What may be given out on this machine.

    Attributes:
        hostname: The machine's name.
        cores: The logical processors this process may use, by index.
        memory_bytes: Memory, within the limit of this process's control group.
        gpus: The GPUs, by index.
    """

    hostname: str
    cores: tuple[Core, ...]
    memory_bytes: int
    gpus: tuple[Gpu, ...]

    @functools.cached_property
    def memory_bandwidth_bytes_per_s(self) -> float:
        """Streaming bandwidth of all cores together, measured once (about a second): the best of several bursts.

        What else runs can only take from a burst, so that the best one comes nearest to what the memory can do.
        """
        threads = len({core.physical for core in self.cores})
        wanted = max(_STREAM_BYTES, _STREAM_BYTES_PER_THREAD * threads)
        return max(copy_bandwidth(threads, min(wanted, self.memory_bytes // 8), _BURST_S) for _ in range(_BURSTS))

    @functools.cached_property
    def fingerprint(self) -> str:
        """What measurements of this machine are kept under: equal for machines that run a programme alike.

        The processor's model, how many logical and physical cores are usable, the last-level cache, memory in whole
        GiB and the GPUs' names, then a digest of them: "amd-epyc-2c-32m-24g-1f2e3d4c".
        """
        model = next((text for line in _lines(Path("/proc/cpuinfo")) if (text := _model_name(line))), "cpu")
        physical = len({core.physical for core in self.cores})
        cache_mib = last_level_cache_bytes() >> 20
        gib = round(self.memory_bytes / 2**30)
        said = (model, len(self.cores), physical, cache_mib, gib, *(one.name for one in self.gpus))
        digest = hashlib.sha256(repr(said).encode()).hexdigest()[:8]
        short = "-".join(re.findall(r"[a-z0-9]+", model.lower())[:4])
        return f"{short}-{len(self.cores)}c-{cache_mib}m-{gib}g-{digest}"

    def numa_domains(self) -> dict[int, tuple[Core, ...]]:
        """Return the cores of each NUMA domain."""
        domains = sorted({core.numa for core in self.cores})
        return {domain: tuple(core for core in self.cores if core.numa == domain) for domain in domains}


def discover(
    *,
    sys_root: Path = Path("/sys"),
    proc_root: Path = Path("/proc"),
    usable: Iterable[int] | None = None,
    nvml: gpu.Nvml | None = None,
) -> Hardware:
    """Return what this machine has.

    Args:
        sys_root: Where sysfs is mounted.
        proc_root: Where procfs is mounted.
        usable: The logical processors to count; None takes this process's affinity mask.
        nvml: The NVML binding; None takes the machine's.
    """
    indices = sorted(os.sched_getaffinity(0) if usable is None else usable)
    numa = _numa_of(sys_root)
    cores = tuple(Core(index, numa.get(index, 0), _physical(sys_root, index)) for index in indices)
    return Hardware(platform.node(), cores, _memory_bytes(sys_root, proc_root), tuple(gpu.find(nvml)))


def copy_bandwidth(threads: int, size_bytes: int, seconds: float) -> float:
    """Measure the streaming bandwidth of memory.

    Args:
        threads: How many threads stream at once.
        size_bytes: The three arrays together; several times the last-level cache for a figure about memory.
        seconds: For how long, about.

    Returns:
        Bytes per second, two reads and one write an element; from NumPy, where the native part is not built.
    """
    native = _native()
    if native is not None:
        return float(native.copy_bandwidth(threads, size_bytes, seconds))
    return _copy_bandwidth_numpy(threads, size_bytes, seconds)


def cpu_features(proc_root: Path = Path("/proc")) -> list[str]:
    """Return the names of the vector instruction sets that may be used, as in /proc/cpuinfo."""
    native = _native()
    if native is not None:
        return list(native.cpu_features())
    wanted = (
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
    )
    for line in _lines(proc_root / "cpuinfo"):
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            return [name for name in wanted if name in flags]
    return []


def parse_cpu_list(text: str) -> list[int]:
    """Return the processors of a kernel list, each once.

    Raises:
        ValueError: It is no list, or names processors above 65,535; said before any of them is counted up.

    >>> parse_cpu_list("0-3,8,10-11")
    [0, 1, 2, 3, 8, 10, 11]
    """
    found: dict[int, None] = {}
    for part in text.strip().split(","):
        if not part:
            continue
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not low <= high < _PROCESSORS:
            message = f"{part} is no range of processors from 0 to {_PROCESSORS - 1}"
            raise ValueError(message)
        found.update(dict.fromkeys(range(low, high + 1)))
    return list(found)


@functools.cache
def _native() -> ModuleType | None:
    try:
        return importlib.import_module("tandem._native")
    except ImportError as error:
        _log.warning("the native part of Tandem is not built (%s); NumPy measures instead", error)
        return None


def _copy_bandwidth_numpy(threads: int, size_bytes: int, seconds: float) -> float:
    import numpy as np  # only here: whoever lists the cores need not wait for it

    count = size_bytes // (24 * threads)
    if count < 1:
        message = f"{size_bytes} bytes are too few for three arrays on each of {threads} threads"
        raise ValueError(message)

    def stream() -> float:
        a, b, c = np.zeros(count), np.ones(count), np.full(count, 2.0)
        start, passes, elapsed_s = time.perf_counter(), 0, 0.0
        while elapsed_s < seconds:
            np.add(b, c, out=a)  # outside the interpreter lock
            passes += 1
            elapsed_s = time.perf_counter() - start
        return 3.0 * a.nbytes * passes / elapsed_s

    with ThreadPoolExecutor(threads) as pool:
        return sum(future.result() for future in [pool.submit(stream) for _ in range(threads)])


def _model_name(line: str) -> str:
    return line.partition(":")[2].strip() if line.startswith("model name") else ""


def last_level_cache_bytes(sys_root: Path = Path("/sys")) -> int:
    """Size of the first processor's largest cache; 0 where the machine does not say."""
    sizes = (line for file in (sys_root / "devices/system/cpu/cpu0/cache").glob("index*/size") for line in _lines(file))
    return max((int(size[:-1]) << {"K": 10, "M": 20}[size[-1]] for size in sizes if size[-1:] in "KM"), default=0)


def available_bytes(proc_root: Path = Path("/proc")) -> int:
    """Return how much memory new programmes may take before others suffer; 0 where the system does not tell."""
    told = (line.split() for line in _lines(proc_root / "meminfo"))
    return next((int(words[1]) << 10 for words in told if words[0] == "MemAvailable:"), 0)


def _numa_of(sys_root: Path) -> dict[int, int]:
    domains = sorted((sys_root / "devices/system/node").glob("node[0-9]*"))
    return {
        index: int(domain.name.removeprefix("node"))
        for domain in domains
        for line in _lines(domain / "cpulist")
        for index in parse_cpu_list(line)
    }


def _physical(sys_root: Path, index: int) -> int:
    topology = sys_root / f"devices/system/cpu/cpu{index}/topology"
    siblings = [i for line in _lines(topology / "thread_siblings_list") for i in parse_cpu_list(line)]
    return min(siblings, default=index)


def _memory_bytes(sys_root: Path, proc_root: Path) -> int:
    total = next(int(line.split()[1]) << 10 for line in _lines(proc_root / "meminfo") if line.startswith("MemTotal:"))
    limits = [
        int(line)
        for name in ("fs/cgroup/memory.max", "fs/cgroup/memory/memory.limit_in_bytes")
        for line in _lines(sys_root / name)
        if line.isdigit()
    ]
    return min([total, *limits])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
