"""What was learned of a machine's bubbles: how much each slows its reporter at each raw level, and what follows.

The calibrated dial is linear in the *excess* of the reporter's slowdown: level x is the raw level at which the excess
is x times that at raw level 1. A slowdown of the reporter is thereby a level, and the other way round (Mars et al.,
Bubble-Up, MICRO 2011, score applications by a reporter's slowdown in the same manner).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from tandem.estimate.bubbles.process import BubbleError
from tandem.estimate.profile import DISTURBED, HARDEST, LEAST_EXCESS

FORMAT = 1
"""Version of the stored form. A calibration of another version is not read."""

MOST_SCATTER = 0.5
"""Relative half-width of a reporter's window alone beyond which neither a calibration nor a profile should rest on it:
a window then is anything between half and half as much again, as strong bubbles would make it."""


@dataclass(frozen=True, slots=True)
class Response:
    """How a kind's reporter answered to its bubble.

    Attributes:
        raw: raw levels, ascending from 0 to 1.
        slowdowns: rate alone over rate beside, one for each level, never descending; the first is 1.
        noise: half-width of the 90 % interval of one of the slowdowns, relative.
        scatter: the same of the reporter's rate in one window alone.
        waited: part of the time in which others kept reporter or bubble from their cores, whichever was more; 0 where
            that was not looked at.
    """

    raw: tuple[float, ...]
    slowdowns: tuple[float, ...]
    noise: float
    scatter: float = 0.0
    waited: float = 0.0

    def __post_init__(self) -> None:
        """Check the form, which the arithmetic below relies on."""
        ascends = all(a < b for a, b in zip(self.raw, self.raw[1:], strict=False))
        rises = all(a <= b for a, b in zip(self.slowdowns, self.slowdowns[1:], strict=False))
        if not (len(self.raw) == len(self.slowdowns) >= 2 and ascends and rises):
            message = "a response needs ascending raw levels and a never descending slowdown for each, at least two"
            raise ValueError(message)
        if self.raw[0] != 0.0 or self.raw[-1] != 1.0 or self.slowdowns[0] != 1.0 or self.noise < 0:
            message = "a response goes from level 0 (slowdown 1) to level 1, with a noise of 0 or more"
            raise ValueError(message)

    @property
    def excess(self) -> float:
        """Slowdown at level 1, less 1."""
        return self.slowdowns[-1] - 1.0

    @property
    def felt(self) -> bool:
        """Whether the reporter feels this bubble at all; where it does not, the dial stays raw."""
        return self.excess > max(LEAST_EXCESS, self.noise)

    @property
    def doubtful(self) -> bool:
        """Whether the machine was too busy for the answer to be believed, least of all that nothing was felt."""
        return self.waited > DISTURBED or self.scatter > MOST_SCATTER

    def raw_of(self, level: float) -> float:
        """Raw level at which the excess is ``level`` times the largest, by linear interpolation."""
        level = min(max(level, 0.0), 1.0)
        if not self.felt or level in (0.0, 1.0):
            return level
        wanted = 1.0 + level * self.excess
        i = bisect_right(self.slowdowns, wanted)  # the first point above
        if i == len(self.raw):
            return 1.0
        low, high = self.slowdowns[i - 1 : i + 1]
        return self.raw[i - 1] + (self.raw[i] - self.raw[i - 1]) * (wanted - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A machine's bubbles.

    Attributes:
        machine: fingerprint of the machine (`tandem.core.machine`): a calibration holds nowhere else.
        cores: those it was made on; the reporter had the first, bubbles the others ("cpu": the first too).
        responses: kind of bubble -> how its reporter answered.
        lacking: kind of bubble -> why it could not be measured here.
        made: when, in unix seconds.
        cost_s: how long it took.
    """

    machine: str
    cores: tuple[int, ...]
    responses: Mapping[str, Response]
    lacking: Mapping[str, str]
    made: float
    cost_s: float

    def response(self, kind: str) -> Response:
        """How the reporter of ``kind`` answered.

        Raises:
            BubbleError: That was not measured.
        """
        if kind not in self.responses:
            raise BubbleError(
                given=f"the kind {kind!r}, of which this calibration says: {self.lacking.get(kind, 'nothing')}",
                allowed=", ".join(self.responses) or "none",
                todo="choose one of these, or calibrate where it can be measured",
            )
        return self.responses[kind]

    def raw(self, kind: str, level: float) -> float:
        """Raw dial at which a bubble presses with ``level``; levels are cut to [0, 1]."""
        return self.response(kind).raw_of(level)

    def slowdown(self, kind: str, level: float) -> float:
        """Slowdown of the reporter beside a bubble at ``level``; a straight line, beyond 1 too."""
        return 1.0 + level * self.response(kind).excess

    def level_of(self, kind: str, slowdown: float) -> float:
        """Level of the bubble that slows the reporter as much; beyond 1 for what presses harder than any bubble.

        It ends at `HARDEST`, which says that it is at least so much.

        Raises:
            BubbleError: The kind was not measured, or its reporter does not feel even the strongest bubble: then
                its slowdown says nothing of pressure.
        """
        response = self.response(kind)
        if not response.felt:
            raise BubbleError(
                given=f"a slowdown of the reporter of {kind!r}, which does not feel the strongest bubble",
                allowed=", ".join(kind for kind, one in self.responses.items() if one.felt) or "none",
                todo="choose one of these, or calibrate anew: tandem profile calibrate",
            )
        return min(HARDEST, max(0.0, slowdown - 1.0) / response.excess)

    @property
    def reporter_excess(self) -> dict[str, float]:
        """What each reporter is slowed by at level 1, less 1; where nothing was felt, the least that can be."""
        return {kind: round(max(LEAST_EXCESS, one.noise, one.excess), 4) for kind, one in self.responses.items()}

    @property
    def doubt(self) -> str:
        """That something is wrong with it, and what tells more, in a short line; "" where nothing is."""
        doubtful = [kind for kind, one in self.responses.items() if one.doubtful]
        if not doubtful:
            return ""
        kinds = doubtful[0] if len(doubtful) == 1 else f"{len(doubtful)} kinds"
        return f"bubbles ({kinds}) were calibrated on a busy machine: tandem profile show tells more"

    @property
    def warning(self) -> str:
        """What is wrong with it, and what to do, in full; "" where nothing is."""
        kept = {kind: one.waited for kind, one in self.responses.items() if one.waited > DISTURBED}
        unsteady = {kind: one.scatter for kind, one in self.responses.items() if one.scatter > MOST_SCATTER}
        found = []
        if kept:
            found.append(f"others had the cores for up to {max(kept.values()):.0%} of the time ({', '.join(kept)})")
        if unsteady:
            names = ", ".join(f"{kind} by {scatter:.0%}" for kind, scatter in unsteady.items())
            found.append(f"its reporters alone scattered ({names})")
        if not found:
            return ""
        return (
            f"the bubbles of this machine were calibrated while {', and '.join(found)}: "
            "levels and pressures of these kinds may be far off; tandem profile calibrate when the machine is quiet"
        )


def describe(calibration: Calibration) -> list[str]:
    """Return lines for people: per kind the reporter's slowdown by raw level, and the raw level of each quarter."""
    lines = [
        f"bubbles of {calibration.machine}, calibrated in {calibration.cost_s:.1f} s "
        f"on cores {','.join(map(str, calibration.cores))}",
        f"{'kind':12s} {'slowest':>8s} {'noise':>6s} {'alone':>6s} {'waited':>6s}   "
        "raw dial at 1/4 1/2 3/4   slowdown by raw dial",
    ]
    for kind, one in calibration.responses.items():
        quarters = " ".join(f"{one.raw_of(level):5.2f}" for level in (0.25, 0.5, 0.75))
        curve = "  ".join(f"{raw:.2f}:{slow:.2f}" for raw, slow in zip(one.raw, one.slowdowns, strict=True))
        head = f"{kind:12s} {one.slowdowns[-1]:7.2f}x" + "".join(
            f" {100 * part:5.1f}%" for part in (one.noise, one.scatter, one.waited)
        )
        lines.append(f"{head}   {quarters:22s}   {curve}" if one.felt else f"{head}   not felt: raw{'':12s}   {curve}")
    lines += [f"{kind:12s} not measured: {why}" for kind, why in calibration.lacking.items()]
    return lines
