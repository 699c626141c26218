"""Bubbles and reporters of a GPU: SM occupancy, L2 footprint, HBM bandwidth, PCIe copies. None of this ever ran.

It was written without a GPU at hand: the kernels (gpu.cu) are compiled by the tests, for sm_80 and sm_90, and the
arithmetic of the dials is tested; the launches are not. There is no calibration yet.

Each runs in a Python process of its own, `python -m tandem.estimate.bubbles.gpu ROLE KIND DEVICE PARENT_PID`, which
reads levels as doubles from its standard input and leaves at its end; what it counts it writes to its standard output,
a line a round. It launches one millisecond at a time: a killed one leaves a GPU at work for no longer than that. On a
GPU without MPS two processes take turns in time slices; there a bubble presses on time, whatever its kind.

Needs the package `cuda-core` with NVRTC (`pip install 'tandemlab[gpu]'`), imported only where a bubble is started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tandem.core import gpu
from tandem.core.errors import MissingPackageError
from tandem.estimate.bubbles.process import BubbleError
from tandem.estimate.profile import GPU_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

SOURCE = Path(__file__).with_name("gpu.cu")

_SPAN_NS = 1_000_000  # of one launch
_THREADS = 256
_BLOCKS_PER_SM = 8  # 2,048 threads: all that an SM of these generations holds
_COPY_BYTES = 8 << 20
_HBM_BYTES = 1 << 30
_LARGEST_L2_FOOTPRINT = 1.5  # of the cache
_REPORTER_L2_FOOTPRINT = 0.5
_LONGEST_WAIT_S = 0.01
_LONGEST_IDLE_S = 0.5


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
    everywhere = sms * _BLOCKS_PER_SM
    if kind == "gpu_sm":
        wanted = level if role == "bubble" else 1.0 / _BLOCKS_PER_SM  # a reporter: one block on each SM
        return Launch(max(1, round(wanted * everywhere)), 0, 1.0)
    if kind == "gpu_l2":
        part = level * _LARGEST_L2_FOOTPRINT if role == "bubble" else _REPORTER_L2_FOOTPRINT
        return Launch(2 * sms, max(1 << 16, int(part * l2_bytes)), 1.0)
    if kind == "gpu_hbm":
        return Launch(4 * sms, _HBM_BYTES, level)
    return Launch(0, 0, level)


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
        raise BubbleError(
            given=f"GPU {device} for a bubble of the kind {kind}",
            allowed=f"GPUs {', '.join(map(str, there))}"
            if there
            else "a machine with an NVIDIA GPU; this one has none",
            todo="choose a GPU that is there, or leave the kinds of a GPU out",
        )
    if find_spec("cuda") is None or find_spec("cuda.core") is None:
        raise MissingPackageError(
            given=f"a bubble of the kind {kind}, which needs the package 'cuda-core', which is not installed",
            allowed="GPU bubbles where cuda-core and NVRTC are installed",
            todo="run: pip install 'tandemlab[gpu]'",
        )


class GpuProcess:
    """A bubble ("bubble") or reporter ("reporter") of a GPU; idle until `set`. A context manager."""

    def __init__(self, role: str, kind: str, device: int = 0) -> None:
        """Start it.

        Raises:
            BubbleError: See `check`.
            MissingPackageError: See `check`.
        """
        check(kind, device)
        self.kind = kind
        words = [sys.executable, "-m", "tandem.estimate.bubbles.gpu", role, kind, str(device), str(os.getpid())]
        env = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # counted as `tandem.core.gpu` does
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self._last, self._rest = (0, 0.0), b""

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
            raise BubbleError(
                given=f"a bubble of the kind {self.kind}, which has ended",
                allowed="bubbles that run",
                todo="read above what it wrote, and start it again",
            ) from error

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
        return self._last

    def close(self) -> None:
        """End its process; a second call does nothing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def follow(
    levels: IO[bytes],
    work: Callable[[float], int],
    tell: Callable[[int, float], None],
    orphaned: Callable[[], bool],
) -> None:
    """Work at the last level that was sent, wait at 0; return when ``levels`` ends or ``orphaned``."""
    level, count = 0.0, 0
    while not orphaned():
        patience_s = 0.0 if level > 0.0 else _LONGEST_IDLE_S
        while select.select([levels], [], [], patience_s)[0]:
            message = os.read(levels.fileno(), 8)
            if len(message) < 8:
                return
            (level,) = struct.unpack("=d", message)
            patience_s = 0.0
        if level > 0.0:
            count += work(level)
            tell(count, time.monotonic())


def worker(role: str, kind: str, device: int) -> Callable[[float], int]:
    """Return what works for a round at a level and returns the operations done; cuda.core is imported here."""
    import cuda.core as cuda

    card = cuda.Device(device)
    card.set_current()
    stream = card.create_stream()
    sms, l2_bytes = card.properties.multiprocessor_count, card.properties.l2_cache_size
    if kind == "gpu_pcie":
        return _copier(cuda, card, stream)
    options = cuda.ProgramOptions(arch=f"sm_{card.arch}", std="c++17")
    code = cuda.Program(SOURCE.read_text(), code_type="c++", options=options).compile("cubin")
    occupy, read_round = code.get_kernel("occupy"), code.get_kernel("read_round")
    counter, sink = (card.allocate(8, stream=stream) for _ in range(2))
    counter.fill(0, stream=stream)
    told = cuda.LegacyPinnedMemoryResource().allocate(8, stream=stream)
    largest = max(launch_for(role, kind, x, sms=sms, l2_bytes=l2_bytes).footprint_bytes for x in (0.5, 1.0))
    data = card.allocate(max(16, largest), stream=stream)
    data.fill(0, stream=stream)

    def work(level: float) -> int:
        plan = launch_for(role, kind, level, sms=sms, l2_bytes=l2_bytes)
        config = cuda.LaunchConfig(grid=plan.blocks, block=_THREADS)
        before, began = _value(told), time.monotonic()
        span = ctypes.c_uint64(_SPAN_NS)
        if plan.footprint_bytes:
            vectors = ctypes.c_uint64(plan.footprint_bytes // 16)
            cuda.launch(stream, config, read_round, data, vectors, span, counter, sink)
        else:
            cuda.launch(stream, config, occupy, span, counter, sink)
        counter.copy_to(told, stream=stream)
        stream.sync()
        _wait_out(plan.duty, began)
        return _value(told) - before

    counter.copy_to(told, stream=stream)
    stream.sync()
    return work


def _copier(cuda: Any, card: Any, stream: Any) -> Callable[[float], int]:  # noqa: ANN401 - cuda.core has no types here
    """Copies to the card and back, in turns."""
    host = cuda.LegacyPinnedMemoryResource().allocate(_COPY_BYTES, stream=stream)
    there = card.allocate(_COPY_BYTES, stream=stream)

    def work(level: float) -> int:
        began = time.monotonic()
        host.copy_to(there, stream=stream)
        there.copy_to(host, stream=stream)
        stream.sync()
        _wait_out(level, began)
        return 2

    return work


def _value(told: Any) -> int:  # noqa: ANN401 - a buffer of cuda.core
    return int(ctypes.c_uint64.from_address(int(told.handle)).value)


def _wait_out(duty: float, began: float) -> None:
    """Pause so that what has gone on since ``began`` is ``duty`` of the time."""
    if duty < 1.0:
        time.sleep(min((time.monotonic() - began) * (1.0 - duty) / duty, _LONGEST_WAIT_S))


def main(role: str, kind: str, device: int, parent: int) -> None:
    """Be a bubble or reporter: at the end of standard input, or of the parent, leave at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work = worker(role, kind, device)

    def tell(count: int, at: float) -> None:
        with contextlib.suppress(BlockingIOError):  # nobody reads; the next line says more anyway
            os.write(1, b"%d %.9f\n" % (count, at))

    os.set_blocking(1, False)
    follow(sys.stdin.buffer, work, tell, lambda: os.getppid() != parent)  # another child may hold the pipe open
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
