"""Ask a question that takes long of whichever daemon serves the data folder: one that dies meanwhile has a successor.

with Lasting(print) as lasting:
    ends = lasting.ask(lambda client: client.wait([1, 2]))

A daemon that was killed is started again, by whoever may; one that was stopped is waited for, as when it is restarted.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Self, TypeVar

from tandem.core.errors import DaemonError, DaemonLostError, DaemonStoppedError
from tandem.share import paths as places
from tandem.share.daemon.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from tandem.share.paths import Paths

BACK_S = 60.0
"""How long a successor that is not to be started here is waited for, in seconds."""

_LOOK_S = 0.2

Answer = TypeVar("Answer")


class Lasting:
    """A connection that is made again when its daemon goes away.

    Args:
        told: What happens, in words for the user.
        back_s: How long a daemon that was stopped, or is somebody else's, is waited for, in seconds.

    Raises:
        DaemonError: As `Client.connect`.
    """

    def __init__(self, told: Callable[[str], object], *, back_s: float = BACK_S) -> None:
        self._paths = places.of_client(os.environ, os.geteuid())
        self._told = told
        self._back_s = back_s
        self._client = Client.connect(paths=self._paths)

    def ask(self, question: Callable[[Client], Answer]) -> Answer:
        """Return the answer; the question is asked from the start again of each successor.

        Raises:
            TandemError: What the daemon answered.
            DaemonError: It went away, and no other came.
        """
        told = ""
        while True:
            try:
                return question(self._client)
            except (DaemonLostError, DaemonStoppedError) as error:
                self._client.close()
                start = isinstance(error, DaemonLostError) and _is_ours(self._paths)
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
        until = time.monotonic() + self._back_s
        while True:
            try:
                return Client.connect(start=False, paths=self._paths)
            except DaemonError:
                if time.monotonic() > until:
                    raise error from None
            time.sleep(_LOOK_S)


def _is_ours(paths: Paths) -> bool:
    """Whether a daemon that is started here would serve the same jobs."""
    try:
        return paths.data.stat().st_uid == os.geteuid()
    except OSError:
        return False
