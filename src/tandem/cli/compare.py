"""`tandem compare`: a trace or a case under several policies, one table, and report.html."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli import reports, workloads
from tandem.cli.terminal import print_json, progress, say, show_table
from tandem.core.errors import ConfigError
from tandem.core.units import human_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.share.simulate.compare import PolicyDay
    from tandem.share.workloads.workload import Workload

_PLAIN_SECONDS = 1000


@click.command()
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--policies", metavar="A,B,C", help="The policies. [those the case names, else backfill,hybrid]")
@click.option("--report", default=".", show_default=True, metavar="DIR", help="Where report.html is written.")
@workloads.workload_options
def compare(trace: Path, policies: str | None, report: str, as_json: bool, **asked: Any) -> None:  # noqa: ANN401
    """Play a trace under several policies, side by side.

    TRACE is a history (Philly, openb, SWF, `sacct -P`) or a case such as examples/hybridshare.toml.

    \b
    tandem compare philly.csv --policies exclusive,backfill,hybrid --first 20000
    """
    names = None if policies is None else tuple(name.strip() for name in policies.split(",") if name.strip())
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ConfigError(
            given=f"--policies {policies}", allowed="different policies with commas between them", todo="name each once"
        )
    play_and_show(trace, names, report, workloads.Asked(**asked), as_json=as_json)


def play_and_show(
    trace: Path, names: Sequence[str] | None, report: str | None, asked: workloads.Asked, *, as_json: bool
) -> None:
    """Play the trace, write the report where one is asked for, and print the figures.

    Raises:
        ConfigError: The trace has no jobs.
        ReportError: The report cannot be written; known before anything is played, or told after the figures.
    """
    from tandem.share.simulate import compare as comparing

    where, trouble = reports.target(report), None
    play = workloads.read(trace, asked)
    if not play.workload.arrivals:
        raise _no_jobs(trace, play.workload.notes)
    never = workloads.never_run(play.workload)
    if never:
        notes = (*play.workload.notes, workloads.say_never(never))
        play = replace(play, workload=replace(play.workload, notes=notes))
    names = names or play.policies or ("backfill", "hybrid")
    with progress("jobs", quiet=as_json) as tell:
        days = comparing.play(play.workload, names, workloads.terms(play, asked, names), progress=tell)
    title = f"{', '.join(names[:-1])} and {names[-1]} side by side" if len(names) > 1 else f"A day under {names[0]}"
    if where is not None:
        page = comparing.page(play.workload, days, title, workloads.headline(play.workload))
        trouble = reports.write(page, where)
    written = None if where is None or trouble else str(where)
    if as_json:
        print_json(
            {
                "workload": comparing.describe(play.workload),
                "never_run": never,
                "policies": {day.policy: comparing.figures(day.metrics) for day in days},
                "report": written,
            }
        )
    else:
        _show(play.workload, days, written)
    if trouble:
        raise trouble


def _no_jobs(trace: Path, notes: Sequence[str]) -> ConfigError:
    """Nothing is left to play; the notes say what was passed over."""
    passed_over = f" that can be played: {'; '.join(notes)}" if notes else ""
    todo = "add a [[jobs]] table" if trace.suffix == ".toml" else "check that the file is whole, or export it again"
    return ConfigError(given=f"{trace}, which has no jobs{passed_over}", allowed="one job or more", todo=todo)


def _show(workload: Workload, days: Sequence[PolicyDay], report: str | None) -> None:
    from tandem.share.simulate import compare as comparing

    say(workloads.headline(workload))
    workloads.say_notes(workload)
    say()
    show_table(comparing.table(days))
    say()
    say("; ".join(f"{day.policy} ends at {_seconds(day.metrics.makespan_s)}" for day in days))
    if report is not None:
        say(f"report: {report}")


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < _PLAIN_SECONDS else human_duration(seconds)
