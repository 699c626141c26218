"""Profile a programme: alone, beside bubbles at several levels, and beside reporters that feel how it presses.

    profile = measure(argv, Terms(key="cg", cores=(0,), beside=(1,)), calibration)

The programme runs on `cores`, bubbles and reporters on `beside`, the "cpu" ones on the programme's own. All of it is
windows that alternate (`tandem.estimate.profiling.windows`): two or three beside bubbles stand between two alone.
A window that would not end within the limit is not begun; `Profile.left_out` names the kinds that were therefore not
tried.
Limits: without a core to spare only "cpu" can be measured.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tandem.core.clock import SystemClock
from tandem.estimate.bubbles import BubbleError
from tandem.estimate.bubbles.calibration import MOST_SCATTER
from tandem.estimate.meeting import fairly
from tandem.estimate.profile import DISTURBED, GPU_KINDS, KINDS, Pauses, PhaseProfile, Profile, Stepless
from tandem.estimate.profiling.campaign import FEWEST, Campaign
from tandem.estimate.profiling.course import lived, own_seconds, paused
from tandem.estimate.profiling.deadline import Deadline
from tandem.estimate.profiling.disturbed import MOST_WAITING, doubted, kept_waiting, waited, widened
from tandem.estimate.profiling.participants import Antagonist, Equipment, Feeler
from tandem.estimate.profiling.programme import ProgrammeError, Programmes
from tandem.estimate.profiling.ratios import Interval, interval, noise_known, noise_of, paired, reaching, scatter_of
from tandem.estimate.profiling.refusals import (
    LONGEST_WINDOW_S,
    MOST_NOISE,
    POINTS_PER_WINDOW,
    hangs,
    never_steady,
    scatters,
    too_seldom,
)
from tandem.estimate.profiling.sources import follow
from tandem.estimate.profiling.standing import Standing
from tandem.estimate.profiling.stepless import overlooked, stepless, with_steps
from tandem.estimate.profiling.subject import Output, Runs
from tandem.estimate.profiling.trust import FEWEST_PAUSES
from tandem.estimate.profiling.windows import SETTLE_S, WINDOW_S, Stage, Window, slowdowns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tandem.estimate.bubbles import Calibration
    from tandem.estimate.profiling.campaign import Setting
    from tandem.estimate.profiling.subject import Subject

DEFAULT_MOST_S = 55.0
MOST_SLOWED = 3.0
"""Windows beside bubbles are made for steps that take so many times as long as alone."""

SOLO_WINDOWS = 7
FEWEST_SOLOS = 4
"""Windows alone, in each phase that counts, without which nothing is known of the noise."""

ALONE_PART = 0.25
"""Of the time, what windows alone take beyond the fewest, before those beside bubbles."""

MOST_ALONE_PART = 0.5
"""Of the time, what is spent at most on windows alone that are taken again since others or bursts disturbed them."""

BETWEEN_SOLOS = 2
REPORTER_S = 0.06
PRESSURE_ROUNDS = (3, 4)
HURRIED_ROUNDS = 2
"""Without time for so many beside the programme, a kind of reporter is not begun with: one may be a burst."""

PRESSURE_PART = 0.35
"""Of the time that is left after those alone, what is kept for reporters."""

START_S = 0.3
"""What starting a bubble or reporter takes, roughly."""

START_PART = 0.3
"""Of the time that is left, what one may take to start at most: a disk that stalls costs its own kind only."""

LEAST_SHARE = 0.1
"""Phases that take less of the time than this are not waited for."""

LEAST_SILENCE_S, SILENT_STEPS, SILENT_WAITS = 1.0, 10.0, 2.0
"""A programme that says nothing until the end of the time hangs where that is longer than each of these: seconds,
steps alone, and times the longest that it was waited for before, its start included."""

_PAUSE_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a programme is to be profiled.

    Attributes:
        key: the application's name.
        cores: where it runs.
        beside: where bubbles and reporters run; may be empty.
        rate: regular expression over its output, or None.
        most_s: begin no window that would end later than this.
        folder: where bubbles of the disk press.
        gpu: the GPU it uses, where bubbles of a GPU press; None leaves those kinds out.
        env: variables on top of this process's.
    """

    key: str
    cores: tuple[int, ...]
    beside: tuple[int, ...]
    rate: str | None = None
    most_s: float = DEFAULT_MOST_S
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
        ProgrammeError: It cannot be measured, or not in so little time; says why and what to do.
        BubbleError: A bubble cannot be started.
    """
    begun, deadline = time.monotonic(), Deadline.after(terms.most_s)
    with ExitStack() as stack:
        programmes = stack.enter_context(Programmes(terms.env))
        progress("starting")
        subject = follow(programmes.add(terms.key, argv, terms.cores), terms.rate, deadline=deadline)
        if isinstance(subject.source, Output):
            stack.callback(subject.source.close)
        equipment = Equipment(terms.cores, terms.beside, calibration, stack, folder=terms.folder, gpu=terms.gpu)
        session = _Session(subject, terms, calibration, equipment, deadline)
        progress("alone")
        session.alone()
        progress("beside bubbles")
        session.sensitivity()
        progress("beside reporters")
        session.pressure()
        session.pauses()
        kept = session.check_quiet()
        phases = tuple(widened(phase, kept) for phase in session.phases())
        left_out, (silent, _) = session.left_out(), session.stepless()
        felt = {kind: one for kind, one in calibration.reporter_excess.items() if kind not in session.uncalibrated}
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
        reporter_excess=felt,
        calibrated=calibration.made,
        waited=round(kept, 4),
        left_out=left_out,
        stepless=silent,
    )


def own_noise(windows: Sequence[Window], name: str, cores: int) -> float | None:
    """Relative half-width of the 90 % interval of one window's rate alone, for what the programme itself does.

    Windows are compared with those of the same phase only, and by the rate in the time in which it had its cores: what
    others took is no scatter of its own, and `widened` counts it.

    Args:
        windows: all that were taken.
        name: the programme's.
        cores: how many it has.

    Returns:
        That of its noisiest phase; None where no phase has four windows.
    """
    rates: dict[str, list[tuple[float, float]]] = {}
    for window in windows:
        if window.running == {name} and name in window.rates and name in window.phases:
            own = window.rates[name] / window.had(name, cores)
            rates.setdefault(window.phases[name], []).append((window.middle, own))
    return max((noise for of_one in rates.values() if (noise := noise_of(of_one)) is not None), default=None)


def unsteady(windows: Sequence[Window], reporter: str) -> bool:
    """Whether a reporter tells nothing of who runs beside it: alone it scatters too much, or beside it stands still.

    Args:
        windows: all that were taken; one in which it did nothing at all counts with a rate of 0.
        reporter: its name as a participant.
    """
    alone = [w.rates.get(reporter, 0.0) / w.had(reporter, 1) for w in windows if w.running == {reporter}]
    beside = [window.rates.get(reporter, 0.0) for window in windows if window.running > {reporter}]
    return bool(beside) and (scatter_of(alone) > MOST_SCATTER or not any(beside))


def unheard_s(windows: Sequence[Window], name: str, last: float) -> float:
    """Seconds of windows in which a programme ran after ``last``, in unix seconds, when it was heard of last."""
    return sum(
        window.end - max(window.begin, last) for window in windows if name in window.running and window.end > last
    )


class _Session:
    """One profiling under way."""

    def __init__(
        self, subject: Subject, terms: Terms, calibration: Calibration, equipment: Equipment, deadline: Deadline
    ) -> None:
        self._subject, self._terms, self._calibration = subject, terms, calibration
        self._equipment, self._deadline = equipment, deadline
        step_s = subject.step_s() or 0.0
        if POINTS_PER_WINDOW * step_s > LONGEST_WINDOW_S:
            raise too_seldom(subject, step_s)
        self._stage = Stage([subject], window_s=max(WINDOW_S, POINTS_PER_WINDOW * step_s), settle_s=SETTLE_S)
        # Beside a bubble steps take longer. A window in which not even two ends of steps lie says nothing, so that
        # windows made for steps alone would pick the fast ones.
        self._beside_s = max(WINDOW_S, min(LONGEST_WINDOW_S, MOST_SLOWED * POINTS_PER_WINDOW * step_s))
        self._longest_wait_s = self._started_s = terms.most_s - deadline.left_s()
        self._silence_s = max(LEAST_SILENCE_S, SILENT_STEPS * step_s)
        # A reporter feels the programme at any moment: a whole step is enough.
        self._press_s = max(WINDOW_S, min(LONGEST_WINDOW_S, step_s))
        self._name = subject.name
        self._cpu: list[tuple[str, float]] = []
        pressed = [kind for kind in KINDS if terms.beside or kind == "cpu"]
        if terms.gpu is not None:
            pressed += GPU_KINDS
        self._kinds = [kind for kind in pressed if kind in calibration.responses]
        self._reported = [kind for kind in self._kinds if calibration.responses[kind].felt]
        self.uncalibrated = tuple(
            kind for kind in self._kinds if kind not in self._reported and calibration.responses[kind].doubtful
        )
        self._unsteady: list[str] = []
        self._campaign: Campaign | None = None
        self._pressure: dict[tuple[str, str], Interval] = {}
        self._standing, self._alone_since = Standing(subject, len(terms.cores)), math.inf
        self._noise = 0.04

    def alone(self) -> None:
        """The rate alone, its noise, and the phases that count."""
        until = self._deadline.share(MOST_ALONE_PART)
        while True:
            self._solos()
            about = self._stage.windows, self._name, len(self._terms.cores)
            self._noise = own_noise(*about) or self._noise
            if self._noise <= MOST_NOISE and waited(*about) <= MOST_WAITING:
                return
            longer_s = self._longer_s() if self._noise > MOST_NOISE else self._stage.window_s
            if not until.fits(FEWEST_SOLOS * longer_s):
                self.check_quiet()
                raise scatters(self._subject, self._noise, self._stage.window_s)
            self._stage.window_s = longer_s
            self._stage.windows.clear()
            self._cpu.clear()

    def _longer_s(self) -> float:
        """The length of windows in which bursts may even out, that still fit into every phase that counts."""
        lasting = self._subject.trace.lasting()
        within_s = min((lasting.get(phase, math.inf) / 2 for phase in self._steady_phases()), default=math.inf)
        return max(self._stage.window_s, min(LONGEST_WINDOW_S, 4 * self._stage.window_s, within_s))

    def sensitivity(self) -> None:
        """Beside each bubble, at as many levels as matter."""
        antagonists: dict[Setting, Antagonist] = {}
        self._campaign = campaign = Campaign(self._known, self._kinds, self._counting_phases)
        until = self._deadline.share(1.0 - PRESSURE_PART)
        beside_s, solo_s = max(self._beside_s, self._stage.window_s) + SETTLE_S, self._stage.window_s + SETTLE_S
        since_solo = 0
        while (setting := campaign.next()) is not None:
            start_s = 0.0 if setting in antagonists else START_S
            if not until.fits(start_s + beside_s + (2 if since_solo == 0 else 1) * solo_s):
                break
            if setting not in antagonists:
                self._stage.switch(frozenset())  # what it does while somebody starts on its cores would be no pause
                if (bubble := self._equipment.bubble(setting[0], until.share(START_PART))) is None:
                    campaign.give_up(setting)
                    continue
                antagonists[setting] = Antagonist(bubble, setting[1])
                self._stage.add(antagonists[setting])
            if since_solo == 0:
                self._solo()
            self._take({self._name, antagonists[setting].name}, beside_s - SETTLE_S)
            since_solo = (since_solo + 1) % BETWEEN_SOLOS
        if antagonists and self._deadline.fits(solo_s):
            self._solo()

    def pressure(self) -> None:
        """Each reporter with the programme beside it, and without.

        Raises:
            ProgrammeError: It was not at work.
        """
        fewest, most = PRESSURE_ROUNDS
        round_s = 2 * REPORTER_S + self._press_s + 3 * SETTLE_S
        affordable = int(max(0.0, self._deadline.left_s()) / (HURRIED_ROUNDS * round_s + START_S))
        feelers: dict[str, Feeler] = {}
        self._stage.switch(frozenset())
        for kind in self._reported[:affordable]:
            if (reporter := self._equipment.reporter(kind, self._deadline.share(START_PART))) is None:
                continue
            feelers[kind] = Feeler(reporter)
            self._stage.add(feelers[kind])
        for turn in range(most):
            for kind, feeler in feelers.items():
                if self._deadline.fits(round_s) and (turn < fewest or not self._pressed_enough(kind, feeler)):
                    self._stage.take({feeler.name}, REPORTER_S)
                    self._press(feeler)
                    self._stage.take({feeler.name}, REPORTER_S)
        self._refuse_silence()
        for kind, feeler in feelers.items():
            if unsteady(self._stage.windows, feeler.name):
                self._unsteady.append(kind)
                continue
            for phase in self._told_phases():
                one = self._felt(feeler, phase)
                if one is not None:
                    self._pressure[kind, phase] = one
        self._stage.switch(frozenset())

    def pauses(self) -> None:
        """Where it stands still now and then, let it run on alone for some whole cycles, as long as there is time."""
        while self._deadline.fits(_PAUSE_LOOK_S):
            found = [self._paused(phase) for phase in self._counting_phases()]
            begun = self._alone_since < math.inf
            seen = [one[0].seen for one in found if one is not None]
            silent, cycles = self.stepless()
            seen += [cycles] if silent else []
            if not any(count < FEWEST_PAUSES or not begun for count in seen):
                break
            if not begun:
                self._alone_since = SystemClock().now()
            self._stage.switch({self._name})
            self._standing.watch(_PAUSE_LOOK_S)
            self._stage.run({self._name}, 0.0)
        self._stage.switch(frozenset())

    def stepless(self) -> tuple[dict[str, Stepless], int]:
        """Its phases without steps, and how many whole cycles of them were seen.

        One that was too short to be looked at is held to keep as many cores busy as steps do.
        """
        shares, cycles = stepless(self._lived(), self._subject.trace, self._told_phases(), self._alone_since)
        at_steps = statistics.median(use for _, use in self._cpu)
        uses = {phase: at_steps if (use := self._standing.use(phase)) is None else use for phase in shares}
        return {phase: Stepless(round(share, 4), round(uses[phase], 4)) for phase, share in shares.items()}, cycles

    def left_out(self) -> dict[str, tuple[str, ...]]:
        """See `Profile.left_out`; only where there are any.

        Raises:
            ProgrammeError: Neither bubble nor reporter was tried, for want of time.
        """
        ran = [window.running for window in self._stage.windows]
        begun = {one.partition("@")[0] for names in ran if self._name in names for one in names - {self._name}}
        found = {
            "sensitivity": tuple(kind for kind in self._kinds if kind not in begun),
            "pressure": tuple(kind for kind in self._reported if f"reporter {kind}" not in begun),
            "unfelt": tuple(kind for kind in self._kinds if kind not in (*self._reported, *self.uncalibrated)),
            "uncalibrated": self.uncalibrated,
            "unsteady": tuple(self._unsteady),
        }
        if len(found["sensitivity"]) == len(self._kinds) and len(found["pressure"]) == len(self._reported):
            raise self._no_time(what="no time was left for bubbles and reporters")
        return {what: kinds for what, kinds in found.items() if kinds}

    def check_quiet(self) -> float:
        """The part of the time alone in which others kept the programme from its cores.

        Raises:
            ProgrammeError: It was most of it.
        """
        return kept_waiting(self._stage.windows, self._name, len(self._terms.cores))

    def phases(self) -> tuple[PhaseProfile, ...]:
        """What was found, by phase."""
        assert self._campaign is not None
        shares, found = self._shares(), []
        for phase in shares:
            pauses, noise = self._paused(phase) or (None, self._noise_of(phase))
            rate = self._working_rate(phase) * (1.0 - pauses.part if pauses else 1.0)
            use = statistics.median([use for p, use in self._cpu if p == phase] or [use for _, use in self._cpu])
            if pauses and (standing := self._standing.use(phase, self._stage.window_s)) is not None:
                use += pauses.part * (standing - use)
            curves = {kind: curve for kind in self._kinds if (curve := self._campaign.curve(kind, phase)) is not None}
            pressed = {kind: one for (kind, p), one in self._pressure.items() if p == phase}
            level_of = self._calibration.level_of
            found.append(
                PhaseProfile(
                    phase=phase,
                    share=round(shares[phase], 4),
                    rate=float(f"{rate:.5g}"),
                    noise=round(noise, 4),
                    cpu_use=round(use, 4),
                    sensitivity=curves,
                    pressure={kind: round(level_of(kind, one.mid), 4) for kind, one in pressed.items()},
                    pressure_half={kind: round(level_of(kind, 1.0 + one.half), 4) for kind, one in pressed.items()},
                    pauses=pauses,
                )
            )
        return tuple(found)

    def _shares(self) -> dict[str, float]:
        """Part of the time that each phase with steps takes; by its windows alone where the programme tells of none."""
        told = self._told_phases()
        counted = Counter(phase for phase, _ in self._cpu if phase in told)
        parts = with_steps({one: self._lived(one) for one in told}, self._subject.trace, self._alone_since)
        left = 1.0 - sum(one.share for one in self.stepless()[0].values())
        return {one: left * (parts[one] if parts else counted[one] / counted.total()) for one in told}

    def _solos(self) -> None:
        """Windows alone: all there should be, of every phase too, or as many as there is time for."""
        spare, taken = self._deadline.share(ALONE_PART), 0
        while taken < SOLO_WINDOWS or not self._phases_known():
            deadline = self._deadline if taken < FEWEST_SOLOS else spare
            if not deadline.fits(self._stage.window_s + SETTLE_S):
                break
            self._solo()
            taken += 1
        if len(self._alone_rates(None)) < FEWEST_SOLOS - 1 and not self._deadline.fits(self._stage.window_s + SETTLE_S):
            raise self._no_time(what=f"{FEWEST_SOLOS} windows of {self._stage.window_s:.2g} s alone did not fit")

    def _solo(self) -> None:
        before, begun = self._subject.programme.cpu_s(), time.monotonic()
        self._take({self._name})
        window = self._stage.windows[-1]
        spent_s, passed_s = self._subject.programme.cpu_s() - before, time.monotonic() - begun
        phase = window.phases.get(self._name)
        if phase is not None and self._name in window.rates:
            cores = len(self._terms.cores)
            self._cpu.append((phase, min(spent_s / passed_s / window.had(self._name, cores), float(cores))))

    def _take(self, running: set[str], seconds: float | None = None) -> None:
        """Take a window; where it says nothing of the programme (its run ended), wait until it works again."""
        window = self._stage.take(running, seconds)
        if self._name not in window.rates:
            self._await_work()

    def _press(self, feeler: Feeler) -> None:
        """A window of a reporter beside the programme; where that began its next run, wait until it works again."""
        runs = self._subject.programme.runs
        self._stage.take({feeler.name, self._name}, self._press_s)
        if self._subject.programme.runs != runs and not isinstance(self._subject.source, Runs):
            self._await_work()

    def _await_work(self) -> None:
        self._stage.switch({self._name})
        begun = time.monotonic()
        works = self._standing.until_it_works(self._deadline)
        waited_s = time.monotonic() - begun
        if works:
            self._longest_wait_s = max(self._longest_wait_s, waited_s)
        else:
            self._refuse_silence(waited_s)

    def _refuse_silence(self, waited_s: float = 0.0) -> None:
        """Raise a ProgrammeError where, after its windows and a wait, nothing was heard of it for too long."""
        assert self._subject.trace.last is not None
        last, now = self._subject.trace.last[0], SystemClock().now()
        silent_s = min(waited_s, now - last) + unheard_s(self._stage.windows, self._name, last)
        if silent_s > max(self._silence_s, SILENT_WAITS * self._longest_wait_s):
            raise hangs(self._subject, self._terms.most_s - self._deadline.left_s() - (now - last))

    def _no_time(self, *, what: str) -> ProgrammeError:
        most_s = self._terms.most_s
        return ProgrammeError(
            given=f"{what} in the {most_s:g} s for {self._name}, which was at work after {self._started_s:.1f} s",
            allowed="a limit in which it starts, runs alone and runs beside bubbles",
            todo=f"give it more time, such as --most {max(DEFAULT_MOST_S, 2 * most_s):g}",
        )

    def _paused(self, phase: str) -> tuple[Pauses, float] | None:
        """Its pauses in a phase, and the noise of its rate between them; None where it does not pause."""
        if not self._alone_rates(phase):
            return None
        rate, noise, window_s = self._working_rate(phase), self._noise_of(phase), self._stage.window_s
        return paused(self._lived(phase), self._subject.trace, phase, window_s, rate, noise, self._alone_since)

    def _lived(self, phase: str | None = None) -> list[tuple[float, float]]:
        return lived(self._stage, self._name, len(self._terms.cores), phase)

    def _working_rate(self, phase: str) -> float:
        """By its windows alone; of a phase that none of them met, what all its steps say."""
        if rates := [rate for _, rate in self._alone_rates(phase)]:
            return statistics.median(rates)
        own_s, gaps = own_seconds(self._lived(phase)), [*self._subject.trace.gaps(phase)]
        return sum(done for *_, done in gaps) / sum(own_s(end) - own_s(begin) for begin, end, _ in gaps)

    def _noise_of(self, phase: str) -> float:
        return noise_of(self._alone_rates(phase)) or self._noise

    def _alone_rates(self, phase: str | None) -> list[tuple[float, float]]:
        """Of each window its middle, and steps per second of the time in which it had its cores."""
        about = self._name, len(self._terms.cores)
        return [(w.middle, w.rates[self._name] / w.had(*about)) for w in self._alone_windows(phase)]

    def _alone_windows(self, phase: str | None) -> list[Window]:
        return [
            w
            for w in self._stage.windows
            if w.running == {self._name} and self._name in w.rates and phase in (None, w.phases.get(self._name))
        ]

    def _counting_phases(self) -> list[str]:
        """The same, at least one."""
        found = self._steady_phases()
        if not found:
            raise never_steady(self._subject, self._stage.window_s)
        return list(found)

    def _told_phases(self) -> list[str]:
        """The same, and those that take as much of the time by when they were announced, but met few windows alone."""
        counting, trace = self._counting_phases(), self._subject.trace
        return [*counting, *overlooked(self._lived(), trace, counting, LEAST_SHARE, self._alone_since)]

    def _steady_phases(self) -> dict[str, int]:
        """Phases that take at least a tenth of the windows alone, in the order of their first, with how many."""
        counted = Counter(phase for phase, _ in self._cpu)
        least = LEAST_SHARE * counted.total()
        return {phase: count for phase, count in counted.items() if count >= least}

    def _phases_known(self) -> bool:
        found = self._steady_phases()
        return bool(found) and min(found.values()) >= FEWEST_SOLOS

    def _known(self, setting: Setting, phase: str) -> Interval | None:
        beside = frozenset({self._name, f"{setting[0]}@{setting[1]:g}"})
        windows, cores, on_its_cores = self._stage.windows, len(self._terms.cores), setting[0] == "cpu"
        crowded = on_its_cores and waited(windows, self._name, cores) > DISTURBED
        all_counts = on_its_cores and not crowded
        ratios = slowdowns(windows, self._name, beside, phase, cores=None if all_counts else cores)
        if not ratios:
            return None
        uses = [use for p, use in self._cpu if p == phase]
        turns = taking_turns(statistics.median(uses), setting[1]) if on_its_cores else 1.0
        if crowded:  # what it had beside the bubble and others is no part of a core that is shared by two
            ratios = [turns * ratio for ratio in ratios]
        noise = noise_known(self._alone_rates(phase), self._noise)
        enough = len(ratios) >= FEWEST
        found = interval(ratios, min(noise, 0.1)) if enough else reaching(interval(ratios, noise), turns)
        return found if on_its_cores else doubted(found, waited(windows, self._name, cores, beside))

    def _felt(self, feeler: Feeler, phase: str) -> Interval | None:
        """How much slower a reporter was beside the programme in a phase, while it had its core."""
        on_its_core = feeler.name == "reporter cpu"  # where the programme is as well
        alone: list[tuple[float, float]] = []
        beside: list[tuple[float, float]] = []
        for w in self._stage.windows:
            rate = w.rates.get(feeler.name)
            if rate is None:
                continue
            rate /= 1.0 if on_its_core else w.had(feeler.name, 1)
            if w.running == {feeler.name} and rate > 0:
                alone.append((w.middle, rate))
            elif w.running == {feeler.name, self._name} and w.phases.get(self._name) == phase:
                beside.append((w.middle, rate))
        ratios = [ratio for ratio in paired(alone, beside) if ratio < float("inf")]
        if not ratios:
            return None
        waits = 0.0 if on_its_core else waited(self._stage.windows, feeler.name, 1, {feeler.name, self._name})
        return doubted(interval(ratios), waits)

    def _pressed_enough(self, kind: str, feeler: Feeler) -> bool:
        unit = self._calibration.slowdown(kind, 1.0) - 1.0
        every = [self._felt(feeler, phase) for phase in self._counting_phases()]
        return all(one is not None and one.half <= max(0.03, 0.1 * unit) for one in every)


def taking_turns(use: float, level: float) -> float:
    """Slowdown of one that keeps so many cores busy beside a bubble of its own cores, as its dial is made.

    >>> taking_turns(1.0, 0.5), taking_turns(0.4, 1.0)
    (1.5, 1.0)
    """
    asked = min(1.0, use)
    return 1.0 + level * (asked / fairly(1.0, [asked, 1.0])[0] - 1.0) if asked > 0.0 else 1.0


__all__ = ["BubbleError", "Terms", "measure"]
