"""`tandem estimate`: how long applications would take together on this machine."""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from tandem.cli.terminal import json_option, print_json, say, say_err, show_table
from tandem.core.errors import ConfigError, DaemonError
from tandem.core.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from tandem.core.machine import Hardware
    from tandem.estimate.corun import CoRun, Slowdown
    from tandem.estimate.prediction import Prediction, Span
    from tandem.estimate.profile import Profile
    from tandem.estimate.profiling.store import Loaded


_SHORTEST_S = 1e-6
"""A shorter time is written with an exponent."""


@click.command()
@click.argument("apps", nargs=-1, metavar="APP[=TIME]...")
@click.option("--stagger", default="0s", metavar="TIME", help="Each starts so much after the one before. [0s]")
@click.option("--model", default="learned", show_default=True, metavar="NAME", help="The estimator.")
@click.option("--cores", metavar="LIST", help="The cores they share, such as 0-3. [all of this machine]")
@json_option
def estimate(apps: tuple[str, ...], stagger: str, model: str, cores: str | None, as_json: bool) -> None:
    """How long applications would take together on this machine.

    Each APP is the name of an application that was profiled (`tandem profile`) or seen beside others. TIME is what it
    takes alone, such as 90s or 10m; a bare number counts minutes (one minute where nothing is said). A known name that
    holds = is that application, such as lr=1m; with a time it is lr=1m=5m. With more applications than cores the k-th
    shares core k modulo their number.

    \b
    tandem estimate cg stream
    tandem estimate cg=10m lu=5m sort=5m --stagger 30s
    """
    from tandem.core import machine
    from tandem.estimate import bubbles, estimators
    from tandem.estimate.corun import Capacity
    from tandem.estimate.prediction import Work, predict
    from tandem.estimate.profiling import store

    hardware = machine.discover()
    usable = _cores(cores, hardware)
    seen = _seen()
    coruns, drifted = seen or ((), {})
    kept = [store.load(folder, hardware.fingerprint) for folder in _folders()]
    members = _members(apps, usable, _names(apps, kept, coruns))
    profiles, stale = _believed(_profiles(kept, {app.key for app, _ in members}), drifted)
    for folder in _folders():
        if damage := bubbles.why_not(folder / "bubbles"):
            say_err(damage)
    estimator = estimators.make(model, coruns, profiles)
    gap_s = _seconds(stagger, "--stagger")
    works = [Work(app, alone_s, k * gap_s) for k, (app, alone_s) in enumerate(members)]
    told = predict(works, estimator, Capacity(1000 * len(usable)))
    hints = _hints(told, hardware.fingerprint, {profile.key for profile in profiles}, coruns) | {
        key: words
        for key in {app.key for app, _ in members}
        if (words := f"its profile is set aside: {stale[key]}" if key in stale else _doubtful(profiles, key))
    }
    if as_json:
        print_json(_plain(told, model, hardware.fingerprint, hints))
    else:
        _show(told)
        for key, hint in hints.items():
            say_err(f"{key}: {hint}")
        if seen is None and {app.key for app, _ in members} - {profile.key for profile in profiles}:
            say_err("no daemon runs, so what it saw of jobs beside each other does not count: tandem up")


def _hints(told: Prediction, machine: str, profiled: AbstractSet[str], coruns: Sequence[CoRun]) -> dict[str, str]:
    """Application -> what is missing of it and how to find it out, for those that were guessed at."""
    from tandem.estimate.observed import Observations
    from tandem.estimate.profiling.commands import profile_as

    seen = Observations()
    for one in coruns:
        seen.add(one)
    company = {key for one in coruns for key in (one.app, *one.beside) if seen.has_company(key)}
    known = ", ".join(sorted(profiled)) or "none"
    hints = {}
    for course in told.courses:
        key = course.work.app.key
        if key in profiled or (key in company and course.together.known):
            continue
        if key in company:
            lacks, near = "it was not profiled, only seen beside others", None
        else:
            lacks = _profiled_away(machine, key) or "nothing is known of it"
            near = nearest(key, profiled | company)
        todo = profile_as(key)
        meant = f"did you mean {near!r}{f' (with a time: {near}=10m)' if '=' in near else ''}? Else: " if near else ""
        hints[key] = f"{lacks} (profiled here: {known}); {meant}{todo}"
    return hints


def _names(apps: Sequence[str], kept: Sequence[Loaded], coruns: Sequence[CoRun]) -> set[str]:
    """Those arguments that are, as a whole or without their time, names of applications that were profiled or seen."""
    seen = set(chain.from_iterable((one.app, *one.beside) for one in coruns))
    return {
        text
        for text in chain(apps, (app.rpartition("=")[0] for app in apps))
        if text in seen or any(text in loaded.profiles or loaded.why_not(text) is not None for loaded in kept)
    }


def _members(apps: Sequence[str], usable: Sequence[int], names: AbstractSet[str]) -> list[tuple[Any, float]]:
    from tandem.estimate.asking import ALONE_S, pins
    from tandem.estimate.corun import App

    found = []
    for text, pinned in zip(apps, pins(len(apps), usable), strict=True):
        key, sign, time = (text, "", "") if text in names or "=" not in text else text.rpartition("=")
        meant = text and key not in names  # else only the time is wrong
        otherwise = f"; an application of this very name, with a time: {text}=10m" if meant else ""
        if not key or (sign and not time):
            raise ConfigError(
                given=f"the application {text!r}", allowed="NAME or NAME=TIME", todo=f"write it like cg=10m{otherwise}"
            )
        found.append(
            (App(key, cores=pinned), _seconds(time, f"the application {text!r}", otherwise) if time else ALONE_S)
        )
    return found


def _seconds(text: str, where: str, otherwise: str = "") -> float:
    from tandem.core.errors import QuantityError
    from tandem.core.units import parse_duration
    from tandem.share.model import LONGEST_S

    try:
        seconds = parse_duration(text)
    except QuantityError as error:
        raise ConfigError(
            given=f"the time {text!r} of {where}", allowed=error.allowed, todo=f"{error.todo}{otherwise}"
        ) from None
    if seconds > LONGEST_S:
        raise ConfigError(
            given=f"the time {text!r} of {where}", allowed="at most ten years", todo="give a shorter time, such as 10m"
        )
    return seconds


def _cores(text: str | None, hardware: Hardware) -> list[int]:
    from tandem.core.machine import parse_cpu_list

    here = [core.index for core in hardware.cores]
    if text is None:
        return here
    try:
        asked = parse_cpu_list(text)
    except ValueError:
        asked = []
    if not asked or not set(asked) <= set(here):
        raise ConfigError(
            given=f"--cores {text!r}", allowed=f"cores of this machine: {here[0]}-{here[-1]}", todo="write --cores 0-1"
        )
    return asked


def _profiles(kept: Sequence[Loaded], wanted: AbstractSet[str]) -> tuple[Profile, ...]:
    """All that are kept for this machine; those that cannot be read are said, unless they are ``wanted``."""
    found: dict[str, Profile] = {}
    for loaded in kept:
        found.update(loaded.usable)
    for key in sorted(wanted - set(found)):
        for loaded in kept:
            if (error := loaded.why_not(key)) is not None:
                raise error
    for loaded in kept:
        if loaded.unread:
            say_err(loaded.left_out())
    return tuple(found.values())


def _doubtful(profiles: Sequence[Profile], key: str) -> str:
    """Why an application's profile is to be doubted, with what to do; else "".

    It contradicts the one before; it, or the calibration that it was made with, was disturbed or is noisy; or the
    machine has been calibrated since.
    """
    from tandem.estimate import bubbles
    from tandem.estimate.profiling import store, trust
    from tandem.estimate.profiling.contradictions import newest_contradiction

    for one in profiles:
        if one.key == key:
            kept = [folder for folder in _folders() if store.holds(folder, one)]
            found = [newest_contradiction(store.revisions(folder, one.machine, key)) for folder in kept]
            found.append(trust.warning(one))
            for calibration in [bubbles.kept(folder / "bubbles") for folder in kept]:
                older = trust.older(one, calibration)
                found.append(older or (calibration.doubt if calibration is not None else ""))
            said = [words.removeprefix(f"{key}: ") for words in found if words]  # whose hint it is, is said anyway
            return "; ".join(dict.fromkeys(said))
    return ""


def _profiled_away(machine: str, key: str) -> str:
    """Words that name the other machines on which it was profiled; "" where there is none."""
    from tandem.estimate.profiling import store

    return next((words for folder in _folders() if (words := store.elsewhere(folder, machine, key))), "")


def _folders() -> list[Path]:
    """Where profiles may lie: this user's own, which count for less, and those of the daemon that serves them."""
    from tandem.share import paths

    uid = os.geteuid()
    return list(
        dict.fromkeys(place.data for place in (paths.of_client(os.environ, uid), paths.of_daemon(os.environ, uid)))
    )


def _believed(
    profiles: Sequence[Profile], drifted: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[Profile, ...], dict[str, str]]:
    """The profiles that hold, and for each that the daemon found to hold no more, why."""
    stale = {
        one.key: str(seen["stale"])
        for one in profiles
        if (seen := drifted.get(one.key)) and seen["stale"] and seen["made"] == one.made
    }
    return tuple(one for one in profiles if one.key not in stale), stale


def _seen() -> tuple[tuple[CoRun, ...], dict[str, Mapping[str, Any]]] | None:
    """What the daemon saw, the oldest first, and by application what it says of its profile; None where none runs.

    What it saw of an application before that drifted is left out, and rates in steps that cannot be compared.
    """
    from tandem.estimate.corun import CoRun
    from tandem.share.daemon.client import Client

    try:
        with Client.connect(start=False) as client:
            rows = client.coruns(limit=5000, measured=True)
            known: dict[str, Mapping[str, Any]] = {str(one["app"]): one for one in client.profiles()}
    except (DaemonError, OSError):
        return None
    since = {app: float(one.get("since", 0.0)) for app, one in known.items()}
    seen = tuple(
        CoRun(
            row["app"],
            tuple(sorted(app for _, app in row["beside"])),
            row["reference_rate"],
            row["ended_at"] - row["began_at"],
        )
        for row in reversed(rows)
        if row.get("reference_rate")  # a daemon of an older version does not tell it
        if all(row["ended_at"] >= since.get(app, 0.0) for app in (row["app"], *(app for _, app in row["beside"])))
    )
    return seen, known


def _show(told: Prediction) -> None:
    from tandem.report.table import Cell, Column, Table

    if not told.courses:
        say("no applications: nothing to wait for")
        return
    columns = [
        Column("APPLICATION"),
        Column("CORE", minor=True),
        Column("ALONE", minor=True),
        Column("STARTS", minor=True),
        Column("SLOWDOWN TOGETHER"),
        Column("TAKES"),
        Column("ENDS"),
    ]
    rows = [
        [
            Cell(one.work.app.key),
            Cell(",".join(map(str, one.work.app.cores)) or "own"),
            Cell(_time(one.work.alone_s)),
            Cell(_time(one.work.start_s)),
            Cell(f"{one.together.mid:.2f}x ({one.together.low:.2f}-{one.together.high:.2f})"),
            Cell(_span(one.took_s)),
            Cell(_span(one.end_s)),
        ]
        for one in told.courses
    ]
    show_table(Table(columns, rows))
    if not any(len(piece.members) == len(told.courses) for piece in told.pieces):
        say("they never all run at once: SLOWDOWN TOGETHER is what it would be then, all else is as they really meet")
    for one in told.courses:
        if one.why:
            say(f"{one.work.app.key}: {one.why}")
    apart = sum(one.work.alone_s for one in told.courses)
    say(f"all have ended after {_span(told.end_s)}; one after the other on one core {_time(apart)}; 90 % intervals")


def _span(span: Span) -> str:
    told = _digits(span.mid)
    return f"{span.mid:{told}} s ({span.low:{told}}-{span.high:{told}})"


def _time(seconds: float) -> str:
    return f"{seconds:{_digits(seconds)}} s"


def _digits(seconds: float) -> str:
    """How a time is written: with one digit behind the point, or more where two significant ones need them.

    >>> f"{20.04:{_digits(20.04)}}", f"{0.003:{_digits(0.003)}}", f"{6e-299:{_digits(6e-299)}}"
    ('20.0', '0.0030', '6.0e-299')
    """
    if 0.0 < seconds < _SHORTEST_S:
        return ".1e"
    return f".{max(1, 1 - int(f'{seconds:.1e}'.partition('e')[2]))}f" if seconds > 0.0 else ".1f"


def _plain(told: Prediction, model: str, machine: str, hints: Mapping[str, str]) -> Mapping[str, Any]:
    def span(one: Span | Slowdown) -> dict[str, float]:
        return {"low": one.low, "mid": one.mid, "high": one.high}

    return {
        "model": model,
        "machine": machine,
        "end_s": span(told.end_s),
        "applications": [
            {
                "app": one.work.app.key,
                "cores": list(one.work.app.cores),
                "alone_s": one.work.alone_s,
                "start_s": one.work.start_s,
                "slowdown_together": span(one.together),
                "known": one.together.known,
                "took_s": span(one.took_s),
                "end_s": span(one.end_s),
                "why": one.why,
                "hint": hints.get(one.work.app.key),
            }
            for one in told.courses
        ],
    }
