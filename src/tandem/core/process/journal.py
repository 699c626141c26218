"""What is durably known about one attempt: the journal that its keeper wrote.

Lines are appended and synced one by one; a last line without its end was torn by a crash and is ignored. The keeper
locks the journal for its life, so a reader can tell a living keeper from a dead one without trusting a process id.
"""

import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

State = Literal["unclaimed", "claimed", "running", "lost", "ended"]

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid


@dataclass(frozen=True, kw_only=True)
class ProcessId:
    """A process that cannot be mistaken for another: its id and its start in clock ticks since boot."""

    pid: int
    start_ticks: int

    def lives(self) -> bool:
        """Whether it exists, be it as a zombie."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return False
        return int(fields[19]) == self.start_ticks


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the job and everything below it used."""

    user_s: float
    system_s: float
    max_rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What the journal says.

    Attributes:
        claimed: A keeper took this attempt; it can never be started again.
        keeper: That keeper.
        boot_id: The boot during which it ran.
        process: The job's main process; None means that certainly nothing was executed.
        started_at: When it was released to execute, in seconds since 1970.
        continued_at: When its keeper last let it go on, suspended as it was, since no scheduler was there.
        timed_out_at: When its keeper began to end it at its time limit, since no scheduler was there.
        exec_error: Why nothing could be executed, as (errno, reason).
        exit_code: The true exit code; -1 if a signal ended it; None while unknown.
        signal: The signal that ended it, or 0.
        usage: CPU time and memory.
        memory_kills: How many of its processes the kernel killed because its group's memory limit was reached.
        memory_limit_bytes: That limit.
        ended_at: When the end was seen, in seconds since 1970.
        busy: The lock file and byte that somebody else holds; nothing was executed.
    """

    claimed: bool = False
    keeper: ProcessId | None = None
    boot_id: str | None = None
    process: ProcessId | None = None
    started_at: float | None = None
    continued_at: float | None = None
    timed_out_at: float | None = None
    exec_error: tuple[int, str] | None = None
    exit_code: int | None = None
    signal: int | None = None
    usage: Usage | None = None
    memory_kills: int = 0
    memory_limit_bytes: int = 0
    ended_at: float | None = None
    busy: tuple[str, int] | None = None

    @property
    def ended(self) -> bool:
        """Whether the end is known."""
        return self.exit_code is not None or self.exec_error is not None or self.busy is not None


def parse(text: str) -> Fate:
    """Read the text of a journal; unknown lines (of a newer keeper) and a torn last line are passed over."""
    fate = Fate()
    for line in text.split("\n")[:-1]:
        word, _, rest = line.partition(" ")
        reader = _READERS.get(word)
        fate = reader(fate, rest) if reader else fate
    return fate


def read(attempt_dir: Path) -> Fate:
    """Return what is known about the attempt; an attempt without a journal was not claimed."""
    try:
        data = (attempt_dir / "journal").read_bytes()
    except FileNotFoundError:
        return Fate()
    return parse(data.decode(errors="replace"))


def keeper_alive(attempt_dir: Path) -> bool:
    """Return whether the attempt's keeper lives, by the lock that it holds."""
    try:
        fd = os.open(attempt_dir / "journal", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def state(attempt_dir: Path) -> State:
    """Return where the attempt stands.

    `lost` means that the keeper is gone without a known end; if moreover `read(...).process` is None, nothing was
    executed and a new attempt is safe. `claimed` passes into another state within moments.
    """
    alive = keeper_alive(attempt_dir)  # before reading: the keeper may write its end and leave in between
    fate = read(attempt_dir)
    if not fate.claimed:
        return "unclaimed"
    if fate.ended:
        return "ended"
    if not alive:
        return "lost"
    return "running" if fate.process else "claimed"


def _claim(fate: Fate, rest: str) -> Fate:
    pid, start, boot_id, _ = rest.split(" ")
    return replace(fate, claimed=True, keeper=ProcessId(pid=int(pid), start_ticks=int(start)), boot_id=boot_id)


def _pid(fate: Fate, rest: str) -> Fate:
    pid, start, at = rest.split(" ")
    return replace(fate, process=ProcessId(pid=int(pid), start_ticks=int(start)), started_at=float(at))


def _continued(fate: Fate, rest: str) -> Fate:
    return replace(fate, continued_at=float(rest))


def _timed_out(fate: Fate, rest: str) -> Fate:
    return replace(fate, timed_out_at=float(rest))


def _exec_failed(fate: Fate, rest: str) -> Fate:
    number, _, reason = rest.partition(" ")
    return replace(fate, exec_error=(int(number), reason))


def _exit(fate: Fate, rest: str) -> Fate:
    code, signal, user, system, rss_kib, at = rest.split(" ")
    usage = Usage(user_s=float(user), system_s=float(system), max_rss_bytes=int(rss_kib) * 1024)
    return replace(fate, exit_code=int(code), signal=int(signal), usage=usage, ended_at=float(at))


def _memory_kills(fate: Fate, rest: str) -> Fate:
    kills, limit = rest.split(" ")
    return replace(fate, memory_kills=int(kills), memory_limit_bytes=int(limit))


def _busy(fate: Fate, rest: str) -> Fate:
    path, _, byte = rest.rpartition(" ")
    return replace(fate, busy=(path, int(byte)))


_READERS: dict[str, Callable[[Fate, str], Fate]] = {
    "claim": _claim,
    "pid": _pid,
    "continued": _continued,
    "timed-out": _timed_out,
    "exec-failed": _exec_failed,
    "memory-kills": _memory_kills,
    "exit": _exit,
    "busy": _busy,
}
