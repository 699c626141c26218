"""`tandem compare`: a trace or a case under several policies, one table, and report.html."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli import workloads
from tandem.cli.terminal import print_json, progress, say, show_table
from tandem.core.errors import ConfigError
from tandem.core.units import human_duration

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    """Play the trace, print the figures, and write the report where one is asked for."""
    from tandem.report.page import write
    from tandem.share.simulate import compare as comparing

    play = workloads.read(trace, asked)
    never = workloads.never_run(play.workload)
    if never:
        notes = (*play.workload.notes, workloads.say_never(never))
        play = replace(play, workload=replace(play.workload, notes=notes))
    names = names or play.policies or ("backfill", "hybrid")
    with progress("jobs", quiet=as_json) as tell:
        days = comparing.play(play.workload, names, workloads.terms(play, asked, names), progress=tell)
    title = f"{', '.join(names[:-1])} and {names[-1]} side by side" if len(names) > 1 else f"A day under {names[0]}"
    where = None
    if report is not None:
        page = comparing.page(play.workload, days, title, workloads.headline(play.workload))
        where = write(page, workloads.report_path(report))
    if as_json:
        print_json(
            {
                "workload": comparing.describe(play.workload),
                "never_run": never,
                "policies": {day.policy: comparing.figures(day.metrics) for day in days},
                "report": None if where is None else str(where),
            }
        )
        return
    say(workloads.headline(play.workload))
    workloads.say_notes(play.workload)
    say()
    show_table(comparing.table(days))
    say()
    say("; ".join(f"{day.policy} ends at {_seconds(day.metrics.makespan_s)}" for day in days))
    if where is not None:
        say(f"report: {where}")


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < _PLAIN_SECONDS else human_duration(seconds)
