"""`tandem lab`: a file of jobs, run for real under several policies, with a live view, a table and report.html."""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli import words
from tandem.cli.moments import span
from tandem.cli.terminal import console, json_option, print_json, say, say_err, show_table
from tandem.core.errors import ConfigError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.table import Table

    from tandem.share.lab.plan import Lab
    from tandem.share.lab.run import Watch

_BAR_CELLS = 18
_SECONDS_UP_TO_S = 600.0


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--policies", metavar="A,B,C", help="The policies, in this order. [those the file names]")
@click.option("--out", metavar="DIR", help="The run folder. [runs/lab-DATE-TIME]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the file.")
@json_option
def lab(file: Path, policies: str | None, out: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Run a file of jobs for real: a lab's hybrid day, under one policy after the other.

    The same jobs are run under each policy. `exclusive` measures what each takes alone; `hybrid` uses only what was
    observed before it. The exit status is 1 if a job did not end well.

    \b
    tandem lab examples/lab.toml
    tandem lab examples/lab.toml --policies exclusive,hybrid
    """
    from tandem.core import config
    from tandem.share.lab import judge as lab_judge
    from tandem.share.lab import plan as labs
    from tandem.share.lab import run as lab_run
    from tandem.share.lab.feasible import check_here, check_idle
    from tandem.share.lab.pace import paced
    from tandem.share.lab.report import job_table, policy_table, write_report

    if policies is not None:
        names = ",".join(f'"{name.strip()}"' for name in policies.split(","))
        overrides = (*overrides, f"policies=[{names}]")

    def read(settings: tuple[str, ...]) -> Lab:
        day = labs.load(file, settings)
        check_here(day)
        return day

    asked = config.with_overrides(read, overrides)
    _check_plugins(asked)
    check_idle(asked)
    folder = Path(out) if out else Path("runs") / time.strftime("lab-%Y%m%d-%H%M%S")
    _check_new(folder)
    day = paced(asked)
    if not as_json:
        say(f"{day.title}: {words.count(len(day.jobs), 'job')} under {', '.join(day.policies)}; run folder {folder}")
        if day.scale < asked.scale:
            say(f"this machine is slow now: jobs do {day.scale:g} of their work (all of it: --set pace=false)")
    with _view(quiet=as_json) as watch:
        ran = lab_run.run(day, folder.resolve(), watch=watch, broken_off=_say_broken_off)
    judged = lab_judge.judge(ran.days, ran.names, ran.cores)
    results = lab_judge.as_json(judged)
    (folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    report = write_report(day.title, ran.days, judged, ran.names, folder / "report.html")
    if as_json:
        left_out = {policy: dict(names) for policy, names in ran.left_out.items() if names}
        print_json({"title": day.title, "policies": results, "left_out": left_out, "report": str(report)})
    else:
        show_table(job_table(judged[-1]))
        say()
        show_table(policy_table(judged))
        say()
        for verdict in judged:
            for sentence in lab_judge.sentences(verdict):
                say(sentence)
            for name, why in ran.left_out[verdict.policy].items():
                say(f"{verdict.policy}: {name} was not submitted: {why}")
        for sentence in lab_judge.doubts(judged):
            say(sentence)
        say(f"report: {report}")
    if any(ran.left_out.values()) or not all(v.well for verdict in judged for v in verdict.verdicts):
        raise click.exceptions.Exit(1)


def _say_broken_off() -> None:
    say_err("tandem: the day is broken off; its jobs are being stopped ...")


def _check_new(folder: Path) -> None:
    """Refuse a folder that holds a day: its history would be this one's, and its report would go."""
    if (folder / "home").exists() or (folder / "results.json").exists():
        raise ConfigError(
            given=f"{folder}, which holds a lab day", allowed="a new or empty folder", todo="give another --out"
        )


def _check_plugins(day: Lab) -> None:
    from tandem.estimate import estimators
    from tandem.share.deciding import policy

    for name in day.policies:
        policy.load(name)
    estimators.load(day.estimator)
    if not day.policies or len(set(day.policies)) < len(day.policies):
        raise ConfigError(given=f"policies {list(day.policies)}", allowed="different policies", todo="name each once")


@contextlib.contextmanager
def _view(*, quiet: bool) -> Iterator[Watch | None]:
    """The live view on a terminal; elsewhere a line where a policy's day begins."""
    screen = console(err=True)
    if quiet:
        yield None
        return
    if not screen.is_terminal:
        told: set[str] = set()

        def tell(policy: str, queue: Sequence[Mapping[str, Any]], seconds: float) -> None:
            del queue, seconds
            if policy not in told:
                told.add(policy)
                say_err(f"running under {policy} ...")

        yield tell
        return
    from rich.live import Live

    with Live(console=screen, refresh_per_second=8, transient=True) as live:
        yield lambda policy, queue, seconds: live.update(_picture(policy, queue, seconds))


def _picture(policy: str, queue: Sequence[Mapping[str, Any]], seconds: float) -> Table:
    """Queue, cores, progress, quotes and the last decision of each job."""
    from rich.table import Table
    from rich.text import Text

    from tandem.share.lab.named import named

    running = sum(job["started_at"] is not None for job in queue)
    title = f"{policy}  {seconds:5.1f} s   {running} run, {len(queue) - running} wait"
    table = Table(title=title, title_justify="left", expand=True, show_edge=False, pad_edge=False)
    for heading in ("job", "class", "state", "cores", "progress", "quoted end"):
        table.add_column(heading, no_wrap=True)
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)
    names = {job["id"]: job["name"] for job in queue if job.get("name")}
    for job in sorted(queue, key=lambda job: (job["started_at"] is None, job["id"])):
        cores = ",".join(str(core) for share in job["cores"] for core in share)
        state = job["state"] if job["throttle"] == 1 or job["state"] == "suspended" else f"at {job['throttle']:.0%}"
        table.add_row(
            Text(one_line(job.get("name") or str(job["id"]))[:24], style="bold" if job["class"] == "primary" else ""),
            job["class"],
            state,
            cores,
            _bar(job.get("done")),
            _quoted(job.get("promise"), job["submitted_at"]),
            Text(one_line(named(job.get("why") or job.get("reason") or "", names))),
        )
    return table


def _bar(done: float | None) -> str:
    if done is None:
        return ""
    full = round(done * _BAR_CELLS)
    return "━" * full + "╌" * (_BAR_CELLS - full) + f" {done:4.0%}"


def _quoted(promise: Mapping[str, Any] | None, submitted: float) -> str:
    if not promise:
        return ""
    low, mid, high = (bound - submitted for bound in words.interval(promise, "finish"))
    if not math.isfinite(mid):
        return "no idea"
    if high < _SECONDS_UP_TO_S:
        return f"{mid:.0f} s ({low:.0f}-{high:.0f})"
    return f"{span(mid)} ({span(low)}-{span(high)})"
