"""`tandem up` and `tandem down`: the daemon by hand. Every command that needs it starts it by itself."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from tandem.cli.terminal import json_option, print_json, say
from tandem.cli.words import count
from tandem.core.errors import DaemonError
from tandem.core.pairs import parse_numbers, parse_pair

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.option("--policy", metavar="NAME", help="The policy from now on: exclusive, share, backfill, las or hybrid.")
@click.option("--estimator", metavar="NAME", help="What it believes of neighbours, such as learned.")
@click.option("--cores", metavar="LIST", help="Only these cores, such as 0-3. [all]")
@click.option("--option", multiple=True, metavar="KEY=NUMBER", help="Option of the policy, such as hybrid_window=2.")
@click.option(
    "--machine",
    multiple=True,
    metavar="KEY=VALUE",
    help="What it may give out: mem=8G (no more than there is), membw=off, labels=a.",
)
@click.option("--foreground", is_flag=True, help="Stay here, until Ctrl-C.")
@json_option
def up(
    policy: str | None,
    estimator: str | None,
    cores: str | None,
    option: tuple[str, ...],
    machine: tuple[str, ...],
    foreground: bool,
    as_json: bool,
) -> None:
    """Start the daemon (the first command does it by itself).

    The next daemon keeps policy, estimator and options; cores and machine are given each time. One that takes over
    from a daemon that was killed keeps of them what it is not given. Jobs of a daemon before are adopted.
    """
    from tandem.share.daemon.client import Client

    options, given = _settings(policy, estimator, cores, option, machine)
    _check(policy, estimator, option, machine)
    if foreground:
        from tandem.share.daemon.__main__ import serve

        serve(options)
        return
    try:
        running = Client.connect(start=False)
    except DaemonError:
        running = None
    if running is not None and options:
        running.close()
        raise DaemonError(
            given=f"a daemon that runs already, and {shlex.join(given)}",
            allowed="settings for a daemon that is started",
            todo="stop it with `tandem down` (its jobs run on), then start it so",
        )
    with running or Client.connect(options=options) as client:
        told = client.doctor()
    if as_json:
        print_json(told | {"started": running is None})
        return
    how = "started" if running is None else "runs already"
    say(f"daemon {how}: process {told['pid']}, policy {told['policy']}, data in {told['data']}")


@click.command()
@click.option("--kill", is_flag=True, help="Cancel all jobs first.")
@json_option
def down(kill: bool, as_json: bool) -> None:
    """Stop the daemon; its jobs run on.

    The next daemon adopts them. Suspended jobs go on by themselves once no other job holds a core.
    --kill also reaches jobs that a daemon which runs no more has left.
    """
    from tandem.share.daemon.client import Client

    try:
        client = Client.connect(start=False)
    except DaemonError:
        ended = _end_unreached()
        _without_daemon(ended, _cancel_left() if kill else None, as_json=as_json)
        return
    with client:
        states = [view["state"] for view in client.queue()]
        live, suspended = len(states), states.count("suspended")
        client.down(kill=kill)
    if as_json:
        print_json({"stopped": True, "jobs": 0 if kill else live, "cancelled": live if kill else 0})
    elif not live:
        say("daemon stopped")
    elif kill:
        say(f"daemon stopped; {count(live, 'job')} cancelled")
    else:
        alone = ", what is suspended goes on once no other job holds a core" if suspended else ""
        kept = f"what runs runs on{alone}, what waits waits for the next daemon"
        say(f"daemon stopped; {count(live, 'job')} kept: {kept}")


def _end_unreached() -> int | None:
    """End a daemon that runs but cannot be reached by its socket; returns its process."""
    from tandem.share import paths as places
    from tandem.share.daemon.holder import end
    from tandem.share.store.lock import holder

    found = places.of_client(os.environ, os.geteuid())
    process = holder(found)
    return process if process is not None and end(process, found) else None


def _cancel_left() -> list[int]:
    """Cancel what a daemon that has gone left running or waiting."""
    from tandem.share import paths as places
    from tandem.share.daemon.orphans import cancel_all

    uid = os.geteuid()
    return cancel_all(places.of_client(os.environ, uid), uid)


def _without_daemon(ended: int | None, cancelled: Sequence[int] | None, *, as_json: bool) -> None:
    """Say what was done without asking a daemon; ``cancelled`` is None where no job was to be."""
    if as_json:
        print_json({"stopped": ended is not None, "cancelled": list(cancelled or ())})
        return
    said = "no daemon runs" if ended is None else f"daemon stopped (process {ended}, which could not be reached)"
    if cancelled:
        said += f"; {count(len(cancelled), 'job')} that the last one had left: cancelled"
    elif ended is not None and cancelled is None:
        said += "; its jobs are kept"
    say(said)


def _settings(
    policy: str | None, estimator: str | None, cores: str | None, option: Sequence[str], machine: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The words of the daemon's own command line, and those that the user gave for them."""
    daemons, users = [], []
    for name, its_name, values in (
        ("--policy", "--policy", [policy]),
        ("--estimator", "--estimator", [estimator]),
        ("--option", "--set", option),
        ("--cores", "--engine-set", [cores]),
        ("--machine", "--engine-set", machine),
    ):
        for value in values:
            if value is None:
                continue
            users += [name, value]
            daemons += [its_name, f"cores={value}" if name == "--cores" else value]
    return daemons, users


def _check(policy: str | None, estimator: str | None, option: Sequence[str], machine: Sequence[str]) -> None:
    """Refuse here what is known to be wrong before a daemon is started."""
    from tandem.estimate import estimators
    from tandem.share.scheduler.admission import check_options

    for text in machine:
        parse_pair(text, "--machine", "mem=8G")
    options = parse_numbers(option, "--option", "hybrid_window=2")
    if policy is not None:
        check_options([policy], options)
    if estimator is not None:
        estimators.load(estimator)
