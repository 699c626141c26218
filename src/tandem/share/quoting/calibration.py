"""Turning predicted instants into promises that hold: intervals that learn from how wrong earlier ones were.

Split conformal prediction with an adaptive level (Gibbs and Candes, NeurIPS 2021): the ends of an interval are
quantiles of past errors, in units of the predicted half-width there; each end that was missed moves its quantile
outwards, each that held moves it inwards a little, so that in the long run each side is missed in one case of twenty,
whatever happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tandem.share.model import Interval
from tandem.share.state.quantiles import Quantiles

if TYPE_CHECKING:
    from collections.abc import Mapping

MEMORY = 200
"""Errors remembered."""

TRUST = 20
"""So many errors count as much as the prediction's own spread."""

MISSED = 0.05
"""Accepted part of misses on each side."""

STEP = 0.02
"""How far a miss moves the level of its end (a hit moves it by a twentieth of that, the other way)."""


WORST = 8.0
"""Errors beyond so many half-widths count as that: one job that was stopped for an hour is not every job's future."""

LEAST = 0.4
"""An end stays at least so many predicted half-widths away from the middle: errors may be those of other days."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """An instant as it was predicted at ``at``, what was promised of it, and which kind of prediction it is."""

    at: float
    low: float
    mid: float
    high: float
    promised_low: float = 0.0
    promised_high: float = 0.0
    kind: str = ""

    def half_width(self, side: float) -> float:
        """Half-width above (``side`` > 0) or below the middle; at least 4 % of the time until then, and 1 ms."""
        return max(self.high - self.mid if side > 0 else self.mid - self.low, 0.04 * (self.mid - self.at), 1e-3)


class Calibration:
    """What is known of the errors of one kind of prediction."""

    def __init__(self) -> None:
        self._errors = Quantiles(MEMORY)
        self._early = self._late = MISSED  # levels of the two ends; below 0 beyond the worst error

    def promise(self, raw: Predicted) -> Interval:
        """The interval with its ends where past errors lay, trusted as far as there are some."""
        below, above = -1.0, 1.0
        if len(self._errors):
            trust = len(self._errors) / (len(self._errors) + TRUST)
            below = min(-LEAST, trust * self._end(self._early) + (1 - trust) * below)
            above = max(LEAST, trust * self._end(1 - self._late) + (1 - trust) * above)
        low = max(raw.at, raw.mid + below * raw.half_width(-1.0))
        return Interval(min(low, raw.mid), raw.mid, raw.mid + above * raw.half_width(1.0))

    def learn(self, raw: Predicted, true: float) -> None:
        """It happened at ``true``."""
        self._errors.add(max(-WORST, min(WORST, (true - raw.mid) / raw.half_width(true - raw.mid))))
        self._early += STEP * (MISSED - (true < raw.promised_low))
        self._late += STEP * (MISSED - (true > raw.promised_high))

    def _end(self, q: float) -> float:
        """The error at a level; beyond 0 and 1 it goes on outwards, by a twentieth of the range for each hundredth."""
        errors = self._errors
        inside = min(1.0, max(0.0, q))
        return errors.at(inside) + 5 * (q - inside) * (errors.at(1.0) - errors.at(0.0))

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"errors": list(self._errors.recent), "early": self._early, "late": self._late}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Calibration:
        """The inverse of `snapshot`."""
        made = cls()
        made._errors = Quantiles(MEMORY, state["errors"])
        made._early, made._late = state["early"], state["late"]
        return made
