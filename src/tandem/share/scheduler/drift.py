"""Applications that are no longer what was profiled, told by how fast they go alone.

A machine that is slow for everybody today is no drift: rates are held against what the other profiled applications
lately did relative to their own profiles, phase by phase. Two of them tell how fast it goes. From one, or from what was
seen long ago, that is not known: then an application has drifted only where it has, whether they are believed or not.
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
"""With fewer other applications than this, the machine's pace is not known."""

LATELY_S = 600.0
"""What others did longer ago than this tells no more for certain how fast the machine goes; a host of virtual machines
changes that within the hour."""


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
    _rates: dict[tuple[str, str | None], deque[tuple[float, float]]] = field(default_factory=dict)
    """(Application, phase; None where it changed) -> rates alone, divided by the fastest and by the slowest that the
    machine may have been when they were seen."""
    _paces: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Application -> its latest rate alone over its profile's, and when that was, unix seconds."""

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
        slowest, fastest, vouched = self._pace(app, now)
        # of a mean over phases nobody knows what it should be
        if not mixes(profiles[app], phase) and found[0].pauses is None:
            self._paces[app] = rate / found[0].rate, now
        rates = self._rates.setdefault((app, phase), deque(maxlen=REMEMBERED))
        rates.append((rate / fastest, rate / slowest))
        lower, upper = zip(*rates, strict=True)
        said = drifted(profiles[app], lower, phase, upper=upper, vouched=vouched)
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
        """The inverse of `snapshot`, older ones included, which knew no phases, or believed whatever others did."""
        told = state.get("rates", ())
        rows = [(app, "", seen) for app, seen in told.items()] if isinstance(told, dict) else told
        rates = {(app, phase): deque(map(_both, seen), maxlen=REMEMBERED) for app, phase, seen in rows}
        paces = {
            app: (pace, 0.0) if isinstance(pace, float) else tuple(pace) for app, pace in state.get("paces", {}).items()
        }
        return cls(dict(state.get("words", {})), dict(state.get("since", {})), rates, paces)

    def _pace(self, app: str, now: float) -> tuple[float, float, bool]:
        """How fast the machine is as the other applications tell, 1 as when they were profiled.

        Returns:
            At the slowest, at the fastest, and whether that is known.
        """
        others = {other: told for other, told in self._paces.items() if other != app and other not in self.words}
        lately = [pace for pace, at in others.values() if at >= now - LATELY_S]
        if len(lately) >= OTHERS:
            pace = statistics.median(lately)
            return pace, pace, True
        told = lately or [pace for pace, _ in others.values()]
        pace = statistics.median(told) if told else 1.0
        return min(1.0, pace), max(1.0, pace), False


def _both(rate: float | list[float]) -> tuple[float, float]:
    """A rate as it may have been at least and at most, as stored."""
    least, most = (rate, rate) if isinstance(rate, float) else rate
    return least, most
