"""One programme under measurement: pinned, in a session of its own, paused and continued, and gone when we are.

    with Programmes() as programmes:
        cg = programmes.add("cg", ["python", "benchmarks/apps/cg.py"], cores=[0])
        cg.start()
        cg.pause()

A paused programme is stopped (SIGSTOP): it keeps its memory and costs nothing else. Whatever ends this process,
`kill -9` included, ends the programmes: their first process by the kernel (PR_SET_PDEATHSIG), what it started by a
watcher that sees our end of a pipe close and kills whatever carries our mark in its environment.

Limits: Linux. A descendant that begins a session of its own *and* loses its parent is not paused (it is killed).
PR_SET_PDEATHSIG looks at the thread that started the programme: start programmes from a thread that lives long.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tandem.core.clock import SystemClock
from tandem.core.errors import TandemError, one_line
from tandem.core.process import strays
from tandem.core.process.schedstat import waited_s
from tandem.core.records import RUN_DIR_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

RECORD_EVERY_VARIABLE = "TANDEM_RECORD_EVERY_S"
RECORD_EVERY_S = 0.01

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TORCH_NUM_THREADS",
)

_PR_SET_PDEATHSIG = 1
_SHOWN_LINES = 3
_SHOWN = 200
"""Characters of what it last wrote that are told: the end, where the reason stands."""
_libc = ctypes.CDLL(None, use_errno=True)


class ProgrammeError(TandemError):
    """A programme that cannot be measured."""


class Programme:
    """One argv, run once or again and again on the same cores; made by `Programmes.add`.

    Attributes:
        name: what it is called.
        cores: those it is pinned to.
        runs: how many times it was started.
        ended: the time and exit status of its last end (negative: a signal), or None while it runs.
    """

    def __init__(
        self, name: str, argv: Sequence[str], cores: Sequence[int], folder: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.cores = tuple(cores)
        self.runs = 0
        self.ended: tuple[float, int] | None = None
        self.output: int | None = None
        """Descriptor that its standard output goes to instead of a file, where one is set."""
        self._folder = folder
        self._env = dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._paused = False
        self._spent_s = self._waited_s = 0.0

    @property
    def run_dir(self) -> Path:
        """The folder of its present run, empty when the run begins."""
        return self._folder / f"run{self.runs}"

    @property
    def pid(self) -> int | None:
        """The first process of its present run, None before the first."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a run; what is left of the last one is killed.

        Raises:
            ProgrammeError: It cannot be executed.
        """
        self.kill()
        shutil.rmtree(self.run_dir, ignore_errors=True)  # the last run's
        self.runs += 1
        self.run_dir.mkdir(parents=True)
        self.ended, self._paused = None, False
        env = {**self._env, RUN_DIR_VARIABLE: str(self.run_dir)}
        with (self.run_dir / "stdout").open("wb") as out, (self.run_dir / "stderr").open("wb") as err:
            try:
                self._process = subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out if self.output is None else self.output,
                    stderr=err,
                    env=env,
                    start_new_session=True,
                    preexec_fn=_before_exec(self.cores, os.getpid()),
                )
            except (OSError, subprocess.SubprocessError) as error:
                self.runs -= 1
                raise ProgrammeError(
                    given=f"{self.argv[0]!r} cannot be executed ({error})",
                    allowed="a programme that is found here",
                    todo="check the path, and that it may be executed",
                ) from error
        self._pidfd = os.pidfd_open(self._process.pid)

    def pause(self) -> None:
        """Stop all its processes; they cost nothing but memory until `go`."""
        if not self._paused and self.ended is None:
            self._paused = True
            self._signal(signal.SIGSTOP)

    def go(self) -> None:
        """Let it run on."""
        if self._paused:
            self._paused = False
            self._signal(signal.SIGCONT)

    def place(self, cores: Sequence[int]) -> None:
        """Pin it, with all threads it has, to other cores."""
        if tuple(cores) == self.cores:
            return
        self.cores = tuple(cores)
        for pid in self._members():
            for task in _entries(Path(f"/proc/{pid}/task")):
                with contextlib.suppress(OSError):  # the thread is gone
                    os.sched_setaffinity(int(task.name), self.cores)

    def poll(self) -> tuple[float, int] | None:
        """Notice an end; returns `ended`."""
        if self.ended is None and self._process is not None and select.select([self._pidfd], [], [], 0)[0]:
            now = SystemClock().now()
            self._waited_s += waited_s(self._process.pid)  # of the zombie: gone once it is reaped
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            status = self._process.wait()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            self._spent_s += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            self.ended = (now, status)
            self._close()
        return self.ended

    def fileno(self) -> int:
        """A descriptor that is readable once the first process has ended; -1 where none runs."""
        return self._pidfd

    def cpu_s(self) -> float:
        """Seconds of processor time that all its runs together have used so far."""
        if self.poll() is not None or self._process is None:
            return self._spent_s
        return self._spent_s + sum(map(_cpu_s, self._members()))

    def waited_s(self) -> float:
        """Seconds that its threads were ready to run while somebody else had their cores, all its runs together.

        Of runs that have ended, their first process.
        """
        return self._waited_s + sum(map(waited_s, self._members()))

    def memory_bytes(self) -> int:
        """Resident memory of its processes."""
        return sum(map(_resident_bytes, self._members()))

    def tail(self) -> str:
        """The last lines that it wrote to standard error, or else to standard output, as one line."""
        for name in ("stderr", "stdout"):
            with contextlib.suppress(OSError):
                text = (self.run_dir / name).read_text(errors="replace")[-2000:].strip()
                if text:
                    line = one_line(" | ".join(text.splitlines()[-_SHOWN_LINES:]))
                    return line if len(line) <= _SHOWN else f"... {line[-_SHOWN:]}"
        return "nothing"

    def kill(self) -> None:
        """End it and all that it started."""
        if self._process is None:
            return
        if self.ended is None:
            members = self._members()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self.ended = (SystemClock().now(), -signal.SIGKILL)
            self._close()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # what the first process left behind
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None

    def _close(self) -> None:
        os.close(self._pidfd)
        self._pidfd = -1

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        for pid in self._members():
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) != self._process.pid:
                    os.kill(pid, number)

    def _members(self) -> list[int]:
        """Its first process and what descends from that."""
        if self._process is None or self.ended is not None:
            return []
        found = [self._process.pid]
        for pid in found:
            for task in _entries(Path(f"/proc/{pid}/task")):
                with contextlib.suppress(OSError):
                    found += map(int, (task / "children").read_text().split())
        return found


class Programmes:
    """The programmes that are measured together, in a folder that goes with them.

    Args:
        env: variables on top of this process's environment.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tandem-profiling-")).resolve()
        self._members: list[Programme] = []
        own = {RECORD_EVERY_VARIABLE: str(RECORD_EVERY_S), **(env or {})}
        self._env = {**os.environ, **own, strays.MARK: str(self.folder)}
        self._watcher = subprocess.Popen(
            [sys.executable, "-m", "tandem.estimate.profiling.watcher", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def add(
        self, name: str, argv: Sequence[str], cores: Sequence[int], env: Mapping[str, str] | None = None
    ) -> Programme:
        """Make a programme that has not been started; its thread counts follow the cores unless ``env`` says more."""
        threads = dict.fromkeys(THREAD_VARIABLES, str(len(cores)))
        folder = self.folder / f"{len(self._members)}"
        one = Programme(name, argv, cores, folder, {**self._env, **threads, **(env or {})})
        self._members.append(one)
        return one

    def __iter__(self) -> Iterator[Programme]:
        """In the order in which they were added."""
        return iter(self._members)

    def close(self) -> None:
        """End everything; the watcher removes the folder and whatever hid from us."""
        for one in self._members:
            one.kill()
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _before_exec(cores: Sequence[int], parent: int) -> Callable[[], None]:
    """What the child does between fork and exec: pin itself, and ask to die with us."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # we died before it could ask
        os.sched_setaffinity(0, cores)

    return prepare


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    """Processor time of one process with its threads (to the nanosecond) and its reaped children (to 10 ms)."""
    try:
        own = time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return own + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
