"""Which setting is measured next: the one that is known least, as long as it matters.

A setting is a bubble at a level. All begin at level 1; a kind that does not slow the programme there is flat and done.
Otherwise level 0.5 follows, and 0.25 and 0.75 where the curve bends at 0.5 by more than its interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tandem.estimate.profile import Curve
from tandem.estimate.profiling.ratios import Interval

FEWEST = 3
MOST = 6
NARROW = 0.035
"""Relative half-width of a slowdown at which it is known well enough."""

FLAT = 0.04
"""A slowdown whose interval reaches no further above 1 than this (and the half-width) is none."""

Setting = tuple[str, float]


@dataclass
class Campaign:
    """The settings that are open, and what is known of each phase.

    Attributes:
        known: (setting, phase) -> its slowdown so far, or None.
        kinds: kinds of bubble, in the order in which they begin.
        phases: tells those that count, which may become more.
        tries: how often each setting was next.
    """

    known: Callable[[Setting, str], Interval | None]
    kinds: Sequence[str]
    phases: Callable[[], Sequence[str]]
    tries: Counter[Setting] = field(default_factory=Counter)
    _settings: list[Setting] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with every kind's level 1."""
        self._settings = [(kind, 1.0) for kind in self.kinds]

    def next(self) -> Setting | None:
        """The setting to measure now, or None where all are known or given up.

        That of the fewest tries: one whose windows say nothing does not keep the others from theirs.
        """
        for kind in self.kinds:
            self._extend(kind)
        wanted = [one for one in self._settings if not self._done(one)]
        if not wanted:
            return None
        found = min(wanted, key=lambda one: self.tries[one])
        self.tries[found] += 1
        return found

    def give_up(self, setting: Setting) -> None:
        """It cannot be measured: it is not next again, unless something is known of it."""
        self.tries[setting] = MOST

    def curve(self, kind: str, phase: str) -> Curve | None:
        """The curve of a kind, or None where nothing is known of it."""
        found = sorted((s[1], one) for s in self._settings if s[0] == kind and (one := self.known(s, phase)))
        if not found:
            return None
        levels, slowdowns = [level for level, _ in found], [one for _, one in found]
        return Curve(
            (0.0, *levels),
            (1.0, *(round(one.mid, 4) for one in slowdowns)),
            (0.0, *(round(one.half, 4) for one in slowdowns)),
        )

    def _count(self, setting: Setting) -> int:
        return min((one.count if (one := self.known(setting, phase)) else 0) for phase in self.phases())

    def _done(self, setting: Setting) -> bool:
        count = self._count(setting)
        if count < FEWEST:
            return self.tries[setting] >= MOST and all(self.known(setting, phase) is None for phase in self.phases())
        return count >= MOST or all(self._narrow(setting, phase) for phase in self.phases())

    def _narrow(self, setting: Setting, phase: str) -> bool:
        one = self.known(setting, phase)
        assert one is not None
        return one.half <= max(NARROW * one.mid, 0.15 * (one.mid - 1.0))

    def _extend(self, kind: str) -> None:
        """Add levels between those that are known."""
        levels = [level for k, level in self._settings if k == kind]
        if not self._done((kind, max(levels))):
            return
        if levels == [1.0] and any(self._felt(kind, phase) for phase in self.phases()):
            self._settings.append((kind, 0.5))
        elif levels == [1.0, 0.5] and self._done((kind, 0.5)) and any(self._bends(kind, p) for p in self.phases()):
            self._settings += [(kind, 0.25), (kind, 0.75)]

    def _felt(self, kind: str, phase: str) -> bool:
        one = self.known((kind, 1.0), phase)
        return one is not None and one.mid - 1.0 > max(FLAT, one.half)

    def _bends(self, kind: str, phase: str) -> bool:
        full, half = self.known((kind, 1.0), phase), self.known((kind, 0.5), phase)
        if full is None or half is None:
            return False
        straight = 1.0 + (full.mid - 1.0) / 2
        return abs(half.mid - straight) > half.half + full.half
