"""A space as a folder of files, for programs that need paths: a read-only FUSE mount, through the package mfusepy.

What is read is verified, sample by sample; of a damaged one nothing is read but the error EIO, and the log names it.
The mount shows the generation that was present when it was made. As that never changes, the kernel keeps what it has
looked up and read for as long as it has room.

Limits: each call goes through Python, 10 to 35 times as dear as reading through the library. The owner of all files is
who mounts; without `allow_other` nobody else can look into it (root neither). A path that is a sample and also begins
others, `a` beside `a/b`, is shown as the file alone. Names of more than 1,024 bytes are left out: FUSE has none.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Any

from tandem.core.errors import MissingPackageError, MountError, TandemError, without_secrets
from tandem.data.space import Space
from tandem.data.tree import entries, is_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOG = logging.getLogger(__name__)
_FOLDER_MODE = stat.S_IFDIR | 0o555
_BLOCK_BYTES = 4096
_LONGEST_NAME = 1024
_FOREVER_S = 10**7
_THREADS = 8
_KEPT_PATHS = 1024
_ENDINGS = {
    1: "it does not know an option",
    3: "it could not begin",
    4: "the kernel refused to mount",
    6: "it could not take signals",
}


def mount(
    space: str,
    mountpoint: str,
    *,
    allow_other: bool = False,
    ready: Callable[[Space], None] = lambda space: None,
) -> None:
    """Show a space below an empty folder until it is unmounted, or this process is told to end.

    What tells it are the signals SIGINT, SIGTERM and SIGHUP.

    Args:
        space: The space.
        mountpoint: An empty folder.
        allow_other: Let other users look into it. Who is not root needs `user_allow_other` in /etc/fuse.conf for it.
        ready: Called once it is mounted.

    Raises:
        SpaceError: There is no space, or it is of a newer version.
        DataError: Its index is damaged.
        MountError: The folder is not there, not empty, or cannot be mounted on.
        MissingPackageError: mfusepy is not installed, or the library libfuse is not.
    """
    fuse = _mfusepy()
    with Space.open(space) as opened:
        place = str(free_place(mountpoint))
        operations = SpaceOperations(opened, ready)
        try:
            fuse.FUSE(
                operations,
                place,
                encoding=sys.getfilesystemencoding(),
                errors=sys.getfilesystemencodeerrors(),
                foreground=True,
                fsname=without_secrets(opened.folder).replace("\\", "\\\\").replace(",", "\\,"),
                subtype="tandem",
                ro=True,
                default_permissions=True,
                allow_other=allow_other,
                **({"max_idle_threads": _THREADS} if fuse.fuse_version_major > 2 else {}),
                kernel_cache=True,
                entry_timeout=_FOREVER_S,
                attr_timeout=_FOREVER_S,
                negative_timeout=_FOREVER_S,
            )
        except RuntimeError as error:
            if not operations.was_mounted:  # else a signal ended it, which libfuse tells as an error
                raise _refused(place, error.args[0], allow_other=allow_other) from None


def free_place(mountpoint: str) -> Path:
    """The absolute path of an empty folder on which nothing is mounted.

    What a process that was killed has left mounted there is unmounted.

    Raises:
        MountError: It is none.
    """
    place = Path(mountpoint).absolute()
    problem = _in_the_way(place)
    if problem is not None:
        what, todo = problem
        raise MountError(
            given=f"{place} {what}", allowed="an empty folder on which nothing is mounted", todo=todo or "name another"
        )
    return place


def _in_the_way(place: Path) -> tuple[str, str] | None:
    """Why nothing can be mounted here and what would help, or None."""
    try:
        empty = next(place.iterdir(), None) is None
    except FileNotFoundError:
        return "does not exist", f"run: mkdir -p {quote(str(place))}"
    except NotADirectoryError:
        return "is no folder", ""
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return _clean_up(place) or _in_the_way(place)
        return f"cannot be read: {error.strerror}", ""
    if place.is_mount():
        command = "fusermount3 -u" if _is_space(place) else "umount"
        return "has something mounted on it", f"name another, or run: {command} {quote(str(place))}"
    return None if empty else ("is not empty", "")


def _clean_up(place: Path) -> tuple[str, str] | None:
    """Unmount what a process that was killed has left: nothing can be read there any more."""
    command = ["umount", str(place)] if os.geteuid() == 0 else ["fusermount3", "-u", str(place)]
    left = "is still mounted, by a process that has ended"
    if not _is_space(place):
        return left, f"run: {join(command)}"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{left}, and cannot be unmounted: {done.stderr.strip()}", f"run: {join([*command, '-l'])}"
    _LOG.warning("%s %s: unmounted", place, left)
    return None


def _is_space(place: Path) -> bool:
    """Whether a space is mounted here."""
    return f" {_as_listed(str(place))} fuse.tandem " in Path("/proc/self/mounts").read_text()


def _as_listed(place: str) -> str:
    """A path as /proc/self/mounts has it."""
    return "".join(f"\\{ord(sign):03o}" if sign in " \t\n\\" else sign for sign in place)


class SpaceOperations:
    """What the kernel asks, answered out of a space. Paths begin with a slash."""

    use_ns = True  # times are in nanoseconds

    def __init__(self, space: Space, ready: Callable[[Space], None] = lambda space: None) -> None:
        """Answer for a space.

        Args:
            space: Stays open until the mount has ended.
            ready: Called once it is mounted.
        """
        self._space, self._ready = space, ready
        self._find = lru_cache(_KEPT_PATHS)(space.index.find)  # who opens a file has just asked for its status
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        self.was_mounted = False

    def init(self, _root: str) -> None:
        """It is mounted."""
        self.was_mounted = True
        self._ready(self._space)

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, Any]:
        """Size, times, mode and owner; times and mode of a file are those that were packed."""
        with _told():
            number = self._find(path[1:])
            if number is not None:
                sample = self._space.stat(number)
                times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), sample.mtime_ns)
                mode = stat.S_IFREG | stat.S_IMODE(sample.mode)
                size = {"st_size": sample.size, "st_blocks": -(-sample.size // 512)}
                return {"st_mode": mode, "st_nlink": 1, **size, **times, **self._owner}
            if not is_folder(self._space.index, path[1:]):
                raise _error(errno.ENOENT, path)
            created_ns = self._space.index.header.created_ns
            times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), created_ns)
            return {"st_mode": _FOLDER_MODE, "st_nlink": 2, **times, **self._owner}

    def readdir(self, path: str, _handle: int) -> Iterator[tuple[str, int, int]]:
        """Names, whether they are files or folders, and no positions."""
        yield from ((name, _FOLDER_MODE, 0) for name in (".", ".."))
        with _told():
            for name, number in entries(self._space.index, path[1:]):
                if len(os.fsencode(name)) > _LONGEST_NAME:
                    _LOG.warning("left out, its name is too long for FUSE: %r in %r", name, path)
                elif number is not None:
                    yield name, stat.S_IFREG, 0
                elif self._space.index.find(f"{path}/{name}".lstrip("/")) is not None:
                    _LOG.warning("left out, it lies below a file: what begins with %r", f"{path}/{name}/".lstrip("/"))
                else:
                    yield name, _FOLDER_MODE, 0

    def open(self, path: str, flags: int) -> int:
        """The number of a sample; nothing is read yet."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise _error(errno.EROFS, path)
        with _told():
            number = self._find(path[1:])
            if number is None:
                raise _error(errno.ENOENT, path)
            return number

    def read(self, _path: str | None, size: int, offset: int, number: int) -> bytes:
        """Bytes of a sample, verified."""
        with _told():
            return self._space.read_part(number, offset, size)

    def statfs(self, _path: str) -> dict[str, int]:
        """How large it is; nothing is free."""
        return {
            "f_bsize": _BLOCK_BYTES,
            "f_frsize": _BLOCK_BYTES,
            "f_blocks": -(-self._space.data_bytes // _BLOCK_BYTES),
            "f_files": len(self._space),
            "f_namemax": _LONGEST_NAME,
        }


@contextmanager
def _told() -> Iterator[None]:
    """Damage, or a remote that does not answer, goes to the log, and to who asked as EIO."""
    try:
        yield
    except TandemError as error:
        _LOG.error("%s", error)
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from error


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _mfusepy() -> Any:  # noqa: ANN401 - a module, looked at only here
    try:
        return importlib.import_module("mfusepy")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            given="mounting needs the package 'mfusepy', which is not installed",
            allowed="reading by the library, `tandem data cat`, or tandem:// URLs, without it",
            todo="run: pip install 'tandemlab[mount]'",
        ) from error
    except OSError as error:
        raise MissingPackageError(
            given="mounting needs the library libfuse, which is not installed",
            allowed="reading by the library, `tandem data cat`, or tandem:// URLs, without it",
            todo="install your distribution's package fuse3 (Debian: apt install fuse3)",
        ) from error


def _refused(place: str, status: int, *, allow_other: bool) -> MountError:
    other = "; --allow-other needs user_allow_other in /etc/fuse.conf" if allow_other and os.geteuid() else ""
    return MountError(
        given=f"{place} cannot be mounted on: {_ENDINGS.get(status, f'libfuse ended with status {status}')}{other}",
        allowed="a folder of your own, and a machine with /dev/fuse",
        todo="see what libfuse said above",
    )
