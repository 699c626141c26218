"""`tandem show`: all that is known about one job, in words."""

from __future__ import annotations

import os
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli import words
from tandem.cli.moments import clock_time, promised, span
from tandem.cli.queue import beside, phase
from tandem.cli.selection import checked, elements, label, one
from tandem.cli.terminal import cut, json_option, print_json, say, say_pairs
from tandem.core.units import human_duration

if TYPE_CHECKING:
    from tandem.share.daemon.client import Client

View = Mapping[str, Any]
Line = tuple[str, str]

_NAME = 20  # "another user's job" fits
_NEIGHBOURS = 10
_DECISIONS = 20
_ROOM_BYTES = 1 << 16


@click.command()
@click.argument("job", callback=checked, metavar="ID")
@click.option("--decisions", is_flag=True, help="Also every decision about it, with its reason (reads the whole log).")
@json_option
def show(job: str, decisions: bool, as_json: bool) -> None:
    """All about one job, and why it waits.

    What was asked for and promised, what it has, how far it is, who is beside it, and what was decided about it.
    """
    from tandem.share.daemon.client import Client

    with Client.connect() as client:
        number = one(client, job)
        view = client.show(number, decisions=decisions)
        whole = None if as_json or "_" in job or view["array"] is None else _whole(client, view)
        view["drift"] = _drift(client, view.get("app") or "")
    if view["state"] in words.LIVE - words.WAITING and view.get("run_dir"):
        view["phase"] = phase(Path(view["run_dir"]))
    if as_json:
        print_json(view)
        return
    if whole is not None:
        say(whole)
    now = time.time()
    name = view.get("name") or view.get("app") or ""
    say(f"job {label(view)}  {name}  {words.ended(view)}")
    parts = (_asked(view), _life(view, now), _promised(view, now), _beside(view, now), _decided(view, now))
    say_pairs(chain.from_iterable(parts), indent="  ")


def _drift(client: Client, app: str) -> str:
    """Why the profile of the job's application is no longer believed; "" where it is, or where there is none."""
    return next((one["stale"] for one in client.profiles() if one["app"] == app), "") if app else ""


def _whole(client: Client, view: View) -> str:
    """Which elements the job's array has, and how each is asked for."""
    states = elements(client, view["array"][0])
    counts = Counter(one["state"] for one in states.values())
    how = ", ".join(f"{count} {state}" for state, count in counts.items())
    whole = f"array {view['array'][0]}: indices {words.ranges(list(states))}: {how}"
    other = max((index for index in states if index != view["array"][1]), default=None)
    more = "" if other is None else f", see also {view['array'][0]}_{other}"
    return f"{whole}; this is {label(view)}{more}"


def _asked(view: View) -> Iterator[Line]:
    if view.get("argv"):
        yield "command", shlex.join(view["argv"])
        yield "folder", view["cwd"]
    if view.get("env"):
        yield "variables", " ".join(f"{key}={shlex.quote(value)}" for key, value in sorted(view["env"].items()))
    bound = f", at most {view['max_slowdown']:g}x slower beside others" if view["class"] == "primary" else ""
    yield "user", f"{words.user(view['uid'])}; {view['class']}{bound}; priority {view['priority']}"
    asked = [words.demand(view)]
    asked += [f"limit {human_duration(view['limit_s'])}"] if view.get("limit_s") else []
    asked += [f"expected {human_duration(view['expected_s'])}"] if view.get("expected_s") else []
    asked += [words.count(view["retries"], "retry").replace("retrys", "retries")] if view.get("retries") else []
    yield "asks for", "; ".join(asked)
    yield from _after(view)
    if view.get("checkpoint"):
        yield "checkpoint", f"{view['checkpoint']}, then {human_duration(view['grace_s'])} of grace"


def _after(view: View) -> Iterator[Line]:
    first = view["array"][0] if view.get("array") else view["id"]
    if view.get("array_most"):
        yield "array", f"{first}, of which at most {view['array_most']} run at a time"
    others = [one for one in view.get("after") or [] if one["job"] < first]
    if others:
        yield "after", ", ".join(f"{one.get('name', one['job'])}{'' if one['ok'] else ' (any end)'}" for one in others)


def _life(view: View, now: float) -> Iterator[Line]:
    moments = [f"submitted {clock_time(view['submitted_at'], now)}"]
    if view.get("started_at") is not None:
        moments.append(f"started {clock_time(view['started_at'], now)}")
    if view.get("ended_at") is not None:
        moments.append(f"ended {clock_time(view['ended_at'], now)}")
    if view.get("started_at") is not None:
        moments.append(f"ran {words.ran(view, now)}")
    if view["attempt"] > 1:
        moments.append(f"attempt {view['attempt']}")
    yield "times", ", ".join(moments)
    if view["attempt"] > 1:
        for place, over in enumerate(view.get("attempts") or []):
            when = clock_time(over["ended_at"], now)
            yield "" if place else "attempts", f"{over['attempt']}: {over['reason']}, {when}"
    if words.places(view):
        yield "has" if view["state"] in words.LIVE else "had", words.places(view)
    far = [f"{view['done']:.0%}"] if view.get("done") is not None else []
    far += [f"phase {view['phase']}"] if view.get("phase") else []
    far += [words.lately(view)] if view.get("rate") else []
    unjudged = view["class"] == "primary" and view["state"] == "running" and view.get("beside")
    if unjudged and view.get("rate") and not view.get("slowdown"):
        far.append("its bound cannot be judged: with these arguments it never ran alone")
    stands = view["state"] == "suspended"  # whatever it was throttled to before
    far += [f"throttled to {view['throttle']:.0%}"] if view["throttle"] < 1 and not stands else []
    if far:
        yield "progress", ", ".join(far)
    if view.get("why"):
        waits, live = view["state"] in words.WAITING, view["state"] in words.LIVE
        yield "waits" if waits else "decision" if live else "why", view["why"]
    if view.get("drift"):
        yield "profile", f"set aside: {view['drift']}"
    if view.get("overtaken"):
        yield "", view["overtaken"]
    if view["state"] in words.LIVE - words.WAITING - {"suspended"}:
        yield "neighbours", beside(view) or "nobody"
    if view.get("stdout"):
        yield "output", view["stdout"]
        if view["stderr"] != view["stdout"]:
            yield "", view["stderr"]
    full = _full_disk(view) if view["state"] == "failed" else None
    if full is not None:
        yield "disk", f"that of {full} is full now"


def _full_disk(view: View) -> Path | None:
    """Where the job wrote, if nothing more can be written there: that may be why it failed."""
    for folder in dict.fromkeys(Path(view[key]).parent for key in ("stdout", "stderr") if view.get(key)):
        try:
            disk = os.statvfs(folder)
        except OSError:
            continue
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < _ROOM_BYTES and not disk.f_flag & os.ST_RDONLY:
            return folder
    return None


def _promised(view: View, now: float) -> Iterator[Line]:
    starts = sum(quote["moment"] == "start" for quote in view.get("promises") or [])
    attempt = 0
    for quote in view.get("promises") or []:
        low, mid, high = words.interval(quote, "finish")
        text = f"finish {promised(low, mid, high, now)}"
        if quote["moment"] == "submit":
            text = f"start {promised(*words.interval(quote, 'start'), now)}, {text}"
        if quote.get("taken_back"):
            text += ": taken back by a hold"
        elif view.get("ended_at") is not None and view["state"] == "done":
            end = view["ended_at"]
            text += (
                f": {human_duration(end - high)} late" if end > high
                else f": {human_duration(low - end)} early" if end < low
                else ": kept"
            )  # fmt: skip
        if quote.get("policy"):
            text += f", under {quote['policy']}"
        if quote["moment"] == "start" and starts > 1:  # each attempt is quoted anew
            attempt += 1
            text = f"attempt {attempt}: {text}"
        yield f"at {quote['moment']}", text
        if quote.get("basis"):
            yield "", f"rests on {quote['basis']}"


def _beside(view: View, now: float) -> Iterator[Line]:
    stretches = list(reversed(view.get("coruns") or []))
    if len(stretches) > _NEIGHBOURS:
        yield "beside", f"(the latest {_NEIGHBOURS}; --json tells more)"
    labels = view.get("labels") or {}
    for place, stretch in enumerate(stretches[-_NEIGHBOURS:], start=len(stretches) > _NEIGHBOURS):
        who = (
            ", ".join(f"{cut(app or 'job', _NAME)} ({labels.get(str(job), job)})" for job, app in stretch["beside"])
            or "nobody"
        )
        rate = f" at {stretch['rate']:.3g} steps/s" if stretch["rate"] is not None else ""
        how = ", throttled" if stretch["throttled"] else ""
        lasted = span(stretch["ended_at"] - stretch["began_at"])
        yield "" if place else "beside", f"{clock_time(stretch['began_at'], now)} for {lasted}: {who}{rate}{how}"


def _decided(view: View, now: float) -> Iterator[Line]:
    for place, decision in enumerate((view.get("decisions") or [])[-_DECISIONS:]):
        reason = f": {decision['reason']}" if decision.get("reason") else ""
        what = "went on" if decision["is"] == "WentOn" else decision["is"].lower()
        yield "" if place else "decided", f"{clock_time(decision['at'], now)} {what}{reason}"
