"""The process of a daemon, watched until it ends; found by its lock where no socket leads to it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING

from tandem.share.daemon.patience import wait_ready
from tandem.share.store.lock import holder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tandem.share.paths import Paths


def end(process: int, paths: Paths) -> bool:
    """End the daemon as SIGTERM does, so that its jobs run on; returns once it has ended, False if it had before.

    Raises:
        DaemonError: It hangs.
    """
    with watched(process) as descriptor:
        if descriptor is None or holder(paths) != process:
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
