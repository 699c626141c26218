"""The right to be the daemon of a data folder, and who has it.

The folder itself is locked: it cannot go away without the store. So is a file in it that says which process it is and
on which socket it listens; where that is removed, as by a cleaner of temporary folders, it is made again. A file system
that cannot lock folders, such as NFS, has the file alone. Others lock folders and
files too (`flock FOLDER command`): a daemon is who has locked such a file that says so.
"""

import contextlib
import fcntl
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tandem.core.errors import DaemonError
from tandem.share.paths import Paths

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Locked:
    """What a process has open and locked: where that can be read, and what it is or was called."""

    place: Path
    info: os.stat_result
    name: str

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.info.st_mode)


class Lock:
    """The right to be the daemon of a data folder, held until `close` or the end of the process."""

    def __init__(self, paths: Paths) -> None:
        """Take the lock and write the process id and the socket into its file.

        Raises:
            DaemonError: Another daemon holds it; says which process.
        """
        self._paths = paths
        self._folder = os.open(paths.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._take(self._folder)
            self._file = self._make_file()
        except BaseException as error:
            os.close(self._folder)
            if isinstance(error, OSError) and paths.lock.is_symlink():
                raise DaemonError(
                    given=f"{paths.lock} is a link", allowed="a file of the daemon's own", todo="remove the link"
                ) from error
            raise

    def keep(self) -> None:
        """Make the file again where its path leads elsewhere; what keeps it from that is met again the next time.

        Raises:
            DaemonError: The folder's path leads elsewhere, or another daemon holds the file.
        """
        if not _leads_to(self._paths.data, self._folder):
            raise DaemonError(
                given=f"{self._paths.data} is no longer the folder that this daemon was started on",
                allowed="a data folder that stays in its place while a daemon runs on it",
                todo="ask again where it is now: within its file system, the next daemon goes on with its jobs",
            )
        if not _leads_to(self._paths.lock, self._file):
            with contextlib.suppress(OSError):
                fresh = self._make_file()
                os.close(self._file)
                self._file = fresh
                _log.warning("the lock %s had gone: made again", self._paths.lock)

    def name(self, socket: Path) -> None:
        """Say in the file that the daemon listens there from now on."""
        self._paths = replace(self._paths, socket=socket)
        self._write(self._file)

    def close(self) -> None:
        """Let another daemon have the folder."""
        os.close(self._file)
        os.close(self._folder)

    def _make_file(self) -> int:
        file = os.open(self._paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._take(file)
        except BaseException:
            os.close(file)
            raise
        self._write(file)
        return file

    def _write(self, file: int) -> None:
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            os.ftruncate(file, 0)
            os.pwrite(file, b"%d\n%s\n" % (os.getpid(), os.fsencode(self._paths.socket)), 0)

    def _take(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._taken(os.fstat(fd)) from None
        except OSError as error:
            if fd != self._folder:
                raise
            _log.info("%s cannot be locked, only a file in it (%s)", self._paths.data, error.strerror)

    def _taken(self, file: os.stat_result) -> DaemonError:
        """Say who has this locked: a daemon, or somebody else."""
        first = holder(self._paths)
        if first is not None:
            return DaemonError(
                given=f"a second daemon on {self._paths.data} (the first is process {first})",
                allowed="one daemon on each data folder",
                todo="use the one that runs, or stop it with `tandem down`",
            )
        other = next((process for process in _lockers([file]) if _holds([file], _locks_of(process))), None)
        who = "a process that cannot be seen from here" if other is None else f"process {other}, which is no daemon"
        return DaemonError(
            given=f"{self._paths.data} is locked by {who}",
            allowed="a data folder that nobody locks but its one daemon",
            todo="wait until that process has ended, or have it lock a file elsewhere",
        )


def holder(paths: Paths) -> int | None:
    """Return which process is a data folder's daemon by its locks; None where none is, or it is hidden from this user.

    The lock is only looked at: a daemon that starts meanwhile still finds it free.
    """
    files = []
    for path in (paths.data, paths.lock):
        with contextlib.suppress(OSError):
            files.append(path.stat())
    for process in (*_written(paths), *_lockers(files)):
        locks = _locks_of(process)
        if _holds(files, locks) and _is_daemon(process, paths, locks):
            return process
    return None


def named_socket(paths: Paths, process: int) -> Path | None:
    """Return on which socket the data folder's daemon, this process, says that it listens; None where it does not."""
    with contextlib.suppress(OSError):
        written, _, rest = paths.lock.read_bytes().partition(b"\n")
        if written == b"%d" % process and rest.endswith(b"\n"):
            return Path(os.fsdecode(rest[:-1]))
    return None


def _is_daemon(process: int, paths: Paths, locks: Sequence[_Locked]) -> bool:
    """Whether a lock's file says so; an empty one, as a full disk leaves it, will do beside the lock of the folder."""
    for one in locks:
        if one.name == paths.lock.name and one.is_file:
            said = _process_in(one.place)
            with contextlib.suppress(OSError):
                if said == process or (said is None and _holds([paths.data.stat()], locks)):
                    return True
    return False


def _written(paths: Paths) -> Iterator[int]:
    """The process that the lock's file names; it may have ended."""
    process = _process_in(paths.lock)
    if process is not None:
        yield process


def _process_in(lock: Path) -> int | None:
    """The process that a lock's file names; None where it names none."""
    with contextlib.suppress(OSError, ValueError):
        return int(lock.read_bytes().partition(b"\n")[0])
    return None


def _lockers(files: Sequence[os.stat_result]) -> Iterator[int]:
    """Processes that hold locks on files with these numbers, if on other disks."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, _, process, file, *_ = line.split()  # 1: FLOCK ADVISORY WRITE 4711 08:01:131 0 EOF
            if kind == "FLOCK" and int(file.rpartition(":")[2]) in {one.st_ino for one in files}:
                yield int(process)


def _locks_of(process: int) -> list[_Locked]:
    """What the process has open with a lock on it."""
    found = []
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if "FLOCK" in Path(f"/proc/{process}/fdinfo/{one.name}").read_text():
                    found.append(_Locked(one, one.stat(), one.readlink().name.removesuffix(" (deleted)")))
    return found


def _holds(files: Sequence[os.stat_result], locks: Sequence[_Locked]) -> bool:
    """Whether one of the files is among what is locked."""
    return any(os.path.samestat(one.info, file) for one in locks for file in files)


def _leads_to(path: Path, fd: int) -> bool:
    """Whether the path leads to the open file; one that cannot be looked at just now counts as doing so."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
