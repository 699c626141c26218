"""Notice that a new profile of an application contradicts the last one beyond what both say they are uncertain of.

Unlike `tandem.estimate.profiling.drift`, which watches rates alone as jobs run, this compares all that two revisions
measured. Which of the two is right it cannot know; a third profile tells.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tandem.estimate.profile import IN_WORDS
from tandem.estimate.profiling.commands import profile_again
from tandem.estimate.profiling.drift import LEAST
from tandem.estimate.profiling.trust import believed, noise
from tandem.estimate.recalibrated import rescaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tandem.estimate.profile import Curve, PhaseProfile, Profile

_NAMED = 4


def contradiction(old: Profile, new: Profile) -> str:
    """One line that says in what ``new`` contradicts ``old``, and what to do; "" where they agree.

    Rates alone contradict each other where they differ by more than both noises and 15 % (as much as the speed of a
    virtual machine's cores changes); so do the cores that are kept busy, in parts of at least one core, and the parts
    of the time that it stands still or is in a phase without steps, 0 where there is none; slowdowns and pressures
    where they differ by more than both half-widths and 0.15. Only phases of the same name, and what both measured in
    them, are compared, and phases without steps where there is such a one; pressures in units of the newer calibration.

    Args:
        old, new: two profiles of one application on one machine.
    """
    before = {phase.phase: phase for phase in believed(rescaled(old, new)).phases}
    after = [phase for phase in believed(new).phases if phase.phase in before]
    found = [words for phase in after for words in _between(before[phase.phase], phase)]
    if after:
        found += _without_steps(old, new)
    if old.rate_pattern != new.rate_pattern:  # other steps are counted
        found = [words for words in found if "alone" not in words]
    if not found:
        return ""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f"{new.key}: revision {new.revision} contradicts revision {old.revision}: {', '.join(found[:_NAMED])}{more}; "
        f"another version, another input or a busy machine: {profile_again(new.key)} tells which to believe"
    )


def newest_contradiction(revisions: Sequence[Profile]) -> str:
    """The same of the newest of an application's profiles, oldest first, against the one before; "" for a first one."""
    return contradiction(*revisions[-2:]) if len(revisions) > 1 else ""


def spanning(revisions: Sequence[Profile]) -> Profile:
    """The newest of an application's profiles, oldest first, as it may be used where it contradicts the one before.

    Each slowdown and pressure that is contradicted is the middle of both, with an interval that spans them. Shares of
    cores are reckoned with each of them (`Profile.between`), and the middle taken of the slowdowns that come of it. It
    is the very same profile where nothing is contradicted.
    """
    new = revisions[-1]
    if not newest_contradiction(revisions):
        return new
    both = believed(rescaled(revisions[-2], new)), believed(new)
    before = {phase.phase: phase for phase in both[0].phases}
    phases = [_spanning(before[one.phase], one) if one.phase in before else one for one in both[1].phases]
    return replace(both[1], phases=tuple(phases), between=both)


def _spanning(old: PhaseProfile, new: PhaseProfile) -> PhaseProfile:
    curves = {
        kind: _middle(old.sensitivity[kind], curve)
        for kind, curve in new.sensitivity.items()
        if kind in old.sensitivity and _apart(old.sensitivity[kind], curve) is not None
    }
    pressure, half = dict(new.pressure), dict(new.pressure_half)
    for kind, level in new.pressure.items():
        halves = old.pressure_half.get(kind, 0.0), new.pressure_half.get(kind, 0.0)
        if kind in old.pressure and abs(level - old.pressure[kind]) > sum(halves) + LEAST:
            pressure[kind] = (level + old.pressure[kind]) / 2
            half[kind] = abs(level - old.pressure[kind]) / 2 + max(halves)
    return replace(new, sensitivity={**new.sensitivity, **curves}, pressure=pressure, pressure_half=half)


def _middle(old: Curve, new: Curve) -> Curve:
    """The middle of two curves, at the levels of the newer one."""
    was = [old.at(level) for level in new.levels]
    return replace(
        new,
        slowdowns=tuple((a + b) / 2 for a, b in zip(was, new.slowdowns, strict=True)),
        halves=tuple(max(half, _half(old, level)) for level, half in zip(new.levels, new.halves, strict=True)),
        apart=tuple((b - a) / 2 for a, b in zip(was, new.slowdowns, strict=True)),
    )


def _between(old: PhaseProfile, new: PhaseProfile) -> Iterator[str]:
    where = f"in {new.phase} " if new.phase else ""
    if abs(new.rate - old.rate) > (old.noise + new.noise + LEAST) * max(old.rate, new.rate):
        yield f"{where}alone {old.rate:.4g} -> {new.rate:.4g} steps/s"
    if _busy_apart(old, new):
        yield f"{where}busy {old.cpu_use:.2f} -> {new.cpu_use:.2f} cores"
    was, now = (one.pauses.part if one.pauses else 0.0 for one in (old, new))
    if abs(now - was) > old.noise + new.noise + LEAST:
        yield f"{where}stands still {was:.0%} -> {now:.0%} of the time"
    for kind, curve in new.sensitivity.items():
        if kind in old.sensitivity and (apart := _apart(old.sensitivity[kind], curve)) is not None:
            yield f"{where}slowed by {IN_WORDS.get(kind, kind)} {apart[0]:.2f}x -> {apart[1]:.2f}x"
    for kind, level in new.pressure.items():
        if kind not in old.pressure:
            continue
        allowed = old.pressure_half.get(kind, 0.0) + new.pressure_half.get(kind, 0.0) + LEAST
        if abs(level - old.pressure[kind]) > allowed:
            yield f"{where}presses on {IN_WORDS.get(kind, kind)} {old.pressure[kind]:.2f} -> {level:.2f}"


def _without_steps(old: Profile, new: Profile) -> Iterator[str]:
    allowed = noise(old) + noise(new) + LEAST
    for name in dict.fromkeys([*old.stepless, *new.stepless]):
        was, now = old.stepless.get(name), new.stepless.get(name)
        before, after = _share(old, name), _share(new, name)
        if abs(after - before) > allowed:
            yield f"{before:.0%} -> {after:.0%} of the time in {name}"
        elif was and now and min(before, after) > LEAST and _uses_apart(was.cpu_use, now.cpu_use, allowed):
            yield f"in {name} busy {was.cpu_use:.2f} -> {now.cpu_use:.2f} cores"


def _share(profile: Profile, name: str) -> float:
    with_steps = sum(phase.share for phase in profile.phases if phase.phase == name)
    return profile.stepless[name].share if name in profile.stepless else with_steps


def _busy_apart(old: PhaseProfile, new: PhaseProfile) -> bool:
    return _uses_apart(old.cpu_use, new.cpu_use, old.noise + new.noise + LEAST)


def _uses_apart(old: float, new: float, allowed: float) -> bool:
    return abs(new - old) > allowed * max(1.0, old, new)


def _apart(old: Curve, new: Curve) -> tuple[float, float] | None:
    """Slowdowns at the level where two curves differ the most, if by more than is allowed there."""
    most = min(old.levels[-1], new.levels[-1])
    levels = sorted({level for level in (*old.levels, *new.levels) if level <= most})
    beyond = [(abs(new.at(level) - old.at(level)) - _half(old, level) - _half(new, level), level) for level in levels]
    excess, level = max(beyond)
    return (old.at(level), new.at(level)) if excess > LEAST else None


def _half(curve: Curve, level: float) -> float:
    """The half-width of a curve at a level: the wider one of the two measured levels around it."""
    if level > curve.levels[-1]:
        return curve.halves[-1]
    after = next(i for i, one in enumerate(curve.levels) if one >= level)
    return curve.halves[after] if curve.levels[after] == level else max(curve.halves[after - 1 : after + 1])
