"""Profiles on disk: `<data>/profiles/<machine>/<key>.json`, all revisions of an application in one file.

A file is written aside and renamed; two commands that profile the same application at once both keep theirs. A file
that is damaged, or of another version, costs its own application the profile and no other; a revision that makes no
sense costs the application that revision, and the others hold.
"""

from __future__ import annotations

import glob
import json
import re
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any

from tandem.core import durable
from tandem.core.durable import locked, written_aside
from tandem.core.errors import TandemError
from tandem.estimate.profile import FORMAT, IN_WORDS, LARGEST, Curve, Pauses, PhaseProfile, Profile, Stepless
from tandem.estimate.profiling.commands import profile_as
from tandem.estimate.profiling.contradictions import spanning

KEPT = 20
"""Older revisions than these are dropped."""

ROOM_BYTES = 1 << 18
"""A profile takes less, and so does a calibration that is kept before it."""

SMALLEST = 1e-9
"""Below this no level, pressure or excess was measured, unless it is 0."""

_MOST_SHARES = 1.01
"""All phases together take all of the time, but for what each of many was rounded by."""

_MOST_BUSY = 1.1
"""Of its cores, what a programme keeps busy at most: older versions told somewhat more of short waits."""

_MEASURED = ("levels", "pressure", "reporter_excess")
_LONGEST_NAME = 200
_SHOWN = 60
"""Characters of a wrong value that are told."""


class ProfileError(TandemError):
    """A profile that is not there, or does not hold here."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a folder holds for one machine.

    Attributes:
        profiles: the newest sound profile of every application, by key.
        unread: for each file that cannot be read, or not all of it, by its path: why.
        usable: the same profiles as predictions may use them: one that contradicts the revision before it has intervals
            that span both (`tandem.estimate.profiling.contradictions.spanning`).
    """

    profiles: Mapping[str, Profile]
    unread: Mapping[Path, ProfileError]
    usable: Mapping[str, Profile]

    def why_not(self, key: str) -> ProfileError | None:
        """Why the application's own file cannot be read; None where it can, or there is none."""
        name = f"{file_stem(key)}.json"
        return next((error for file, error in self.unread.items() if file.name == name), None)

    def left_out(self) -> str:
        """One line that names what cannot be read, and what to do; "" where all can."""
        reasons = "; ".join(f"{error.given}: {error.todo}" for error in self.unread.values())
        return f"left out: {reasons}" if reasons else ""


def save(data: Path, profile: Profile) -> Profile:
    """Keep a profile as the application's newest and return it with its revision.

    What is kept of it and makes no sense is dropped.

    Raises:
        ProfileError: It makes no sense itself; or what is kept cannot be read or written.
    """
    if why := senseless(profile):
        raise ProfileError(
            given=f"a profile of {profile.key!r} that makes no sense ({why})",
            allowed="rates, slowdowns and intervals that can have been measured",
            todo="see what it counts as its steps (its records, or what --rate matches), and profile it again",
        )
    file = _file(data, profile.machine, profile.key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file.parent / ".lock"):
            older = _read(file)[0] if file.exists() else []
            newest = replace(profile, revision=max((one.revision for one in older), default=0) + 1)
            text = json.dumps(
                {"format": FORMAT, "profiles": [asdict(one) for one in (*older, newest)[-KEPT:]]}, indent=1
            )
            with written_aside(file) as out:
                out.write(text.encode())
    except OSError as error:
        raise _unwritable(file, error) from error
    return newest


def room(data: Path, machine: str, key: str) -> IO[bytes]:
    """Hold room for another profile of an application, until it is closed: nothing is measured that cannot be kept.

    Raises:
        ProfileError: There is none, or the folder cannot be written.
    """
    file = _file(data, machine, key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return durable.room(file.parent, ROOM_BYTES + (file.stat().st_size if file.exists() else 0))
    except OSError as error:
        raise _unwritable(file, error) from error


def revisions(data: Path, machine: str, key: str) -> list[Profile]:
    """All sound profiles of an application on this machine, oldest first.

    Raises:
        ProfileError: There is none, or only from other machines, or it cannot be read.
    """
    file = _file(data, machine, key)
    if file.exists():
        return _read(file)[0]
    if away := elsewhere(data, machine, key):
        raise ProfileError(
            given=f"{key!r} was {away}",
            allowed="profiles that were made on this machine: another one's caches and memory answer differently",
            todo=f"profile it here: {profile_as(key)}",
        )
    known = sorted(load(data, machine).profiles)
    raise ProfileError(
        given=f"no profile of {key!r}",
        allowed=", ".join(known) or "none yet on this machine",
        todo=f"make one: {profile_as(key)}",
    )


def holds(data: Path, profile: Profile) -> bool:
    """Whether a folder's newest profile of the application is this one, as it was measured or as it may be used."""
    file = _file(data, profile.machine, profile.key)
    if not file.exists():
        return False
    sound, _ = _read(file)
    return profile in (sound[-1], spanning(sound))


def elsewhere(data: Path, machine: str, key: str) -> str:
    """Words that name the other machines on which an application was profiled; "" where there is none.

    >>> from pathlib import Path
    >>> elsewhere(Path("/nowhere"), "here", "cg")
    ''
    """
    found = {file.parent.name for file in (data / "profiles").glob(f"*/{glob.escape(file_stem(key))}.json")} - {machine}
    return f"profiled on {', '.join(sorted(found))}; this machine is {machine}" if found else ""


def load(data: Path, machine: str) -> Loaded:
    """The newest profile of every application on this machine, and which files cannot be read."""
    profiles: dict[str, Profile] = {}
    usable: dict[str, Profile] = {}
    unread: dict[Path, ProfileError] = {}
    for file in sorted((data / "profiles" / machine).glob("*.json")):
        try:
            sound, wrong = _read(file)
        except ProfileError as error:
            unread[file] = error
            continue
        profiles[sound[-1].key], usable[sound[-1].key] = sound[-1], spanning(sound)
        if wrong is not None:
            unread[file] = wrong
    return Loaded(profiles, unread, usable)


def file_stem(key: str) -> str:
    """A file's name, less its ending, for any key, and another one for each; whole command lines may be keys.

    >>> file_stem("cg"), file_stem("a:b"), file_stem("a?b")
    ('cg', 'a%3Ab', 'a%3Fb')
    """
    quoted = urllib.parse.quote(key, safe=" =,+@")
    if len(quoted) > _LONGEST_NAME or quoted.startswith("."):
        import hashlib  # only long names need it

        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        quoted = f"{quoted.lstrip('.')[: _LONGEST_NAME - 17].rstrip('%')}~{digest}"
    return quoted


def as_json(profile: Profile) -> dict[str, Any]:
    """Plain values, as they are kept."""
    return asdict(profile)


def from_json(told: Any) -> Profile:  # noqa: ANN401 - whatever was in the file
    """The profile again.

    Raises:
        ValueError: A value is of another kind than it has to be; the words say which.
        KeyError, TypeError, AttributeError: It is no profile at all.
    """
    phases = tuple(
        PhaseProfile(
            phase=_text("phase", one["phase"]),
            share=_number("share", one["share"]),
            rate=_number("rate", one["rate"]),
            noise=_number("noise", one["noise"]),
            cpu_use=_number("cpu_use", one["cpu_use"]),
            sensitivity={kind: _curve(curve) for kind, curve in one["sensitivity"].items()},
            pressure=_numbers_by_kind("pressure", one["pressure"]),
            pressure_half=_numbers_by_kind("pressure_half", one["pressure_half"]),
            pauses=None if one.get("pauses") is None else _pauses(one["pauses"]),
        )
        for one in told["phases"]
    )
    return Profile(
        key=_text("key", told["key"]),
        argv=_texts("argv", told["argv"]),
        machine=_text("machine", told["machine"]),
        cpus=_whole("cpus", told["cpus"]),
        made=_number("made", told["made"]),
        cost_s=_number("cost_s", told["cost_s"]),
        revision=_whole("revision", told["revision"]),
        phases=phases,
        rate_pattern=None if told.get("rate_pattern") is None else _text("rate_pattern", told["rate_pattern"]),
        cwd=_text("cwd", told.get("cwd", "")),
        gpu=None if told.get("gpu") is None else _whole("gpu", told["gpu"]),
        bubble_cores=_whole("bubble_cores", told.get("bubble_cores", 1)),
        reporter_excess=_numbers_by_kind("reporter_excess", told.get("reporter_excess", {})),
        calibrated=_number("calibrated", told.get("calibrated", 0.0)),
        waited=_number("waited", told.get("waited", 0.0)),
        left_out={what: _texts("left_out", kinds) for what, kinds in told.get("left_out", {}).items()},
        stepless={
            _text("phase", phase): Stepless(_number("share", one["share"]), _number("cpu_use", one["cpu_use"]))
            for phase, one in told.get("stepless", {}).items()
        },
        between=tuple(map(from_json, told.get("between", ()))),
    )


def _curve(told: Any) -> Curve:  # noqa: ANN401 - whatever was in the file
    levels, slowdowns, halves, apart = (
        tuple(_number(what, one) for one in _list(what, told.get(what, []) if what == "apart" else told[what]))
        for what in ("levels", "slowdowns", "halves", "apart")
    )
    return Curve(levels, slowdowns, halves, apart)


def _pauses(told: Any) -> Pauses:  # noqa: ANN401 - whatever was in the file
    return Pauses(
        part=_number("part", told["part"]),
        longest_s=_number("longest_s", told["longest_s"]),
        seen=_whole("seen", told["seen"]),
    )


def _number(name: str, told: object) -> float:
    if isinstance(told, bool) or not isinstance(told, int | float):
        raise _no(name, told, "number")
    try:
        return float(told)
    except OverflowError as error:
        raise _no(name, told, "number that fits") from error


def _whole(name: str, told: object) -> int:
    if not _number(name, told).is_integer():
        raise _no(name, told, "whole number")
    return int(_number(name, told))


def _text(name: str, told: object) -> str:
    if not isinstance(told, str) or told.encode(errors="ignore").decode() != told:
        raise _no(name, told, "text")
    return told


def _list(name: str, told: object) -> Sequence[object]:
    if not isinstance(told, list | tuple):
        raise _no(name, told, "list")
    return told


def _texts(name: str, told: object) -> tuple[str, ...]:
    return tuple(_text(f"a part of {name}", one) for one in _list(name, told))


def _numbers_by_kind(name: str, told: Any) -> dict[str, float]:  # noqa: ANN401 - whatever was in the file
    return {kind: _number(f"{name} of {kind}", one) for kind, one in told.items()}


def _no(name: str, told: object, what: str) -> ValueError:
    shown = repr(told)
    return ValueError(f"{name} is {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}, which is no {what}")


def senseless(profile: Profile) -> str:
    """Which value of a profile no measurement can have given, in words; "" where all make sense.

    Files are also written by hand, by other versions, and by disks that lie.
    """
    values = [
        ("made", profile.made, 0.0, 1e11),
        ("cost_s", profile.cost_s, 0.0, 1e9),
        ("cpus", profile.cpus, 1, 1e6),
        ("bubble_cores", profile.bubble_cores, 1, 1e6),
        ("revision", profile.revision, 0, 1e9),
        ("waited", profile.waited, 0.0, 1e3),
        ("calibrated", profile.calibrated, 0.0, 1e11),
    ]
    values += [("reporter_excess", one, 0.0, LARGEST) for one in profile.reporter_excess.values()]
    with_steps = sum(phase.share for phase in profile.phases)
    shares = with_steps + sum(one.share for one in profile.stepless.values())
    values += [("the sum of all phases' share", one, 1e-3, _MOST_SHARES) for one in (with_steps, shares)]
    most_cores = profile.cpus * _MOST_BUSY
    for one in profile.stepless.values():
        values += [("share", one.share, 0.0, 1.001), ("cpu_use", one.cpu_use, 0.0, most_cores)]
    for phase in profile.phases:
        values += [
            ("share", phase.share, 0.0, 1.001),
            ("rate", phase.rate, 1e-30, 1e30),
            ("noise", phase.noise, 0.0, LARGEST),
            ("cpu_use", phase.cpu_use, 0.0, most_cores),
        ]
        if phase.pauses is not None:
            values += [("part", phase.pauses.part, 0.0, 1.0 - 1e-6), ("longest_s", phase.pauses.longest_s, 0.0, 1e9)]
            values += [("seen", phase.pauses.seen, 0, 1e9)]
        for curve in phase.sensitivity.values():
            values += [("levels", one, 0.0, LARGEST) for one in curve.levels]
            values += [("slowdowns", one, 1e-9, LARGEST) for one in curve.slowdowns]
            values += [("halves", one, 0.0, LARGEST) for one in curve.halves]
            values += [("apart", one, -LARGEST, LARGEST) for one in curve.apart]
        values += [("pressure", one, 0.0, LARGEST) for one in phase.pressure.values()]
        values += [("pressure_half", one, 0.0, LARGEST) for one in phase.pressure_half.values()]
    if not profile.argv:
        return "argv is empty"
    if not profile.phases:
        return "it has no phase"
    named = Counter(phase.phase for phase in profile.phases)
    if twice := [phase for phase, count in named.items() if count > 1]:
        return f"the phase {twice[0]!r} is there twice"
    if profile.rate_pattern is not None and not _compiles(profile.rate_pattern):
        return f"rate_pattern is {profile.rate_pattern!r}, which is no regular expression"
    kinds = [*profile.reporter_excess, *chain.from_iterable(profile.left_out.values())]
    for phase in profile.phases:
        kinds += [*phase.sensitivity, *phase.pressure, *phase.pressure_half]
    if unknown := next((kind for kind in kinds if kind not in IN_WORDS), None):
        return f"{unknown!r} is no kind of bubble"
    wrong = [f"{name} is {value:g}" for name, value, least, most in values if not least <= value <= most]
    wrong += [f"{name} is {value:g}" for name, value, *_ in values if name in _MEASURED and 0.0 < value < SMALLEST]
    return wrong[0] if wrong else ""


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _read(file: Path) -> tuple[list[Profile], ProfileError | None]:
    """The revisions in a file that are sound, at least one, and why others are not; None where all are.

    Raises:
        ProfileError: None is.
    """
    sound: list[Profile] = []
    wrong: list[ProfileError] = []
    for told in _parsed(file):
        try:
            one = _checked(file, told)
        except ProfileError as error:
            wrong.append(error)
        else:
            sound.append(one)
    if not sound:
        raise wrong[0]
    if not wrong:
        return sound, None
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return sound, ProfileError(
        given=f"a revision in {wrong[0].given}{more}",
        allowed=wrong[0].allowed,
        todo=f"revision {sound[-1].revision} holds instead; profile the application again, which drops what is wrong",
    )


def _checked(file: Path, told: Any) -> Profile:  # noqa: ANN401 - whatever was in the file
    try:
        one = from_json(told)
        why = senseless(one)
    except KeyError as error:
        raise _unreadable(file, f"a revision in it lacks {error}") from error
    except ValueError as error:
        raise _unreadable(file, str(error)) from error
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise _unreadable(file, "a revision in it is no profile of this format") from error
    if why:
        raise _unreadable(file, why)
    if one.machine != file.parent.name:
        raise ProfileError(
            given=f"{file}: {one.key!r} was profiled on {one.machine}, and lies with those of {file.parent.name}",
            allowed="profiles that were made on this machine: another one's caches and memory answer differently",
            todo="move it away and profile the application here",
        )
    if file_stem(one.key) != file.stem:
        raise _unreadable(file, f"it is of {one.key!r}, which its name does not say")
    return one


def _parsed(file: Path) -> list[Any]:
    """The revisions as they were written."""
    if not file.is_file():
        raise _unreadable(file, "it is no regular file")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(file, "it is damaged: no JSON") from error
    form = told.get("format", FORMAT) if isinstance(told, dict) else FORMAT
    if form != FORMAT:
        raise _unreadable(file, f"format {form!r}, this version reads {FORMAT}")
    profiles = told.get("profiles") if isinstance(told, dict) else None
    if not isinstance(profiles, list) or not profiles or "format" not in told:
        raise _unreadable(file, "it holds no profiles of this format")
    return profiles


def _unwritable(file: Path, error: OSError) -> ProfileError:
    full = error.errno in durable.FULL
    return ProfileError(
        given=f"the profile cannot be kept in {file} ({error.strerror or error})",
        allowed="a data folder with room for it" if full else "a data folder that you may write to",
        todo="make room, or let TANDEM_HOME name another" if full else "let TANDEM_HOME name one",
    )


def _unreadable(file: Path, why: str) -> ProfileError:
    return ProfileError(
        given=f"{file} cannot be read ({why})",
        allowed="what tandem profile wrote",
        todo="move it away and profile the application again",
    )


def _file(data: Path, machine: str, key: str) -> Path:
    return data / "profiles" / machine / f"{file_stem(key)}.json"
