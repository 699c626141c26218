"""How long a process was ready to run while somebody else had its cores, as the kernel's scheduler counts it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def waited_s(pid: int) -> float:
    """Seconds that all threads of a process together stood in run queues so far.

    By /proc/PID/task/TID/schedstat; 0 where the kernel keeps none, or the process is gone.
    """
    return sum(waited for _, waited in threads(pid).values())


def threads(pid: int) -> dict[int, tuple[float, float]]:
    """Return of each thread of a process the seconds that it ran and that it stood in run queues so far.

    Threads that are gone, or that the kernel does not count, are not told.
    """
    found = {}
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return {}
    for task in tasks:
        with contextlib.suppress(OSError, ValueError):  # the thread is gone, or there is no such count
            ran_ns, waited_ns, *_ = (task / "schedstat").read_text().split()
            found[int(task.name)] = int(ran_ns) / 1e9, int(waited_ns) / 1e9
    return found
