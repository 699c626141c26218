"""`tandem wait`: wait until jobs have ended, and say how each did."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tandem.cli import words
from tandem.cli.moments import option_s
from tandem.cli.selection import checked, label, resolve
from tandem.cli.terminal import json_option, print_json, say, say_err

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tandem.share.daemon.client import Client

View = dict[str, Any]

_NAMED = 10
_UNANSWERED = "the time is over, and the daemon has not answered"
_ASKING_S = 2.0


class _OutOfTimeError(Exception):
    """The time that was given for waiting is over."""


@click.command()
@click.argument("jobs", nargs=-1, required=True, callback=checked, metavar="ID...")
@click.option("--any", "any_", is_flag=True, help="Until one of them has ended.")
@click.option("--timeout", metavar="TIME", help="At most so long: 90s, 5m; a number alone is minutes.")
@json_option
def wait(jobs: tuple[str, ...], any_: bool, timeout: str | None, as_json: bool) -> None:
    """Wait until jobs have ended.

    Exit status 0 if all ended well, 1 if one did not or the time was over. `12` is also a whole array.
    """
    timeout_s = None if timeout is None else option_s("--timeout", timeout)
    found = wait_for(lambda client: resolve(client, jobs), any_=any_, timeout_s=timeout_s, quiet=as_json)
    if as_json:
        print_json({"ends": found.ends, "waiting": found.waiting})
    if not found.well:
        raise click.exceptions.Exit(1)


@dataclass(frozen=True, slots=True)
class Waited:
    """How waiting for jobs ended.

    Attributes:
        ends: the jobs that have ended, as `show` has them.
        waiting: the ids of the others; None where the daemon has not even answered who they are.
        well: what was waited for came, and all ended well.
    """

    ends: list[View]
    waiting: list[int] | None
    well: bool


def wait_for(
    which: Callable[[Client], Sequence[int]], *, any_: bool = False, timeout_s: float | None = None, quiet: bool = False
) -> Waited:
    """Wait until jobs have ended; say each end as it comes. A daemon that goes away meanwhile has a successor.

    Args:
        which: their ids, asked of a daemon.
        any_: only until one has.
        timeout_s: at most so long, in seconds.
        quiet: say nothing.
    """
    from tandem.share.daemon.lasting import Lasting

    ends: list[View] = []
    waiting: dict[int, str] = {}  # with what each is called

    def tell(view: View) -> None:
        waiting.pop(view["id"], None)
        ends.append(view)
        if not quiet:
            say(f"job {label(view)}: {sentence(view)}")

    def look(asking: Client) -> tuple[list[View], dict[int, str]]:
        """Those that have ended, and the names of the others."""
        ids = which(asking)
        live = {view["id"]: label(view) for view in asking.queue()}
        over = [job for job in ids if job not in live]
        return [asking.show(job) for job in (over[:1] if any_ else over)], {job: live.get(job, "") for job in ids}

    def go_on(asking: Client) -> None:
        with lasting.another() as watching:
            for job in ended(watching, list(waiting)):
                tell(asking.show(job))
                if any_:
                    return

    until = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        with contextlib.ExitStack() as stack:
            with _at_most(_asking_s(timeout_s)):
                lasting = stack.enter_context(Lasting(lambda text: say_err(f"tandem: {text}")))
                over, found = lasting.ask(look)
            waiting |= found
            for view in over:  # whatever the time
                tell(view)
            with _at_most(None if until is None else until - time.monotonic()):
                if waiting and not (any_ and ends):
                    lasting.ask(go_on)
    except _OutOfTimeError:
        if not (ends or waiting):
            say_err(f"tandem: {_UNANSWERED}")
            return Waited(ends, None, well=False)
        if waiting:  # else the last of them ended just in time
            late = list(waiting.values())
            more = " ..." if len(late) > _NAMED else ""
            if not quiet:
                say_err(f"tandem: the time is over; not ended: {', '.join(late[:_NAMED])}{more}")
            return Waited(ends, list(waiting), well=False)
    return Waited(ends, list(waiting), well=all(end["state"] == "done" for end in ends))


def ended(client: Client, ids: Sequence[int]) -> Iterator[int]:
    """Yield each of the jobs when it has ended; needs a connection of its own."""
    left = dict.fromkeys(ids)
    first = True
    for part in client.watch():
        state = {view["id"]: view["state"] for view in part["jobs"]}
        if first:
            over = [job for job in left if job not in state]
            first = False
        else:
            over = [job for job in left if job in state and state[job] not in words.LIVE]
        for job in over:
            del left[job]
            yield job
        if not left:
            return


def sentence(view: Mapping[str, Any]) -> str:
    """How it ended, how long it ran, and why, where that is not plain."""
    text = words.ended(view)
    if view.get("started_at") is not None and view.get("ended_at") is not None:
        text += f" after {words.ran(view, view['ended_at'])}"
    reason = view.get("reason") or ""
    return text if view["state"] == "done" or not reason or reason in text else f"{text}: {reason}"


def _asking_s(timeout_s: float | None) -> float | None:
    """How long it may take to learn what has ended already, for which any time to wait is enough."""
    return None if timeout_s is None else max(timeout_s, _ASKING_S)


@contextlib.contextmanager
def _at_most(timeout_s: float | None) -> Iterator[None]:
    """Raise `_OutOfTimeError` in the block when the time is over."""
    if timeout_s is None:
        yield
        return

    def over(*_: object) -> None:
        raise _OutOfTimeError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
