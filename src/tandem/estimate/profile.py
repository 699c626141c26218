"""What one profile of an application holds: how fast it goes alone, what slows it down, and how hard it presses.

A *bubble* is an antagonist with a dial from 0 (idle) to 1 (as hard as this machine allows). The *sensitivity* of an
application to a kind of bubble is a curve: its slowdown by dial level. Its *pressure* of a kind is the dial level at
which the bubble slows a reporter as much as the application does, so pressures and levels are the same unit, and one
application's pressure can be looked up on another one's curve (Mars et al., Bubble-Up, MICRO 2011).

A programme that announces phases is profiled in each; one that does not has the single phase "".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

FORMAT = 1
"""Version of the stored form. A profile of another version is not read."""

KINDS = ("cache", "membw_read", "membw_write", "cpu", "fs_read", "fs_write", "net")
"""Bubbles that every machine has, in the order of vectors: last-level cache footprint; memory bandwidth by reads and
by writes; CPU share on the same core; file-system reads; fsync'd writes; loopback network."""

DISTURBED = 0.1
"""Part of the time alone that others may keep a programme from its cores before its profile is called disturbed."""

LEAST_EXCESS = 0.03
"""An excess of a reporter's slowdown below this, or below its noise, is no pressure that a dial could be made of."""

LARGEST = 1e6
"""Beyond this no slowdown, pressure or interval was measured."""

HARDEST = 4.0
"""The highest level that a pressure is told as; what presses harder presses with *at least* so much.

Level 1 is all that the other cores can do to the kind's reporter, so what is far beyond it is not the application's
strength but the reporter's weakness: one that the bubble hardly slows, or that stood still. Where bubbles slow their
reporters by half and more, no application of benchmarks/apps was above 2.5, on two machines.
"""

GPU_KINDS = ("gpu_sm", "gpu_l2", "gpu_hbm", "gpu_pcie")
"""Bubbles of a GPU, where there is one."""

IN_WORDS = {
    "cache": "last-level cache",
    "membw_read": "memory reads",
    "membw_write": "memory writes",
    "cpu": "its own cores",
    "fs_read": "file reads",
    "fs_write": "durable file writes",
    "net": "loopback network",
    "gpu_sm": "GPU cores",
    "gpu_l2": "GPU cache",
    "gpu_hbm": "GPU memory",
    "gpu_pcie": "PCIe",
}
"""What each kind presses on."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Slowdown by dial level, piecewise linear.

    Attributes:
        levels: ascending, the first is 0.
        slowdowns: run time beside the bubble over run time alone, one for each level; the first is 1.
        halves: half-widths of their 90 % intervals, in the same unit.
        apart: how far each slowdown is from those of two profiles which contradict each other, where this curve is the
            middle of theirs (`tandem.estimate.profiling.contradictions.spanning`); () where none does.
    """

    levels: tuple[float, ...]
    slowdowns: tuple[float, ...]
    halves: tuple[float, ...]
    apart: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the form."""
        if not (len(self.levels) == len(self.slowdowns) == len(self.halves) >= 2):
            message = "a curve needs as many slowdowns and half-widths as levels, at least two"
            raise ValueError(message)
        if self.apart and len(self.apart) != len(self.levels):
            message = "a curve is apart from others at all of its levels, or at none"
            raise ValueError(message)
        if self.levels[0] != 0.0 or any(b <= a for a, b in zip(self.levels, self.levels[1:], strict=False)):
            message = f"the levels of a curve begin with 0 and ascend, not {self.levels}"
            raise ValueError(message)

    def at(self, level: float) -> float:
        """Slowdown at ``level``; beyond the last one its segment goes on.

        >>> Curve((0.0, 0.5, 1.0), (1.0, 1.2, 1.6), (0.0, 0.02, 0.02)).at(0.75)
        1.4
        """
        i = min(max(bisect_right(self.levels, level), 1), len(self.levels) - 1)
        (a, b), (low, high) = self.levels[i - 1 : i + 1], self.slowdowns[i - 1 : i + 1]
        return max(1.0, low + (high - low) * (level - a) / (b - a))


@dataclass(frozen=True, slots=True)
class Pauses:
    """That a programme stands still again and again: it writes a checkpoint, sleeps, or waits for somebody.

    Attributes:
        part: of the time alone, in [0, 1).
        longest_s: how long the longest pause that was seen took.
        seen: how many were at least half as long.
    """

    part: float
    longest_s: float
    seen: int


@dataclass(frozen=True, slots=True)
class PhaseProfile:
    """One phase of an application.

    Attributes:
        phase: its announced name; "" where none is announced.
        share: part of the run time that it takes, in (0, 1].
        rate: steps per second alone, its pauses included.
        noise: relative half-width of the 90 % interval of the rate of one window alone, while it works.
        cpu_use: cores that it keeps busy when alone (1.0: one core, never waiting); time in which others had them is
            left out.
        sensitivity: kind of bubble -> curve; a kind that was not measured is absent.
        pressure: kind of bubble -> dial level that presses as hard; beyond 1 it presses harder than any bubble, and
            `HARDEST` says that it is at least so much. A kind of which nothing is known is absent.
        pressure_half: half-widths of their 90 % intervals.
        pauses: those that are part of it; None where it works all the time. What slows it down is measured while it
            works.
    """

    phase: str
    share: float
    rate: float
    noise: float
    cpu_use: float
    sensitivity: Mapping[str, Curve] = field(default_factory=dict)
    pressure: Mapping[str, float] = field(default_factory=dict)
    pressure_half: Mapping[str, float] = field(default_factory=dict)
    pauses: Pauses | None = None

    @property
    def working_rate(self) -> float:
        """Steps per second alone between its pauses."""
        return self.rate / (1.0 - self.pauses.part) if self.pauses else self.rate


@dataclass(frozen=True, slots=True)
class Stepless:
    """A phase in which the application tells of no step, so that nobody knows what slows it down there.

    Attributes:
        share: part of the run time that it takes.
        cpu_use: cores that it keeps busy meanwhile; as many as its steps do, where it was too short to be looked at.
    """

    share: float
    cpu_use: float


@dataclass(frozen=True, slots=True)
class Profile:
    """One application on one kind of machine.

    Attributes:
        key: the application's name, as co-runs and jobs carry it.
        argv: what was profiled.
        machine: fingerprint of the machine (`tandem.core.machine`): a profile holds nowhere else.
        cpus: cores it was given.
        made: when, in unix seconds.
        cost_s: how long profiling took.
        revision: 1 for an application's first profile on this machine, counted up by each later one.
        phases: those with steps, at least one.
        rate_pattern: regular expression by which its output told its progress; None where records or runs did.
        cwd: where it was run; "" where that is not known.
        gpu: the GPU it used, whose bubbles pressed on it too; None where it used none.
        bubble_cores: cores that bubbles pressed from: level 1 of a dial is what all of them together can do.
        reporter_excess: kind -> slowdown less 1 of the kind's reporter, the most sensitive programme there is, at dial
            level 1; kinds that are absent were not calibrated, or the profile is an old one.
        calibrated: when the calibration was made that its levels are in units of; 0 where that is not known.
        left_out: what is not known, and why; absent where there is nothing. For want of time: "sensitivity" -> kinds
            of bubble that it did not run beside, "pressure" -> kinds whose reporter did not run beside it. Otherwise:
            "unfelt" -> kinds whose reporter does not feel even the strongest bubble of this machine, so that it could
            tell nothing of pressure; "uncalibrated" -> kinds of which it may only have seemed so, since the machine was
            busy when they were calibrated; "unsteady" -> kinds whose reporter stood still or scattered alone.
        waited: part of the time that it was to be alone in which others kept it from its cores; 0 where that was not
            looked at.
        stepless: phases without steps, by name; their shares and those of ``phases`` are parts of the same time.
        between: the two that this one is the middle of, the older one first, where those contradict each other
            (`tandem.estimate.profiling.contradictions.spanning`); () for one that was measured.
    """

    key: str
    argv: tuple[str, ...]
    machine: str
    cpus: int
    made: float
    cost_s: float
    revision: int
    phases: tuple[PhaseProfile, ...]
    rate_pattern: str | None = None
    cwd: str = ""
    gpu: int | None = None
    bubble_cores: int = 1
    reporter_excess: Mapping[str, float] = field(default_factory=dict)
    calibrated: float = 0.0
    waited: float = 0.0
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stepless: Mapping[str, Stepless] = field(default_factory=dict)
    between: tuple[Profile, ...] = ()

    @property
    def disturbed(self) -> bool:
        """Whether others had its cores for more of the time than a quiet machine's own work takes."""
        return self.waited > DISTURBED

    @property
    def unfelt(self) -> frozenset[str]:
        """Kinds that nothing here is felt to press on, so that of their pressures nothing is said.

        Old profiles do not name them, but the least excess that there can be tells.
        """
        least = {kind for kind, excess in self.reporter_excess.items() if excess <= LEAST_EXCESS}
        return frozenset(least.union(self.left_out.get("unfelt", ())))
