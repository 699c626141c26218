"""A lab's hybrid day, as a TOML file declares it: which applications, when, and what was promised to whom."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tandem.core import config
from tandem.core.errors import ConfigError
from tandem.share.model import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_SCALES = "a finite number above 0"
_NAMED = 4
"""How many further mistakes an error names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabJob:
    """One job of the day.

    Attributes:
        name: unique in the day; also how the report calls it.
        app: a programme of ``apps`` (``cg`` is ``apps/cg.py``), or "" where ``argv`` is given.
        args: further arguments of the application.
        scale: multiplies the day's ``scale`` for this job; more than 0, and 1 for a whole command line.
        argv: a whole command line instead of ``app``.
        cpus: cores.
        gpus: GPUs, whole or a fraction of one.
        if_gpu: take one GPU where the machine has any, and none otherwise.
        mem_mib: memory limit; 0 is none.
        at_s: when it is submitted, from the start of the day.
        max_slowdown: makes it primary, with this bound; None makes it harvest.
        time_s: time limit; None is none.
        after: names of jobs that must have ended well before.
    """

    name: str
    app: str = ""
    args: tuple[str, ...] = ()
    scale: float = 1.0
    argv: tuple[str, ...] = ()
    cpus: int = 1
    gpus: float = 0.0
    if_gpu: bool = False
    mem_mib: int = 0
    at_s: float = 0.0
    max_slowdown: float | None = None
    time_s: float | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lab:
    """The day.

    Attributes:
        title: shown on the report.
        apps: folder of the applications, relative to the file.
        policies: run one after the other, each on the same jobs; ``exclusive`` gives the rates alone, and every later
            one knows what the ones before observed.
        estimator: the model that predicts how neighbours slow each other.
        scale: how much work the applications do, as their ``--scale``; more than 0.
        pace: do less on a slower machine and more on a faster one (`tandem.share.lab.pace`).
        cores: cores to use, such as "0-1"; "" is all.
        jobs: what is submitted.
    """

    title: str
    apps: Path = Path("apps")
    policies: tuple[str, ...] = ("exclusive", "share", "backfill", "hybrid")
    estimator: str = "learned"
    scale: float = 1.0
    pace: bool = False
    cores: str = ""
    jobs: tuple[LabJob, ...]


def load(path: Path, overrides: tuple[str, ...] = ()) -> Lab:
    """Read and check a lab file.

    Raises:
        ConfigError: a key, a name or a dependency is wrong; says which and what is allowed.
    """
    lab = config.load(Lab, path, overrides)
    lab = replace(lab, apps=(path.parent / lab.apps).resolve())
    if not _is_scale(lab.scale):
        raise ConfigError(given=f"{path}: scale = {lab.scale:g}", allowed=_SCALES, todo="0.3 makes the day a third")
    names = [job.name for job in lab.jobs]
    if not names:
        raise ConfigError(given=f"{path}: jobs = []", allowed="one job or more", todo="add a [[jobs]] table")
    for place, name in enumerate(names):
        if not name.strip():
            given, allowed = f"{path}: jobs.{place}.name = {name!r}", "a name, by which the report calls the job"
            raise ConfigError(given=given, allowed=allowed, todo="give it one")
    mistakes = list(dict.fromkeys(mistake for job in lab.jobs for mistake in _mistakes(lab, job, names)))
    if mistakes:
        raise _together(path, mistakes)
    in_order(lab)
    return lab


def without(lab: Lab, apps: Collection[str]) -> Lab:
    """The day without the jobs of some applications (and without dependencies on them)."""
    gone = {job.name for job in lab.jobs if job.app in apps}
    kept = (
        replace(job, after=tuple(n for n in job.after if n not in gone)) for job in lab.jobs if job.name not in gone
    )
    return replace(lab, jobs=tuple(kept))


def in_order(lab: Lab) -> list[LabJob]:
    """The jobs in order of submission, each after those it depends on.

    Raises:
        ConfigError: the dependencies go in a circle.
    """
    done: dict[str, LabJob] = {}
    waiting = sorted(lab.jobs, key=lambda job: job.at_s)
    while waiting:
        ready = next((job for job in waiting if all(name in done for name in job.after)), None)
        if ready is None:
            circle = ", ".join(job.name for job in waiting)
            raise ConfigError(
                given=f"jobs that wait for each other in a circle: {circle}",
                allowed="dependencies that come to an end",
                todo="take one `after` out",
            )
        at_s = max([ready.at_s, *(done[name].at_s for name in ready.after)])
        done[ready.name] = replace(ready, at_s=at_s)
        waiting.remove(ready)
    return list(done.values())


def submission(lab: Lab, job: LabJob, ids: dict[str, int], *, gpus_here: int, cwd: Path) -> dict[str, Any]:
    """What is sent to the daemon for ``job``; ``ids`` are those of the jobs submitted before."""
    argv = list(job.argv) or [sys.executable, str(lab.apps / f"{job.app}.py"), *_scaled(lab, job), *job.args]
    gpus = job.gpus or float(job.if_gpu and gpus_here > 0)
    asked: dict[str, Any] = {
        "name": job.name,
        "app": job.app or job.name,
        "argv": argv,
        "cwd": str(cwd),
        "cpus": job.cpus,
        "class": "harvest" if job.max_slowdown is None else "primary",
    }
    if gpus:
        asked["gpus"] = gpus if gpus < 1 else int(gpus)
    if job.mem_mib:
        asked["mem"] = f"{job.mem_mib}M"
    if job.max_slowdown is not None:
        asked["max_slowdown"] = job.max_slowdown
    if job.time_s is not None:
        asked["time"] = job.time_s
    if job.after:
        asked["after"] = [str(ids[name]) for name in job.after]
    return asked


def _scaled(lab: Lab, job: LabJob) -> list[str]:
    scale = lab.scale * job.scale
    return [] if scale == 1.0 else ["--scale", f"{scale:g}"]


def _is_scale(scale: float) -> bool:
    return math.isfinite(scale) and scale > 0


class _Mistake(NamedTuple):
    job: str
    given: str
    allowed: str
    todo: str


def _together(path: Path, mistakes: list[_Mistake]) -> ConfigError:
    """One error for all: the first of them whole, the others named behind it."""
    first, *others = mistakes
    more = "".join(f"; also job {one.job!r}: {one.given}" for one in others[:_NAMED])
    more += f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    given = f"{path}, job {first.job!r}: {first.given}"
    return ConfigError(given=given, allowed=first.allowed, todo=f"{first.todo}{more}")


def _mistakes(lab: Lab, job: LabJob, names: list[str]) -> Iterator[_Mistake]:
    if names.count(job.name) > 1:
        yield _Mistake(job.name, "its name is taken twice", "unique names", "call one of them otherwise")
    if bool(job.app) == bool(job.argv):
        given = f"app = {job.app!r}, argv = {list(job.argv)!r}"
        yield _Mistake(job.name, given, "one of the two", "give app or argv")
    if job.app and not (lab.apps / f"{job.app}.py").is_file():
        there = ", ".join(sorted(file.stem for file in lab.apps.glob("*.py"))) or "none"
        allowed = f"applications in {lab.apps}: {there}"
        yield _Mistake(job.name, f"app = {job.app!r}", allowed, "give one of these")
    if not _is_scale(job.scale) or not _is_scale(lab.scale * job.scale):
        yield _Mistake(job.name, f"scale = {job.scale:g}", _SCALES, "2 gives it twice the work")
    if job.argv and job.scale != 1:
        given = f"scale = {job.scale:g} with argv"
        yield _Mistake(job.name, given, "scale with app", "say the amount in its argv")
    for name in job.after:
        if name not in names:
            allowed = f"names of jobs here: {', '.join(names)}"
            yield _Mistake(job.name, f"after = {name!r}", allowed, "give one of these")
    yield from _odd_numbers(job)


def _odd_numbers(job: LabJob) -> Iterator[_Mistake]:
    if job.max_slowdown is not None and not 1 <= job.max_slowdown < math.inf:
        given = f"max_slowdown = {job.max_slowdown:g}"
        yield _Mistake(job.name, given, "a finite number, 1 or more", "1.1 allows 10 % more time")
    if not 0 <= job.at_s <= LONGEST_S:
        given = f"at_s = {job.at_s:g}"
        yield _Mistake(job.name, given, "seconds from the start of the day, 0 or more", "3 submits it 3 s after it")
    if job.time_s is not None and not 0 < job.time_s <= LONGEST_S:
        given = f"time_s = {job.time_s:g}"
        yield _Mistake(job.name, given, "more than 0, and at most ten years", "leave it out for no limit")
    if not 0 <= job.gpus < math.inf:
        yield _Mistake(job.name, f"gpus = {job.gpus:g}", "a finite number, 0 or more", "0.5 is half of one")
    if job.mem_mib < 0:
        yield _Mistake(job.name, f"mem_mib = {job.mem_mib}", "0 or more", "0 is no limit")
