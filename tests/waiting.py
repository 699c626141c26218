"""Waiting for what other processes and threads do: with a deadline, never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

DEADLINE_S = 60.0

Answer = TypeVar("Answer")


def until(ask: Callable[[], Answer], what: str = "what was asked for", *, deadline_s: float = DEADLINE_S) -> Answer:
    """Ask again and again until there is an answer that is true."""
    end_s = time.monotonic() + deadline_s
    while not (answer := ask()):
        assert time.monotonic() < end_s, f"waited {deadline_s} s in vain for {what}"
        time.sleep(0.005)
    return answer
