"""The socket that clients look for; its path may go away, as by a cleaner of temporary folders."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from tandem.share import paths as places

if TYPE_CHECKING:
    from pathlib import Path

    from tandem.share.paths import Paths


class Listener:
    """Listens at the path until it is closed."""

    def __init__(self, paths: Paths) -> None:
        """Bind the path; the data folder's lock is held, so a socket that is there is a dead one's.

        Raises:
            OSError: It cannot be bound.
        """
        places.prepare(paths)
        self._paths = paths
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o111 if paths.shared else 0o177)
        try:
            paths.socket.unlink(missing_ok=True)
            self.socket.bind(str(paths.socket))
        except OSError:
            self.socket.close()
            raise
        finally:
            os.umask(mask)
        self._bound = _file(paths.socket)
        self.socket.listen(1024)
        self.socket.setblocking(False)

    def is_lost(self) -> bool:
        """Whether nobody listens at the path any more."""
        if _file(self._paths.socket) == self._bound:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            try:
                client.connect(str(self._paths.socket))
            except BlockingIOError:  # another daemon, and many wait for it
                return False
            except OSError:
                return True
        return False

    def close(self) -> None:
        """Listen no more; a path that is another's is left."""
        if _file(self._paths.socket) == self._bound:
            self._paths.socket.unlink(missing_ok=True)
        self.socket.close()


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is there, if any."""
    with contextlib.suppress(OSError):
        info = path.lstat()
        return info.st_dev, info.st_ino
    return None
