"""When supervised training has learnt what it can: the held-out loss no longer falls."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_GAIN = 0.005


@dataclass(slots=True)
class Plateau:
    """Counts looks without a better loss by half a percent.

    Attributes:
        patience: How many of them are the end; 0 for never.
        best: The least loss so far.
        waited: Looks since it fell.
    """

    patience: int
    best: float = float("inf")
    waited: int = 0

    def look(self, loss: float) -> None:
        """Take a loss into account."""
        if loss < self.best * (1.0 - LEAST_GAIN):
            self.best, self.waited = loss, 0
        else:
            self.waited += 1

    def reached(self) -> bool:
        """Whether it is the end."""
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint holds."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.best, self.waited = float(state["best"]), int(state["waited"])
