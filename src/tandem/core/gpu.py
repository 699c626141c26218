"""The NVIDIA GPUs of this machine, and what computes on them, through NVML.

`find()` returns an empty list where there is no driver. The functions take the NVML binding as an
argument, so that a small fake stands in for it where there is no GPU. Limits: MIG slices are not told
apart; a process in another container may be reported under a process id of the host, or not at all.
"""

import contextlib
import importlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

_log = logging.getLogger(__name__)


class MemoryInfo(Protocol):
    """What NVML says about a GPU's memory, in bytes."""

    @property
    def total(self) -> int: ...


class RunningProcess(Protocol):
    """What NVML says about a process on a GPU; the memory is in bytes."""

    @property
    def pid(self) -> int: ...

    @property
    def usedGpuMemory(self) -> int | None: ...


class Nvml(Protocol):
    """The part of the binding `pynvml` that is used here, under its own names; handles are opaque."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> object: ...
    def nvmlShutdown(self) -> object: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> object: ...
    def nvmlDeviceGetUUID(self, handle: object, /) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: object, /) -> str | bytes: ...
    def nvmlDeviceGetMemoryInfo(self, handle: object, /) -> MemoryInfo: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: object, /) -> Sequence[RunningProcess]: ...


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        index: NVML's number, in PCI bus order (set CUDA_DEVICE_ORDER=PCI_BUS_ID to make CUDA count alike).
        uuid: What CUDA_VISIBLE_DEVICES takes without any doubt about the order.
        name: The model, such as "NVIDIA H100 80GB HBM3".
        memory_bytes: All of its memory.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that computes on a GPU.

    Attributes:
        pid: The process; 0 where the driver does not say who computes.
        memory_bytes: Its memory on the GPU; None where the driver does not say.
    """

    pid: int
    memory_bytes: int | None


def find(nvml: Nvml | None = None) -> list[Gpu]:
    """Return the GPUs of this machine in NVML's order, none where there is no driver.

    A GPU that does not answer (it fell off the bus, say) is left out, with a warning in the log.
    """
    gpus = []
    with _devices(nvml) as (binding, handles):
        for index, handle in handles:
            try:
                uuid, name = binding.nvmlDeviceGetUUID(handle), binding.nvmlDeviceGetName(handle)
                memory_bytes = int(binding.nvmlDeviceGetMemoryInfo(handle).total)
            except binding.NVMLError as error:
                _log.warning("GPU %d is not used: it does not answer (%s)", index, error)
                continue
            gpus.append(Gpu(index, _text(uuid), _text(name), memory_bytes))
    return gpus


def processes(nvml: Nvml | None = None) -> dict[str, list[GpuProcess]]:
    """Return who computes on each GPU, by the GPU's uuid.

    Where a GPU does not say who computes on it, one process with the id 0 stands for whoever it may be: such
    a GPU must not count as free.
    """
    found: dict[str, list[GpuProcess]] = {}
    with _devices(nvml) as (binding, handles):
        for index, handle in handles:
            try:
                uuid = _text(binding.nvmlDeviceGetUUID(handle))
            except binding.NVMLError:
                continue  # find() leaves it out too, and says so
            try:
                running = binding.nvmlDeviceGetComputeRunningProcesses(handle)
            except binding.NVMLError as error:
                _log.warning("GPU %d counts as busy: it does not say who computes on it (%s)", index, error)
                found[uuid] = [GpuProcess(0, None)]
                continue
            found[uuid] = [GpuProcess(int(process.pid), process.usedGpuMemory) for process in running]
    return found


def foreign(ours: Iterable[int], nvml: Nvml | None = None) -> dict[str, list[GpuProcess]]:
    """Return who computes on each GPU without being one of our processes.

    Args:
        ours: Process ids of the jobs that were started here, their children included.
        nvml: The binding; None takes the machine's.

    Returns:
        The foreign processes by the GPU's uuid; GPUs without any are left out.
    """
    known = frozenset(ours)
    found = {
        uuid: [process for process in running if process.pid not in known] for uuid, running in processes(nvml).items()
    }
    return {uuid: strangers for uuid, strangers in found.items() if strangers}


@contextlib.contextmanager
def _devices(nvml: Nvml | None) -> Iterator[tuple[Nvml, list[tuple[int, object]]]]:
    """Open NVML for a while and give it with the handles by index, none where there is no driver."""
    binding = cast("Nvml", importlib.import_module("pynvml")) if nvml is None else nvml
    try:
        binding.nvmlInit()
    except binding.NVMLError as error:
        _log.info("no GPU is used: NVML does not start (%s)", error)
        yield binding, []
        return
    handles = []
    try:
        for index in range(binding.nvmlDeviceGetCount()):
            try:
                handles.append((index, binding.nvmlDeviceGetHandleByIndex(index)))
            except binding.NVMLError as error:
                _log.warning("GPU %d is not used: it does not answer (%s)", index, error)
        yield binding, handles
    finally:
        binding.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
