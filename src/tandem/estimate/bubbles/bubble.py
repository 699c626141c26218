"""An antagonist with a dial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tandem.estimate.bubbles.process import START_S, BubbleError, Process

if TYPE_CHECKING:
    from pathlib import Path

    from tandem.estimate.bubbles.calibration import Calibration


class Bubble:
    """Presses on one resource from a process of its own; idle until `set`. A context manager."""

    def __init__(
        self,
        kind: str,
        *,
        cores: tuple[int, ...],
        folder: Path | None = None,
        calibration: Calibration | None = None,
        start_s: float = START_S,
    ) -> None:
        """Start it; it does nothing yet.

        Args:
            kind: One of `tandem.estimate.profile.KINDS`.
            cores: Where it runs, a thread on each; for "cpu" the cores that are to be shared.
            folder: Where "fs_read" and "fs_write" press on the disk; None takes the temporary folder.
            calibration: Makes equal steps of the dial equal steps of what a reporter feels; None leaves the dial raw.
            start_s: How long it may take until it is ready; a disk may be slow.

        Raises:
            BubbleError: The kind, a core or the folder cannot be used, or the calibration lacks the kind.
            BubbleMissingError: The native part was not built.
        """
        if calibration is not None:
            calibration.response(kind)
        self._calibration = calibration
        self._process = Process("bubble", kind, cores, folder, start_s)

    @property
    def kind(self) -> str:
        """What it presses on."""
        return self._process.kind

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def set(self, level: float) -> None:
        """Turn the dial, effective within about 10 ms; at 0 it sleeps and uses no processor.

        Raises:
            BubbleError: A level outside [0, 1], or the process has ended.
        """
        if not 0.0 <= level <= 1.0:
            raise BubbleError(
                given=f"the level {level:g} for a bubble of the kind {self.kind}",
                allowed="0 (idle) to 1 (as hard as this machine allows)",
                todo="choose a level in between",
            )
        self._process.set(level if self._calibration is None else self._calibration.raw(self.kind, level))

    def count(self) -> tuple[int, float]:
        """Return the operations it did so far (units: docs/reference/bubbles.md), and the monotonic seconds then."""
        return self._process.count()

    def waited_s(self) -> float:
        """Return the seconds so far in which it was ready to run and somebody else had its cores."""
        return self._process.waited_s()

    def close(self) -> None:
        """End its process; a second call does nothing."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
