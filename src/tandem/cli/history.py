"""`tandem history`: jobs that have ended, the latest first."""

from __future__ import annotations

import time
from typing import Any

import click

from tandem.cli import words
from tandem.cli.moments import clock_time, option_s, span
from tandem.cli.selection import label
from tandem.cli.terminal import cut, json_option, print_json, say, show_table
from tandem.core.errors import ConfigError, one_line
from tandem.core.nearest import did_you_mean

_MOST = 100_000
_NAME = 24


@click.command()
@click.option("--app", metavar="NAME", help="Only of this application: the name, or the programme's.")
@click.option("--state", metavar="STATE", help=f"Only those that ended so: {', '.join(words.ENDS)}.")
@click.option("--since", metavar="TIME", help="Only of the last TIME, such as 2d or 12h.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, _MOST), default=50, show_default=True, metavar="N", help="At most N."
)
@json_option
def history(app: str | None, state: str | None, since: str | None, limit: int, as_json: bool) -> None:
    """Jobs that have ended.

    Yours, the latest first; everybody's for root.
    """
    from tandem.report.table import Column, Table
    from tandem.share.daemon.client import Client

    if state not in (None, *words.ENDS):
        raise ConfigError(
            given=f"--state {state!r}", allowed=", ".join(words.ENDS), todo=did_you_mean(str(state), words.ENDS)
        )
    now = time.time()
    after = 0.0 if since is None else now - option_s("--since", since)
    with Client.connect() as client:
        found: list[dict[str, Any]] = client.history(limit=_MOST if app or state else limit, since=after)
    found = [v for v in found if app in (None, v["app"], v["name"]) and state in (None, v["state"])][:limit]
    if as_json:
        print_json(found)
        return
    if not found:
        say("no job has ended" + (" so" if app or state or since else ""))
        return
    names = ("ID", "NAME", "USER", "CLASS", "CORES", "WAITED", "RAN", "ENDED", "END")
    right, minor = {"CORES", "WAITED", "RAN"}, {"USER", "CLASS", "WAITED"}
    columns = [Column(name, align="right" if name in right else None, minor=name in minor) for name in names]
    lines = [
        (
            label(view),
            cut(one_line(view["name"] or view["app"]), _NAME),
            words.user(view["uid"]),
            view["class"],
            words.cores_and_gpus(view),
            span(None if view["started_at"] is None else max(0.0, view["started_at"] - view["submitted_at"])),
            words.ran(view, now),
            clock_time(view["ended_at"], now),
            words.ended(view),
        )
        for view in found
    ]
    show_table(Table(columns, lines))
