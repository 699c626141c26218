"""How long a process was ready to run while somebody else had its cores, as the kernel's scheduler counts it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def waited_s(pid: int) -> float:
    """Seconds that all threads of a process together stood in run queues so far.

    By /proc/PID/task/TID/schedstat; 0 where the kernel keeps none, or the process is gone.
    """
    total_ns = 0
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return 0.0
    for task in tasks:
        with contextlib.suppress(OSError, IndexError):  # the thread is gone, or there is no such count
            total_ns += int((task / "schedstat").read_text().split()[1])
    return total_ns / 1e9
