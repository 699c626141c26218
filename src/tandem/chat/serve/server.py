"""The server: its socket, its token, and how it ends.

serve(Path("runs/first"), host="127.0.0.1", port=8000, ...)
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import os
import secrets
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.chat import talk
from tandem.chat.serve.errors import ServeError
from tandem.core import plug
from tandem.core.clock import SystemClock
from tandem.core.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN_FILE = "serve-token"
"""In the run's folder."""

SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Serving:
    """What a client has to know.

    Attributes:
        url: What its base URL is.
        model: What the model is called.
        token: What it has to show.
        token_file: Where that stands.
        new_token: Whether it was made now.
    """

    url: str
    model: str
    token: str
    token_file: Path
    new_token: bool


def serve(
    run: Path,
    *,
    model: str,
    host: str,
    port: int,
    token_file: Path | None,
    waiting: int,
    device: str | None = None,
    ready: Callable[[Serving], None],
) -> None:
    """Answer until a signal (Ctrl-C or SIGTERM) says to end.

    Args:
        run: The run's folder.
        model: Which of its models; empty for that of the last stage that is done.
        host: Where to listen.
        port: Which; 0 for any that is free.
        token_file: Where the token stands, or is written to; None for the run's own.
        waiting: How many requests may wait.
        device: Where the model computes; None for the recipe's.
        ready: Is told once clients may come.

    Raises:
        StageError: It is no run, or has no such model.
        ServeError: The address cannot be listened at, or the token not be read.
        MissingPackageError: starlette or uvicorn are not installed.
    """
    need_packages()
    name, loaded = talk.model_of(run, model, device)
    token, file, made = token_in(token_file or run / TOKEN_FILE)
    with listening(host, port) as listener:
        import uvicorn

        from tandem.chat.serve.app import application
        from tandem.chat.serve.worker import Worker

        worker = Worker(loaded, waiting)
        config = uvicorn.Config(
            application(worker, name, token, SystemClock()),
            log_level="critical",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        shown, actual = listener.getsockname()[:2]
        ready(Serving(f"http://{_in_url(shown)}:{actual}/v1", name, token, file, made))
        before = signal.signal(signal.SIGTERM, lambda number, frame: None)  # uvicorn hears it, then raises it again
        server = uvicorn.Server(config)

        async def until_asked_to_end() -> None:
            try:
                await server.serve(sockets=[listener])
            finally:
                worker.close()  # while there still is a loop that it can tell of tokens

        try:
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(until_asked_to_end())
        finally:
            signal.signal(signal.SIGTERM, before)


def token_in(file: Path) -> tuple[str, Path, bool]:
    """Return the token in a file, the file, and whether both were made now, for their owner alone to read.

    Raises:
        ServeError: It cannot be read or written, or is too short to be safe.
    """
    try:
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            token = file.read_text(encoding="ascii").strip()
        else:
            token = secrets.token_urlsafe(32)
            with os.fdopen(descriptor, "w", encoding="ascii") as written:
                written.write(token + "\n")
            return token, file, True
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(
            given=f"token file {file}: {error}", allowed="a file that holds a token", todo="give another --token-file"
        ) from error
    if len(token) < SHORTEST_TOKEN or len(token.split()) != 1:
        raise ServeError(
            given=f"token file {file} of {len(token)} characters",
            allowed=f"one word of at least {SHORTEST_TOKEN}",
            todo="delete it, and one is made",
        )
    return token, file, False


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ServeError: There is no such address, or it is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        raise ServeError(
            given=f"{host} port {port}: {error}",
            allowed="an address of this machine and a port that is free",
            todo="give another --port; 0 takes any that is free",
        ) from error


def need_packages() -> None:
    """Check that starlette and uvicorn are there.

    Raises:
        MissingPackageError: One is not.
    """
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(
                given=f"tandem chat serve needs the package {package!r}, which is not installed",
                allowed="an HTTP server",
                todo=f"run: pip install 'tandemlab[{plug.extra_for(package) or 'web'}]'",
            )


def _in_url(host: str) -> str:
    return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
