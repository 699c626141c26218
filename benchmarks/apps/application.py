"""What every small application here shares: options, threads, phases, records, checkpoints and the verdict.

An application is a file with one function `run(app) -> str` that announces its phases, walks
`app.steps(total)` (steps of equal work), checks its own answer with `app.require(...)` and returns one line
for a human; the file ends with `raise SystemExit(launch(run, __doc__))`. Run records go to
`$TANDEM_RUN_DIR/events.jsonl`; without that variable an application is silent but for its last line.

Limits: one process on one machine, Linux. Threads are counted once, at the start.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem.core.records import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

RECORDS_PER_RUN = 40
RECORD_EVERY_VARIABLE = "TANDEM_RECORD_EVERY_S"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
TERMINATED = 128 + signal.SIGTERM


class WrongAnswerError(Exception):
    """The application's own check found its answer to be wrong."""


class Application:
    """One run of an application: how much to do, with what, and where to tell about it.

    Attributes:
        scale: amount of work relative to the standard amount (about 4 s alone on one core).
        threads: how many threads the run may use.
        device: `cpu` or `cuda`.
        run_dir: the run's folder, $TANDEM_RUN_DIR, or None.
        spoiled: true when the run must spoil its result before checking it, to show that the check can fail.
    """

    def __init__(self, name: str, *, scale: float, threads: int, device: str) -> None:
        self.name = name
        self.scale = scale
        self.threads = threads
        self.device = device
        self.spoiled = os.environ.get("TANDEM_APP_SPOIL") == "1"
        run_dir = os.environ.get("TANDEM_RUN_DIR")
        self.run_dir = Path(run_dir) if run_dir else None
        self._record_every_s = _seconds(os.environ.get(RECORD_EVERY_VARIABLE))
        self._checkpoint = Path(run_dir, "checkpoints", f"{name}.npz") if run_dir else None
        self._recorder = Recorder.from_env()
        self._metrics: dict[str, Any] = {}
        self._asked_by: set[int] = set()
        self._since_s, self._since_step, self._total = 0.0, 0.0, 1

    def phase(self, name: str) -> None:
        """Announce what the run does from now on, such as `load`, `solve` or `check`."""
        self._recorder.phase(name)

    def amount(self, standard: int, *, least: int = 4) -> int:
        """Return how many steps to do, where `standard` is their number at scale 1."""
        return max(least, round(standard * self.scale))

    def note(self, **metrics: float) -> None:
        """Attach metrics to the records from now on."""
        self._metrics.update(metrics)

    def steps(self, total: int, *, start: int = 0, state: Callable[[], Arrays] | None = None) -> Iterator[int]:
        """Yield the step numbers from `start + 1` to `total`, recording progress and rate along the way.

        Args:
            total: number of the last step; every step should be the same amount of work.
            start: number of steps that a resumed checkpoint already holds.
            state: returns the arrays from which the run can go on after the step just done. With it, SIGUSR1
                saves a checkpoint and SIGTERM saves one and then ends the run with status 143.
        """
        if state is not None:
            self._listen()
        self._since_s, self._since_step, self._total = time.perf_counter(), float(start), total
        for step in range(start + 1, total + 1):
            yield step
            self._tell(step)
            if self._asked_by and state is not None:
                self._save(step, total, state())
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def within(self, step: float) -> None:
        """Say how far a long step is (2.5: half of the third is done), for those who want records by time."""
        if self._record_every_s is not None:
            self._tell(step)

    def _tell(self, step: float) -> None:
        """Write a record where one is due; a step whose last part was told already is not told again."""
        if step <= self._since_step:
            return
        now_s, total = time.perf_counter(), self._total
        passed_s = now_s - self._since_s
        if self._record_every_s is not None:
            due = passed_s >= self._record_every_s
        else:
            due = step * RECORDS_PER_RUN // total != (step - 1) * RECORDS_PER_RUN // total
        if due:
            rate = (step - self._since_step) / max(passed_s, 1e-9)
            self._recorder.record(step=step, total=total, rate=rate, **self._metrics)
            self._since_s, self._since_step = now_s, step

    def resume(self, total: int) -> tuple[int, Arrays] | None:
        """Return the steps done and the arrays of this run folder's checkpoint, or None where there is none.

        A checkpoint of a run of another length is not used, and standard error says so.
        """
        if self._checkpoint is None or not self._checkpoint.exists():
            return None
        import numpy as np  # only the applications that keep checkpoints need it here

        with np.load(self._checkpoint) as saved:
            arrays = dict(saved)
        step, saved_total = int(arrays.pop("_step")), int(arrays.pop("_total"))
        if saved_total != total:
            print(
                f"{self.name}: starts over: {self._checkpoint} is of {saved_total} steps, not {total}",
                file=sys.stderr,
            )
            return None
        return step, arrays

    def require(self, correct: bool, otherwise: str) -> None:
        """Raise WrongAnswerError with the words of `otherwise` unless the answer is correct."""
        if not correct:
            raise WrongAnswerError(otherwise)

    def close(self) -> None:
        """End the records."""
        self._recorder.close()

    def discard_checkpoint(self) -> None:
        """Remove the checkpoint of a finished run, so that the next one starts from the beginning."""
        if self._checkpoint is not None:
            self._checkpoint.unlink(missing_ok=True)

    def _listen(self) -> None:
        signal.signal(signal.SIGUSR1, self._hear)
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        self._asked_by.add(signum)

    def _save(self, step: int, total: int, arrays: Arrays) -> None:
        asked_by, self._asked_by = self._asked_by, set()
        if self._checkpoint is None:
            print(f"{self.name}: no checkpoint: TANDEM_RUN_DIR is not set", file=sys.stderr)
        else:
            import numpy as np  # only the applications that keep checkpoints need it here

            content: dict[str, Any] = {"_step": np.array(step), "_total": np.array(total), **arrays}
            whole = io.BytesIO()
            np.savez(whole, **content)
            try:
                replace_durably(self._checkpoint, whole.getbuffer())
            except OSError as error:  # a full disk, say: the run itself is unharmed
                print(f"{self.name}: no checkpoint: {error}", file=sys.stderr)
        if signal.SIGTERM in asked_by:
            self.close()
            raise SystemExit(TERMINATED)


def replace_durably(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that, whenever the machine stops, either the old or the new content is there whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def launch(run: Callable[[Application], str], doc: str | None, *, gpu_found: Callable[[], bool] | None = None) -> int:
    """Run an application from the command line and return its exit status.

    Args:
        run: does the work and returns one line about it; raises WrongAnswerError through `app.require`.
        doc: the application's description, for `--help`.
        gpu_found: says whether there is a GPU; None for an application that uses none.

    Returns:
        0 if the answer is right, 1 if it is wrong, 2 if the options cannot be met.
    """
    begun_s = time.perf_counter()
    name = Path(sys.argv[0]).stem
    options = _parse(doc)
    if options.threads is not None:
        _restart_with_threads(options.threads)
    if options.device == "cuda" and (gpu_found is None or not gpu_found()):
        why = "it has no GPU code" if gpu_found is None else "torch finds no GPU here"
        print(f"{name}: --device cuda cannot be met: {why}; use --device cpu or auto", file=sys.stderr)
        return 2
    on_gpu = options.device != "cpu" and gpu_found is not None and gpu_found()
    threads = _thread_count()
    app = Application(name, scale=options.scale, threads=threads, device="cuda" if on_gpu else "cpu")
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a request for a checkpoint never ends a run
    try:
        line = run(app)
    except WrongAnswerError as error:
        print(f"{name}: WRONG ANSWER: {error}", file=sys.stderr)
        return 1
    finally:
        app.close()
    app.discard_checkpoint()
    print(f"{name}: {line}; {time.perf_counter() - begun_s:.2f} s on {app.device}, threads: {threads}")
    return 0


def _parse(doc: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=_positive, default=1.0, help="amount of work; 1: about 4 s on a core")
    parser.add_argument("--threads", type=_count, help="default: OMP_NUM_THREADS, else every usable core")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: GPU if any")
    return parser.parse_args()


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        message = f"{text!r} is not a finite number above 0"
        raise argparse.ArgumentTypeError(message)
    return value


def _seconds(text: str | None) -> float | None:
    """Return what the variable says; None, where it says nothing sensible."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        message = f"{text!r} is not a whole number from 1"
        raise argparse.ArgumentTypeError(message)
    return value


def _thread_count() -> int:
    """Return what OMP_NUM_THREADS says (its first level); without a valid one, as in OpenMP, the usable cores."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(said) if said.isdecimal() and int(said) > 0 else len(os.sched_getaffinity(0))


def _restart_with_threads(threads: int) -> None:
    """Start this process again, under its pid, with the thread variables set.

    The libraries read them when they are first imported, which has happened by now.
    """
    wanted = dict.fromkeys(THREAD_VARIABLES, str(threads))
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
