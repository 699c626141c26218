"""Jobs whose daemon has gone: cancelling all of them without serving anybody.

A daemon that was killed, or stopped by `tandem down`, leaves its jobs to their keepers. Here the stored queue is taken
over as the next daemon would, except that nobody is listened to and nothing starts: the jobs are cancelled in the first
step, their keepers stop those that run, and their ends are stored.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from tandem.core.clock import SystemClock
from tandem.share import events as ev
from tandem.share import paths as places
from tandem.share.daemon.driver import Change, Driver
from tandem.share.engines import local
from tandem.share.node.engine import EngineContext
from tandem.share.store.store import Store

if TYPE_CHECKING:
    from tandem.share.paths import Paths


def cancel_all(paths: Paths, uid: int) -> list[int]:
    """Cancel every job of the data folder that has not ended, and return them once their ends are stored.

    Args:
        paths: The places of a daemon that does not run; with nothing in them, nothing is made.
        uid: Who asks.

    Raises:
        DaemonError: A daemon runs there after all.
        StoreError: The database cannot be read or written; nothing was stopped.
        TandemError: This machine cannot run jobs (see `tandem doctor`), nor adopt them.
    """
    if not paths.database.exists():
        return []
    clock = SystemClock()
    places.prepare(paths)
    store = Store.open(paths)
    try:
        driver = Driver(store, local.make(EngineContext(paths, clock)), clock)
    except BaseException:
        store.close()
        raise
    try:
        live = [job for job, life in driver.machine.jobs.items() if not life.ended]
        driver.ask(Change(tuple(ev.CancelAsked(job, uid) for job in live)))
        driver.turn()
        if driver.full is not None:
            raise driver.full
        while any(not life.ended for life in driver.machine.jobs.values()):
            due = driver.due_at()
            timeout_s = None if due is None else max(0.0, due - clock.monotonic())
            select.select(driver.engine.filenos(), [], [], timeout_s)
            driver.turn()
    finally:
        driver.close()
    return live
