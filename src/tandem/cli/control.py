"""`tandem cancel`, `hold` and `release`: change jobs that have not ended."""

from __future__ import annotations

import click

from tandem.cli.selection import checked, label, resolve
from tandem.cli.terminal import json_option, print_json, say
from tandem.core.errors import ConfigError

_DONE = {"cancel": "cancelled", "hold": "held", "release": "released"}


@click.command()
@click.argument("jobs", nargs=-1, callback=checked, metavar="ID...")
@click.option("--all-mine", is_flag=True, help="All your jobs that have not ended.")
@json_option
def cancel(jobs: tuple[str, ...], all_mine: bool, as_json: bool) -> None:
    """Stop jobs, or take them out of the queue.

    A job that runs gets its checkpoint signal, SIGTERM, and after its grace SIGKILL. `12` is also a whole array.
    """
    _change("cancel", jobs, all_mine=all_mine, as_json=as_json)


@click.command()
@click.argument("jobs", nargs=-1, callback=checked, metavar="ID...")
@click.option("--all-mine", is_flag=True, help="All your jobs that wait.")
@json_option
def hold(jobs: tuple[str, ...], all_mine: bool, as_json: bool) -> None:
    """Keep waiting jobs from starting."""
    _change("hold", jobs, all_mine=all_mine, as_json=as_json)


@click.command()
@click.argument("jobs", nargs=-1, callback=checked, metavar="ID...")
@click.option("--all-mine", is_flag=True, help="All your jobs that are held.")
@json_option
def release(jobs: tuple[str, ...], all_mine: bool, as_json: bool) -> None:
    """Let held jobs go."""
    _change("release", jobs, all_mine=all_mine, as_json=as_json)


def _change(what: str, jobs: tuple[str, ...], *, all_mine: bool, as_json: bool) -> None:
    from tandem.share.daemon.client import Client

    if bool(jobs) == all_mine:
        raise ConfigError(
            given=f"tandem {what} {' '.join(jobs)} --all-mine" if jobs else f"tandem {what} without a job",
            allowed="ids of jobs, or --all-mine",
            todo=f"as in `tandem {what} 12`; see `tandem queue` for the ids",
        )
    with Client.connect() as client:
        ids = [] if all_mine else resolve(client, jobs, live=True)
        names = {view["id"]: label(view) for view in client.queue()}
        changed = getattr(client, what)(ids, every=all_mine) if ids or all_mine else []
    if as_json:
        print_json({"jobs": changed})
    elif not changed:
        say(f"nothing to {what}")
    elif len(changed) == 1:
        say(f"job {names.get(changed[0], changed[0])}: {_DONE[what]}")
    else:
        say(f"{len(changed)} jobs {_DONE[what]}")
