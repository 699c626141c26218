"""What is said of programmes that windows cannot be taken of, and the limits that it follows from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.estimate.profiling.programme import ProgrammeError

if TYPE_CHECKING:
    from tandem.estimate.profiling.subject import Subject

POINTS_PER_WINDOW = 3
LONGEST_WINDOW_S = 2.5

MOST_NOISE = 0.5
"""Relative half-width of one window's own rate alone (`own_noise`) beyond which nothing can be said."""


def too_seldom(subject: Subject, step_s: float) -> ProgrammeError:
    """The error for a programme whose steps are too long for windows."""
    return ProgrammeError(
        given=f"{subject.name} makes a step every {step_s:.2g} s, by {subject.source.way}",
        allowed=f"a step every {LONGEST_WINDOW_S / POINTS_PER_WINDOW:.1g} s or more often",
        todo="let it write records more often (a step may be a fraction), give --rate REGEX, or take a smaller input",
    )


def hangs(subject: Subject, since_s: float) -> ProgrammeError:
    """The error for a programme that stands still until the end of the time."""
    since, wrote = f"{since_s:.1f} s, by {subject.source.way}", subject.programme.tail()
    return ProgrammeError(
        given=f"{subject.name} has made no progress since {since}; it last wrote: {wrote}",
        allowed="a programme that works until the end, with pauses as short as those before",
        todo="see whether it hangs; if one part of its work takes so long, give it more time (--most)",
    )


def scatters(subject: Subject, noise: float, window_s: float) -> ProgrammeError:
    """The error for a programme whose rate alone is none."""
    return ProgrammeError(
        given=f"the rate of {subject.name} alone scatters by {noise:.0%} between windows of {window_s:.2g} s",
        allowed=f"up to {MOST_NOISE:.0%}",
        todo="give it a fixed input and seed and steps of equal work, announce its phases, or quiet the machine",
    )


def never_steady(subject: Subject, window_s: float) -> ProgrammeError:
    """The error for a programme whose phases, or times in which its steps go on, are too short for windows."""
    if not subject.trace.entered:
        window = f"whole window of {window_s:.2g} s"
        return ProgrammeError(
            given=f"{subject.name} has no {window} in which its steps go on, by {subject.source.way}",
            allowed="steps that go on for longer than that",
            todo="count steps on without going back, or tell them more often",
        )
    return ProgrammeError(
        given=f"{subject.name} was in no phase for a whole window of {window_s:.2g} s, by {subject.source.way}",
        allowed="phases that last, and steps within them",
        todo="announce fewer phases, or none",
    )
