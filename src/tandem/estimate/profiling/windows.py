"""Windows in which some participants run and the others are paused, alternating so that drift hits all alike.

    stage = Stage([Subject(...), Subject(...)])
    stage.compare(["cg", "stream"])          # cg, both, stream, both, cg, ...
    slowdowns(stage.windows, "cg", {"cg", "stream"})

After each switch a settling time passes that no window counts: caches fill, the stopped ones stop.
"""

from __future__ import annotations

import itertools
import math
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tandem.core.clock import SystemClock
from tandem.estimate.profiling.ratios import Interval, interval, paired

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from tandem.estimate.profiling.progress import Trace

SETTLE_S = 0.025
WINDOW_S = 0.1
FEWEST = 3

LEAST_HAD = 0.1
"""Part of the time that a programme is taken to have had its cores at least."""


class Participant(Protocol):
    """Somebody who can be let go and paused: a `Subject`, a bubble, a reporter."""

    name: str
    trace: Trace

    def go(self) -> None:
        """Run."""

    def pause(self) -> None:
        """Stop, and cost nothing."""

    def read(self) -> None:
        """Bring the trace up to date."""

    def waited_s(self) -> float:
        """Seconds that it was kept from its cores by somebody else so far."""

    def filenos(self) -> list[int]:
        """Descriptors that are readable when `read` is urgent."""


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch with the same participants running.

    Attributes:
        running: their names.
        begin: unix seconds.
        end: unix seconds.
        rates: steps per second of those whose progress is known; others are absent.
        phases: the phase that each of these was in all the time; absent where it changed.
        waits: part of the window that each one's threads together waited for a core.
    """

    running: frozenset[str]
    begin: float
    end: float
    rates: Mapping[str, float]
    phases: Mapping[str, str]
    waits: Mapping[str, float] = field(default_factory=dict)

    @property
    def middle(self) -> float:
        """Its middle, unix seconds."""
        return (self.begin + self.end) / 2

    def had(self, name: str, cores: int) -> float:
        """Part of it in which a participant had its cores; others had the rest."""
        return had_s(1.0, self.waits.get(name, 0.0), cores)


class Stage:
    """Participants, and the windows that were taken of them so far.

    Args:
        participants: all start paused.
        settle_s: what passes after a switch before a window begins.
        window_s: how long a window is.

    Attributes:
        windows: by time.
        switches: (when, who ran from then on), by time, unix seconds. While it switches, those run who go on.
        kept: of each, (when, seconds that others had kept it from its cores by then), by time.
    """

    def __init__(
        self, participants: Iterable[Participant], *, settle_s: float = SETTLE_S, window_s: float = WINDOW_S
    ) -> None:
        self.windows: list[Window] = []
        self.switches: list[tuple[float, frozenset[str]]] = []
        self.kept: dict[str, list[tuple[float, float]]] = {}
        self.settle_s = settle_s
        self.window_s = window_s
        self._all = {one.name: one for one in participants}
        self._running: frozenset[str] | None = None
        self._switched = 0.0
        self._clock = SystemClock()

    def add(self, participant: Participant) -> None:
        """Let one more take part, paused at first."""
        self._all[participant.name] = participant
        self._running = None

    def switch(self, running: AbstractSet[str]) -> None:
        """Let exactly these run."""
        if self._running == running:
            return
        before = self.switches[-1][1] if self.switches else frozenset()
        self._look(before)
        self.switches.append((self._clock.now(), before & running))
        for name, one in self._all.items():
            if name not in running:
                one.pause()
        for name in running:
            self._all[name].go()
        self._running, self._switched = frozenset(running), self._clock.now()
        self.switches.append((self._switched, self._running))
        self._look(running)

    def run(self, running: AbstractSet[str], seconds: float) -> None:
        """Let exactly these run for a while that is no window."""
        self.switch(running)
        names = sorted(running)
        self._wait(self._clock.now() + seconds, names)
        for name in names:
            self._all[name].read()
        self._look(names)

    def take(self, running: AbstractSet[str], seconds: float | None = None) -> Window:
        """Take one window.

        Raises:
            ProgrammeError: One of them ended badly.
        """
        settled = self._running == running
        self.switch(running)
        names = sorted(running)
        if not settled:
            self._wait(self._switched + self.settle_s, names)
        for name in names:
            self._all[name].read()
        waited = self._look(names)
        begin = self._clock.now()
        self._wait(begin + (self.window_s if seconds is None else seconds), names)
        for name in names:
            self._all[name].read()
        end = self._clock.now()
        waits = {name: (kept_s - waited[name]) / (end - begin) for name, kept_s in self._look(names).items()}
        traces = {name: self._all[name].trace for name in names}
        rates = {name: trace.rate(begin, end, self._switched) for name, trace in traces.items()}
        phases = {name: trace.phase(begin, end) for name, trace in traces.items()}
        window = Window(
            frozenset(running),
            begin,
            end,
            {name: rate for name, rate in rates.items() if rate is not None},
            {name: phase for name, phase in phases.items() if phase is not None},
            {name: max(0.0, share) for name, share in waits.items()},
        )
        self.windows.append(window)
        return window

    def _look(self, names: Iterable[str]) -> dict[str, float]:
        """How long others have kept each from its cores so far, in seconds."""
        found = {name: self._all[name].waited_s() for name in names}
        now = self._clock.now()
        for name, kept_s in found.items():
            self.kept.setdefault(name, []).append((now, kept_s))
        return found

    def compare(
        self,
        together: Sequence[str],
        *,
        narrow: float = 0.0,
        most_s: float = 8.0,
        fewest: int = FEWEST,
        noise: float | None = None,
        solo_s: float | None = None,
    ) -> None:
        """Alternate between each one alone and all together, until the slowdowns are known.

        Args:
            together: those whose progress is known, all of them.
            narrow: end once each slowdown's relative half-width is below this.
            most_s: end after about this long in any case.
            fewest: windows together that are taken in any case.
            noise: see `ratios.interval`.
            solo_s: length of the windows alone, where they may be shorter than those together.
        """
        begun, known = time.monotonic(), len(self.windows)
        everyone = frozenset(together)
        for taken, name in enumerate(itertools.cycle(together)):
            self.take({name}, solo_s)
            enough = taken >= fewest and time.monotonic() - begun > most_s
            if not enough and taken >= max(fewest, len(together)):
                of_now = self.windows[known:]
                enough = all(
                    one is not None and one.half <= narrow * one.mid
                    for one in (slowdown(of_now, name, everyone, noise=noise) for name in together)
                )
            if enough:
                return
            self.take(everyone)

    def _wait(self, until: float, names: Sequence[str]) -> None:
        """Wait, and read at once whoever has something urgent to tell."""
        while (left := until - self._clock.now()) > 0:
            urgent = {fileno: name for name in names for fileno in self._all[name].filenos()}
            ready, _, _ = select.select(list(urgent), [], [], left)
            for name in {urgent[fileno] for fileno in ready}:
                self._all[name].read()


def had_s(passed_s: float, kept_s: float, cores: int) -> float:
    """Seconds in which a programme had its cores.

    Args:
        passed_s: that passed.
        kept_s: for which others kept its threads, all together, from its cores meanwhile.
        cores: how many it has.

    >>> had_s(2.0, 1.0, 2)
    1.5
    """
    return max(LEAST_HAD * passed_s, passed_s - kept_s / cores)


def slowdowns(
    windows: Iterable[Window],
    name: str,
    beside: AbstractSet[str],
    phase: str | None = None,
    alone: AbstractSet[str] | None = None,
    cores: int | None = None,
) -> list[float]:
    """How many times slower ``name`` was in each window in which exactly ``beside`` ran, it included.

    Windows are compared with those of the same phase; those across a change of phase with one another, where no others
    tell anything.

    Args:
        windows: by time.
        name: the participant.
        beside: names of all who ran.
        phase: only windows in this phase; None takes all.
        alone: what counts as alone; it alone, unless given.
        cores: how many it has, where only the time in which it had them counts; None where all does.
    """
    solo: dict[str | None, list[tuple[float, float]]] = {}
    together: dict[str | None, list[tuple[float, float]]] = {}
    only = frozenset({name} if alone is None else alone)
    for window in windows:
        within = window.phases.get(name)
        if name not in window.rates or phase not in (None, within):
            continue
        rate = window.rates[name] / (1.0 if cores is None else window.had(name, cores))
        if window.running == only and rate > 0:
            solo.setdefault(within, []).append((window.middle, rate))
        elif window.running == beside:
            together.setdefault(within, []).append((window.middle, rate))
    found = {
        within: [ratio for ratio in paired(solo.get(within, []), those) if math.isfinite(ratio)]
        for within, those in together.items()
    }
    across = found.pop(None, [])
    return [ratio for ratios in found.values() for ratio in ratios] or across


def slowdown(
    windows: Iterable[Window], name: str, beside: AbstractSet[str], phase: str | None = None, noise: float | None = None
) -> Interval | None:
    """Their median with its interval, or None where there is no pair of windows."""
    ratios = slowdowns(windows, name, beside, phase)
    if not ratios:
        return None
    return interval(ratios) if noise is None else interval(ratios, noise)
