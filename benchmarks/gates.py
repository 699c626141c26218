"""Steps of several processes in turns: a child does one step when it is told to, and says what it took.

    split(sys.argv[-2:], lambda name, gate: train(..., after_each_step=gate.between_steps))     # in the child's script

    with Sides() as sides:                                                                      # in the parent
        sides.start(["python", "child.py"], ["sft", "dpo"])
        sides.ready()
        took = sides["sft"].step()

One script becomes a process for each name after what it imports is there, which takes long. Each says at its end how
much memory it ever held.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import UserDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Step:
    """What a step took."""

    wall_s: float
    cpu_s: float


class Gate:
    """The child's end."""

    def __init__(self, asks: int, tells: int) -> None:
        self._asks, self._tells = os.fdopen(asks), os.fdopen(tells, "w")
        self._began: Step | None = None

    def begin(self) -> None:
        """Wait until it may warm up: all at once, with several threads each, would be in each other's way."""
        if not self._asks.readline():
            os._exit(0)

    def between_steps(self) -> None:
        """Tell of the step that ended, and wait for the next to be asked for; ends the process where none is."""
        if self._began is None:
            self._say("ready")
        else:
            wall_s, cpu_s = time.perf_counter() - self._began.wall_s, time.process_time() - self._began.cpu_s
            self._say(f"{wall_s} {cpu_s}")
        if not self._asks.readline():
            self._say(_peak_mib())
            os._exit(0)  # from the midst of a training
        self._began = Step(time.perf_counter(), time.process_time())

    def _say(self, text: object) -> None:
        self._tells.write(f"{text}\n")
        self._tells.flush()


def split(names: Sequence[str], run: Callable[[str, Gate], None]) -> None:
    """Run each of ``names``, as `Sides.start` wrote them, in a process of its own, and wait for all."""
    children = []
    if len(names) == 1:  # as it is: a GPU that was looked at can not be used behind a fork
        name, asks, tells = names[0].split(":")
        gate = Gate(int(asks), int(tells))
        gate.begin()
        run(name, gate)
        return
    for word in names:
        name, asks, tells = word.split(":")
        child = os.fork()
        if not child:
            for other in names:  # else a sibling's end would never come
                if other != word:
                    for number in other.split(":")[1:]:
                        os.close(int(number))
            gate = Gate(int(asks), int(tells))
            gate.begin()
            run(name, gate)
            os._exit(0)
        children.append(child)
    for word in names:
        for number in word.split(":")[1:]:
            os.close(int(number))
    for child in children:
        os.waitpid(child, 0)


class Side:
    """The parent's end of one child."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.theirs, self._ours = os.pipe(), os.pipe()
        self._asks = os.fdopen(self.theirs[1], "w")
        self._told = os.fdopen(self._ours[0])
        self.peak_mib = 0.0
        """How much memory the child ever held; known once it has ended."""

    @property
    def word(self) -> str:
        """How `split` is told of it."""
        return f"{self._name}:{self.theirs[0]}:{self._ours[1]}"

    @property
    def descriptors(self) -> tuple[int, int]:
        """The child's."""
        return self.theirs[0], self._ours[1]

    def started(self) -> None:
        """The child has its ends."""
        for number in self.descriptors:
            os.close(number)

    def ready(self) -> None:
        """Let it warm up."""
        self._ask()
        self._line()

    def step(self) -> Step:
        """Let it do one step."""
        self._ask()
        return Step(*map(float, self._line().split()))

    def end(self) -> None:
        """Let it go."""
        self._asks.close()
        self.peak_mib = float(self._line())
        self._told.close()

    def _ask(self) -> None:
        self._asks.write("go\n")
        self._asks.flush()

    def _line(self) -> str:
        line = self._told.readline()
        if not line:
            sys.exit(f"{self._name} has ended; TANDEM_BENCHMARK_LOUD=1 shows what it says")
        return line


class Sides(UserDict[str, Side]):
    """All children."""

    def __init__(self) -> None:
        super().__init__()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[object], names: Mapping[str, str], environ: Mapping[str, str]) -> None:
        """Start a script that splits: ``names`` are what it calls its children -> what they are called here."""
        made = {called: Side(name) for name, called in names.items()}
        loud = None if os.environ.get("TANDEM_BENCHMARK_LOUD") else subprocess.DEVNULL
        self._processes.append(
            subprocess.Popen(
                [*map(str, command), *(side.word for side in made.values())],
                stdin=subprocess.DEVNULL,
                stdout=loud,
                stderr=loud,
                pass_fds=[number for side in made.values() for number in side.descriptors],
                env={**os.environ, **environ},
                start_new_session=True,
            )
        )
        for side in made.values():
            side.started()
        self |= made

    def ready(self) -> None:
        """Let all warm up, one after the other."""
        for side in self.values():
            side.ready()

    def stop(self) -> None:
        """End all that still runs."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            if process.poll() is None and exception[0] is not None:
                os.killpg(process.pid, 9)
            process.wait()


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
