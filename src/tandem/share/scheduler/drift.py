"""Applications that are no longer what was profiled, told by how fast they go alone.

A machine that is slow for everybody today is no drift: rates are held against what the other profiled applications
lately did relative to their own profiles, phase by phase.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tandem.estimate.profiling.drift import comparable, drifted, mixes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tandem.estimate.profile import Profile

REMEMBERED = 8
"""Rates alone that are kept of each phase of an application."""

OTHERS = 2
"""With fewer other applications than this, nothing is known of the machine's pace."""


@dataclass(slots=True)
class Drift:
    """What was noticed.

    Attributes:
        words: application -> why its profile is no longer believed; until it is profiled again.
        since: application -> when that was noticed the last time, unix seconds: what was seen of it before is of
            another version, and stays aside when it is profiled again.
    """

    words: dict[str, str] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    _rates: dict[tuple[str, str | None], deque[float]] = field(default_factory=dict)
    """(Application, phase; None where it changed) -> rates alone, divided by the machine's pace when they were seen."""
    _paces: dict[str, float] = field(default_factory=dict)
    """Application -> its latest rate alone over its profile's."""

    def observe(
        self, app: str, rate: float, profiles: Mapping[str, Profile], now: float = 0.0, phase: str | None = ""
    ) -> bool:
        """Take in a rate alone, seen until ``now`` in a phase ("": none was announced; None: it changed meanwhile).

        Returns:
            True where that shows for the first time that the application has drifted.
        """
        found = comparable(profiles[app], phase) if app in profiles and app not in self.words else ()
        if not found or rate <= 0 or min(one.rate for one in found) <= 0:
            return False
        pace = self._pace(app)
        # of a mean over phases nobody knows what it should be
        if not mixes(profiles[app], phase) and found[0].pauses is None:
            self._paces[app] = rate / found[0].rate
        rates = self._rates.setdefault((app, phase), deque(maxlen=REMEMBERED))
        rates.append(rate / pace)
        said = drifted(profiles[app], list(rates), phase)
        if said is not None:
            self.words[app], self.since[app] = said, now
        return said is not None

    def profiled(self, app: str) -> None:
        """The application was profiled: what was noticed before is void."""
        self.words.pop(app, None)
        self._rates = {of: seen for of, seen in self._rates.items() if of[0] != app}
        self._paces.pop(app, None)

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        rates = [[*of, list(seen)] for of, seen in self._rates.items()]
        return {"words": dict(self.words), "since": dict(self.since), "rates": rates, "paces": dict(self._paces)}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Drift:
        """The inverse of `snapshot`, older ones included, which knew no phases."""
        told = state.get("rates", ())
        rows = [(app, "", seen) for app, seen in told.items()] if isinstance(told, dict) else told
        rates = {(app, phase): deque(seen, maxlen=REMEMBERED) for app, phase, seen in rows}
        return cls(dict(state.get("words", {})), dict(state.get("since", {})), rates, dict(state.get("paces", {})))

    def _pace(self, app: str) -> float:
        """How fast the machine is today, as the other applications tell: 1 as when they were profiled."""
        latest = [pace for other, pace in self._paces.items() if other != app and other not in self.words]
        return statistics.median(latest) if len(latest) >= OTHERS else 1.0
