"""The extension must be built wherever the tests run; its fallbacks are tested with their own parts."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tandem import _native


def test_features_are_those_the_kernel_lists() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    known = {"sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
    assert set(_native.cpu_features()) - {"avx512_bf16"} == flags & known
    assert set(_native.cpu_features()) <= flags


@pytest.mark.parametrize("threads", [1, 3])
def test_bandwidth_is_that_of_a_memory(threads: int) -> None:
    assert 1e8 < _native.copy_bandwidth(threads, 1 << 20, 0.01) < 1e14


@pytest.mark.parametrize(("threads", "size_bytes", "seconds"), [(0, 1024, 1), (-1, 1024, 1), (2, 47, 1), (1, 1024, 0)])
def test_what_cannot_be_measured_is_refused(threads: int, size_bytes: int, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"positive|too few"):
        _native.copy_bandwidth(threads, size_bytes, seconds)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MemoryError):
        _native.copy_bandwidth(2, 1 << 60, 0.01)


def test_other_threads_run_meanwhile() -> None:
    done = threading.Event()
    measuring = threading.Thread(target=lambda: (_native.copy_bandwidth(1, 1 << 20, 0.3), done.set()))
    measuring.start()
    turns = 0
    while not done.is_set():
        turns += 1
    measuring.join()
    assert turns > 100


@pytest.mark.parametrize("work", ["xxh3(bytearray(1 << 20))", "copy_bandwidth(1, 1 << 16, 1e-4)"])
def test_a_program_ends_well_while_its_threads_are_at_work(work: str) -> None:
    script = f"""
import subprocess
import sys
import threading
from tandem import _native
class Last:
    def __del__(self):  # when Python has begun to end: the threads come back from their work meanwhile
        _native.copy_bandwidth(1, 1 << 16, 0.1)
last, begun = Last(), threading.Barrier(3)
def run():
    begun.wait()
    while True:
        _native.{work}
for _ in range(2):
    threading.Thread(target=run, daemon=True).start()
begun.wait()
_native.copy_bandwidth(1, 1 << 16, 0.01)
print("end")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")
