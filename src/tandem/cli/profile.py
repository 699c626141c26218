"""`tandem profile`: measure what slows a programme and how hard it presses; look at that, and make it anew."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tandem.cli.finite import finite
from tandem.cli.terminal import console, json_option, print_json, say, say_err, show_table
from tandem.core.errors import ConfigError
from tandem.core.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from tandem.estimate.bubbles import Calibration
    from tandem.estimate.profile import Profile


MOST_S = 55.0
_MOST = click.FloatRange(5, 3600)


def _some_name(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """An empty one would be taken for none."""
    if value is not None and not value.strip():
        message = "a name has at least one character that is no blank"
        raise click.BadParameter(message, context, option)
    return value


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--name", callback=_some_name, help="Its name, as jobs and history carry it. [programme or script]")
@click.option("--rate", metavar="REGEX", help="How far it is, in its output: a group is the step, else a match is one.")
@click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, help="Cores it runs on.")
@click.option("--gpu", type=click.IntRange(0), metavar="INDEX", help="The GPU it uses, pressed on by bubbles too.")
@click.option(
    "--most",
    type=_MOST,
    callback=finite,
    default=MOST_S,
    show_default=True,
    help="End after so many seconds, calibrating the machine's bubbles (once) apart.",
)
@json_option
@click.argument(
    "argv",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="[--] COMMAND... | show [NAME] | again [NAME...] | calibrate",
)
def profile(
    name: str | None,
    rate: str | None,
    cpus: int,
    gpu: int | None,
    most: float,
    as_json: bool,
    argv: tuple[str, ...],
) -> None:
    """Measure what slows a programme, and whom it slows.

    It runs alone, then beside bubbles (which press on the cache, the memory, the disk, ... with a dial), then beside
    reporters (which feel how it presses). Its progress is known by the records it writes, by --rate, or, where it is
    short, by how often it runs to its end. The profile is kept, and estimates use it.

    \b
    tandem profile -- python train.py
    tandem profile --name solve --rate 'step (\\d+)' -- ./solve
    tandem profile show
    tandem profile show solve
    tandem profile again solve
    tandem profile calibrate
    """
    sub = _SUBS.get(argv[0])
    if sub is not None:
        _refuse_unused(argv[0], {"as_json"} | ({"most"} if sub is _again else {"gpu"} if sub is _calibrate else set()))
        given = ["--most", str(most)] if sub is _again and most != MOST_S else []
        given += ["--gpu", str(gpu)] if sub is _calibrate and gpu is not None else []
        given += ["--json"] if as_json else []
        sub.main([*argv[1:], *given], f"tandem profile {argv[0]}", standalone_mode=False)
        return
    from tandem.estimate.profiling.commands import show_profile

    kept = _measured(argv, name, rate, (cpus, gpu), most, _teller(quiet=as_json))
    _tell_daemon()
    if as_json:
        print_json(_plain(kept))
        return
    _print(kept)
    say(f"kept as revision {kept.revision}, in {kept.cost_s:.0f} s; {show_profile(kept.key)}")


def _refuse_unused(what: str, used: AbstractSet[str]) -> None:
    """Options before `show`, `again` and `calibrate` that say nothing to them are refused, not passed over."""
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if isinstance(option, click.Option) and given and option.name not in used:
            message = f"{option.opts[0]} says nothing to {what}; a programme that is called so is ./{what}"
            raise click.UsageError(message, context)


@click.command()
@click.argument("name", required=False)
@click.option("--out", metavar="FILE", help="The page with pictures. [pictures/NAME.html beside the profile]")
@json_option
def _show(name: str | None, out: str | None, as_json: bool) -> None:
    """All profiles of this machine, or one of them with its pictures."""
    from tandem.core.machine import discover
    from tandem.estimate import bubbles
    from tandem.estimate.profiling import picture, store, trust

    data, machine = _data(), discover().fingerprint
    calibration = bubbles.kept(data / "bubbles")
    if name is None:
        if calibration is not None and calibration.warning:
            say_err(calibration.warning)
        loaded = store.load(data, machine)
        found, drifted = {key: trust.believed(one) for key, one in loaded.profiles.items()}, _stale()
        if loaded.unread:
            say_err(loaded.left_out())
        _say_damage(data / "bubbles")
        if as_json:
            print_json([_plain(one, drifted, calibration) for one in found.values()])
        elif found:
            show_table(picture.list_table(found.values(), _marks(data, found, drifted, calibration)))
        else:
            say(f"no profiles on this machine ({machine}); make one: tandem profile -- COMMAND...")
        return
    revisions = [trust.believed(one) for one in store.revisions(data, machine, name)]
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise ConfigError(
            given=f"--out {out!r}", allowed="a file in a folder that is there", todo="make the folder, or name another"
        )
    _say_calibration(calibration)
    _say_damage(data / "bubbles")
    if damage := store.load(data, machine).why_not(name):  # some revisions; with none, there is nothing to show
        say_err(str(damage))
    _say_contradiction(revisions)
    newest, drifted = revisions[-1], _stale()
    doubts = [words for words in (_drift(newest, drifted), trust.older(newest, calibration)) if words]
    for words in doubts:
        say_err(words)
    if as_json:
        print_json([_plain(one, drifted, calibration) for one in revisions])
        return
    _warn(newest)
    _print(newest)
    path = Path(out) if out else data / "profiles" / machine / "pictures" / f"{store.file_stem(name)}.html"
    say(f"pictures: {picture.write_report(newest, revisions, path, *doubts)}")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--most", type=_MOST, callback=finite, default=MOST_S, show_default=True, help="For each, as above.")
@json_option
def _again(names: tuple[str, ...], most: float, as_json: bool) -> None:
    """Profile applications once more with the command they were profiled with.

    Without a NAME: those that the daemon found to go faster or slower than their profile says.
    """
    from tandem.core.machine import discover
    from tandem.estimate.profiling import store

    data, machine = _data(), discover().fingerprint
    wanted = list(dict.fromkeys(names)) or _drifted()
    known = [store.revisions(data, machine, name)[-1] for name in wanted]  # all of them, before any takes its time
    for old in known:
        _refuse_lost_folder(old)
    kept = []
    for old in known:
        with contextlib.chdir(old.cwd or "."):
            kept.append(
                _measured(old.argv, old.key, old.rate_pattern, (old.cpus, old.gpu), most, _teller(quiet=as_json))
            )
        _tell_daemon()  # a later one may fail
        if not as_json:
            say(f"{old.key}: revision {kept[-1].revision}, in {kept[-1].cost_s:.0f} s")
    if as_json:
        print_json([_plain(one) for one in kept])
    elif not wanted:
        say("every application goes as its profile says, as far as the daemon has seen")


def _refuse_lost_folder(old: Profile) -> None:
    """What is profiled again runs where it ran."""
    from tandem.estimate.profiling.commands import profile_as

    if old.cwd and not (Path(old.cwd).is_dir() and os.access(old.cwd, os.X_OK)):
        raise ConfigError(
            given=f"{old.key}, which was profiled in {old.cwd}: no folder that can be entered",
            allowed="applications whose folder is still there",
            todo=f"make that folder, or profile it where it is now: {profile_as(old.key)}",
        )


@click.command()
@click.option("--gpu", type=click.IntRange(0), metavar="INDEX", help="Also the bubbles of this GPU.")
@json_option
def _calibrate(gpu: int | None, as_json: bool) -> None:
    """Calibrate this machine's bubbles anew, in less than 30 s.

    That is done once by itself. Do it again where the machine was busy then, or is another one now: a new disk, other
    neighbours of a virtual machine. Profiles that were made with the older calibration are named.
    """
    from tandem.core.machine import discover
    from tandem.core.process import locks
    from tandem.estimate import bubbles
    from tandem.estimate.bubbles.gpu import check
    from tandem.estimate.profiling import store, trust
    from tandem.estimate.profiling.commands import profile_again

    here, data = discover(), _data()
    cores = tuple(core.index for core in here.cores)
    if gpu is not None:
        check("gpu_sm", gpu)
    stands = "the earlier calibration holds" if bubbles.kept(data / "bubbles") else ""
    with _said_if_stopped(stands, data / "bubbles"), locks.held(cores, () if gpu is None else (gpu,)):
        made = bubbles.anew(data / "bubbles", cores=cores, gpu=gpu, progress=_teller(quiet=as_json))
    profiles = store.load(data, here.fingerprint).profiles
    outdated = [key for key, one in profiles.items() if trust.older(one, made)]
    if made.warning:
        say_err(made.warning)
    if as_json:
        print_json({**asdict(made), "warning": made.warning, "outdated": outdated})
        return
    for line in bubbles.describe(made):
        say(line)
    if outdated:
        say(f"profiled with an older calibration, whose units their levels are in: {', '.join(outdated)}")
        say(f"measure them anew: {profile_again(*outdated)}")


_SUBS = {"show": _show, "again": _again, "calibrate": _calibrate}


def _drifted() -> list[str]:
    from tandem.core.errors import DaemonError
    from tandem.share.daemon.client import Client

    try:
        with Client.connect(start=False) as client:
            return [str(one["app"]) for one in client.profiles() if one["stale"]]
    except DaemonError as error:
        raise DaemonError(
            given=f"no NAME, and {error.given}: only a daemon sees which applications have drifted",
            allowed="names of profiled applications, or a daemon that has seen them run",
            todo="name them: tandem profile again NAME...; `tandem profile show` lists them",
        ) from error


def _tell_daemon() -> None:
    """A daemon that runs on this data folder takes the new profile in."""
    from tandem.core.errors import DaemonError, PermissionRefusedError
    from tandem.share.daemon.client import Client

    with contextlib.suppress(DaemonError, PermissionRefusedError), Client.connect(start=False) as client:
        client.profiled()


def _measured(
    argv: Sequence[str],
    name: str | None,
    rate: str | None,
    place: tuple[int, int | None],
    most: float,
    tell: Callable[[str], None],
) -> Profile:
    """Profile it on the first ``place[0]`` cores and, unless it is None, GPU ``place[1]``; keep that."""
    from tandem.core.machine import discover
    from tandem.core.process import locks
    from tandem.estimate.bubbles.gpu import check
    from tandem.estimate.profiling import store
    from tandem.estimate.profiling.measure import Terms, measure
    from tandem.estimate.profiling.subject import compiled
    from tandem.share.daemon.submission import programme

    machine, (cpus, gpu) = discover(), place
    cores = tuple(core.index for core in machine.cores)
    env = {}
    if gpu is not None:
        check("gpu_sm", gpu)
        env["CUDA_VISIBLE_DEVICES"] = next(one.uuid for one in machine.gpus if one.index == gpu)
    if cpus > len(cores):
        raise ConfigError(
            given=f"--cpus {cpus}", allowed=f"1 to {len(cores)}: the cores that may be used here", todo="ask for fewer"
        )
    if rate is not None:
        compiled(rate)  # mistakes are said before anything takes its time
    if shutil.which(argv[0]) is None:
        raise ConfigError(
            given=f"{argv[0]!r}, which is no programme",
            allowed=f"a programme on the PATH or a path to one, or {', '.join(_SUBS)}",
            todo=did_you_mean(argv[0], _SUBS, "look at how it is written, and whether it may be executed"),
        )
    data, folder = _data(), str(Path.cwd())
    key = name or programme(argv)
    terms = Terms(key=key, cores=cores[:cpus], beside=cores[cpus:], rate=rate, most_s=most, gpu=gpu, env=env)
    if not terms.beside:
        tell("no core is left for bubbles: only what sharing its own cores costs is measured")
    before = store.load(data, machine.fingerprint).profiles.get(key)
    stands = f"revision {before.revision} of {key} holds" if before else ""
    with (
        store.room(data, machine.fingerprint, key),
        _said_if_stopped(stands, data / "bubbles"),
        locks.held(cores, () if gpu is None else (gpu,)),
    ):
        calibration = _calibration(data / "bubbles", cores, gpu, tell)
        found = measure(argv, terms, calibration, progress=lambda stage: tell(f"{terms.key}: {stage} ..."))
    kept = store.save(data, replace(found, argv=tuple(argv), rate_pattern=rate, cwd=folder))
    _say_contradiction(store.revisions(data, kept.machine, kept.key))
    _warn(kept)
    return kept


@contextlib.contextmanager
def _said_if_stopped(stands: str, folder: Path) -> Iterator[None]:
    """One line on stderr where Ctrl-C ends a measurement.

    Args:
        stands: what goes on to hold, if anything.
        folder: where the calibration lies, which may have been kept before.
    """
    from tandem.estimate import bubbles

    before = bubbles.kept(folder)
    try:
        yield
    except KeyboardInterrupt:
        new = bubbles.kept(folder) != before
        what = "the calibration of this machine's bubbles was kept, and no more" if new else "nothing was kept"
        say_err(f"stopped: {what}" + (f", and {stands}" if stands else ""))
        raise click.Abort from None  # click would print another line for KeyboardInterrupt


def _calibration(folder: Path, cores: tuple[int, ...], gpu: int | None, tell: Callable[[str], None]) -> Calibration:
    """What is kept of this machine; where that has to be measured first, it is said: ``--most`` does not count it."""
    from tandem.estimate.bubbles import cached

    begun: list[float] = []
    _say_damage(folder)

    def progress(line: str) -> None:
        if not begun:
            begun.append(time.monotonic())
            say_err("calibrating the bubbles of this machine first, once: some 25 s, which --most does not count")
        tell(line)

    found = cached(folder, cores=cores, gpu=gpu, progress=progress)
    if begun:
        say_err(f"calibrated in {time.monotonic() - begun[0]:.0f} s")
    _say_calibration(found)
    return found


def _say_calibration(kept: Calibration | None) -> None:
    """One short line on stderr where the machine was busy when its bubbles were calibrated."""
    if kept is not None and kept.doubt:
        say_err(kept.doubt)


def _say_damage(folder: Path) -> None:
    """One line on stderr where the kept calibration cannot be used."""
    from tandem.estimate import bubbles

    if words := bubbles.why_not(folder):
        say_err(words)


def _warn(found: Profile) -> None:
    """One line on stderr where the measurement was disturbed, or is noisy."""
    from tandem.estimate.profiling import trust

    if words := trust.warning(found):
        say_err(words)


def _say_contradiction(revisions: Sequence[Profile]) -> None:
    """One line on stderr where the newest revision contradicts the one before."""
    from tandem.estimate.profiling.contradictions import newest_contradiction

    if words := newest_contradiction(revisions):
        say_err(words)


def _plain(
    found: Profile,
    drifted: Mapping[str, Mapping[str, Any]] | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """As it is kept, with what is to be said of it."""
    from tandem.estimate.profiling import store, trust

    said = {
        "warning": trust.warning(found),
        "drift": _drift(found, drifted or {}),
        "older_calibration": trust.older(found, calibration),
        "causes": trust.causes(found),
    }
    return {**store.as_json(found), **said}


def _stale() -> dict[str, Mapping[str, Any]]:
    """What the daemon says of each profile that it knows; nothing where none runs."""
    from tandem.core.errors import DaemonError
    from tandem.share.daemon.client import Client

    try:
        with Client.connect(start=False) as client:
            return {str(one["app"]): one for one in client.profiles()}
    except (DaemonError, OSError):
        return {}


def _marks(
    data: Path,
    found: Mapping[str, Profile],
    drifted: Mapping[str, Mapping[str, Any]],
    calibration: Calibration | None,
) -> dict[str, str]:
    """Application -> in a word, why its newest profile is doubtful beyond its own noise."""
    from tandem.estimate.profiling import store, trust
    from tandem.estimate.profiling.contradictions import newest_contradiction

    said = {}
    for key, one in found.items():
        if _drift(one, drifted):
            said[key] = "drifted"
        elif newest_contradiction(store.revisions(data, one.machine, key)):
            said[key] = "contradictory"
        elif not trust.mark(one) and trust.older(one, calibration):
            said[key] = "older calibration"
    return said


def _drift(found: Profile, drifted: Mapping[str, Mapping[str, Any]]) -> str:
    """How the application has drifted from this very profile; "" where it has not."""
    seen = drifted.get(found.key, {"made": 0.0, "stale": ""})
    return str(seen["stale"]) if seen["made"] == found.made else ""


def _print(found: Profile) -> None:
    from tandem.estimate.profiling import picture

    for phase in found.phases:
        show_table(picture.phase_table(found, phase))
        say()
    for sentence in picture.sentences(found):
        say(f"- {sentence}")


def _teller(*, quiet: bool) -> Callable[[str], None]:
    """Says what goes on, on a terminal's stderr."""
    if quiet or not console(err=True).is_terminal:
        return lambda line: None
    return say_err


def _data() -> Path:
    """Where profiles are kept: the data folder of a daemon that this user would start."""
    from tandem.share import paths

    return paths.of_daemon(os.environ, os.getuid()).data
