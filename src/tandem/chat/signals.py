"""What a run is asked by signals: to save (SIGUSR1), to save and stop (SIGTERM, Ctrl-C). It answers between steps, and
where it is one process also between the tokens of responses that are drawn, and at once where there is nothing to save
(data is read and made into tokens, a tokenizer trained).

A second Ctrl-C stops at once; what was learnt since the last checkpoint is then learnt again.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.chat.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@dataclass(slots=True)
class Asked:
    """What has been asked.

    Attributes:
        save: A checkpoint.
        stop: An end, by the signal of this name; empty for none.
        at_once: Whether a stop ends what is done now, as nobody looks for it there.
    """

    save: bool = False
    stop: str = ""
    at_once: bool = False

    @contextmanager
    def ended_at_once(self) -> Iterator[None]:
        """Have a stop end the block at once; of what it does nothing may be lost by that.

        Raises:
            StoppedError: It did.
        """
        before = self.at_once
        try:
            self.at_once = True
            if not self.stop:
                yield
        except _StopNow:
            pass
        finally:
            self.at_once = before
        if self.stop:
            raise StoppedError(
                given=f"stopped by {self.stop} between steps",
                allowed="going on: nothing is lost",
                todo="run the same command again",
            )


class _StopNow(KeyboardInterrupt):
    """Passes whatever turns errors of users' data and models into words."""


@contextmanager
def listening() -> Iterator[Asked]:
    """Listen while the block runs; main thread only."""
    asked = Asked()

    def on_save(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.save = True

    def on_stop(number: int, frame: FrameType | None) -> None:
        del frame
        if asked.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.stop = signal.Signals(number).name
        if asked.at_once:
            raise _StopNow

    handlers = {signal.SIGUSR1: on_save, signal.SIGTERM: on_stop, signal.SIGINT: on_stop}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
