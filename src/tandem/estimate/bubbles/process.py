"""The process of a bubble or reporter: started, told a level, read without asking it, ended.

It holds two things of ours: a page of shared memory without a name, where it counts (`native/page.hpp`), and the read
end of a pipe, through which levels are sent and whose end ends it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import struct
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from tandem.core.errors import TandemError
from tandem.core.process.schedstat import waited_s
from tandem.estimate.profile import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE_BYTES: Final = 256 + 64 * 4096
"""Size of `Page` in native/page.hpp: the reason of a failure, then a slot for each thread."""

_FAILURE_BYTES = 256
_SLOT = struct.Struct("=QQqI")  # sequence, operations, nanoseconds, state
_SLOT_BYTES = 64
_IDLE, _RUNNING = 1, 2
_DISK_THREADS = 2  # threads_per_core() in native/kernel.cpp
_PAGE_FD, _CONTROL_FD = 3, 4
_ABOVE_THOSE = 10
START_S = 30.0  # a disk may be slow with the first file
_ANSWER_S = 10.0
_POLL_S = 0.0005


class BubbleError(TandemError):
    """A bubble or reporter that cannot be had as asked for."""


class BubbleMissingError(TandemError):
    """An installation without the native part of bubbles."""


def program() -> Path:
    """Return the executable: `$TANDEM_BUBBLE`, else the one installed with the package.

    Raises:
        BubbleMissingError: It was not built; Python could not press on a memory hard enough to be a substitute.
    """
    chosen = os.environ.get("TANDEM_BUBBLE")
    installed = Path(sysconfig.get_path("platlib"), "tandem", "estimate", "bubbles")  # an editable installation
    places = [Path(chosen)] if chosen else [folder / "tandem-bubble" for folder in (Path(__file__).parent, installed)]
    for place in places:
        if os.access(place, os.X_OK):
            return place
    raise BubbleMissingError(
        given=f"no executable {places[0]}" if chosen else "an installation without tandem-bubble (no C++ compiler?)",
        allowed="bubbles and reporters with the native part of Tandem",
        todo="install g++ or clang++ and reinstall tandemlab, or let TANDEM_BUBBLE name one built elsewhere",
    )


class Process:
    """One `tandem-bubble`, idle when the constructor returns."""

    def __init__(
        self, role: str, kind: str, cores: tuple[int, ...], folder: Path | None, start_s: float = START_S
    ) -> None:
        """Start it and wait until it is ready.

        Args:
            role: "bubble" or "reporter".
            kind: One of `tandem.estimate.profile.KINDS`.
            cores: Logical processors to run on, a thread on each (two for a bubble that waits for a disk).
            folder: Where a kind that works on files makes its nameless file; None takes the temporary folder.
            start_s: How long it may take until it is ready.

        Raises:
            BubbleError: The kind, a core or the folder does not exist, or there is too little memory or disk.
            BubbleMissingError: See `program`.
        """
        _check(kind, cores)
        self.kind, self.cores = kind, cores
        self._threads = len(cores) * (_DISK_THREADS if role == "bubble" and kind.startswith("fs_") else 1)
        words = [str(program()), role, kind, ",".join(map(str, cores)), str(folder or tempfile.gettempdir())]
        memory = os.memfd_create("tandem-bubble")
        try:
            os.ftruncate(memory, PAGE_BYTES)
            self._page = mmap.mmap(memory, PAGE_BYTES)
            self.pid, self._control = _spawn([*words, str(os.getpid())], memory)
        finally:
            os.close(memory)
        self._running = True
        try:
            self._wait(lambda state: state != 0, start_s)
        except BaseException:  # a Ctrl-C too: nobody else could close it
            self.close()
            raise

    def set(self, level: float) -> None:
        """Send a raw level; 0 is idle.

        Raises:
            BubbleError: The process has ended, and why.
        """
        if not self._running:
            raise self._ended()
        try:
            os.write(self._control, struct.pack("=d", level))
        except BrokenPipeError as error:
            raise self._ended() from error

    def go(self) -> None:
        """Work at level 1, and return when every thread does."""
        self.set(1.0)
        self._wait(lambda state: state == _RUNNING, _ANSWER_S)

    def rest(self) -> None:
        """Pause, and return when every thread has."""
        self.set(0.0)
        self._wait(lambda state: state == _IDLE, _ANSWER_S)

    def count(self) -> tuple[int, float]:
        """Return the operations of all threads so far, and the `time.monotonic()` at which that was so (their mean)."""
        slots = [self._slot(i) for i in range(self._threads)]
        return sum(count for count, _, _ in slots), sum(ns for _, ns, _ in slots) / len(slots) * 1e-9

    def waited_s(self) -> float:
        """Return the seconds that its threads were ready to run while somebody else had their cores."""
        return waited_s(self.pid)

    def close(self) -> None:
        """End it at once; a second call does nothing."""
        if self._running:
            self._running = False
            os.close(self._control)
            os.kill(self.pid, signal.SIGKILL)  # our child, not yet waited for: the id is nobody else's
            os.waitpid(self.pid, 0)
            self._page.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _slot(self, thread: int) -> tuple[int, int, int]:
        """Read one thread's (operations, nanoseconds, state) as they were at one instant."""
        offset = _FAILURE_BYTES + thread * _SLOT_BYTES
        while True:
            before, count, ns, state = _SLOT.unpack_from(self._page, offset)
            (after,) = struct.unpack_from("=Q", self._page, offset)
            if before == after and before % 2 == 0:
                return count, ns, state

    def _wait(self, told: Callable[[int], bool], patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not all(told(self._slot(i)[2]) for i in range(self._threads)):
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                raise self._ended()
            if time.monotonic() > deadline:
                self.close()
                raise BubbleError(
                    given=f"{self.kind} on cores {self.cores}, silent for {patience_s:g} s",
                    allowed="processes that get to run",
                    todo="see what else holds these cores or the disk (top, iostat), and try again",
                )
            time.sleep(_POLL_S)

    def _ended(self) -> BubbleError:
        why = "it was closed"
        if self._running:
            why = self._page[:_FAILURE_BYTES].partition(b"\0")[0].decode(errors="replace") or "somebody ended it"
            self.close()
        return BubbleError(
            given=f"{self.kind} on cores {self.cores}, which has ended: {why}",
            allowed="cores, memory and a folder that this user may use",
            todo="choose others (taskset -pc $$ lists the cores) or make room, and start it again",
        )


def _check(kind: str, cores: tuple[int, ...]) -> None:
    if kind not in KINDS:
        raise BubbleError(
            given=f"a bubble of the kind {kind!r}",
            allowed=", ".join(KINDS),
            todo="choose one of these (those of a GPU are in tandem.estimate.bubbles.gpu)",
        )
    usable = os.sched_getaffinity(0)
    if not cores or not set(cores) <= usable:
        raise BubbleError(
            given=f"cores {cores}",
            allowed=f"one or more of {', '.join(map(str, sorted(usable)))}",
            todo="choose cores that this process may use",
        )


def _spawn(words: list[str], memory: int) -> tuple[int, int]:
    """Start the programme; return its process id and the writing end of its control pipe."""
    theirs, ours = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE_THOSE) for fd in (memory, theirs)]  # out of the targets' way
    os.close(theirs)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, high[0], _PAGE_FD),
        (os.POSIX_SPAWN_DUP2, high[1], _CONTROL_FD),
    ]
    try:
        return os.posix_spawn(words[0], words, {}, file_actions=actions), ours
    except BaseException:
        os.close(ours)
        raise
    finally:
        for fd in high:
            os.close(fd)
