"""Named points at which a test lets the daemon die, as if by `kill -9`.

`TANDEM_CRASH_AT=after_commit` dies there the first time, `after_commit:3` the third. The points: before_step,
after_step, before_intent, after_intent, before_spawn, after_spawn, before_record, after_record, before_exit,
after_exit, before_commit, after_commit.
"""

import os
import signal
from collections import Counter

VARIABLE = "TANDEM_CRASH_AT"

POINTS = (
    "before_step",
    "after_step",
    "before_intent",
    "after_intent",
    "before_spawn",
    "after_spawn",
    "before_record",
    "after_record",
    "before_exit",
    "after_exit",
    "before_commit",
    "after_commit",
)

_passed: Counter[str] = Counter()


def point(name: str) -> None:
    """Die here if the environment says so."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    place, _, count = wanted.partition(":")
    if place == name:
        _passed[name] += 1
        if _passed[name] == int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
