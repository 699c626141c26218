"""Start a keeper, speak to it, find it again after a restart.

A keeper is the parent of one attempt of a job (keeper.cpp); the scheduler holds one end of a socket to it. When the
socket ends, the keeper has ended, and the journal (`tandem.core.process.journal`) says how the job did.
"""

import errno
import os
import socket
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from tandem.core.errors import TandemError
from tandem.core.process import journal
from tandem.core.process.spec import JobSpecError, Spec

_MESSAGE_BYTES = 65536
_CONTROL_FD = 3
_ADOPTION_S = 2.0


class KeeperMissingError(TandemError):
    """An installation without the native keeper."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a keeper.

    Attributes:
        kind: `ok` and `error` answer a command, `started` and `ended` are news, `replaced` means that another
            connection took over, `gone` that the keeper has ended or will say nothing more.
        text: The rest: the command and why it failed; `PID START T`; for `ended` the last line of the journal.
        durable: For `ended`: whether that line is safely in the journal (a full disk delays it).
    """

    kind: Literal["ok", "error", "started", "ended", "replaced", "gone"]
    text: str = ""
    durable: bool = True

    @property
    def fate(self) -> journal.Fate:
        """What an `ended` message says, read as a journal."""
        return journal.parse(self.text + "\n")


_KINDS: dict[str, Literal["ok", "error", "started", "ended", "replaced"]] = {
    "ok": "ok",
    "error": "error",
    "started": "started",
    "ended": "ended",
    "replaced": "replaced",
}


class Keeper:
    """A connection to a keeper; never blocks. Use `fileno()` in a selector."""

    def __init__(self, connection: socket.socket, attempt_dir: Path, child_pid: int | None) -> None:
        """Wrap a connected socket; `child_pid` is the keeper's pid if this process spawned it (and must reap it)."""
        connection.setblocking(False)
        self.attempt_dir = attempt_dir
        self.returncode: int | None = None
        self._connection = connection
        self._child_pid = child_pid

    @property
    def pid(self) -> int | None:
        """The keeper's process id, for messages to people; it is never signalled."""
        keeper = journal.read(self.attempt_dir).keeper
        return self._child_pid or (keeper.pid if keeper else None)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._connection.fileno()

    def send(self, command: str) -> bool:
        """Send one command (`term`, `throttle 0.5`, ...); False if the keeper is gone or does not read."""
        assert command, "an empty message reads like the end of the connection"
        try:
            self._connection.send(command.encode())
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def recv(self) -> Message | None:
        """Return the next message, or None if none is waiting; after the last one always `gone`."""
        try:
            data = self._connection.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            data = b""
        word, _, rest = data.decode(errors="replace").partition(" ")
        if word not in _KINDS:
            return Message(kind="gone")
        if word == "ended":
            durability, _, rest = rest.partition(" ")
            return Message(kind="ended", text=rest, durable=durability == "durable")
        return Message(kind=_KINDS[word], text=rest)

    def reap(self) -> int | None:
        """Collect the ended keeper's exit code without waiting; None while it runs or if it is not our child."""
        if self._child_pid is not None and self.returncode is None:
            pid, status = os.waitpid(self._child_pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int | None:
        """Wait for the keeper that said `gone` and return its exit code; it is ending right now."""
        if self._child_pid is not None and self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._child_pid, 0)[1])
        return self.returncode

    def close(self) -> None:
        """Let go; the keeper and the job go on."""
        self._connection.close()
        self.reap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def keeper_path() -> Path | None:
    """Return the native keeper: `$TANDEM_KEEPER` if that is set, else the one installed with the package.

    None where that is no file that can be run.
    """
    chosen = os.environ.get("TANDEM_KEEPER")
    if chosen:
        return Path(chosen) if Path(chosen).is_file() and os.access(chosen, os.X_OK) else None
    installed = Path(sysconfig.get_path("platlib"), "tandem", "core", "process")  # an editable installation
    places = (folder / "tandem-keeper" for folder in (Path(__file__).parent, installed))
    return next((place for place in places if os.access(place, os.X_OK)), None)


def keeper_command() -> tuple[str, ...]:
    """Return how a keeper is started.

    Raises:
        KeeperMissingError: It was not built; there is no slower substitute that would keep its promises.
    """
    native = keeper_path()
    if native is None and (chosen := os.environ.get("TANDEM_KEEPER")):
        raise KeeperMissingError(
            given=f"TANDEM_KEEPER={chosen}",
            allowed="a file that can be run",
            todo="correct it, or leave it unset: the keeper that was installed with tandemlab is taken then",
        )
    if native is None:
        raise KeeperMissingError(
            given="an installation without tandem-keeper",
            allowed="jobs run under the native keeper",
            todo="reinstall tandemlab where g++ or clang++ is (`pip install -v` says why it was not built), or let "
            "TANDEM_KEEPER name a keeper built elsewhere",
        )
    return (str(native),)


def prepare(spec: Spec, attempt_dir: Path) -> None:
    """Make the attempt's private directory, durably, and write the spec into it.

    Raises:
        JobSpecError: The spec cannot be written down, or the attempt was prepared before.
    """
    content = spec.to_bytes()
    try:
        attempt_dir.mkdir(mode=0o700)
    except FileExistsError as error:
        raise JobSpecError(
            given=f"the attempt {attempt_dir.name!r}, which exists",
            allowed="an attempt that was never prepared",
            todo="number a new attempt",
        ) from error
    _sync(attempt_dir.parent)  # after a power failure the attempt must not look as if it never was
    fd = os.open(attempt_dir / "spec", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def spawn(
    spec: Spec, attempt_dir: Path, *, command: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Keeper:
    """Prepare the attempt and start its keeper.

    Args:
        spec: What to run.
        attempt_dir: A directory that does not exist yet, in one that only this user can write.
        command: How to start a keeper, if not as `keeper_command()` says.
        env: The keeper's own environment (not the job's); tests put `TANDEM_KEEPER_CRASH` there.

    Raises:
        JobSpecError: See `prepare`.
        KeeperMissingError: The keeper was not built.
    """
    prepare(spec, attempt_dir)
    return start(attempt_dir, command=command, env=env)


def start(attempt_dir: Path, *, command: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Keeper:
    """Start a keeper on a prepared attempt; on one that was started before it exits with code 75, harmlessly."""
    words = [*(command or keeper_command()), str(attempt_dir), str(_CONTROL_FD)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), _CONTROL_FD)]
            pid = os.posix_spawn(words[0], words, env or {}, file_actions=actions)
        except BaseException:
            ours.close()
            raise
    return Keeper(ours, attempt_dir, pid)


def adopt(attempt_dir: Path) -> Keeper | None:
    """Connect to the living keeper of an attempt that another process started; None if it has ended.

    A keeper that is just leaving may still be found; then the first message is `gone`.
    """
    deadline = time.monotonic() + _ADOPTION_S
    while True:
        connection = _connect(attempt_dir)
        if connection is not None:
            return Keeper(connection, attempt_dir, None)
        if not journal.keeper_alive(attempt_dir) or time.monotonic() > deadline:
            return None
        time.sleep(0.001)  # between its claim and its socket there are some microseconds


def _connect(attempt_dir: Path) -> socket.socket | None:
    try:
        folder = os.open(attempt_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"/proc/self/fd/{folder}/ctl")  # a socket's path is short, the attempt's may be long
    except OSError as error:
        connection.close()
        if error.errno in {errno.ENOENT, errno.ECONNREFUSED}:
            return None
        raise
    finally:
        os.close(folder)
    return connection


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
