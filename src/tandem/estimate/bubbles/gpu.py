"""Bubbles and reporters of a GPU: SM occupancy, L2 footprint, HBM bandwidth, PCIe copies.

    with GpuBubble("gpu_hbm") as bubble, GpuReporter("gpu_hbm") as reporter:
        alone = reporter.rate(0.1)
        bubble.set(0.5)
        beside = reporter.rate(0.1)

Each runs in a Python process of its own (`gpu_worker`), gone with whoever started it, and launches one millisecond at a
time; a bubble's raw dial is the part of the time that it spends in launches. On a GPU without MPS processes take turns
in time slices: there every kind presses on time before it presses on anything else, and the calibration shows it.

Needs the package `cuda-core` with NVRTC (`pip install 'tandemlab[gpu]'`), imported only in the worker.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

from tandem.core import gpu
from tandem.core.errors import MissingPackageError
from tandem.core.process.schedstat import waited_s
from tandem.estimate.bubbles.process import BubbleError
from tandem.estimate.profile import GPU_KINDS

if TYPE_CHECKING:
    from tandem.estimate.bubbles.calibration import Calibration

SPAN_NS = 1_000_000  # of one launch
THREADS = 256
COPY_BYTES = 8 << 20
_BLOCKS_PER_SM = 8  # 2,048 threads: all that an SM of these generations holds
_HBM_BYTES = 1 << 30
_L2_FOOTPRINTS = {"bubble": 1.0, "reporter": 0.5}  # of the cache
_START_S = 60.0  # a driver's first start on a machine takes its time
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Launch:
    """What one round does at a level.

    Attributes:
        blocks: thread blocks of the kernel; 0 for copies.
        footprint_bytes: what the blocks read, round and round; 0 for those that read nothing.
        duty: part of the time in launches or copies; the rest of it the process waits.
    """

    blocks: int
    footprint_bytes: int
    duty: float


def launch_for(role: str, kind: str, level: float, *, sms: int, l2_bytes: int) -> Launch:
    """Return what a bubble or reporter does at a raw ``level`` in (0, 1] on a GPU with ``sms`` multiprocessors."""
    if kind == "gpu_sm":  # a reporter has one block on each SM
        return Launch(sms * (_BLOCKS_PER_SM if role == "bubble" else 1), 0, level)
    if kind == "gpu_l2":
        return Launch(2 * sms, max(1 << 16, int(_L2_FOOTPRINTS[role] * l2_bytes)), level)
    if kind == "gpu_hbm":
        return Launch(4 * sms, _HBM_BYTES, level)
    return Launch(0, 0, level)


def lacking(device: int) -> str | None:
    """Why there can be no bubbles of this GPU, in words; None where there can."""
    try:
        check(GPU_KINDS[0], device)
    except (BubbleError, MissingPackageError) as error:
        return error.given
    return None


def check(kind: str, device: int) -> None:
    """Refuse what cannot be started here.

    Raises:
        BubbleError: An unknown kind, or no such GPU.
        MissingPackageError: `cuda-core` is not installed.
    """
    if kind not in GPU_KINDS:
        raise BubbleError(
            given=f"a GPU bubble of the kind {kind!r}", allowed=", ".join(GPU_KINDS), todo="choose one of these"
        )
    there = [one.index for one in gpu.find(None)]
    if device not in there:
        known = ", ".join(map(str, there))
        raise BubbleError(
            given=f"GPU {device}, but this machine has {'no such one' if there else 'no NVIDIA GPU'}",
            allowed=f"GPUs {known}" if there else "a machine with an NVIDIA GPU",
            todo="choose a GPU that is there, or leave the kinds of a GPU out",
        )
    if find_spec("cuda") is None or find_spec("cuda.core") is None:
        raise MissingPackageError(
            given="bubbles of a GPU, but the package cuda-core is not installed",
            allowed="GPU bubbles where cuda-core and NVRTC are installed",
            todo="run: pip install 'tandemlab[gpu]'",
        )


class GpuProcess:
    """A bubble ("bubble") or reporter ("reporter") of a GPU; idle until `set`. A context manager."""

    def __init__(self, role: str, kind: str, device: int = 0) -> None:
        """Start it; it compiles its kernel meanwhile (`wait_ready`).

        Raises:
            BubbleError: See `check`.
            MissingPackageError: See `check`.
        """
        check(kind, device)
        self.kind = kind
        module = "tandem.estimate.bubbles.gpu_worker"
        words = [sys.executable, "-m", module, role, kind, str(device), str(os.getpid())]
        env = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # counted as `tandem.core.gpu` does
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self._last, self._rest, self._lines = (0, 0.0), b"", 0

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Return once it can work.

        Raises:
            BubbleError: It ended, or did not come up.
        """
        self._wait_lines(1, _START_S)

    def set(self, level: float) -> None:
        """Turn the raw dial, 0 (idle) to 1.

        Raises:
            BubbleError: A level outside [0, 1], or the process has ended.
        """
        if not 0.0 <= level <= 1.0:
            raise BubbleError(given=f"the level {level:g}", allowed="0 (idle) to 1", todo="choose a level in between")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(struct.pack("=d", level))
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def go(self) -> None:
        """Work at level 1, and return when a first round is done."""
        self.count()
        seen = self._lines
        self.set(1.0)
        self._wait_lines(seen + 1, _ANSWER_S)

    def count(self) -> tuple[int, float]:
        """Return the turns or copies done so far, and the monotonic seconds at which that was so."""
        assert self._process.stdout is not None
        while select.select([self._process.stdout], [], [], 0)[0]:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            if lines:
                count, at = lines[-1].split()
                self._last = int(count), float(at)
                self._lines += len(lines)
        return self._last

    def waited_s(self) -> float:
        """Return the seconds so far in which it was ready to run and somebody else had its cores."""
        return waited_s(self.pid)

    def close(self) -> None:
        """End its process; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _wait_lines(self, lines: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        assert self._process.stdout is not None
        while self.count() and self._lines < lines:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._ended()
            select.select([self._process.stdout], [], [], 0.05)

    def _ended(self) -> BubbleError:
        status = self._process.poll()
        how = "does not answer" if status is None else f"has ended with status {status}"
        return BubbleError(
            given=f"a bubble of the kind {self.kind}, which {how}",
            allowed="bubbles that run",
            todo="read above what it wrote, and start it again",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GpuBubble:
    """Presses on one resource of a GPU; idle until `set`, as `tandem.estimate.bubbles.Bubble`. A context manager."""

    def __init__(self, kind: str, device: int = 0, calibration: Calibration | None = None) -> None:
        """Start it; see `GpuProcess`. A calibration makes equal steps of the dial equal steps of what is felt."""
        if calibration is not None:
            calibration.response(kind)
        self.kind = kind
        self._calibration = calibration
        self._process = GpuProcess("bubble", kind, device)
        self.wait_ready, self.count, self.waited_s, self.close = (
            self._process.wait_ready,
            self._process.count,
            self._process.waited_s,
            self._process.close,
        )

    def set(self, level: float) -> None:
        """Turn the dial, effective within some milliseconds; at 0 it waits.

        Raises:
            BubbleError: A level outside [0, 1], or the process has ended.
        """
        self._process.set(level if self._calibration is None else self._calibration.raw(self.kind, level))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GpuReporter:
    """Feels one resource of a GPU; paused until `go`, as `tandem.estimate.bubbles.Reporter`. A context manager."""

    def __init__(self, kind: str, device: int = 0) -> None:
        """Start it; see `GpuProcess`."""
        self.kind = kind
        self._process = GpuProcess("reporter", kind, device)
        self.wait_ready, self.go, self.count, self.waited_s, self.close = (
            self._process.wait_ready,
            self._process.go,
            self._process.count,
            self._process.waited_s,
            self._process.close,
        )

    def pause(self) -> None:
        """Wait, until the next `go`."""
        self._process.set(0.0)

    def rate(self, seconds: float) -> float:
        """Return operations per second over the next `seconds`, from the end of one round to the end of another."""
        before, began = self.count()
        time.sleep(seconds)
        after, ended = self.count()
        return (after - before) / (ended - began) if ended > began else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
