"""Speak to the daemon; start it where none runs.

with Client.connect() as client:
    job = client.submit([{"argv": ["python", "train.py"], "cpus": 4}])[0]["ids"][0]
    client.wait([job])
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from tandem.core.errors import (
    DaemonAwayError,
    DaemonError,
    DaemonHangsError,
    DaemonLostError,
    DaemonStoppedError,
    TandemError,
)
from tandem.core.process.peer import peer_of
from tandem.share import paths as places
from tandem.share.daemon.holder import watched
from tandem.share.daemon.patience import wait_ready
from tandem.share.paths import Paths
from tandem.share.store.lock import holder, named_socket

LISTENS_S = 3.0
"""How long a client waits for a daemon that runs to listen: its socket was removed, or it is about to start or end."""

START_S = 30.0
"""How long a daemon that was just started may take until it answers, in seconds."""

UNHEARD = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""What a client blocks while it starts a daemon, which is born with them blocked."""

_ANSWERED_LATER = frozenset({"wait", "watch"})
"""Methods that answer when something has happened."""

_CHUNK = 1 << 18

View = dict[str, Any]


class Client:
    """A connection to the daemon. Every method raises the `TandemError` that the daemon sent."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._daemon = peer_of(connection).pid
        self._in = bytearray()
        self._lines: list[bytes] = []
        self._key = 0

    # ------------------------------------------------------------------------------------ connecting

    @classmethod
    def connect(
        cls,
        *,
        start: bool = True,
        paths: Paths | None = None,
        options: Sequence[str] = (),
        tied_to: int | None = None,
    ) -> Self:
        """Connect to the daemon that serves this user.

        Args:
            start: Start one where none runs.
            paths: Its places; None finds them from the environment.
            options: Command-line options of a daemon that is started.
            tied_to: The reading end of a pipe; a daemon that is started ends, and its jobs, when the other end closes.

        Raises:
            DaemonError: None runs and none is to be started, it does not start, cannot be reached, or is a process of
                somebody else, who is told nothing; says why.
        """
        found = paths or places.of_client(os.environ, os.geteuid())
        connection = _try(found)
        if connection is None:
            connection = _start(found, options, tied_to) if start else _awaited(found)
        if connection is None:
            raise DaemonError(
                given=f"no daemon answers on {found.socket}", allowed="one that runs", todo="start it with `tandem up`"
            )
        return cls(connection)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --------------------------------------------------------------------------------------- requests

    def call(self, method: str, **params: object) -> Any:  # noqa: ANN401 - each method has its own result
        """Ask, and wait for the result.

        Raises:
            TandemError: What the daemon answered.
            DaemonLostError: The daemon was killed.
            DaemonStoppedError: It was stopped.
            DaemonHangsError: It is there, and does nothing.
        """
        key = self.send(method, **params)
        while True:
            message = self._receive(key, answers_at_once=method not in _ANSWERED_LATER)
            if "part" not in message:
                return message["result"]

    def stream(self, method: str, **params: object) -> Iterator[Any]:
        """Ask, and yield the parts of the result as they come."""
        key = self.send(method, **params)
        first = True
        while True:
            message = self._receive(key, answers_at_once=first or method not in _ANSWERED_LATER)
            first = False
            if "part" not in message:
                return
            yield message["part"]

    def send(self, method: str, **params: object) -> int:
        """Send a request without waiting; `receive` takes its result. Many may be under way."""
        self._key += 1
        line = json.dumps({"id": self._key, "method": method, "params": params}, separators=(",", ":"))
        left = memoryview(line.encode() + b"\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its last words may still be read
            while left:
                wait_ready(self._socket.fileno(), select.POLLOUT, self._daemon)
                left = left[self._socket.send(left, socket.MSG_DONTWAIT) :]
        return self._key

    def receive(self, key: int) -> Any:  # noqa: ANN401
        """Return the result of an earlier `send`; requests are to be received in the order they were sent."""
        return self._receive(key)["result"]

    # ----------------------------------------------------------------------------------------- methods

    def submit(self, jobs: Sequence[Mapping[str, object]], *, environ: Mapping[str, str] | None = None) -> list[View]:
        """Submit jobs (see `tandem.share.daemon.submission`); they are durable when this returns.

        Args:
            jobs: One mapping a submission; an array is one of them.
            environ: What the jobs inherit; None takes this process's environment.

        Returns:
            For each submission ``ids``, ``quotes`` and ``warnings``.

        Raises:
            TandemError: The daemon refused them: none is taken in.
            DaemonError: It went away, or hangs, and has not answered: nobody knows whether they were taken in.
        """
        mask = os.umask(0o077)
        os.umask(mask)
        inherited = dict(os.environ if environ is None else environ)
        try:
            result: list[View] = self.call(
                "submit", jobs=list(jobs), environ=inherited, cwd=str(Path.cwd()), umask=mask
            )
        except (DaemonHangsError, DaemonLostError, DaemonStoppedError) as error:
            error.todo = "the jobs may have been taken in, now or later: look at `tandem queue` and `tandem history`"
            raise
        return result

    def queue(self, *, why: bool = False, together: bool = False) -> list[View]:
        """Return all live jobs; of other users' only what everybody may see.

        Args:
            why: with the reason in words and the last promise.
            together: elements of an array that wait alike as one.
        """
        result: list[View] = self.call("queue", why=why, together=together)
        return result

    def show(self, job: int, *, decisions: bool = False) -> View:
        """Return all that is known of a job; of `decisions` every one about it too, which reads the whole log."""
        result: View = self.call("show", job=job, decisions=decisions)
        return result

    def wait(self, jobs: Sequence[int]) -> list[View]:
        """Wait until all have ended; return how."""
        result: list[View] = self.call("wait", jobs=list(jobs))
        return result

    def cancel(self, jobs: Sequence[int] = (), *, every: bool = False, array: bool = False) -> list[int]:
        """Cancel jobs; `every` live job of this user, or whole arrays. Returns whose end was asked for."""
        return self._change("cancel", jobs, every=every, array=array)

    def hold(self, jobs: Sequence[int] = (), *, every: bool = False, array: bool = False) -> list[int]:
        """Keep waiting jobs from starting."""
        return self._change("hold", jobs, every=every, array=array)

    def release(self, jobs: Sequence[int] = (), *, every: bool = False, array: bool = False) -> list[int]:
        """Let held jobs go."""
        return self._change("release", jobs, every=every, array=array)

    def nodes(self) -> list[View]:
        """Return all nodes with what is free."""
        result: list[View] = self.call("nodes")
        return result

    def history(self, *, limit: int = 1000, since: float = 0.0) -> list[View]:
        """Return this user's jobs that ended, the latest first."""
        result: list[View] = self.call("history", limit=limit, since=since)
        return result

    def promises(self, *, limit: int = 1000, since: float = 0.0, mine: bool = False) -> list[View]:
        """Return every quote beside what happened."""
        result: list[View] = self.call("promises", limit=limit, since=since, mine=mine)
        return result

    def coruns(self, *, limit: int = 1000, measured: bool = False) -> list[View]:
        """Return who ran beside whom; of ``measured`` stretches only those with a rate that was not throttled."""
        result: list[View] = self.call("coruns", limit=limit, measured=measured)
        return result

    def profiled(self) -> list[str]:
        """Have the daemon take in profiles that were put into its data folder; returns the applications."""
        result: list[str] = self.call("profiled")
        return result

    def profiles(self) -> list[View]:
        """Return the profiles that the scheduler knows, and those that it no longer believes."""
        result: list[View] = self.call("profiles")
        return result

    def log_path(self, job: int) -> View:
        """Return where the job's output is; read it with this process's own rights."""
        result: View = self.call("log_path", job=job)
        return result

    def doctor(self) -> View:
        """Return what the daemon is and protects."""
        result: View = self.call("doctor")
        return result

    def watch(self) -> Iterator[View]:
        """Yield the queue, then every step as it happens."""
        yield from self.stream("watch")

    def log(self) -> Iterator[View]:
        """Yield the entries of the event log, as `tandem.share.simulate.replay` reads them."""
        for piece in self.stream("log"):
            yield from piece

    def down(self, *, kill: bool = False) -> None:
        """Stop the daemon, with `kill` all jobs too; returns when its process has ended and left the data folder."""
        with watched(self._daemon) as process:
            self.call("down", kill=kill)
            with contextlib.suppress(ConnectionResetError):
                while self._socket.recv(_CHUNK):
                    pass
            if process is not None:
                wait_ready(process, select.POLLIN, self._daemon)

    # ----------------------------------------------------------------------------------------- details

    def _change(self, method: str, jobs: Sequence[int], *, every: bool, array: bool) -> list[int]:
        result: list[int] = self.call(method, jobs=list(jobs), all=every, array=array)["jobs"]
        return result

    def _receive(self, key: int, *, answers_at_once: bool = True) -> View:
        """The next message that belongs to the request; late ones of an abandoned stream are passed over."""
        while True:
            message: View = json.loads(self._line(answers_at_once=answers_at_once))
            if "error" in message and message.get("id") in (key, None):
                raise TandemError.from_dict(message["error"])
            if message.get("id") == key:
                return message

    def _line(self, *, answers_at_once: bool) -> bytes:
        while not self._lines:
            if answers_at_once:
                wait_ready(self._socket.fileno(), select.POLLIN, self._daemon)
            try:
                chunk = self._socket.recv(_CHUNK)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise DaemonLostError(
                    given="the daemon went away while it was asked",
                    allowed="a daemon that runs",
                    todo="ask again: `tandem` starts it; what it acknowledged is kept",
                )
            self._in += chunk
            if b"\n" in chunk:
                *self._lines, rest = bytes(self._in).split(b"\n")
                self._in = bytearray(rest)
        return self._lines.pop(0)


def _awaited(paths: Paths) -> socket.socket | None:
    """Connect, here or where the lock says; wait a little for one that runs but does not listen; None where none runs.

    Raises:
        DaemonError: One runs, and does not listen.
    """
    until = time.monotonic() + LISTENS_S
    while True:
        process = holder(paths)  # asked before: one that was about to listen, or to end, is not missed
        connection = _try(paths)
        if connection is not None or process is None:
            return connection
        named = named_socket(paths, process) or paths.socket
        connection = _of_process(replace(paths, socket=named), process)
        if connection is not None:
            return connection
        if time.monotonic() > until:
            raise DaemonError(
                given=f"the daemon (process {process}) runs, but nobody listens on {named}",
                allowed="one that listens",
                todo="unless it is about to start, stop it with `tandem down`: its jobs run on, and the next command "
                "starts another",
            )
        time.sleep(0.01)


def _of_process(paths: Paths, process: int) -> socket.socket | None:
    """Connect if this process, which holds the data folder's lock, listens there and can be reached."""
    with contextlib.suppress(DaemonError):
        connection = _try(paths)
        if connection is not None and peer_of(connection).pid == process:
            return connection
        if connection is not None:
            connection.close()
    return None


def _try(paths: Paths) -> socket.socket | None:
    """Connect if somebody listens there.

    A daemon that was killed while it started a process leaves its socket to that for moments: nobody listens.

    Raises:
        DaemonError: The socket cannot be used, or it is another user's, who is to be told nothing.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(paths.socket))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise DaemonError(
            given=f"the socket {paths.socket} cannot be used ({error.strerror})",
            allowed="a daemon of this user, or the system's",
            todo="look at the folder's owner and mode, or set TANDEM_HOME",
        ) from error
    listens = peer_of(connection)
    if _gone(listens.pid):
        connection.close()
        return None
    if listens.uid not in _believed(paths):
        connection.close()
        raise DaemonError(
            given=f"on {paths.socket} a process of another user listens (uid {listens.uid}): nothing was sent to it",
            allowed="a daemon of this user, or the system's",
            todo="set TANDEM_HOME to a folder of your own, with a path so short that its socket is in it",
        )
    return connection


def _gone(process: int) -> bool:
    """Whether a process has ended; of one that cannot be seen from here (0) nobody knows."""
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False


def is_ours(paths: Paths) -> bool:
    """Whether a daemon that this user starts would serve the data folder; one that is not there would be theirs."""
    try:
        return paths.data.stat().st_uid == os.geteuid()
    except OSError:
        return True


def _believed(paths: Paths) -> set[int]:
    """Whose daemon may be told what this user runs: their own, root's, and for root that of the data folder's owner."""
    ours = os.geteuid()
    if ours == 0:
        with contextlib.suppress(OSError):
            return {0, paths.data.stat().st_uid}
    return {0, ours}


def _start(paths: Paths, options: Sequence[str], tied_to: int | None) -> socket.socket | None:
    """Start a daemon in the background and wait until it answers; of several clients one does it."""
    if not is_ours(paths):
        if (connection := _awaited(paths)) is not None:
            return connection
        whose = paths.data.stat().st_uid
        asked = "root" if whose == 0 else "its user"
        raise DaemonAwayError(
            given=f"the daemon of uid {whose} that serves {paths.data} does not run",
            allowed="one that runs",
            todo=f"ask {asked} for `tandem up`, or set TANDEM_HOME to a folder of your own",
        )
    try:
        places.prepare(paths)
        lock = os.open(paths.data / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DaemonError(
            given=f"the data folder {paths.data} cannot be used ({error.strerror or error})",
            allowed="a folder of your own that can be written",
            todo="make room or correct its owner, or set TANDEM_HOME to another folder",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _awaited(paths) or _spawn(paths, options, tied_to)
    finally:
        os.close(lock)


def _spawn(paths: Paths, options: Sequence[str], tied_to: int | None) -> socket.socket | None:
    where = ["--home", str(paths.data), "--socket", str(paths.socket)]
    tie = [] if tied_to is None else ["--tied"]
    command = [sys.executable, "-m", "tandem.share.daemon", "--json-errors", *where, *tie, *options]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_JOB_")}
    mode = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.open(paths.log, mode, 0o600)
    began = os.fstat(log).st_size
    before = signal.pthread_sigmask(signal.SIG_BLOCK, UNHEARD)  # one that comes while it forks would lose the daemon
    stdin = subprocess.DEVNULL if tied_to is None else tied_to
    try:
        process = subprocess.Popen(
            command, stdin=stdin, stdout=log, stderr=log, cwd="/", env=environ, start_new_session=True
        )
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return _answering(process, paths, began)
        except BaseException:  # nobody waits for it any more
            process.terminate()
            raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(log)


def _answering(process: subprocess.Popen[bytes], paths: Paths, began: int) -> socket.socket | None:
    """The connection to a daemon once it answers; None where that takes too long. Its log begins at ``began``."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        connection = _try(paths)
        if connection is not None:
            return connection
        if process.poll() is not None:
            connection = _try(paths)
            if connection is None:
                raise _failed(paths, process.returncode, began)
            return connection
        time.sleep(0.01)
    return None


def _failed(paths: Paths, code: int, began: int) -> DaemonError:
    """Say why the daemon did not start: its own error, or its last words."""
    said = paths.log.read_bytes()[began:].decode(errors="replace").strip().splitlines()
    with contextlib.suppress(ValueError, TypeError, AttributeError, IndexError):
        error = TandemError.from_dict(json.loads(said[-1]))
        if error.given:
            given = f"the daemon did not start: {error.given}"
            return DaemonError(given=given, allowed=error.allowed, todo=error.todo)
    return DaemonError(
        given=f"the daemon did not start (exit status {code}): {said[-1] if said else 'it said nothing'}",
        allowed="a daemon that starts",
        todo=f"see {paths.log}",
    )
