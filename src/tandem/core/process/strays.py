"""Processes that an attempt left behind because its keeper was killed.

A keeper that ends normally leaves nothing. When it is killed, the kernel kills the job's main process with it; what
that process had started is found by the mark `TANDEM_ATTEMPT=<attempt_dir>` in its environment, or by its control
group (`cgroups.remove_stale`).
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tandem.core.process import journal

MARK = "TANDEM_ATTEMPT"
_SETTLED_S = 0.5
_PATIENCE_S = 10.0


def kill_strays(attempt_dir: Path) -> int:
    """Kill what a lost attempt left running, until nothing is left; returns how many processes were killed.

    Does nothing while the attempt's keeper lives: the keeper does it. Gives up on a process that does not die within
    10 s (it waits for a device).
    """
    if journal.keeper_alive(attempt_dir):
        return 0
    mark = f"{MARK}={attempt_dir.resolve()}".encode()
    killed: set[int] = set()
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        found, unsettled = _kill_marked(mark)
        killed |= found
        if not unsettled and not found:
            break
        time.sleep(0.001)  # the killed are found until they are dead
    return len(killed)


def _kill_marked(mark: bytes) -> tuple[set[int], bool]:
    """Kill what carries the mark; returns whom, and whether somebody could not yet be judged."""
    found: set[int] = set()
    unsettled = False
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # gone meanwhile, or not ours to see
            pidfd = os.pidfd_open(int(entry.name))
            try:  # opened before looking: what is killed is what was looked at
                environment = (entry / "environ").read_bytes()
                if mark in environment.split(b"\0"):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    found.add(int(entry.name))
                unsettled |= not environment and _is_young(entry)
            finally:
                os.close(pidfd)
    return found, unsettled


def _is_young(entry: Path) -> bool:
    """Whether it may be in the middle of exec, when its environment looks empty; kernel threads always look so."""
    state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
    is_kernel_thread = int(fields[5]) & 0x00200000  # PF_KTHREAD
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[18]) / os.sysconf("SC_CLK_TCK")
    return not is_kernel_thread and state not in "ZX" and age_s < _SETTLED_S
