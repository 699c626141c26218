"""What every scheduler of this machine has given out, seen through lock files that all users share.

One byte of `cores` stands for one core; 100 bytes of `gpus` stand for one GPU, so that a share of a GPU is a range of
them. A keeper holds its job's bytes with open-file-description locks; they vanish with it, however it ends. The files
say nothing and need no trust: a user who locks bytes without using the cores only keeps cores idle.

Where the files are removed, a core may be given out twice: `identity` tells that it happened, and keepers then lock in
the new file. What `held` holds is not locked again.

The directory is `$TANDEM_LOCK_DIR`, else `/run/lock/tandem`, else `/tmp/tandem-locks` (shared, sticky).
"""

import fcntl
import os
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from tandem.core.errors import MachineBusyError
from tandem.core.process.spec import ByteRange

Kind = Literal["cores", "gpus"]
KINDS: Final[tuple[Kind, ...]] = ("cores", "gpus")

GPU_SLOTS: Final = 100
_SHARED_DIRS = (Path("/run/lock/tandem"), Path("/tmp/tandem-locks"))  # the same for every user of the machine
_WIDTH: dict[Kind, int] = {"cores": 1, "gpus": GPU_SLOTS}
_FLOCK = struct.Struct("hhqqi4x")
_OLD_S = 3600.0


def lock_dir(*, make: bool = True) -> Path:
    """Return the machine-wide directory, made if it has to be; or, unless ``make``, as it would be.

    Raises:
        MachineBusyError: It exists but is not what it should be (a link, a file, private to another user), or it cannot
            be made.
    """
    chosen = os.environ.get("TANDEM_LOCK_DIR")
    if chosen:
        return _checked(Path(chosen), make=make)
    if _SHARED_DIRS[0].exists() or os.access(_SHARED_DIRS[0].parent, os.W_OK):
        return _checked(_SHARED_DIRS[0], make=make)
    return _checked(_SHARED_DIRS[1], make=make)


def lock_file(kind: Kind) -> Path:
    """Return the lock file of the kind, made if it has to be."""
    path = lock_dir() / kind
    with suppress(FileExistsError):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        os.fchmod(fd, 0o666)  # whatever the umask
        os.close(fd)
    return path


def identity(kind: Kind, now: float) -> tuple[int, int]:
    """Return which file the lock file is: another one, once it was removed and made again while somebody held it.

    One that looks an hour old at the time ``now`` is touched: cleaners of temporary folders leave it then.
    """
    with _open(kind) as fd:
        info = os.fstat(fd)
        if abs(now - info.st_mtime) > _OLD_S:
            with suppress(OSError):  # not everybody may, where somebody made it by hand
                os.utime(fd)
    return info.st_dev, info.st_ino


def gpu_range(index: int, *, first_slot: int = 0, slots: int = GPU_SLOTS) -> ByteRange:
    """Return the lock of a GPU, or of `slots` hundredths of it from `first_slot` on."""
    return ByteRange(path=str(lock_file("gpus")), first=index * GPU_SLOTS + first_slot, count=slots)


def foreign_holders(kind: Kind, indices: Iterable[int]) -> frozenset[int]:
    """Return which of the cores or GPUs somebody holds at least in part, without taking anything.

    Locks have no visible owner: what the caller's own keepers hold is included, and the caller knows those.
    """
    width = _WIDTH[kind]
    with _open(kind) as fd:
        return frozenset(index for index in indices if _is_held(fd, index * width, width))


def held_slots(gpu: int) -> frozenset[int]:
    """Return which hundredths of the GPU somebody holds."""
    with _open("gpus") as fd:
        if not _is_held(fd, gpu * GPU_SLOTS, GPU_SLOTS):
            return frozenset()
        return frozenset(slot for slot in range(GPU_SLOTS) if _is_held(fd, gpu * GPU_SLOTS + slot, 1))


@contextmanager
def held(cores: Iterable[int], gpus: Iterable[int] = ()) -> Iterator[None]:
    """Hold cores and whole GPUs for as long as the block runs, so that no scheduler of this machine gives them out.

    Raises:
        MachineBusyError: somebody holds one of them; says which.
    """
    wanted: dict[Kind, Iterable[int]] = {"cores": cores, "gpus": gpus}
    with ExitStack() as stack:
        for kind, indices in wanted.items():
            fd = os.open(lock_file(kind), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            busy = [index for index in indices if not _took(fd, index * _WIDTH[kind], _WIDTH[kind])]
            if busy:
                one = {"cores": "core", "gpus": "GPU"}[kind]
                raise MachineBusyError(
                    given=f"{one}{'s' if len(busy) > 1 else ''} {', '.join(map(str, busy))}, "
                    "held by a job, another scheduler or another `tandem profile`",
                    allowed=f"{one}s that nobody uses",
                    todo="wait until it has ended (`tandem queue` shows the jobs)",
                )
        yield


def _took(fd: int, first: int, count: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, count, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_held(fd: int, first: int, count: int) -> bool:
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
    return bool(_FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question))[0] != fcntl.F_UNLCK)


@contextmanager
def _open(kind: Kind) -> Iterator[int]:
    fd = os.open(lock_file(kind), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _checked(folder: Path, *, make: bool) -> Path:
    try:
        if make:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o777)
                folder.chmod(0o1777)  # whatever the umask; sticky: nobody removes another's file
        elif not os.path.lexists(folder):
            with tempfile.TemporaryDirectory(dir=folder.parent):
                return folder
        info = folder.lstat()
    except OSError as error:
        raise MachineBusyError(
            given=f"the lock directory {folder}, which cannot be made ({error.strerror})",
            allowed="a directory with mode 1777 that all users share",
            todo=f"ask an administrator to run: install -d -m 1777 {folder}",
        ) from error
    if not stat.S_ISDIR(info.st_mode) or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise MachineBusyError(
            given=f"the lock directory {folder}, which this user cannot use",
            allowed="a directory with mode 1777 that all users share",
            todo=f"ask an administrator to run: install -d -m 1777 {folder}",
        )
    return folder
