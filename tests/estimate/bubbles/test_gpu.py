"""Bubbles of a GPU: what can be known without one, and a run where there is one."""

import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core import gpu as cards
from tandem.estimate.bubbles import BubbleError, GpuBubble, GpuReporter, calibrating, with_gpu
from tandem.estimate.bubbles.calibration import Calibration
from tandem.estimate.bubbles.gpu import GpuProcess, check, launch_for
from tandem.estimate.bubbles.gpu_worker import SOURCE, follow
from tandem.estimate.profile import GPU_KINDS, LEAST_EXCESS
from tests.conftest import nvcc, requires
from tests.estimate.bubbles.processes import alive
from tests.waiting import until

SMS, L2_BYTES = 132, 50 << 20  # of an H100


@requires("nvcc")
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_the_kernels_compile_without_a_warning_and_without_spilling(arch: str, tmp_path: Path) -> None:
    compiler = nvcc()
    assert compiler is not None
    cubin = tmp_path / "gpu.cubin"
    words = [compiler, f"-arch={arch}", "-cubin", "-std=c++17", "-Werror", "all-warnings", "-Xptxas", "-v"]
    done = subprocess.run([*words, str(SOURCE), "-o", str(cubin)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("0 bytes spill stores, 0 bytes spill loads") == 2
    code = cubin.read_bytes()
    assert all(name in code for name in (b"occupy", b"read_round"))


@given(st.sampled_from(GPU_KINDS), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_higher_level_never_presses_less(kind: str, one: float, other: float) -> None:
    low, high = (launch_for("bubble", kind, level, sms=SMS, l2_bytes=L2_BYTES) for level in sorted((one, other)))
    assert low.blocks <= high.blocks
    assert low.footprint_bytes <= high.footprint_bytes
    assert low.duty <= high.duty


def test_the_ends_of_the_dials() -> None:
    full = {kind: launch_for("bubble", kind, 1.0, sms=SMS, l2_bytes=L2_BYTES) for kind in GPU_KINDS}
    assert full["gpu_sm"].blocks * 256 == SMS * 2048  # every thread that the SMs can hold
    assert full["gpu_l2"].footprint_bytes == L2_BYTES
    assert full["gpu_hbm"].footprint_bytes > 4 * L2_BYTES
    assert full["gpu_pcie"].blocks == 0
    assert launch_for("reporter", "gpu_sm", 1.0, sms=SMS, l2_bytes=L2_BYTES).blocks == SMS
    assert launch_for("reporter", "gpu_l2", 1.0, sms=SMS, l2_bytes=L2_BYTES).footprint_bytes < L2_BYTES


def test_it_works_at_the_last_level_until_the_pipe_ends() -> None:
    read, write = os.pipe()
    asked: list[float] = []
    told: list[int] = []

    def work(level: float) -> int:
        asked.append(level)
        if len(asked) == 3:
            os.close(write)
        return 10

    with os.fdopen(read, "rb") as levels:
        for level in (0.0, 0.5, 0.25):
            os.write(write, struct.pack("=d", level))
        follow(levels, work, lambda count, _: told.append(count), lambda: False)
    assert asked == [0.25] * 3
    assert told == [10, 20, 30]


def test_one_whose_parent_has_gone_leaves() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as levels, os.fdopen(write, "wb"):
        asked: list[float] = []
        follow(levels, lambda level: asked.append(level) or 1, lambda *_: None, lambda: True)
        assert asked == [], "it worked for nobody"


def test_what_is_missing_is_said() -> None:
    with pytest.raises(BubbleError, match="gpu_sm, gpu_l2"):
        check("cache", 0)
    there = len(list(cards.find(None)))
    with pytest.raises(BubbleError, match="GPU" if there else "this machine has no NVIDIA GPU"):
        GpuProcess("bubble", "gpu_hbm", there + 7)


def test_a_machine_without_gpu_bubbles_says_why_and_keeps_the_rest() -> None:
    known = Calibration("here", (0, 1), {}, {"net": "no network"}, 1e9, 2.0)
    there = len(list(cards.find(None)))
    found = with_gpu(known, there + 7)
    assert found.lacking["net"] == "no network"
    assert all("no " in found.lacking[kind] for kind in GPU_KINDS)
    assert found.cost_s == 2.0


@requires("gpu", "cuda_core")
@pytest.mark.slow
@pytest.mark.parametrize("kind", GPU_KINDS)
def test_a_reporter_is_slowed_by_its_bubble_and_recovers(kind: str) -> None:
    with GpuReporter(kind) as reporter, GpuBubble(kind) as bubble:
        reporter.wait_ready()
        bubble.wait_ready()
        (beside,) = calibrating.slowdowns(reporter, bubble, (1.0,), rounds=7, spans=calibrating.GPU_SPANS).values()
        assert sorted(beside)[3] > (1.0 + LEAST_EXCESS if kind == "gpu_pcie" else 1.5)  # in time slices 2
        before = bubble.count()[0]
        reporter.go()
        assert reporter.rate(0.2) > 0
        assert bubble.count()[0] == before, "at 0 it rests"


@requires("gpu", "cuda_core")
@pytest.mark.slow
def test_killed_it_leaves_nothing_on_the_gpu() -> None:
    with GpuProcess("bubble", "gpu_sm") as one:
        one.wait_ready()
        one.set(1.0)
        until(lambda: one.count()[0] > 10, "ten turns")
        pid = one.pid

    def computing() -> set[int]:
        return {one.pid for known in cards.processes().values() for one in known}

    until(lambda: pid not in computing(), "it is off the GPU")
    assert not alive(pid)
