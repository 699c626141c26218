import doctest
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.core import machine
from tandem.core.machine import Core, Hardware, available_bytes, discover
from tests.core.test_gpu import FakeNvml, two_gpus

NO_GPUS = FakeNvml([])


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """A machine with two sockets of two cores with two threads each, and a memory limit of 1 GiB."""
    sys_root, proc_root = tmp_path / "sys", tmp_path / "proc"
    write(sys_root / "devices/system/node/node0/cpulist", "0-1,4-5\n")
    write(sys_root / "devices/system/node/node1/cpulist", "2-3,6-7\n")
    for index in range(8):
        siblings = f"{index % 4},{index % 4 + 4}\n"
        write(sys_root / f"devices/system/cpu/cpu{index}/topology/thread_siblings_list", siblings)
    write(sys_root / "fs/cgroup/memory.max", "1073741824\n")
    write(proc_root / "meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    return {"sys_root": sys_root, "proc_root": proc_root}


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "tandem._native", None)
    machine._native.cache_clear()
    yield
    machine._native.cache_clear()


def test_cores_know_their_domain_and_their_siblings(roots: dict[str, Path]) -> None:
    hardware = discover(**roots, usable=[7, 0, 2, 4], nvml=NO_GPUS)
    assert hardware.cores == (Core(0, 0, 0), Core(2, 1, 2), Core(4, 0, 0), Core(7, 1, 3))
    assert {d: [c.index for c in cores] for d, cores in hardware.numa_domains().items()} == {
        0: [0, 4],
        1: [2, 7],
    }


def test_memory_is_within_the_control_groups_limit(roots: dict[str, Path]) -> None:
    limit = roots["sys_root"] / "fs/cgroup/memory.max"
    assert discover(**roots, usable=[0], nvml=NO_GPUS).memory_bytes == 1 << 30
    limit.write_text("max\n")
    assert discover(**roots, usable=[0], nvml=NO_GPUS).memory_bytes == 16 << 30
    write(limit.with_name("memory") / "memory.limit_in_bytes", "9223372036854771712\n")
    assert discover(**roots, usable=[0], nvml=NO_GPUS).memory_bytes == 16 << 30


def test_a_machine_that_says_nothing_about_its_cores(tmp_path: Path) -> None:
    write(tmp_path / "meminfo", "MemTotal: 1024 kB\n")
    hardware = discover(sys_root=tmp_path, proc_root=tmp_path, usable=[0, 1], nvml=NO_GPUS)
    assert hardware.cores == (Core(0, 0, 0), Core(1, 0, 1))


def test_gpus_come_from_nvml(roots: dict[str, Path]) -> None:
    assert [g.uuid for g in discover(**roots, usable=[0], nvml=two_gpus()).gpus] == ["GPU-a", "GPU-b"]


def test_this_machine() -> None:
    hardware = discover()
    assert [core.index for core in hardware.cores] == sorted(os.sched_getaffinity(0))
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 64 << 20 < hardware.memory_bytes <= physical
    assert hardware.hostname == os.uname().nodename


@pytest.mark.slow
def test_the_memory_bandwidth_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware = discover()
    first = hardware.memory_bandwidth_bytes_per_s
    assert 1e8 < first < 1e14
    monkeypatch.setattr(machine, "copy_bandwidth", pytest.fail)
    assert hardware.memory_bandwidth_bytes_per_s == first


def test_the_bandwidth_is_asked_for_each_physical_core(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def measure(threads: int, size_bytes: int, seconds: float) -> float:
        asked.append((threads, size_bytes))
        return 7.0

    monkeypatch.setattr(machine, "copy_bandwidth", measure)
    cores = (Core(0, 0, 0), Core(1, 0, 1), Core(2, 0, 0))
    assert Hardware("h", cores, 64 << 30, ()).memory_bandwidth_bytes_per_s == 7.0
    assert Hardware("h", cores, 80 << 20, ()).memory_bandwidth_bytes_per_s == 7.0
    assert asked == [(2, 256 << 20)] * 5 + [(2, 10 << 20)] * 5


def test_without_the_native_part_numpy_measures_and_says_so_once(
    without_native: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert 1e8 < machine.copy_bandwidth(2, 1 << 20, 0.01) < 1e14
    assert [record.message for record in caplog.records if "not built" in record.message] == [caplog.records[0].message]
    with pytest.raises(ValueError, match="too few"):
        machine.copy_bandwidth(2, 47, 0.01)


def test_without_the_native_part_the_features_come_from_the_kernel(without_native: None, tmp_path: Path) -> None:
    write(tmp_path / "cpuinfo", "processor : 0\nflags\t\t: fpu avx2 sse4_2 madeup\n")
    assert machine.cpu_features(tmp_path) == ["sse4_2", "avx2"]
    assert machine.cpu_features(tmp_path / "none") == []


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(machine) == (0, 1)


@pytest.mark.parametrize("text", ["0-999999999", "65536", "0-65536", "-1", "3-1", "a", "0-" + "9" * 400])
def test_a_list_of_processors_that_no_machine_has_is_refused_before_it_is_made(text: str) -> None:
    with pytest.raises(ValueError, match=r"processors|invalid literal"):
        machine.parse_cpu_list(text)


def test_a_processor_named_twice_counts_once() -> None:
    assert machine.parse_cpu_list("0,0,2-3,3") == [0, 2, 3]
    assert len(machine.parse_cpu_list("0-65535")) == 65536


def test_the_memory_that_is_available_is_read_where_the_system_tells_it(tmp_path: Path) -> None:
    write(tmp_path / "meminfo", "MemTotal: 1024 kB\nMemFree: 1 kB\nMemAvailable:   512 kB\n")
    assert available_bytes(tmp_path) == 512 << 10
    assert available_bytes(tmp_path / "nothing") == 0
    assert 0 < available_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
