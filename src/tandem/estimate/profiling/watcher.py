"""Starts the runs of one programme, and ends all that came of them: when it is asked to, or when whoever asks is gone.

    python -P -m tandem.estimate.profiling.watcher FOLDER

Standard input is a socket over which `tandem.estimate.profiling.programme` asks, a line of JSON for a line of JSON:

    {"start": [argv, env, cores]} -> {"pid": 17}   with the descriptors of its output; {"error": "..."}: it cannot be
    {"end": null} -> {"status": 0, "waited_s": 0.1}    of the present run's first process, which must have ended
    {"spent": null} -> {"spent_s": 1.5}    processor time of all that has ended
    {"kill": null} -> {}    nothing is left of the run

Once the socket ends, as it does when whoever asks dies, everything is killed and FOLDER removed. What the programme
starts is found by descent: whatever loses its parent becomes this process's child (PR_SET_CHILD_SUBREAPER).

Limits: Linux. What another service starts for the programme (cron, systemd, docker) is none of its descendants, and
what this user may not signal (sudo) is left. Killed itself, it takes only the programme's first process with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem.core.process.schedstat import waited_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CHUNK_BYTES = 1 << 16
_PATIENCE_S = 10.0
"""A process that does not die within this time waits for a device."""
_BURY_EVERY_S = 1.0
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Answer until nobody asks; then kill and remove."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = Path(sys.argv[1])
    with socket.socket(fileno=0) as asked, contextlib.suppress(ConnectionError):
        runs = _Runs()
        for line, descriptors in _lines(asked, runs.bury):
            (what, told), *_ = json.loads(line).items()
            answer = runs.start(told, descriptors) if what == "start" else getattr(runs, what)()
            asked.sendall(json.dumps(answer).encode() + b"\n")
    _end_all()
    shutil.rmtree(folder, ignore_errors=True)


def descendants(pid: int) -> list[int]:
    """Whatever descends from a process and is there; parents before their children."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):  # gone meanwhile
            for task in Path(f"/proc/{one}/task").iterdir():
                with contextlib.suppress(OSError):
                    found += map(int, (task / "children").read_text().split())
    return found[1:]


class _Runs:
    """What can be asked for."""

    def __init__(self) -> None:
        self._first: subprocess.Popen[bytes] | None = None

    def start(self, told: tuple[list[str], dict[str, str], list[int]], output: Sequence[int]) -> dict[str, Any]:
        argv, env, cores = told
        try:
            self._first = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output[0],
                stderr=output[1],
                env=env,
                start_new_session=True,
                preexec_fn=_before_exec(cores, os.getpid()),
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return {"error": str(error)}
        finally:
            for one in output:
                os.close(one)
        return {"pid": self._first.pid}

    def end(self) -> dict[str, Any]:
        assert self._first is not None
        waited = waited_s(self._first.pid)  # of the zombie: gone once it is reaped
        return {"status": self._first.wait(), "waited_s": waited}

    def spent(self) -> dict[str, Any]:
        self.bury()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"spent_s": used.ru_utime + used.ru_stime}

    def kill(self) -> dict[str, Any]:
        _end_all()
        if self._first is not None:
            self._first.returncode = -signal.SIGKILL  # reaped with the others
        return {}

    def bury(self) -> None:
        """Reap what had lost its parent and ended; the first process stays to be asked for."""
        first = self._first.pid if self._first else None
        for pid in descendants(os.getpid()):
            if pid != first:
                with contextlib.suppress(ChildProcessError):  # it has a parent
                    os.waitpid(pid, os.WNOHANG)


def _lines(asked: socket.socket, meanwhile: Callable[[], None]) -> Iterator[tuple[bytes, list[int]]]:
    """Each line with the descriptors that came with it, until the socket ends."""
    line: bytes = b""
    descriptors: list[int] = []
    while True:
        if not select.select([asked], [], [], _BURY_EVERY_S)[0]:
            meanwhile()
            continue
        chunk, passed, _, _ = socket.recv_fds(asked, _CHUNK_BYTES, 2)
        if not chunk:
            return
        line, descriptors = line + chunk, descriptors + passed
        if line.endswith(b"\n"):
            yield line, descriptors
            line, descriptors = b"", []


def _before_exec(cores: Sequence[int], parent: int) -> Callable[[], None]:
    """What the child does between fork and exec: pin itself, and ask to die with us."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # we died before it could ask
        os.sched_setaffinity(0, cores)

    return prepare


def _end_all() -> None:
    """Kill until no child is left: those of the killed become ours."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        found = descendants(os.getpid())
        if found and not sum(map(_killed, found)):
            return  # what is left is not ours to kill
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)  # the killed are found until they are dead


def _killed(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


if __name__ == "__main__":
    main()
