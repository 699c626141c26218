"""Profile a programme: alone, beside bubbles at several levels, and beside reporters that feel how it presses.

    profile = measure(argv, Terms(key="cg", cores=(0,), beside=(1,)), calibration)

The programme runs on `cores`, bubbles and reporters on `beside`, the "cpu" ones on the programme's own. All of it is
windows that alternate (`tandem.estimate.profiling.windows`): two or three beside bubbles stand between two alone.
Limits: without a core to spare only "cpu" can be measured.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.core.clock import SystemClock
from tandem.estimate.bubbles import Bubble, BubbleError, GpuBubble, GpuReporter, Reporter
from tandem.estimate.bubbles.calibration import LEAST_EXCESS
from tandem.estimate.profile import GPU_KINDS, KINDS, Curve, PhaseProfile, Profile
from tandem.estimate.profiling.campaign import Campaign
from tandem.estimate.profiling.programme import ProgrammeError, Programmes
from tandem.estimate.profiling.progress import Trace
from tandem.estimate.profiling.ratios import Interval, interval, noise_of, paired
from tandem.estimate.profiling.sources import follow
from tandem.estimate.profiling.subject import Output
from tandem.estimate.profiling.windows import SETTLE_S, WINDOW_S, Stage, Window, slowdowns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tandem.estimate.bubbles import Calibration
    from tandem.estimate.profiling.campaign import Setting
    from tandem.estimate.profiling.subject import Subject

POINTS_PER_WINDOW = 3
LONGEST_WINDOW_S = 2.5
MOST_SLOWED = 3.0
"""Windows beside bubbles are made for steps that take so many times as long as alone."""

SOLO_WINDOWS = 7
BETWEEN_SOLOS = 2
REPORTER_S = 0.06
PRESSURE_ROUNDS = (3, 4)
PRESSURE_PART = 0.35
"""Of the time, what is kept for reporters."""

LEAST_SHARE = 0.1
"""Phases that take less of the time than this are not waited for."""

MOST_WAITING = 0.5
"""Part of the time alone that others may keep it from its cores: beyond it most of what is measured is they. Below,
what was measured is kept with wider intervals, and `Profile.waited` says how long it was."""

LEAST_HAD = 0.1
"""Part of the time that a programme is taken to have had its cores at least."""

MOST_NOISE = 0.5
"""Relative half-width of one window's rate alone beyond which nothing can be said."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a programme is to be profiled.

    Attributes:
        key: the application's name.
        cores: where it runs.
        beside: where bubbles and reporters run; may be empty.
        rate: regular expression over its output, or None.
        most_s: end after about this long.
        folder: where bubbles of the disk press.
        gpu: the GPU it uses, where bubbles of a GPU press; None leaves those kinds out.
        env: variables on top of this process's.
    """

    key: str
    cores: tuple[int, ...]
    beside: tuple[int, ...]
    rate: str | None = None
    most_s: float = 55.0
    folder: Path | None = None
    gpu: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)


def measure(
    argv: Sequence[str],
    terms: Terms,
    calibration: Calibration,
    *,
    progress: Callable[[str], None] = lambda line: None,
) -> Profile:
    """Profile a programme on this machine; its revision is 1.

    Raises:
        ProgrammeError: It cannot be measured; says why and what to do.
        BubbleError: A bubble cannot be started.
    """
    begun = time.monotonic()
    with ExitStack() as stack:
        programmes = stack.enter_context(Programmes(terms.env))
        progress("starting")
        subject = follow(programmes.add(terms.key, argv, terms.cores), terms.rate)
        if isinstance(subject.source, Output):
            stack.callback(subject.source.close)
        session = _Session(subject, terms, calibration, begun, stack)
        progress("alone")
        session.alone()
        progress("beside bubbles")
        session.sensitivity()
        progress("beside reporters")
        session.pressure()
        waited = session.check_quiet()
        phases = tuple(widened(phase, waited) for phase in session.phases())
    cost_s = time.monotonic() - begun
    return Profile(
        key=terms.key,
        argv=tuple(argv),
        machine=calibration.machine,
        cpus=len(terms.cores),
        made=SystemClock().now(),
        cost_s=round(cost_s, 2),
        revision=1,
        phases=phases,
        gpu=terms.gpu,
        bubble_cores=max(1, len(terms.beside)),
        reporter_excess=reporter_excess(calibration),
        waited=round(waited, 4),
    )


def kept_waiting(windows: Sequence[Window], name: str, cores: int) -> float:
    """Part of the time alone in which others kept a programme from its cores.

    Raises:
        ProgrammeError: It was most of it.
    """
    alone = [w.waits.get(name, 0.0) for w in windows if w.running == {name}]
    waiting = statistics.mean(alone) / cores
    if waiting > MOST_WAITING:
        raise ProgrammeError(
            given=f"others used the cores of {name} for {waiting:.0%} of the time that it was to be alone",
            allowed=f"up to {MOST_WAITING:.0%}",
            todo="profile it when the machine is quiet, or on cores that nobody else uses",
        )
    return waiting


def widened(phase: PhaseProfile, waited: float) -> PhaseProfile:
    """What was measured while others had the programme's cores for a part of the time, with intervals to match.

    Windows alone and beside bubbles alternate, and either may have been hit by all of it: rates and slowdowns are
    uncertain by so much of themselves, pressures by so much of the dial.

    Args:
        phase: as measured.
        waited: see `Profile.waited`.
    """

    def wider(curve: Curve) -> Curve:
        halves = [math.hypot(half, waited * slow) for slow, half in zip(curve.slowdowns, curve.halves, strict=True)]
        return replace(curve, halves=(0.0, *(round(half, 4) for half in halves[1:])))

    return replace(
        phase,
        noise=round(math.hypot(phase.noise, waited), 4),
        sensitivity={kind: wider(curve) for kind, curve in phase.sensitivity.items()},
        pressure_half={kind: round(math.hypot(half, waited), 4) for kind, half in phase.pressure_half.items()},
    )


def reporter_excess(calibration: Calibration) -> dict[str, float]:
    """What each kind's reporter is slowed by at dial level 1, less 1; where nothing was felt, the least that can be."""
    return {kind: round(max(LEAST_EXCESS, one.noise, one.excess), 4) for kind, one in calibration.responses.items()}


class _Antagonist:
    """A bubble at one level, as a participant."""

    def __init__(self, bubble: Bubble | GpuBubble, level: float) -> None:
        self.name = f"{bubble.kind}@{level:g}"
        self.trace = Trace()
        self._bubble, self._level = bubble, level

    def go(self) -> None:
        self._bubble.set(self._level)

    def pause(self) -> None:
        self._bubble.set(0.0)

    def read(self) -> None: ...

    def waited_s(self) -> float:
        return 0.0

    def filenos(self) -> list[int]:
        return []


class _Feeler:
    """A reporter, as a participant."""

    def __init__(self, reporter: Reporter | GpuReporter) -> None:
        self.name = f"reporter {reporter.kind}"
        self.trace = Trace()
        self.go, self.pause = reporter.go, reporter.pause
        self._reporter = reporter
        self._offset_s = SystemClock().offset_s

    def read(self) -> None:
        count, at_s = self._reporter.count()
        self.trace.add(self._offset_s + at_s, float(count))

    def waited_s(self) -> float:
        return 0.0

    def filenos(self) -> list[int]:
        return []


class _Session:
    """One profiling under way."""

    def __init__(
        self, subject: Subject, terms: Terms, calibration: Calibration, begun: float, stack: ExitStack
    ) -> None:
        self._subject, self._terms, self._calibration = subject, terms, calibration
        self._until = begun + terms.most_s
        self._stack = stack
        step_s = subject.step_s() or 0.0
        if POINTS_PER_WINDOW * step_s > LONGEST_WINDOW_S:
            raise _too_seldom(subject, step_s)
        self._stage = Stage([subject], window_s=max(WINDOW_S, POINTS_PER_WINDOW * step_s), settle_s=SETTLE_S)
        # Beside a bubble steps take longer. A window in which not even two ends of steps lie says nothing, so that
        # windows made for steps alone would pick the fast ones.
        self._beside_s = max(WINDOW_S, min(LONGEST_WINDOW_S, MOST_SLOWED * POINTS_PER_WINDOW * step_s))
        self._name = subject.name
        self._cpu: list[tuple[str, float]] = []
        pressed = [kind for kind in KINDS if terms.beside or kind == "cpu"]
        if terms.gpu is not None:
            pressed += GPU_KINDS
        self._kinds = [kind for kind in pressed if kind in calibration.responses]
        self._campaign: Campaign | None = None
        self._pressure: dict[tuple[str, str], Interval] = {}
        self._noise = 0.04

    def alone(self) -> None:
        """The rate alone, its noise, and the phases that count."""
        for attempt in range(2):
            for _ in range(SOLO_WINDOWS):
                self._solo()
            self.check_quiet()
            self._noise = noise_of(self._alone_rates(None)) or self._noise
            if self._noise <= MOST_NOISE:
                return
            self._stage.window_s = min(LONGEST_WINDOW_S, 4 * self._stage.window_s)  # bursts may even out
            if attempt == 0:
                self._stage.windows.clear()
        raise _scatters(self._subject, self._noise, self._stage.window_s)

    def sensitivity(self) -> None:
        """Beside each bubble, at as many levels as matter."""
        bubbles = self._open_bubbles()
        names: dict[Setting, str] = {}
        self._campaign = campaign = Campaign(self._known, self._kinds, self._counting_phases())
        since_solo = 0
        until = self._until - PRESSURE_PART * self._terms.most_s
        while time.monotonic() < until and (setting := campaign.next()) is not None:
            if setting not in names:
                one = _Antagonist(bubbles[setting[0]], setting[1])
                names[setting] = one.name
                self._stage.add(one)
            if since_solo == 0:
                self._solo()
            self._take({self._name, names[setting]}, max(self._beside_s, self._stage.window_s))
            since_solo = (since_solo + 1) % BETWEEN_SOLOS
        self._solo()

    def pressure(self) -> None:
        """Each reporter with the programme beside it, and without."""
        fewest, most = PRESSURE_ROUNDS
        feelers: dict[str, _Feeler] = {}
        for kind in self._kinds:
            feelers[kind] = _Feeler(self._reporter(kind))
            self._stage.add(feelers[kind])
        for turn in range(most):
            for kind, feeler in feelers.items():
                late = turn > 0 and time.monotonic() > self._until
                if late or (turn >= fewest and self._pressed_enough(kind, feeler)):
                    continue
                self._stage.take({feeler.name}, REPORTER_S)
                self._take({feeler.name, self._name})
                self._stage.take({feeler.name}, REPORTER_S)
        for kind, feeler in feelers.items():
            for phase in self._counting_phases():
                one = self._felt(feeler, phase)
                if one is not None:
                    self._pressure[kind, phase] = one
        self._stage.switch(frozenset())

    def check_quiet(self) -> float:
        """The part of the time alone in which others kept the programme from its cores.

        Raises:
            ProgrammeError: It was most of it.
        """
        return kept_waiting(self._stage.windows, self._name, len(self._terms.cores))

    def phases(self) -> tuple[PhaseProfile, ...]:
        """What was found, by phase."""
        assert self._campaign is not None
        counted = Counter(phase for phase, _ in self._cpu)
        found = []
        for phase in self._counting_phases():
            rates = [rate for _, rate in self._alone_rates(phase)]
            curves = {kind: curve for kind in self._kinds if (curve := self._campaign.curve(kind, phase)) is not None}
            pressed = {kind: one for (kind, p), one in self._pressure.items() if p == phase}
            level_of = self._calibration.level_of
            found.append(
                PhaseProfile(
                    phase=phase,
                    share=round(counted[phase] / sum(counted[p] for p in self._counting_phases()), 4),
                    rate=float(f"{statistics.median(rates):.5g}"),
                    noise=round(noise_of(self._alone_rates(phase)) or self._noise, 4),
                    cpu_use=round(statistics.median(use for p, use in self._cpu if p == phase), 4),
                    sensitivity=curves,
                    pressure={kind: round(level_of(kind, one.mid), 4) for kind, one in pressed.items()},
                    pressure_half={kind: round(level_of(kind, 1.0 + one.half), 4) for kind, one in pressed.items()},
                )
            )
        return tuple(found)

    def _solo(self) -> None:
        before, begun = self._subject.programme.cpu_s(), time.monotonic()
        window = self._take({self._name})
        spent_s, passed_s = self._subject.programme.cpu_s() - before, time.monotonic() - begun
        phase = window.phases.get(self._name)
        if phase is not None and self._name in window.rates:
            cores = float(len(self._terms.cores))
            had = max(LEAST_HAD, 1.0 - window.waits.get(self._name, 0.0) / cores)  # of the time; the rest others had
            self._cpu.append((phase, min(spent_s / passed_s / had, cores)))

    def _take(self, running: set[str], seconds: float | None = None) -> Window:
        """Take a window; where it says nothing of the programme (its run ended), wait until it works again."""
        window = self._stage.take(running, seconds)
        if self._name not in window.rates:
            self._stage.switch({self._name})
            self._subject.until_it_works()
        return window

    def _alone_rates(self, phase: str | None) -> list[tuple[float, float]]:
        return [
            (w.middle, w.rates[self._name])
            for w in self._stage.windows
            if w.running == {self._name} and self._name in w.rates and phase in (None, w.phases.get(self._name))
        ]

    def _counting_phases(self) -> list[str]:
        """Phases that take at least a tenth of the windows alone, in the order of their first window."""
        counted = Counter(phase for phase, _ in self._cpu)
        least = LEAST_SHARE * sum(counted.values())
        found = [phase for phase, count in counted.items() if count >= least]
        if not found:
            raise _never_steady(self._subject, self._stage.window_s)
        return found

    def _known(self, setting: Setting, phase: str) -> Interval | None:
        beside = frozenset({self._name, f"{setting[0]}@{setting[1]:g}"})
        ratios = slowdowns(self._stage.windows, self._name, beside, phase)
        return interval(ratios, min(self._noise, 0.1)) if ratios else None

    def _felt(self, feeler: _Feeler, phase: str) -> Interval | None:
        """How much slower a reporter was beside the programme in a phase."""
        alone: list[tuple[float, float]] = []
        beside: list[tuple[float, float]] = []
        for w in self._stage.windows:
            rate = w.rates.get(feeler.name)
            if rate is None:
                continue
            if w.running == {feeler.name} and rate > 0:
                alone.append((w.middle, rate))
            elif w.running == {feeler.name, self._name} and w.phases.get(self._name) == phase:
                beside.append((w.middle, rate))
        ratios = [ratio for ratio in paired(alone, beside) if ratio < float("inf")]
        return interval(ratios) if ratios else None

    def _pressed_enough(self, kind: str, feeler: _Feeler) -> bool:
        unit = self._calibration.slowdown(kind, 1.0) - 1.0
        every = [self._felt(feeler, phase) for phase in self._counting_phases()]
        return all(one is not None and one.half <= max(0.03, 0.1 * unit) for one in every)

    def _reporter(self, kind: str) -> Reporter | GpuReporter:
        if kind in GPU_KINDS:
            assert self._terms.gpu is not None
            feeler = self._stack.enter_context(GpuReporter(kind, self._terms.gpu))
            feeler.wait_ready()
            return feeler
        on = self._terms.cores[:1] if kind == "cpu" else self._terms.beside[:1]
        return self._stack.enter_context(Reporter(kind, cores=on, folder=self._terms.folder))

    def _open_bubbles(self) -> dict[str, Bubble | GpuBubble]:
        """One of each kind, ready; those of a GPU come up side by side."""
        terms, found = self._terms, dict[str, Bubble | GpuBubble]()
        for kind in self._kinds:
            if kind in GPU_KINDS:
                assert terms.gpu is not None
                found[kind] = self._stack.enter_context(GpuBubble(kind, terms.gpu, self._calibration))
            else:
                on = terms.cores if kind == "cpu" else terms.beside
                bubble = Bubble(kind, cores=on, folder=terms.folder, calibration=self._calibration)
                found[kind] = self._stack.enter_context(bubble)
        for one in found.values():
            if isinstance(one, GpuBubble):
                one.wait_ready()
        return found


def _too_seldom(subject: Subject, step_s: float) -> ProgrammeError:
    return ProgrammeError(
        given=f"{subject.name} makes a step every {step_s:.2g} s, by {subject.source.WAY}",
        allowed=f"a step every {LONGEST_WINDOW_S / POINTS_PER_WINDOW:.1g} s or more often",
        todo="let it write records more often (a step may be a fraction), give --rate REGEX, or take a smaller input",
    )


def _scatters(subject: Subject, noise: float, window_s: float) -> ProgrammeError:
    return ProgrammeError(
        given=f"the rate of {subject.name} alone scatters by {noise:.0%} between windows of {window_s:.2g} s",
        allowed=f"up to {MOST_NOISE:.0%}",
        todo="give it a fixed input and seed and steps of equal work, announce its phases, or quiet the machine",
    )


def _never_steady(subject: Subject, window_s: float) -> ProgrammeError:
    return ProgrammeError(
        given=f"{subject.name} was in no phase for a whole window of {window_s:.2g} s, by {subject.source.WAY}",
        allowed="phases that last, and steps within them",
        todo="announce fewer phases, or none",
    )


__all__ = ["BubbleError", "Terms", "measure"]
