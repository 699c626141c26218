"""`tandem queue`: jobs that run and jobs that wait, with progress, quote, and why they wait."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli import words
from tandem.cli.moments import NONE, clock_time
from tandem.cli.selection import label
from tandem.cli.terminal import console, cut, json_option, print_json, say, show
from tandem.core.errors import ConfigError, TandemError, one_line
from tandem.core.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from tandem.share.daemon.client import Client

View = dict[str, Any]

WAITING_SHOWN = 40
"""Rows of waiting jobs on a terminal; the rest is counted."""

ENDED_SHOWN = 20
_REFRESH_S = 1.0
_BAR = 6
NAME = 16
"""How wide a job's name may be in a column."""

_NOTE = 16
_STYLES = {"running": "green", "suspended": "yellow", "held": "dim", "failed": "red", "lost": "red", "timeout": "red"}


@click.command()
@click.option("-a", "--all", "all_", is_flag=True, help=f"Also the last {ENDED_SHOWN} of your jobs that ended.")
@click.option("-w", "--watch", is_flag=True, help="Keep it on the screen until Ctrl-C.")
@click.option("-u", "--user", metavar="NAME", help="Only this user's jobs.")
@click.option("-o", "--columns", metavar="A,B,C", help="Only these columns, such as id,state,finish. [as fit]")
@json_option
def queue(all_: bool, watch: bool, user: str | None, columns: str | None, as_json: bool) -> None:
    """Jobs that run and jobs that wait.

    FINISH is the quoted interval. CORES in brackets are of a suspended job, which does not hold them. Of
    other users' jobs you see what they hold, not what they are.
    """
    from tandem.share.daemon.client import Client

    uid = _uid(user)
    chosen = None if columns is None else _chosen(columns)
    if watch and (as_json or not sys.stdout.isatty()):
        raise ConfigError(
            given="--watch without a terminal",
            allowed="a terminal, and no --json",
            todo="call `tandem queue --json` as often as you like",
        )
    if watch:
        _watch(all_=all_, uid=uid, chosen=chosen)
        return
    with Client.connect() as client:
        if as_json:
            print_json(rows(client, client.queue(why=True), all_=all_, uid=uid))
        else:
            live = client.queue(why=True, together=True)
            say(summary(client, live))
            found = rows(client, live, all_=all_, uid=uid, most=WAITING_SHOWN if sys.stdout.isatty() else None)
            if found:
                show(table(found, time.time(), console().width, chosen))


def rows(client: Client, live: Sequence[View], *, all_: bool, uid: int | None, most: int | None = None) -> list[View]:
    """The jobs, those that wait last; the caller's own with their ``phase``.

    Args:
        live: what the daemon says of those that have not ended.
        all_: also some that ended.
        uid: only this user's; None for everybody's.
        most: only so many of those that wait.
    """
    views = [view for view in live if uid is None or view["uid"] == uid]
    on_node = [view for view in views if view["state"] not in words.WAITING]
    waiting = [view for view in views if view["state"] in words.WAITING]
    found = [*on_node, *(waiting if most is None else waiting[:most])]
    if all_:
        ended = client.history(limit=ENDED_SHOWN)
        found = [*reversed([view for view in ended if uid is None or view["uid"] == uid]), *found]
    for view in found:
        if view["own"] and view["state"] in words.LIVE:
            view["phase"] = None
            if view["state"] not in words.WAITING:
                with contextlib.suppress(TandemError):  # it ended meanwhile
                    view["phase"] = phase(Path(client.log_path(view["id"])["run_dir"]))
    return found


def summary(client: Client, live: Sequence[View]) -> str:
    """How many run and wait, and what is free."""
    waiting = sum(view.get("count", 1) for view in live if view["state"] in words.WAITING)
    suspended = sum(view["state"] == "suspended" for view in live)
    running = sum(view["state"] not in words.WAITING for view in live) - suspended
    nodes = [node for node in client.nodes() if node["up"]]
    cores, gpus = (_free(nodes, "cpu_milli", 1000), _free(nodes, "gpus", 1))
    there = f"{cores} cores" + (f" and {gpus} GPUs" if any(node["capacity"]["gpus"] for node in nodes) else "")
    stand = f"{suspended} suspended, " if suspended else ""
    return f"{running} running, {stand}{waiting} waiting; {there} free"


def table(found: Sequence[View], now: float, columns: int, chosen: Sequence[str] | None = None) -> Table:
    """The jobs as a table.

    Args:
        columns: how wide it may be; the note is cut there, and what tells least is left out where it is narrow.
        chosen: these columns and no others, in this order.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = {head: [one_line(_CELLS[head](view, now)) for view in found] for head in chosen or _CELLS}
    if "NAME" in cells:
        cells["NAME"] = [cut(name, NAME) for name in cells["NAME"]]
    if chosen is None:
        cells = _fitting(cells, columns, several_users=len({view["uid"] for view in found}) > 1)
    page = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for head in cells:
        page.add_column(head, no_wrap=True, justify="right" if head == "CORES" else "left")
    states = [str(view["state"]) for view in found]
    for state, *texts in zip(states, *cells.values(), strict=True):
        styles = (_STYLES.get(state, "") if head == "STATE" else "" for head in cells)
        page.add_row(*(Text(text, style=style) for text, style in zip(texts, styles, strict=True)))
    return page


def _fitting(cells: dict[str, list[str]], columns: int, *, several_users: bool) -> dict[str, list[str]]:
    """The columns that tell something and fit; the note is cut to what room is left."""
    from rich.cells import cell_len

    if not several_users:
        del cells["USER"]
    if not any(cells["PROGRESS"]):
        del cells["PROGRESS"]
    for narrower in (None, "USER", "CLASS", "PROGRESS"):
        cells.pop(narrower or "", None)
        taken = sum(max(map(cell_len, (head, *texts))) + 2 for head, texts in cells.items() if head != "NOTE")
        if columns - taken >= _NOTE:
            break
    cells["NOTE"] = [cut(note, columns - taken) for note in cells["NOTE"]]
    if columns - taken < _NOTE:
        del cells["NOTE"]
    for narrower in ("CORES", "FINISH"):
        if taken > columns:
            taken -= max(map(cell_len, (narrower, *cells.pop(narrower)))) + 2
    return cells


def _chosen(text: str) -> list[str]:
    """The columns that are asked for.

    Raises:
        ConfigError: one does not exist; names those that do.
    """
    asked = [name.strip().upper() for name in text.split(",")]
    unknown = next((name for name in asked if name not in _CELLS), None)
    if unknown is None and len(set(asked)) == len(asked):
        return asked
    known = [name.lower() for name in _CELLS]
    raise ConfigError(
        given=f"--columns {text!r}",
        allowed=f"{', '.join(known)}, each once, with commas between them",
        todo=did_you_mean((unknown or "").lower(), known, "as in `tandem queue -o id,state,finish`"),
    )


def _watch(*, all_: bool, uid: int | None, chosen: Sequence[str] | None) -> None:
    """Keep the queue on the screen. A daemon that goes away meanwhile has a successor."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from tandem.share.daemon.lasting import Lasting

    def page(client: Client) -> RenderableType:
        live = client.queue(why=True, together=True)
        found = rows(client, live, all_=all_, uid=uid, most=WAITING_SHOWN)
        drawn = table(found, time.time(), screen.width, chosen)
        return Group(Text(f"{time.strftime('%H:%M:%S')}  {summary(client, live)}"), drawn)

    screen = console()
    with (
        Live(console=screen, screen=True, auto_refresh=False) as live,
        Lasting(lambda text: live.update(Text(text), refresh=True)) as lasting,
    ):
        while True:
            live.update(lasting.ask(page), refresh=True)
            time.sleep(_REFRESH_S)


def _uid(user: str | None) -> int | None:
    if user is None:
        return None
    uid = words.uid_of(user)
    if uid is None:
        raise ConfigError(given=f"user {user!r}", allowed="users of this machine, by name or number", todo="correct it")
    return uid


def beside(view: Mapping[str, Any]) -> str:
    """Who is on its nodes now, each name cut to a column's width."""
    return ", ".join(cut(name, NAME) for name in view.get("beside") or [])


def phase(run_dir: Path) -> str | None:
    """The phase that the job's records say it is in."""
    from tandem.core.records import Tail

    found = None
    tail = Tail(run_dir / "events.jsonl")
    with contextlib.suppress(OSError):
        while records := tail.poll():
            found = next((record.phase for record in reversed(records) if record.phase), found)
    return found


def _free(nodes: Sequence[Mapping[str, Any]], resource: str, unit: int) -> str:
    free, whole = (sum(node[what][resource] or 0 for node in nodes) / unit for what in ("free", "capacity"))
    return f"{free:g} of {whole:g}"


def _id(view: View) -> str:
    """Its id as users give it; of several elements of an array that wait alike, such as `12_[3-9]`."""
    return f"{view['array'][0]}_[{view['elements']}]" if view.get("elements") else label(view)


def _progress(view: View) -> str:
    done = view.get("done")
    if done is None:
        return ""
    filled = round(max(0.0, min(1.0, done)) * _BAR)
    return f"{'━' * filled}{'╌' * (_BAR - filled)} {done:4.0%}"


def _finish(view: View, now: float) -> str:
    """The quoted interval; of a job that ended, when."""
    if view.get("ended_at") is not None:
        return f"at {clock_time(view['ended_at'], now)}"
    promise = view.get("promise")
    if not promise:
        return ""
    low, mid, high = words.interval(promise, "finish")
    seconds = high - low < 120
    first = clock_time(low, now, seconds=seconds)
    last = clock_time(high, mid, seconds=seconds)
    return "no idea" if first == "no idea" else f"{first}-{last}"


def _note(view: View) -> str:
    if not view["own"]:
        return ""
    if view["state"] in words.WAITING:
        return view.get("why") or ""
    if view["state"] not in words.LIVE:
        return "" if view["state"] == "done" else view.get("reason") or ""
    said = [view["phase"]] if view.get("phase") else []
    if view["throttle"] < 1 and view["state"] != "suspended":  # it stands still
        said.append(f"throttled to {view['throttle']:.0%}")
    if view["state"] in ("starting", "running") and view["throttle"] == 1:
        said.append(f"beside {beside(view)}" if view.get("beside") else "nobody is beside it")
    elif view.get("why"):
        said.append(view["why"])
    return "; ".join(said)


_CELLS: dict[str, Callable[[View, float], str]] = {
    "ID": lambda view, _: _id(view),
    "NAME": lambda view, _: view.get("name") or view.get("app") or NONE,
    "USER": lambda view, _: words.user(view["uid"]),
    "CLASS": lambda view, _: view["class"],
    "STATE": lambda view, _: view["state"],
    "CORES": lambda view, _: words.cores_and_gpus(view),
    "PROGRESS": lambda view, _: _progress(view),
    "FINISH": lambda view, now: _finish(view, now),
    "NOTE": lambda view, _: _note(view),
}
"""How each column is written, from the job and the present."""
