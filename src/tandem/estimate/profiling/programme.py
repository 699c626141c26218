"""One programme under measurement: pinned, in a session of its own, paused and continued, and gone when we are.

    with Programmes() as programmes:
        cg = programmes.add("cg", ["python", "benchmarks/apps/cg.py"], cores=[0])
        cg.start()
        cg.pause()

A paused programme is stopped (SIGSTOP): it keeps its memory and costs nothing else. Each hangs on a process of its own,
the *watcher*, below which all is found that it started, whatever lost its parent included. Whatever ends this process,
`kill -9` included, ends the programmes: their watchers see our end of a socket close.

Limits: Linux; those of `tandem.estimate.profiling.watcher`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tandem.core.clock import SystemClock
from tandem.core.errors import TandemError, one_line
from tandem.core.process.schedstat import threads
from tandem.core.records import RUN_DIR_VARIABLE
from tandem.estimate.profiling.watcher import descendants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RECORD_EVERY_VARIABLE = "TANDEM_RECORD_EVERY_S"
RECORD_EVERY_S = 0.01

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TORCH_NUM_THREADS",
)

_READ_BYTES = 2000
_MOST_LOG_BYTES = 1 << 26
"""What it printed is forgotten beyond this: only the end is ever shown."""

_SHOWN_LINES = 3
_SHOWN = 200
"""Characters of what it last wrote that are told: the end, where the reason stands."""


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
        self._pid: int | None = None
        self._pidfd = -1
        self._paused = False
        self._waited_s = self._kept_s = 0.0
        self._looked = time.monotonic(), 0.0, 0.0
        self._threads: dict[int, tuple[float, float]] = {}
        self._socket, theirs = socket.socketpair()
        self._answers = self._socket.makefile("rb")
        with theirs:
            self._watcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "tandem.estimate.profiling.watcher", str(folder.parent)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def run_dir(self) -> Path:
        """The folder of its present run, empty when the run begins."""
        return self._folder / f"run{self.runs}"

    @property
    def pid(self) -> int | None:
        """The first process of its present run, None before the first."""
        return self._pid

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
        with (self.run_dir / "stdout").open("ab") as out, (self.run_dir / "stderr").open("ab") as err:
            written = (out.fileno() if self.output is None else self.output, err.fileno())
            told = self._ask("start", [self.argv, env, self.cores], written)
        if "pid" not in told:
            self.runs -= 1
            raise ProgrammeError(
                given=f"{self.argv[0]!r} cannot be executed ({told.get('error', 'its watcher was killed')})",
                allowed="a programme that is found here",
                todo="check the path, and that it may be executed",
            )
        self._pid = int(told["pid"])
        self._pidfd = os.pidfd_open(self._pid)

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
        """Notice an end; returns `ended`. What it printed is kept small."""
        for name in ("stdout", "stderr"):
            with contextlib.suppress(OSError):
                if (self.run_dir / name).stat().st_size > _MOST_LOG_BYTES:
                    os.truncate(self.run_dir / name, 0)
        if self.ended is None and self._pid is not None and select.select([self._pidfd], [], [], 0)[0]:
            now = SystemClock().now()
            told = self._ask("end")
            self._waited_s += told.get("waited_s", 0.0)
            self.ended = (now, told.get("status", -signal.SIGKILL))
            self._close()
        return self.ended

    def fileno(self) -> int:
        """A descriptor that is readable once the first process has ended; -1 where none runs."""
        return self._pidfd

    def cpu_s(self) -> float:
        """Seconds of processor time that all its runs together have used so far."""
        self.poll()
        return float(self._ask("spent").get("spent_s", 0.0)) + sum(map(_cpu_s, self._members()))

    def waited_s(self) -> float:
        """Seconds that its threads were ready to run while others had its cores, all its runs together.

        Those for which its own threads waited for one another are left out: where they are more than its cores, each
        second on a core is one for which the others wait, and a core that others have is one for which all do. Between
        two calls others had at most what it did not use itself. Of runs that have ended, their first process.
        """
        now, used_s = time.monotonic(), self.cpu_s()
        seen = {thread: told for pid in self._members() for thread, told in threads(pid).items()}
        ran_s, waited_s = [], 0.0
        for thread, (ran, waited) in seen.items():
            had_run, had_waited = self._threads.get(thread, (0.0, 0.0))
            ran_s.append(max(0.0, ran - had_run))
            waited_s += max(0.0, waited - had_waited)
        then, was_used_s, was_ended_s = self._looked
        kept_s = _kept_by_others_s(ran_s, waited_s + self._waited_s - was_ended_s, len(self.cores))
        most = len(self.cores) * (now - then) - (used_s - was_used_s)
        self._kept_s += max(0.0, min(kept_s, most))
        self._looked, self._threads = (now, used_s, self._waited_s), seen
        return self._kept_s

    def memory_bytes(self) -> int:
        """Resident memory of its processes."""
        return sum(map(_resident_bytes, self._members()))

    def tail(self) -> str:
        """The last lines that it wrote to standard error, or else to standard output, as one line."""
        for name in ("stderr", "stdout"):
            with contextlib.suppress(OSError):
                with (self.run_dir / name).open("rb") as log:
                    log.seek(max(0, os.fstat(log.fileno()).st_size - _READ_BYTES))
                    text = log.read(_READ_BYTES).decode(errors="replace").strip()
                if text:
                    line = one_line(" | ".join(text.splitlines()[-_SHOWN_LINES:]))
                    return line if len(line) <= _SHOWN else f"... {line[-_SHOWN:]}"
        return "nothing"

    def kill(self) -> None:
        """End it and all that it started."""
        if self._pid is None:
            return
        self._ask("kill")
        if self.ended is None:
            self.ended = (SystemClock().now(), -signal.SIGKILL)
            self._close()
        self._pid = None

    def leave(self) -> None:
        """Tell the watcher, for good, that nobody asks any more; it ends all that there is."""
        self._answers.close()
        self._socket.close()

    def gone(self) -> None:
        """Wait until the watcher has ended, and everything with it."""
        self._watcher.wait()

    def _close(self) -> None:
        os.close(self._pidfd)
        self._pidfd = -1

    def _signal(self, number: int) -> None:
        assert self._pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, number)
        for pid in self._members():
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) != self._pid:
                    os.kill(pid, number)

    def _members(self) -> list[int]:
        """Its first process and what descends from that, parents or no parents."""
        return [] if self._pid is None or self.ended is not None else descendants(self._watcher.pid)

    def _ask(self, what: str, told: object = None, descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """The watcher's answer; {} where somebody has killed it."""
        line = json.dumps({what: told}).encode() + b"\n"
        with contextlib.suppress(ConnectionError):
            sent = socket.send_fds(self._socket, [line], descriptors)
            self._socket.sendall(line[sent:])
            if answer := self._answers.readline():
                return dict(json.loads(answer))
        return {}


class Programmes:
    """The programmes that are measured together, in a folder that goes with them.

    Args:
        env: variables on top of this process's environment.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tandem-profiling-")).resolve()
        self._members: list[Programme] = []
        own = {RECORD_EVERY_VARIABLE: str(RECORD_EVERY_S), **(env or {})}
        self._env = {**os.environ, **own}

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
        """End everything, and remove the folder."""
        for one in self._members:
            one.leave()
        for one in self._members:
            one.gone()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kept_by_others_s(ran_s: Sequence[float], waited_s: float, cores: int) -> float:
    """How long others kept threads from cores.

    Args:
        ran_s: For how long each thread ran.
        waited_s: For how long they were ready and did not run, all together.
        cores: How many they have.

    >>> _kept_by_others_s([0.5, 0.5], 1.0, cores=1)  # they took turns
    0.0
    >>> _kept_by_others_s([0.25, 0.25], 1.5, cores=1)  # somebody else had the core for half a second
    0.5
    """
    squares = sum(ran * ran for ran in ran_s)
    at_once = sum(ran_s) ** 2 / squares if squares else 1.0  # as many as it would be if all ran as long
    if at_once <= cores:
        return waited_s
    for_each_other_s = (at_once / cores - 1.0) * sum(ran_s)
    return max(0.0, waited_s - for_each_other_s) * cores / at_once


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
