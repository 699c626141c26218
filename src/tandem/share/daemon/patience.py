"""Waiting for a daemon that may hang: said after some seconds, given up after more, unless it is at work."""

from __future__ import annotations

import logging
import os
import select
from pathlib import Path

from tandem.core.errors import DaemonHangsError

SAY_S = 10.0
"""After how long, and then how often, a client says that it waits, in seconds."""

GIVE_UP_S = 60.0
"""How long a daemon may be silent and idle before its client gives it up, in seconds."""

AT_WORK = 0.02
"""The part of a core that a daemon uses at least while it works on an answer."""

_log = logging.getLogger(__name__)


def wait_ready(fileno: int, events: int, process: int) -> None:
    """Wait until something can be read or written, such as a daemon's answer.

    A daemon that works is waited for as long as it does, since an answer about a long queue takes its time.

    Args:
        events: of `select.poll`.
        process: the daemon's id; 0 where it is not known.

    Raises:
        DaemonHangsError: it has been silent, and used no processor time, for `GIVE_UP_S`.
    """
    poll = select.poll()
    poll.register(fileno, events)
    silent_s = idle_s = 0.0
    used_s: float | None = None
    while not poll.poll(1000 * SAY_S):
        before_s, used_s = used_s, _used_s(process)
        at_work = before_s is not None and used_s - before_s > AT_WORK * SAY_S
        silent_s, idle_s = silent_s + SAY_S, 0.0 if at_work else idle_s + SAY_S
        given = f"the daemon (process {process}) has not answered for {silent_s:g} s"
        if idle_s >= GIVE_UP_S:
            raise DaemonHangsError(
                given=f"{given}, and does nothing",
                allowed="one that answers",
                todo=_advice(process),
            )
        _log.warning("tandem: %s%s", given, "; it is at work" if at_work else "")


def _advice(process: int) -> str:
    try:
        owner = Path(f"/proc/{process}").stat().st_uid
    except OSError:
        owner = os.geteuid()
    if os.geteuid() not in (0, owner):
        return f"ask {'root' if owner == 0 else f'its user (uid {owner})'} to look at it"
    return (
        f"if it is stopped, `kill -CONT {process}`; else `kill -9 {process}`: its jobs run on, and the "
        "next command starts another that adopts them"
    )


def _used_s(process: int) -> float:
    """Processor time of a process so far, in seconds; 0 where it is gone or hidden from us."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
