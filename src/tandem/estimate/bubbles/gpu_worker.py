"""The process of a GPU's bubble or reporter.

Run: `python -m tandem.estimate.bubbles.gpu_worker ROLE KIND DEVICE PARENT_PID`; `tandem.estimate.bubbles.gpu` does.
It reads levels as doubles from its standard input and leaves at its end; what it counts it writes to its standard
output, a line every few rounds, the first one when it is ready. It launches one millisecond at a time: a killed one
leaves a GPU at work for no longer than that. Needs the package `cuda-core` with NVRTC (`pip install 'tandemlab[gpu]'`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem.estimate.bubbles.gpu import COPY_BYTES, SPAN_NS, THREADS, launch_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

SOURCE = Path(__file__).with_name("gpu.cu")

_LONGEST_WAIT_S = 0.02
_LONGEST_IDLE_S = 0.5
_TELL_EVERY_S = 0.003  # a pipe holds some seconds of lines


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
    footprint_bytes = launch_for(role, kind, 1.0, sms=sms, l2_bytes=l2_bytes).footprint_bytes
    data = card.allocate(max(16, footprint_bytes), stream=stream)
    data.fill(0, stream=stream)

    def work(level: float) -> int:
        plan = launch_for(role, kind, level, sms=sms, l2_bytes=l2_bytes)
        config = cuda.LaunchConfig(grid=plan.blocks, block=THREADS)
        before = _value(told)
        span = ctypes.c_uint64(SPAN_NS)
        if plan.footprint_bytes:
            vectors = ctypes.c_uint64(plan.footprint_bytes // 16)
            cuda.launch(stream, config, read_round, data, vectors, span, counter, sink)
        else:
            cuda.launch(stream, config, occupy, span, counter, sink)
        counter.copy_to(told, stream=stream)
        stream.sync()
        _wait_out(plan.duty, SPAN_NS / 1e9)
        return _value(told) - before

    counter.copy_to(told, stream=stream)
    stream.sync()
    return work


def _copier(cuda: Any, card: Any, stream: Any) -> Callable[[float], int]:  # noqa: ANN401 - cuda.core has no types here
    """Copies to the card and back, in turns."""
    host = cuda.LegacyPinnedMemoryResource().allocate(COPY_BYTES, stream=stream)
    there = card.allocate(COPY_BYTES, stream=stream)

    def work(level: float) -> int:
        began = time.monotonic()
        host.copy_to(there, stream=stream)
        there.copy_to(host, stream=stream)
        stream.sync()
        _wait_out(level, time.monotonic() - began)
        return 2

    return work


def _value(told: Any) -> int:  # noqa: ANN401 - a buffer of cuda.core
    return int(ctypes.c_uint64.from_address(int(told.handle)).value)


def _wait_out(duty: float, worked_s: float) -> None:
    """Pause so that ``worked_s`` of work are ``duty`` of the time."""
    if duty < 1.0:
        time.sleep(min(worked_s * (1.0 - duty) / duty, _LONGEST_WAIT_S))


def main(role: str, kind: str, device: int, parent: int) -> None:
    """Be a bubble or reporter: at the end of standard input, or of the parent, leave at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work = worker(role, kind, device)

    told = -1.0

    def tell(count: int, at: float) -> None:
        nonlocal told
        if at - told < _TELL_EVERY_S:
            return
        told = at
        with contextlib.suppress(BlockingIOError):  # nobody reads; the next line says more anyway
            os.write(1, b"%d %.9f\n" % (count, at))

    os.set_blocking(1, False)
    tell(0, time.monotonic())
    follow(sys.stdin.buffer, work, tell, lambda: os.getppid() != parent)  # another child may hold the pipe open
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
