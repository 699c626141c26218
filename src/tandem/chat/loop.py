"""A stage's steps: begins where its checkpoint is, saves now and then, answers signals, records.

for step in Loop(run, "sft", steps=100, parts={"model": model, "optimiser": optimiser}, ...):
    ...
    loop.tell(loss=loss)
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tandem.chat import checkpoint, memory
from tandem.chat.errors import DivergedError, StoppedError
from tandem.chat.signals import Asked
from tandem.learn.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tandem.chat.checkpoint import Stateful
    from tandem.chat.run_folder import RunFolder
    from tandem.core.clock import Clock


ALONE = Ranks()


class LeftError(Exception):
    """A stop was asked for while responses were drawn."""


class Loop:
    """A stage's steps; a `for` over it gives their numbers.

    Args:
        run: Where records and checkpoints go.
        stage: Its name.
        steps: How many.
        parts: What a checkpoint holds.
        save_every: Steps between checkpoints.
        asked: What signals have asked.
        clock: For rates.
        progress: Is told (stage, done, of).
        before: Steps of earlier stages, and of all stages together.
        ended: Whether enough is learnt before all steps are done.
        ranks: Who takes them together.
    """

    def __init__(
        self,
        run: RunFolder,
        stage: str,
        *,
        steps: int,
        parts: Mapping[str, Stateful],
        save_every: int,
        asked: Asked,
        clock: Clock,
        progress: Callable[[str, int, int], None],
        before: tuple[int, int],
        ended: Callable[[], bool] = lambda: False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.stage, self.steps = stage, steps
        self._run, self._parts, self._save_every = run, parts, save_every
        self._asked, self._clock, self._progress = asked, clock, progress
        self._before, self._total = before
        self._ended, self._ranks = ended, ranks
        self._metrics: dict[str, float] = {}
        self._step = self._saved = 0

    def __iter__(self) -> Iterator[int]:
        """Yield the steps that are left.

        Raises:
            StoppedError: A signal asked for it; the checkpoint is written.
        """
        memory.begin()
        step = checkpoint.restore(self._run.checkpoint(self.stage), self._parts)
        self._saved = step
        self._run.goes_on(self.stage, step)
        asked = self._asked_of_all()
        while step < self.steps and not self._ended():
            self._stop_if_asked(asked, step)
            began_s = self._clock.monotonic()
            self._metrics, self._step = {}, step
            yield step
            step += 1
            self._record(step, self._clock.monotonic() - began_s)
            asked = self._asked_of_all()
            if step % self._save_every == 0 or asked.save or asked.stop:
                self._save(step)
                self._asked.save = False
            self._progress(self.stage, step, self.steps)
        self._stop_if_asked(asked, step)

    def phase(self, name: str) -> None:
        """Say which part of a step begins: `generate`, `score`, `train`."""
        self._run.record(phase=name)

    def tell(self, **metrics: float) -> None:
        """Record figures of this step.

        Raises:
            DivergedError: The loss is no finite number.
        """
        if not math.isfinite(metrics.get("loss", 0.0)):
            raise DivergedError(
                given=f"the loss of stage {self.stage} is {metrics['loss']} in step {self._step}",
                allowed="finite losses",
                todo="lower the learning rate or look at the data; the run is whole up to its last checkpoint",
            )
        self._metrics |= metrics

    def leave_if_stopped(self) -> None:
        """Raise a LeftError if a stop was asked for; several ranks draw to the end, and stop after the step."""
        if self._asked.stop and self._ranks.size == 1:
            raise LeftError

    @contextmanager
    def left_if_stopped(self) -> Iterator[None]:
        """Where the block is left for a stop, before anything of this step was learnt, save what was before it.

        Raises:
            StoppedError: It was.
        """
        try:
            yield
        except LeftError:
            if self._saved < self._step:
                self._save(self._step)
            self._stop_if_asked(self._asked, self._step)

    def _save(self, step: int) -> None:
        checkpoint.save(self._run.checkpoint(self.stage), step, self._parts, writes=self._ranks.first)
        self._ranks.wait()  # nobody leaves while it is written
        self._saved = step

    def _record(self, step: int, took_s: float) -> None:
        named = {f"{self.stage}/{name}": value for name, value in self._metrics.items()}
        named[f"{self.stage}/step"] = step
        named[f"{self.stage}/step_s"] = took_s
        named[f"{self.stage}/peak_bytes"] = memory.peak_bytes()
        self._run.record(step=self._before + step, total=self._total, rate=1.0 / max(took_s, 1e-9), **named)

    def _asked_of_all(self) -> Asked:
        """What any rank was asked: they save and stop after the same step."""
        if self._ranks.size == 1:
            return self._asked
        told = self._ranks.sums(save=float(self._asked.save), stop=float(bool(self._asked.stop)))
        return Asked(told["save"] > 0.0, (self._asked.stop or "a signal to another rank") if told["stop"] else "")

    def _stop_if_asked(self, asked: Asked, step: int) -> None:
        if asked.stop:
            raise StoppedError(
                given=f"stopped by {asked.stop} after step {step} of {self.steps} of stage {self.stage}",
                allowed="going on: nothing is lost",
                todo="run the same command again",
            )
