"""Options that `simulate` and `compare` share: which workload, on which machines, under which truth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tandem.cli.finite import finite
from tandem.cli.terminal import json_option, say
from tandem.core.errors import ConfigError, ImpossibleDemandError, TraceError
from tandem.core.pairs import parse_numbers, parse_pair
from tandem.core.units import counted
from tandem.share.simulate.truth import Truth
from tandem.share.workloads.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tandem.share.simulate.compare import Terms

Command = TypeVar("Command", bound=Callable[..., Any])

_LOOKED_AT = 4096
_REASONS_SHOWN = 3
_QUOTED = 300
"""Quotes of a simulation, unless it was told how many: each plays the queue on, and a long queue takes long."""
_GZIP = b"\x1f\x8b"
_UNPRINTED = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the shared options said."""

    format: str | None
    set: tuple[str, ...]
    nodes: str | None
    first: int | None
    limit_error: float | None
    truth: str
    noise: float
    estimator: str
    option: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class Play:
    """A workload that is ready to be played; ``policies`` are those that a case names."""

    workload: Workload
    truth: Truth
    policies: tuple[str, ...] = ()


def workload_options(command: Command) -> Command:
    """Add the options; the command takes them as keywords and makes an `Asked` of them."""
    options = (
        click.option(
            "--set",
            "set",
            multiple=True,
            metavar="KEY=VALUE",
            help="Option of the trace's reader, or a key of the case.",
        ),
        click.option("--format", metavar="NAME", help="Format of the trace, where it is not recognised."),
        click.option("--nodes", metavar="N", help="Same as --set nodes=N."),
        click.option("--first", type=click.IntRange(1), metavar="N", help="Only the first N jobs."),
        click.option(
            "--limit-error",
            type=click.FloatRange(1, 1000),
            callback=finite,
            metavar="F",
            help="Time limits: the run time times 1 to F, at random. [5 where the trace has none]",
        ),
        click.option(
            "--truth",
            type=click.Choice(["undisturbed", "bandwidth"]),
            default="undisturbed",
            show_default=True,
            help="What neighbours truly do to each other.",
        ),
        click.option(
            "--noise",
            type=click.FloatRange(0, 1),
            callback=finite,
            default=0.0,
            metavar="X",
            help="Noise of measured rates: 0.05 is about 5 %.",
        ),
        click.option(
            "--estimator",
            default="proportional",
            show_default=True,
            metavar="NAME",
            help="What policies believe of neighbours.",
        ),
        click.option(
            "--option",
            multiple=True,
            metavar="KEY=NUMBER",
            help="Option of the policy, such as hybrid_window=2; quotes=K quotes every K-th job. [some 300 in all]",
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random."),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def read(path: Path, asked: Asked) -> Play:
    """Read a trace or a case.

    Raises:
        TraceError: the file is no text, or the trace or an option of its reader cannot be understood.
        ConfigError: a key of the case is wrong.
    """
    demand_text(path)
    play = _case(path, asked) if path.suffix == ".toml" else _trace(path, asked)
    return play if asked.first is None else replace(play, workload=play.workload.first(asked.first))


def never_run(workload: Workload) -> list[dict[str, Any]]:
    """Which jobs the workload's nodes could never run: ``why`` in words, how many ``jobs``, the ``first`` one's id.

    Raises:
        ImpossibleDemandError: That is all of them.
    """
    from tandem.share.scheduler.admission import never

    found = never((arrival.job for arrival in workload.arrivals), workload.nodes)
    reasons = Counter(found.values())
    rows = [
        {"why": why, "jobs": jobs, "first": next(job for job, its in found.items() if its == why)}
        for why, jobs in reasons.most_common()
    ]
    if rows and len(found) == len(workload.arrivals):
        raise ImpossibleDemandError(
            given=f"{headline(workload)}, of which none can ever run: {_in_words(rows)}",
            allowed="jobs that these nodes can run",
            todo="give it more or larger nodes (--nodes N, --set KEY=VALUE), or check its demands",
        )
    return rows


def say_never(rows: Sequence[Mapping[str, Any]]) -> str:
    """The note on jobs that can never run; they are submitted all the same, and wait for ever."""
    total = sum(row["jobs"] for row in rows)
    which = "1 job can never run, and is" if total == 1 else f"{total:,} jobs can never run, and are"
    return f"{which} in none of the figures but that of jobs: {_in_words(rows)}"


def _in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    said = [
        f"job {row['first']} {row['why']}" + (f" (and {row['jobs'] - 1:,} more like it)" if row["jobs"] > 1 else "")
        for row in rows[:_REASONS_SHOWN]
    ]
    more = len(rows) - _REASONS_SHOWN
    return "; ".join([*said, *([f"and {more} other reasons"] if more > 0 else [])])


def demand_text(path: Path) -> None:
    """Refuse a file that holds no text, unless it is gzipped: nobody wants to read its first line in an error.

    Raises:
        TraceError: Shows the file's first bytes.
    """
    with path.open("rb") as file:
        beginning = file.read(_LOOKED_AT)
    if not beginning.startswith(_GZIP) and _UNPRINTED.search(beginning):
        raise TraceError(
            given=f"{path} is no text (it begins with the bytes {beginning[:8].hex(' ')})",
            allowed="text, or gzipped text",
            todo="check that this is the file you meant",
        )


def terms(play: Play, asked: Asked, policies: Sequence[str]) -> Terms:
    """What is the same for every policy.

    Raises:
        ConfigError: an option that none of the policies reads, or no number.
    """
    from tandem.share.scheduler.admission import check_options
    from tandem.share.simulate.compare import Terms

    options = parse_numbers(asked.option, "--option", "hybrid_window=2")
    check_options(policies, options)
    options = {"quotes": max(1, round(len(play.workload.arrivals) / _QUOTED)), **options}
    return Terms(asked.estimator, options, play.truth, asked.noise, asked.seed)


def headline(workload: Workload) -> str:
    """What is played, in a line."""
    cores = sum(node.cpu_milli for node in workload.nodes) // 1000
    gpus = sum(len(node.gpus) for node in workload.nodes)
    jobs, nodes = counted(len(workload.arrivals), "job"), counted(len(workload.nodes), "node")
    what = f"{jobs} on {nodes} with {counted(cores, 'core')}"
    return f"{workload.name}: {what}" + (f" and {counted(gpus, 'GPU')}" if gpus else "")


def say_notes(workload: Workload) -> None:
    """What was assumed."""
    for note in workload.notes:
        say(f"- {note}")


def _case(path: Path, asked: Asked) -> Play:
    from tandem.core import config
    from tandem.share.simulate import case as cases

    for name in ("format", "nodes", "limit_error"):
        if getattr(asked, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                given=f"{option} with the case {path}",
                allowed=f"{option} with traces; a case names its nodes, jobs and limits itself",
                todo="change the file, or --set jobs.0.count=10",
            )
    case = config.with_overrides(lambda settings: cases.load(path, settings), asked.set)
    workload = cases.workload(case)
    return Play(workload if workload.name else replace(workload, name=path.name), cases.truth(case), case.policies)


def _trace(path: Path, asked: Asked) -> Play:
    from tandem.share.simulate.trace_detect import read_trace
    from tandem.share.simulate.truth import Bandwidth, Undisturbed
    from tandem.share.workloads.workload import limits_with_error

    options: dict[str, object] = dict(parse_pair(text, "--set", "nodes=110") for text in asked.set)
    if asked.nodes is not None:
        options["nodes"] = asked.nodes
    workload = read_trace(path, asked.format, options)
    workload = workload if workload.name else replace(workload, name=path.name)
    silent = not any(a.job.limit_s or a.job.expected_s for a in workload.arrivals)
    error = asked.limit_error
    if error is not None:
        workload = limits_with_error(workload, asked.seed, lambda rng: rng.uniform(1.0, error))
        note = f"(uniform from 1 to {error:g})"
        workload = replace(workload, notes=(*workload.notes[:-1], f"{workload.notes[-1]} {note}"))
    elif silent:
        workload = limits_with_error(workload, asked.seed)
    return Play(workload, Bandwidth() if asked.truth == "bandwidth" else Undisturbed())
