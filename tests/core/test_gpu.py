from dataclasses import dataclass, field

import pytest

from tandem.core import gpu
from tandem.core.gpu import Gpu, GpuProcess
from tests.conftest import requires


class FakeNvmlError(Exception):
    pass


@dataclass
class FakeMemory:
    total: int


@dataclass
class FakeProcess:
    pid: int
    usedGpuMemory: int | None


@dataclass
class FakeDevice:
    uuid: str | bytes
    running: list[FakeProcess] = field(default_factory=list)
    lost: bool = False
    secretive: bool = False


@dataclass
class FakeNvml:
    """Stands in for the binding `pynvml`; `open_count` is 0 when each init had a shutdown."""

    devices: list[FakeDevice]
    driver: bool = True
    open_count: int = 0
    NVMLError: type[Exception] = FakeNvmlError

    def nvmlInit(self) -> None:
        if not self.driver:
            message = "Driver Not Loaded"
            raise FakeNvmlError(message)
        self.open_count += 1

    def nvmlShutdown(self) -> None:
        self.open_count -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> object:
        if self.devices[index].lost:
            message = "GPU is lost"
            raise FakeNvmlError(message)
        return index

    def _device(self, handle: object) -> FakeDevice:
        assert self.open_count > 0
        assert isinstance(handle, int)
        return self.devices[handle]

    def nvmlDeviceGetUUID(self, handle: object, /) -> str | bytes:
        return self._device(handle).uuid

    def nvmlDeviceGetName(self, handle: object, /) -> str | bytes:
        return f"Fake {self._device(handle).uuid!r}"

    def nvmlDeviceGetMemoryInfo(self, handle: object, /) -> FakeMemory:
        assert self._device(handle)
        return FakeMemory(80 << 30)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object, /) -> list[FakeProcess]:
        if self._device(handle).secretive:
            message = "Not Supported"
            raise FakeNvmlError(message)
        return self._device(handle).running


def two_gpus() -> FakeNvml:
    running = [FakeProcess(11, 1 << 30), FakeProcess(12, None)]
    return FakeNvml([FakeDevice("GPU-a", running), FakeDevice(b"GPU-b")])


def test_gpus_are_listed_in_order() -> None:
    nvml = two_gpus()
    assert gpu.find(nvml) == [
        Gpu(0, "GPU-a", "Fake 'GPU-a'", 80 << 30),
        Gpu(1, "GPU-b", "Fake b'GPU-b'", 80 << 30),
    ]
    assert nvml.open_count == 0


def test_without_a_driver_there_are_none() -> None:
    nvml = FakeNvml([FakeDevice("GPU-a")], driver=False)
    assert (gpu.find(nvml), gpu.processes(nvml), gpu.foreign([], nvml)) == ([], {}, {})
    assert nvml.open_count == 0


def test_a_lost_gpu_is_left_out_and_the_others_keep_their_numbers(caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml([FakeDevice("GPU-a", lost=True), FakeDevice("GPU-b")])
    assert [(g.index, g.uuid) for g in gpu.find(nvml)] == [(1, "GPU-b")]
    assert "GPU 0 is not used" in caplog.text
    assert nvml.open_count == 0


def test_who_computes() -> None:
    expected = {"GPU-a": [GpuProcess(11, 1 << 30), GpuProcess(12, None)], "GPU-b": []}
    assert gpu.processes(two_gpus()) == expected


def test_foreign_processes_are_those_that_are_not_ours() -> None:
    assert gpu.foreign([11, 99], two_gpus()) == {"GPU-a": [GpuProcess(12, None)]}
    assert gpu.foreign([11, 12], two_gpus()) == {}


def test_a_gpu_that_does_not_say_who_computes_counts_as_busy(caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml([FakeDevice("GPU-a", secretive=True)])
    assert gpu.foreign([11], nvml) == {"GPU-a": [GpuProcess(0, None)]}
    assert "GPU 0 counts as busy" in caplog.text


def test_the_machines_own_answer_is_a_list() -> None:
    assert set(gpu.processes()) == {found.uuid for found in gpu.find()}


@requires("gpu")
def test_real_gpus() -> None:
    found = gpu.find()
    assert [g.index for g in found] == list(range(len(found)))
    assert all(g.uuid.startswith("GPU-") and g.name and g.memory_bytes > 1 << 30 for g in found)
