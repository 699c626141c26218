"""A small HTTP server on loopback that answers range requests, with a delay and with faults as they are wanted.

    with RangeServer(folder) as server:
        server.fault = lambda path, nth: "500" if nth < 3 else None
        ...
        print(server.url, server.requests)

Faults: "500", "403", "close" (in the middle of the body), "stall" (within the body, until the server is stopped),
"garbage" (other bytes, as many), "short" (fewer bytes, and said so), "whole" (ranges are ignored), "first" (as many
bytes from the beginning).
"""

from __future__ import annotations

import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

Fault = str | None


class Request(NamedTuple):
    """What was asked for, and the bytes that were sent."""

    path: str
    start: int
    end: int


class RangeServer:
    """Serves the files below a folder.

    Args:
        folder: Which.
        delay_s: How long each request waits before it is answered.
    """

    def __init__(self, folder: Path, delay_s: float = 0.0) -> None:
        self.folder, self.delay_s = folder, delay_s
        self.fault: Callable[[str, int], Fault] = lambda path, nth: None
        self.requests: list[Request] = []
        self.asked = 0
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where the folder is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def sent_bytes(self, within: str = "") -> int:
        """Bytes that were sent of files whose paths hold this."""
        with self.lock:
            return sum(end - start for path, start, end in self.requests if within in path)

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: RangeServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        owner = self.server.owner
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        with owner.lock:
            nth, owner.asked = owner.asked, owner.asked + 1
        fault = owner.fault(path, nth)
        if owner.delay_s:
            time.sleep(owner.delay_s)
        if fault in ("500", "403"):
            return self._refuse(int(fault))
        try:
            file = (owner.folder / path).open("rb")
        except (FileNotFoundError, IsADirectoryError):
            return self._refuse(404)
        with file:
            size, changed_s = file.seek(0, 2), os.fstat(file.fileno()).st_mtime
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if fault != "whole" else None
            start, end = (int(match[1]), min(size, int(match[2] or size) + 1)) if match else (0, size)
            if fault == "first":
                start, end = 0, end - start
            file.seek(start)
            data = file.read(end - start)
        if fault == "garbage":
            data = bytes(255 - byte for byte in data)
        if fault == "short":
            data = data[: len(data) // 2]
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", self.date_time_string(int(changed_s)))
        self.end_headers()
        if fault not in ("close", "stall"):
            with owner.lock:  # before the client has the last byte, and asks what was sent
                owner.requests.append(Request(path, start, start + len(data)))
        self._send(data, fault)
        return None

    def _send(self, data: bytes, fault: Fault) -> None:
        if fault in ("close", "stall"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if fault == "stall":
                self.server.owner.stopped.wait()
            self.close_connection = True
            raise ConnectionAbortedError
        self.wfile.write(data)

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
