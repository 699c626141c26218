"""A KL coefficient that steers the divergence to a target."""

from __future__ import annotations

from dataclasses import dataclass

MOST_ERROR = 0.2


@dataclass(slots=True)
class AdaptiveKl:
    """beta <- beta (1 + e n / horizon), e = clip(KL / target - 1, ±0.2), n the responses of the step.

    Attributes:
        coefficient: beta.
        target_nats: KL of a whole response that is aimed at.
        horizon: In how many responses the coefficient may change by a fifth.

    Source: Ziegler et al., Fine-Tuning Language Models from Human Preferences, 2019, section 2.2, and its code for n.
    """

    coefficient: float
    target_nats: float
    horizon: int

    def update(self, kl_nats: float, responses: int) -> None:
        """Look at a step's mean KL of a response."""
        error = min(max(kl_nats / self.target_nats - 1.0, -MOST_ERROR), MOST_ERROR)
        self.coefficient *= 1.0 + error * responses / self.horizon

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint holds."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.coefficient = state["coefficient"]
