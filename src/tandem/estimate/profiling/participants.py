"""What a programme is measured beside: bubbles at a level, and reporters that feel it; each started when it is needed.

    equipment = Equipment(cores, beside, calibration, stack)
    stage.add(Antagonist(equipment.bubble("cache"), 0.5))

Starting one takes up to half a second, which a measurement with little time has not got for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.core.clock import SystemClock
from tandem.estimate.bubbles import Bubble, BubbleError, GpuBubble, GpuReporter, Reporter
from tandem.estimate.bubbles.process import START_S
from tandem.estimate.profile import GPU_KINDS
from tandem.estimate.profiling.progress import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from tandem.estimate.bubbles import Calibration
    from tandem.estimate.profiling.deadline import Deadline


class Antagonist:
    """A bubble at one level, as a participant."""

    def __init__(self, bubble: Bubble | GpuBubble, level: float) -> None:
        self.name = f"{bubble.kind}@{level:g}"
        self.trace = Trace()
        self._bubble, self._level = bubble, level

    def go(self) -> None:
        self._bubble.set(self._level)

    def pause(self) -> None:
        self._bubble.set(0.0)

    def read(self) -> None: ...

    def waited_s(self) -> float:
        return 0.0

    def filenos(self) -> list[int]:
        return []


class Feeler:
    """A reporter, as a participant."""

    def __init__(self, reporter: Reporter | GpuReporter) -> None:
        self.name = f"reporter {reporter.kind}"
        self.trace = Trace()
        self.go, self.pause = reporter.go, reporter.pause
        self._reporter = reporter
        self._offset_s = SystemClock().offset_s

    def read(self) -> None:
        count, at_s = self._reporter.count()
        self.trace.add(self._offset_s + at_s, float(count))

    def waited_s(self) -> float:
        return self._reporter.waited_s() if isinstance(self._reporter, Reporter) else 0.0

    def filenos(self) -> list[int]:
        return []


class Equipment:
    """Bubbles and reporters of one measurement; they go with ``stack``.

    Args:
        cores: where the programme runs; the "cpu" ones run there too.
        beside: where all others run.
        calibration: what a bubble's dial means; its kinds are those that there are.
        stack: closes them.
        folder: where those of the disk press; None takes the temporary folder.
        gpu: where those of a GPU press; None where there are none.
    """

    def __init__(
        self,
        cores: Sequence[int],
        beside: Sequence[int],
        calibration: Calibration,
        stack: ExitStack,
        *,
        folder: Path | None = None,
        gpu: int | None = None,
    ) -> None:
        self._cores, self._beside = tuple(cores), tuple(beside)
        self._calibration, self._stack = calibration, stack
        self._folder, self._gpu = folder, gpu
        self._bubbles: dict[str, Bubble | GpuBubble] = {}

    def bubble(self, kind: str, deadline: Deadline) -> Bubble | GpuBubble | None:
        """The bubble of a kind, ready; those of a GPU come up side by side. None: not ready in time.

        Raises:
            BubbleError: It cannot be started.
        """
        if kind not in self._bubbles and kind in GPU_KINDS:
            self._open_gpu()
        elif kind not in self._bubbles:
            on = self._cores if kind == "cpu" else self._beside
            start_s = min(START_S, max(0.0, deadline.left_s()))
            try:
                one = Bubble(kind, cores=on, folder=self._folder, calibration=self._calibration, start_s=start_s)
            except BubbleError:
                if deadline.fits(0.0):
                    raise
                return None
            self._bubbles[kind] = self._stack.enter_context(one)
        return self._bubbles[kind]

    def reporter(self, kind: str, deadline: Deadline) -> Reporter | GpuReporter | None:
        """A new reporter of a kind, ready. None: not ready in time.

        Raises:
            BubbleError: It cannot be started.
        """
        if kind in GPU_KINDS:
            assert self._gpu is not None
            feeler = self._stack.enter_context(GpuReporter(kind, self._gpu))
            feeler.wait_ready()
            return feeler
        on = self._cores[:1] if kind == "cpu" else self._beside[:1]
        start_s = min(START_S, max(0.0, deadline.left_s()))
        try:
            one = Reporter(kind, cores=on, folder=self._folder, start_s=start_s)
        except BubbleError:
            if deadline.fits(0.0):
                raise
            return None
        return self._stack.enter_context(one)

    def _open_gpu(self) -> None:
        assert self._gpu is not None
        found = {
            kind: self._stack.enter_context(GpuBubble(kind, self._gpu, self._calibration))
            for kind in GPU_KINDS
            if kind in self._calibration.responses
        }
        for one in found.values():
            one.wait_ready()
        self._bubbles.update(found)
