"""Processes that an attempt left behind because its keeper was killed.

A keeper that ends normally leaves nothing. When it is killed, the kernel kills the job's main process with it; what
that process had started is found by the mark `TANDEM_ATTEMPT=<attempt_dir>` in its environment, or by its control
group (`cgroups.remove_stale`).
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tandem.core.process import journal

MARK = "TANDEM_ATTEMPT"


def kill_strays(attempt_dir: Path) -> int:
    """Kill what a lost attempt left running, until nothing is left; returns how many processes were killed.

    Does nothing while the attempt's keeper lives: the keeper does it.
    """
    if journal.keeper_alive(attempt_dir):
        return 0
    mark = f"{MARK}={attempt_dir.resolve()}".encode()
    killed: set[int] = set()
    while found := {pid for pid in _kill_marked(mark) if pid not in killed}:
        killed |= found
    return len(killed)


def _kill_marked(mark: bytes) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # gone meanwhile, or not ours to see
            pidfd = os.pidfd_open(int(entry.name))
            try:  # opened before looking: what is killed is what was looked at
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    yield int(entry.name)
            finally:
                os.close(pidfd)
