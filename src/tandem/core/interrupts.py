"""Ctrl-C pressed twice in a row counts once, so that what the first one ends is ended cleanly.

The first raises KeyboardInterrupt, as always, and the program closes what it has open. A second one a moment later
would break that off half-way: threads and processes left behind, and a heap of tracebacks where one would do. So
whatever comes within `AGAIN_S` is taken for the same; whoever presses again after that is heard. SIGTERM, which a
scheduler sends, can be made to end things as cleanly.

Limits: nothing is changed where the program has a handler of its own for SIGINT, nor from any but the main thread.
"""

from __future__ import annotations

import math
import signal
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from tandem.core.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import FrameType

    from tandem.core.clock import Clock

AGAIN_S = 2.5  # a little longer than threads that do not end are waited for

_users: set[object] = set()  # a set, since adding and taking out need no lock: a finalizer may come in between


class CountedOnce:
    """What is called at Ctrl-C.

    Args:
        clock: Tells how long ago the last one was.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard_s = -math.inf
        self._held = 0
        self._missed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless that was just done."""
        if self._held:
            if self.just_heard:
                self._heard_s = self._clock.monotonic()  # it goes on until what is being closed is closed
            else:
                self._missed = True
        elif not self.just_heard:
            self._heard_s = self._clock.monotonic()
            signal.default_int_handler(number, frame)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raise nothing before the end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self._missed and not self._held:
            self._missed = False
            self(signal.SIGINT, None)

    @property
    def just_heard(self) -> bool:
        """Whether the last one may still be about to end things."""
        return self._clock.monotonic() - self._heard_s < AGAIN_S


def counted_once(clock: Clock | None = None) -> Callable[[], None]:
    """Have Ctrl-C count once, until what is returned is called by all who asked; after a Ctrl-C it stays so."""
    user = object()
    _users.add(user)
    if _may_change() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, CountedOnce(clock or SystemClock()))

    def end() -> None:
        _users.discard(user)
        handler = signal.getsignal(signal.SIGINT)
        if _may_change() and not _users and isinstance(handler, CountedOnce) and not handler.just_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    return end


def unbroken() -> AbstractContextManager[None]:
    """What is done meanwhile, closing something, is done to its end; Ctrl-C is heard then. Where it counts once."""
    handler = signal.getsignal(signal.SIGINT)
    return handler.held() if _may_change() and isinstance(handler, CountedOnce) else nullcontext()


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that are started meanwhile do not hear Ctrl-C: a terminal sends it to all, and one is to act on it."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # otherwise a start would do so, and let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def heard_sigterm() -> Iterator[None]:
    """SIGTERM meanwhile raises SystemExit with status 143, so that what is open is closed; a second changes nothing.

    Limits: nothing is changed where the program has a handler of its own, nor from any but the main thread.
    """
    if not _may_change() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _may_change() -> bool:
    return threading.current_thread() is threading.main_thread()
