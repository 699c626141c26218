"""`tandem simulate`: a trace or a case under one policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tandem.cli import workloads
from tandem.cli.compare import play_and_show


@click.command()
@click.argument("trace", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--policy", default="hybrid", show_default=True, metavar="NAME", help="The policy.")
@click.option("--report", metavar="DIR", help="Write a report there.")
@workloads.workload_options
def simulate(trace: Path, policy: str, report: str | None, as_json: bool, **asked: Any) -> None:  # noqa: ANN401
    """Play a trace under one policy.

    TRACE is a history (Philly, openb, SWF, `sacct -P`) or a case such as examples/hybridshare.toml.

    \b
    tandem simulate philly.csv --policy hybrid --first 20000
    """
    play_and_show(trace, (policy,), report, workloads.Asked(**asked), as_json=as_json)
