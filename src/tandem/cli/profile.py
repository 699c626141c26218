"""`tandem profile`: measure what slows a programme and how hard it presses; `tandem profile show`: look at it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tandem.cli.terminal import console, json_option, print_json, say, say_err, show_table
from tandem.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tandem.estimate.profile import Profile


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--name", help="Its name, as jobs and history carry it. [programme or script]")
@click.option("--rate", metavar="REGEX", help="How far it is, in its output: a group is the step, else a match is one.")
@click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, help="Cores it runs on.")
@click.option("--most", type=click.FloatRange(5), default=55.0, show_default=True, help="End after so many seconds.")
@json_option
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND... | show [NAME]")
def profile(name: str | None, rate: str | None, cpus: int, most: float, as_json: bool, argv: tuple[str, ...]) -> None:
    """Measure what slows a programme, and whom it slows.

    It runs alone, then beside bubbles (which press on the cache, the memory, the disk, ... with a dial), then beside
    reporters (which feel how it presses). Its progress is known by the records it writes, by --rate, or, where it is
    short, by how often it runs to its end. The profile is kept, and estimates use it.

    \b
    tandem profile -- python train.py
    tandem profile --name solve --rate 'step (\\d+)' -- ./solve
    tandem profile show
    tandem profile show solve
    """
    if argv[0] == "show":
        _show.main([*argv[1:], *(["--json"] if as_json else [])], "tandem profile show", standalone_mode=False)
        return
    kept = _measured(argv, name, rate, cpus, most, _teller(quiet=as_json))
    if as_json:
        from tandem.estimate.profiling.store import as_json as plain

        print_json(plain(kept))
        return
    _print(kept)
    say(f"kept as revision {kept.revision}, in {kept.cost_s:.0f} s; tandem profile show {kept.key}")


@click.command()
@click.argument("name", required=False)
@click.option("--out", metavar="FILE", help="The page with pictures. [profile-NAME.html beside the profile]")
@json_option
def _show(name: str | None, out: str | None, as_json: bool) -> None:
    """All profiles of this machine, or one of them with its pictures."""
    from tandem.core.machine import discover
    from tandem.estimate.profiling import picture, store

    data, machine = _data(), discover().fingerprint
    if name is None:
        found = store.load(data, machine)
        if as_json:
            print_json([store.as_json(one) for one in found.values()])
        elif found:
            show_table(picture.list_table(found.values()))
        else:
            say(f"no profiles on this machine ({machine}); make one: tandem profile -- COMMAND...")
        return
    revisions = store.revisions(data, machine, name)
    if as_json:
        print_json([store.as_json(one) for one in revisions])
        return
    newest = revisions[-1]
    _print(newest)
    path = Path(out) if out else data / "profiles" / machine / "pictures" / f"{_file_name(name)}.html"
    say(f"pictures: {picture.write_report(newest, revisions, path)}")


def _measured(
    argv: Sequence[str], name: str | None, rate: str | None, cpus: int, most: float, tell: Callable[[str], None]
) -> Profile:
    from tandem.core.machine import discover
    from tandem.estimate.bubbles import cached
    from tandem.estimate.profiling import store
    from tandem.estimate.profiling.measure import Terms, measure
    from tandem.share.daemon.submission import programme

    cores = tuple(core.index for core in discover().cores)
    if cpus > len(cores):
        raise ConfigError(
            given=f"--cpus {cpus}", allowed=f"1 to {len(cores)}: the cores that may be used here", todo="ask for fewer"
        )
    data = _data()
    calibration = cached(data / "bubbles", cores=cores, progress=tell)
    terms = Terms(key=name or programme(argv), cores=cores[:cpus], beside=cores[cpus:], rate=rate, most_s=most)
    if not terms.beside:
        tell("no core is left for bubbles: only what sharing its own cores costs is measured")
    found = measure(argv, terms, calibration, progress=lambda stage: tell(f"{terms.key}: {stage} ..."))
    return store.save(data, replace(found, argv=tuple(argv)))


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


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:80]
