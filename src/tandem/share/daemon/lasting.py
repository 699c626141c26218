"""Ask a question that takes long of whichever daemon serves the data folder: one that dies meanwhile has a successor.

with Lasting(print) as lasting:
    ends = lasting.ask(lambda client: client.wait([1, 2]))

A daemon that was killed is started again, by whoever may; one that was stopped, or hangs, is waited for: it may be
restarted, and whoever waits for a job waits as long as that takes.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Self, TypeVar

from tandem.core.errors import DaemonAwayError, DaemonError, DaemonHangsError, DaemonLostError, DaemonStoppedError
from tandem.share import paths as places
from tandem.share.daemon.client import Client, is_ours

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_S = 0.2

Answer = TypeVar("Answer")


class Lasting:
    """A connection that is made again when its daemon goes away; one that is to be started by others is waited for.

    Args:
        told: What happens, in words for the user.

    Raises:
        DaemonError: As `Client.connect`.
    """

    def __init__(self, told: Callable[[str], object]) -> None:
        self._paths = places.of_client(os.environ, os.geteuid())
        self._told = told
        try:
            self._client = Client.connect(paths=self._paths)
        except DaemonAwayError as error:
            self._told(f"{error.given}: it is waited for")
            self._client = self._returned(error)

    def ask(self, question: Callable[[Client], Answer]) -> Answer:
        """Return the answer; the question is asked from the start again of each successor.

        Raises:
            TandemError: What the daemon answered.
            DaemonError: It went away, and its data folder with it; or another could not be started.
        """
        told = ""
        while True:
            try:
                return question(self._client)
            except (DaemonHangsError, DaemonLostError, DaemonStoppedError) as error:
                self._client.close()
                start = isinstance(error, DaemonLostError) and is_ours(self._paths)
                text = f"{error.given}: {'another is started' if start else 'it is waited for'}"
                if text != told:  # one that is about to die may have been reached once more
                    self._told(text)
                told = text
                self._client = Client.connect(paths=self._paths) if start else self._returned(error)

    def another(self) -> Client:
        """Return one more connection to the same daemon, for what is asked while an answer is waited for.

        Raises:
            DaemonLostError: It has just gone away: the question is asked again.
        """
        try:
            return Client.connect(start=False, paths=self._paths)
        except DaemonError as error:
            raise DaemonLostError(given=error.given, allowed=error.allowed, todo=error.todo) from error

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _returned(self, error: DaemonError) -> Client:
        """Wait for a daemon on the data folder, for as long as that is there."""
        while self._paths.data.exists():
            try:
                return Client.connect(start=False, paths=self._paths)
            except DaemonError:
                time.sleep(_LOOK_S)
        raise error
