"""Waiting for a core, against the clock: who wants to run all the time runs, or waits."""

import os
import subprocess
import sys

import pytest

from tandem.core.process.schedstat import waited_s

BURN = """
import sys, time
begun, used = time.monotonic(), time.process_time()
while time.process_time() - used < 0.4: pass
print(time.monotonic() - begun, time.process_time() - used, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_two_on_one_core_wait_for_each_other() -> None:
    core = min(os.sched_getaffinity(0))
    both = []
    for _ in range(2):
        one = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        os.sched_setaffinity(one.pid, {core})
        both.append(one)
    for one in both:
        assert one.stdout is not None
        wall_s, used_s = map(float, one.stdout.readline().split())
        assert waited_s(one.pid) == pytest.approx(wall_s - used_s, abs=0.15)  # and what it waited for while it started
        assert waited_s(one.pid) > 0.15
    for one in both:
        one.communicate()


def test_nobody_waits_for_nothing() -> None:
    with subprocess.Popen([sys.executable, "-S", "-E", "-c", ""]) as gone:
        pass
    assert waited_s(gone.pid) == 0.0
