"""One client's connection: JSON values, one a line, in both directions, never blocking.

A client that sends nonsense, too much, or does not read is its own problem only: what it gets is an error or a closed
connection. While a client does not read its answers, its further requests are left in the socket.
"""

import json
import select
import socket
import time
from typing import Any

from tandem.core.errors import ConfigError
from tandem.core.process.peer import Peer, peer_of

LINE_LONGEST = 64 << 20
"""A longer request is refused, in bytes."""

UNREAD_MOST = 1 << 20
"""While more than this waits to be read by the client, its requests wait too, in bytes."""

DROPPED_AT = 256 << 20
"""A client that leaves so much unread is dropped, in bytes."""

_FINISH_S = 1.0
_CHUNK = 1 << 18

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Connection:
    """The daemon's end of one client's socket."""

    def __init__(self, peer_socket: socket.socket) -> None:
        peer_socket.setblocking(False)
        self.peer: Peer = peer_of(peer_socket)
        self.closed = False
        self._socket = peer_socket
        self._in = bytearray()
        self._out = bytearray()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    @property
    def unread_bytes(self) -> int:
        """How much the client has not read yet."""
        return len(self._out)

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out)

    @property
    def wants_to_read(self) -> bool:
        """Whether requests are taken: not while the client leaves too much unread."""
        return len(self._out) < UNREAD_MOST

    def receive(self) -> list[bytes]:
        """Return the lines that have arrived whole; sets `closed` when the client is gone.

        Raises:
            ConfigError: The line under way is too long; the connection cannot go on.
        """
        try:
            chunk = self._socket.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            chunk = b""
        if not chunk:
            self.closed = True
            return []
        self._in += chunk
        if b"\n" not in chunk:
            if len(self._in) > LINE_LONGEST:
                raise ConfigError(
                    given=f"a request of more than {LINE_LONGEST >> 20} MiB",
                    allowed="shorter ones",
                    todo="submit in several batches",
                )
            return []
        *lines, rest = bytes(self._in).split(b"\n")
        self._in = bytearray(rest)
        return [line for line in lines if line.strip()]

    def send(self, value: Any) -> None:  # noqa: ANN401 - anything that JSON can say
        """Send a value, as soon as the client reads it."""
        if self.closed:
            return
        self._out += _encode(value).encode() + b"\n"
        self.flush()
        if len(self._out) > DROPPED_AT:
            self.closed = True

    def flush(self) -> None:
        """Send what the socket takes now."""
        try:
            while self._out:
                sent = self._socket.send(memoryview(self._out)[:_CHUNK])
                del self._out[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.closed = True

    def close(self) -> None:
        """Hang up at once."""
        self.closed = True
        self._socket.close()

    def finish(self) -> None:
        """Hang up once what is under way was read; a client that does not read is waited for a second in all."""
        until = time.monotonic() + _FINISH_S
        while self._out and not self.closed and (left := until - time.monotonic()) > 0:
            select.select([], [self._socket], [], left)
            self.flush()
        self.close()
