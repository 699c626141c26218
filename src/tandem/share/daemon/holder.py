"""The process of a daemon, found by the lock of its data folder where no socket leads to it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.share.daemon.patience import wait_ready

if TYPE_CHECKING:
    from collections.abc import Iterator


def holder(lock: Path) -> int | None:
    """Return which process holds a data folder's lock now; None where none does, or it is hidden from this user.

    The lock is only looked at: a daemon that starts meanwhile still finds it free.
    """
    try:
        process, file = int(lock.read_text()), lock.stat()
        descriptors = list(Path(f"/proc/{process}/fd").iterdir())
    except (OSError, ValueError):
        return None
    for one in descriptors:
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.path.samestat(one.stat(), file) and "FLOCK" in Path(f"/proc/{process}/fdinfo/{one.name}").read_text():
                return process
    return None


def end(process: int, lock: Path) -> bool:
    """End the daemon as SIGTERM does, so that its jobs run on; returns once it has ended, False if it had before.

    Raises:
        DaemonError: It hangs.
    """
    with watched(process) as descriptor:
        if descriptor is None or holder(lock) != process:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        wait_ready(descriptor, select.POLLIN, process)
    return True


@contextlib.contextmanager
def watched(process: int) -> Iterator[int | None]:
    """A descriptor that can be read once the process has ended; None where it is hidden, gone or this one."""
    try:
        descriptor = os.pidfd_open(process) if process not in (0, os.getpid()) else None
    except OSError:
        descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
