"""What a run is asked by signals: to save (SIGUSR1), to save and stop (SIGTERM, Ctrl-C). It answers between steps, and
where it is one process also between the tokens of responses that are drawn, and at once outside of steps, where there
is nothing to save (data is read, a tokenizer trained, a model measured).

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
        at_once: Whether an end is one at once, as nobody looks for what was asked.
    """

    save: bool = False
    stop: str = ""
    at_once: bool = False

    @contextmanager
    def looked_for(self) -> Iterator[None]:
        """Have the block look for what was asked, and answer."""
        before, self.at_once = self.at_once, False
        try:
            yield
        finally:
            self.at_once = before


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
            raise StoppedError(
                given=f"stopped by {asked.stop} outside of training steps",
                allowed="going on: nothing is lost",
                todo="run the same command again",
            )

    handlers = {signal.SIGUSR1: on_save, signal.SIGTERM: on_stop, signal.SIGINT: on_stop}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
