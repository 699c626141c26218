"""Where a daemon keeps its data and where its socket is.

`TANDEM_HOME` decides where it is set. Otherwise root's daemon is the system daemon (`/var/lib/tandem`,
`/run/tandem/tandem.sock`) that serves every user, and an ordinary user's daemon is their own
(`$XDG_DATA_HOME/tandem`, `$XDG_RUNTIME_DIR/tandem/tandem.sock`). A client takes the first of: `TANDEM_HOME`, the
system daemon where its socket or its database is there, the user's own. `XDG_RUNTIME_DIR` comes and goes with logins,
so a client that finds nobody at its place asks the data folder's lock where its daemon listens.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tandem.core.data_folder import SYSTEM_DATA, data_folder

SYSTEM_SOCKET = Path("/run/tandem/tandem.sock")
_OF_JOB = re.compile(r"([0-9]{1,18})(?:\.[0-9]+)?")
_LONGEST_SOCKET_PATH = 100  # in bytes: sockaddr_un holds 108 with the terminating zero


@dataclass(frozen=True, slots=True)
class Paths:
    """One daemon's places.

    Attributes:
        data: The data folder.
        socket: The Unix socket it listens on.
        shared: Whether other users may connect (the system daemon).
    """

    data: Path
    socket: Path
    shared: bool = False

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data / "tandem.db"

    @property
    def write_ahead_log(self) -> Path:
        """What SQLite keeps beside the database while that is open, or was not closed."""
        return self.data / "tandem.db-wal"

    @property
    def lock(self) -> Path:
        """The file whose lock says that a daemon runs on this data folder; it holds the daemon's pid and socket."""
        return self.data / "daemon.lock"

    @property
    def bandwidth(self) -> Path:
        """The file that keeps the measured memory bandwidth."""
        return self.data / "membw.json"

    @property
    def log(self) -> Path:
        """Where a daemon that was started in the background writes."""
        return self.data / "daemon.log"

    def job_dir(self, job: int) -> Path:
        """The folder that belongs to the job's owner: run folder, records, default output."""
        return self.data / "jobs" / str(job)

    def attempt_dir(self, job: int, attempt: int) -> Path:
        """The folder of one attempt's journal; it belongs to the daemon."""
        return self.data / "attempts" / f"{job}.{attempt}"

    def jobs_with_folders(self) -> Iterator[int]:
        """Yield the ids of jobs that have a folder of either kind here, some more than once."""
        for kind in ("jobs", "attempts"):
            with contextlib.suppress(FileNotFoundError), os.scandir(self.data / kind) as entries:
                for entry in entries:
                    if job := _OF_JOB.fullmatch(entry.name):
                        yield int(job[1])


def home(folder: Path, *, shared: bool = False) -> Paths:
    """Return the places under one folder given by hand (`TANDEM_HOME`).

    A folder too deep for a socket's path gets a socket in a folder of the user's own under the temporary folder.
    """
    folder = folder.absolute()
    socket = folder / "tandem.sock"
    if not _fits(socket):
        short = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        socket = Path(f"/tmp/tandem-{_owner(folder)}") / f"{short}.sock"
    return Paths(folder, socket, shared)


def of_daemon(environ: Mapping[str, str], uid: int) -> Paths:
    """Return where a daemon started by `uid` in this environment keeps its things."""
    if environ.get("TANDEM_HOME"):
        return home(data_folder(environ, uid), shared=uid == 0)
    if uid == 0:
        return Paths(SYSTEM_DATA, SYSTEM_SOCKET, shared=True)
    return _of_user(environ, uid)


def of_client(environ: Mapping[str, str], uid: int) -> Paths:
    """Return the places of the daemon that a client started by `uid` should speak to."""
    if environ.get("TANDEM_HOME") or uid == 0:
        return of_daemon(environ, uid)
    system = Paths(SYSTEM_DATA, SYSTEM_SOCKET, shared=True)
    if system.socket.exists() or system.database.exists():  # stopped for a while, it is nobody else's turn
        return system
    return _of_user(environ, uid)


def prepare(paths: Paths) -> None:
    """Make the folders of a daemon, closed to other users except where they have to pass through.

    Raises:
        OSError: A folder cannot be made.
    """
    through = 0o711 if paths.shared else 0o700
    _folder(paths.data, through)
    _folder(paths.data / "jobs", through)
    _folder(paths.data / "attempts", 0o700)
    if paths.socket.parent != paths.data:
        _folder(paths.socket.parent, 0o755 if paths.shared else 0o700)


def _folder(path: Path, mode: int) -> None:
    """Make one folder with exactly this mode, and refuse one that belongs to somebody else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=mode, exist_ok=True)
    if path.lstat().st_uid != os.geteuid():
        message = f"{path} belongs to uid {path.lstat().st_uid}"
        raise PermissionError(message)
    path.chmod(mode, follow_symlinks=True)


def _of_user(environ: Mapping[str, str], uid: int) -> Paths:
    own = home(data_folder(environ, uid))
    runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
    socket = runtime / "tandem" / "tandem.sock"
    usable = runtime.is_absolute() and runtime.is_dir() and os.access(runtime, os.W_OK | os.X_OK)  # su leaves another's
    return replace(own, socket=socket) if usable and _fits(socket) else own


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= _LONGEST_SOCKET_PATH


def _owner(folder: Path) -> int:
    """Return who owns the folder, or its nearest ancestor that exists."""
    for path in (folder, *folder.parents):
        if path.exists():
            return path.stat().st_uid
    return os.getuid()
