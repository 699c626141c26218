"""Ctrl-C pressed twice in a row counts once, so that what the first one ends is ended cleanly.

The first raises KeyboardInterrupt, as always, and the program closes what it has open. A second one a moment later
would break that off half-way: threads and processes left behind, and a heap of tracebacks where one would do. So
whatever comes within `AGAIN_S` is taken for the same; whoever presses again after that is heard. SIGTERM, which a
scheduler sends, and SIGHUP, which comes when a terminal is closed, can be made to end things as cleanly.

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
        self._missed: Callable[[], None] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless that was just done."""
        if self._held:
            if self.just_heard:
                self._heard_s = self._clock.monotonic()  # it goes on until what is being closed is closed
            else:
                self._missed = self._again
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
            if self._missed is not None and not self._held:  # it also ends what failed: by the same signal, perhaps
                missed, self._missed = self._missed, None
                missed()

    def put_off(self, ending: Callable[[], None]) -> bool:
        """Whether something is held now; `ending` is then called at its end."""
        if self._held:
            self._missed = ending
        return bool(self._held)

    def _again(self) -> None:
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
    """Processes started meanwhile do not hear Ctrl-C or SIGHUP: a terminal sends them to all, and one is to act on it.

    Nor does the resource tracker of `multiprocessing`, if it is started meanwhile.
    """
    from multiprocessing import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        resource_tracker.ensure_running()  # otherwise a start would do so, and let Ctrl-C through again
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def heard_sigterm() -> Iterator[None]:
    """SIGTERM or SIGHUP meanwhile raises SystemExit (status 143 or 129), so that what is open is closed.

    A second one changes nothing; one that comes while something is closed `unbroken` is heard at its end.

    Limits: nothing is changed for a signal that the program ignores or has a handler of its own for, nor from any but
    the main thread.
    """
    ours = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    if not _may_change() or not ours:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        for one in ours:
            signal.signal(one, signal.SIG_IGN)
        ending = SystemExit(128 + number)

        def raised() -> None:
            raise ending

        handler = signal.getsignal(signal.SIGINT)
        if not (isinstance(handler, CountedOnce) and handler.put_off(raised)):
            raised()

    for one in ours:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


def _may_change() -> bool:
    return threading.current_thread() is threading.main_thread()
