"""`tandem cancel`, `hold` and `release`: change jobs that have not ended."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from tandem.cli.selection import View, checked, label, parse, resolve
from tandem.cli.terminal import json_option, print_json, say
from tandem.cli.words import LIVE, WAITING, count
from tandem.core.errors import ConfigError
from tandem.core.units import human_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DONE = {"cancel": "cancelled", "hold": "held", "release": "released"}
_FROM = {"cancel": LIVE, "hold": WAITING - {"held"}, "release": {"held"}}
"""The states in which a job can be changed so."""


@click.command()
@click.argument("jobs", nargs=-1, callback=checked, metavar="ID...")
@click.option("--all-mine", is_flag=True, help="All your jobs that have not ended.")
@json_option
def cancel(jobs: tuple[str, ...], all_mine: bool, as_json: bool) -> None:
    """Stop jobs, or take them out of the queue.

    A job that runs gets its checkpoint signal, SIGTERM, and after its grace SIGKILL. `12` is also a whole array. Of
    several, those that have ended keep none of the others.
    """
    _change("cancel", jobs, all_mine=all_mine, as_json=as_json)


@click.command()
@click.argument("jobs", nargs=-1, callback=checked, metavar="ID...")
@click.option("--all-mine", is_flag=True, help="All your jobs that wait.")
@json_option
def hold(jobs: tuple[str, ...], all_mine: bool, as_json: bool) -> None:
    """Keep waiting jobs from starting.

    `12` is also a whole array: its elements that run stay as they are. Of several, those that do not wait keep none of
    the others.
    """
    _change("hold", jobs, all_mine=all_mine, as_json=as_json)


@click.command()
@click.argument("jobs", nargs=-1, callback=checked, metavar="ID...")
@click.option("--all-mine", is_flag=True, help="All your jobs that are held.")
@json_option
def release(jobs: tuple[str, ...], all_mine: bool, as_json: bool) -> None:
    """Let held jobs go.

    `12` is also a whole array: its elements that are not held stay as they are.
    """
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
        queue = [] if all_mine and as_json else client.queue()  # of a long one, most of the time goes into this
        views = {view["id"]: view for view in queue}
        ids = [] if all_mine else resolve(client, jobs, live=True, queue=queue)
        left = [job for job in ids if job not in views or views[job]["state"] not in _FROM[what]]
        asked = [job for job in ids if job not in left] or ids
        whole = {first for first, index in map(parse, jobs) if index is None}
        wrong = [job for job in left if job not in views or (views[job]["array"] or [None])[0] not in whole]
        changed = getattr(client, what)(asked, every=all_mine) if asked or all_mine else []
        states = Counter(views[job]["state"] for job in left if job not in wrong)
        if as_json:
            print_json({"jobs": changed, "left": states})
        elif not changed:
            say(f"nothing to {what}")
        else:
            stay = ", ".join(f"{number} {state}" for state, number in states.items())
            say(_told(what, changed, views) + (f"; left as they are: {stay}" if stay else ""))
        if wrong and left != asked:
            getattr(client, what)(wrong)  # it says what is wrong with them, now that the others are changed


def _told(what: str, changed: Sequence[int], views: Mapping[int, View]) -> str:
    """What has become of the jobs, or will: one that runs may take its grace to stop.

    Args:
        views: the jobs as they were before.
    """
    there = [views[job] for job in changed if job in views]
    running = [view for view in there if view["state"] not in WAITING] if what == "cancel" else []
    graces = [view["grace_s"] for view in running if view.get("grace_s")]
    killed = f" (killed after {human_duration(max(graces))})" if graces else ""
    if len(changed) == 1:
        name = label(there[0]) if there else changed[0]
        return f"job {name} is being stopped{killed}" if running else f"job {name}: {_DONE[what]}"
    done = len(changed) - len(running)
    words = [f"{count(done, 'job')} {_DONE[what]}"] if done else []
    if running:
        words.append(f"{count(len(running), 'job')} being stopped{killed}")
    return "; ".join(words)
