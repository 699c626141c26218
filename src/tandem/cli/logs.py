"""`tandem logs`: what a job has printed. The file is read here, with the rights of whoever asks."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from tandem.cli import words
from tandem.cli.selection import checked, label, resolve
from tandem.cli.terminal import json_option, print_json, put, say_err
from tandem.cli.wait import sentence
from tandem.core.errors import ConfigError, JobStateError
from tandem.core.records import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tandem.share.daemon.client import Client

View = dict[str, Any]

_CHUNK = 1 << 16
_LOOK_S = 0.2
_NAMED = 8


@click.command()
@click.argument("job", callback=checked, metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--err", is_flag=True, help="Standard error instead of standard output.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@json_option
def logs(job: str, follow: bool, err: bool, lines: int | None, as_json: bool) -> None:
    """What a job has printed.

    Of a whole array, each element's under a line with its name. With --json: where it is written, and the job's
    state.
    """
    from tandem.share.daemon.client import Client
    from tandem.share.daemon.lasting import Lasting

    if follow and not as_json:
        with Lasting(lambda text: say_err(f"tandem: {text}")) as lasting:
            jobs, names = lasting.ask(lambda client: _named(client, job))
            if len(jobs) > 1:
                raise _several(job, names)
            _print(lasting.ask, jobs[0], job, follow=True, err=err, lines=lines)
        return
    with Client.connect() as client:
        jobs, names = _named(client, job)
        if as_json:
            found = [client.log_path(number) for number in jobs]
            print_json(found[0] if len(jobs) == 1 else [{"id": n, **at} for n, at in zip(jobs, found, strict=True)])
            return
        if len(jobs) == 1:
            _print(lambda question: question(client), jobs[0], job, follow=False, err=err, lines=lines)
            return
        for number, name in zip(jobs, names, strict=True):
            where = client.log_path(number)
            click.echo(f"==> {name} ({where['state']}) <==")
            with contextlib.ExitStack() as stack:
                stream = _opened(Path(where["stderr" if err else "stdout"]), stack)
                if stream is not None and lines is not None:
                    _skip_to_last(stream, lines)
                sys.stdout.flush()
                last = _copy(stream)
                if last and not last.endswith(b"\n"):
                    click.echo()


def _named(client: Client, job: str) -> tuple[list[int], list[str]]:
    """The ids that are meant, and of several what each is called."""
    jobs = resolve(client, [job])
    return jobs, [label(client.show(number)) for number in jobs] if len(jobs) > 1 else []


def _print(
    ask: Callable[[Callable[[Client], View]], View],
    number: int,
    job: str,
    *,
    follow: bool,
    err: bool,
    lines: int | None,
) -> None:
    """Copy one job's output to ours; say on stderr why there is none."""
    where = ask(lambda client: client.log_path(number))
    path = Path(where["stderr" if err else "stdout"])
    state = where["state"]
    copied = False
    with contextlib.ExitStack() as stack:
        stream = _opened(path, stack)
        if stream is None and not follow and state in words.LIVE:
            raise _no_file(job, state, path)
        if stream is not None and lines is not None:
            _skip_to_last(stream, lines)
        while True:
            stream = stream or _opened(path, stack)
            copied = bool(_copy(stream)) or copied
            if not follow or state not in words.LIVE:
                break
            time.sleep(_LOOK_S)
            # asked before the last copy: nothing that was written before is lost
            state = ask(lambda client: client.log_path(number))["state"]
    if not copied and lines != 0 and state not in words.LIVE:
        _say_why_nothing(job, ask(lambda client: client.show(number)), err=err)


def _say_why_nothing(job: str, view: Mapping[str, Any], *, err: bool) -> None:
    """The job has ended, and there is nothing in this file: say whether that is all, and where more is.

    Raises:
        JobStateError: the file is not there.
    """
    path, other = (Path(view[name]) for name in (("stderr", "stdout") if err else ("stdout", "stderr")))
    option = "" if err else "--err "
    elsewhere = f"`tandem logs {option}{job}`" if path != other and _size(other) else ""
    if _size(path) is None:
        if view["started_at"] is None:
            say_err(f"tandem: job {job} never started: {sentence(view)}")
            return
        raise _no_file(job, view["state"], path, elsewhere)
    if elsewhere:
        say_err(f"tandem: job {job} has printed nothing here; see {elsewhere}")
        return
    how = "" if view["state"] == "done" else f": {sentence(view)}"
    if _size(other) is None:
        names = ("standard error", "standard output") if err else ("standard output", "standard error")
        how = f" to {names[0]}, and the file of its {names[1]}, {other}, was removed{how}"
    if how:  # a job that ended well and had nothing to say has said so
        say_err(f"tandem: job {job} has printed nothing{how}")


def _size(path: Path) -> int | None:
    """How long a file is; None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _opened(path: Path, stack: contextlib.ExitStack) -> IO[bytes] | None:
    """The job's output; None where there is none.

    Raises:
        JobStateError: Something else has taken its place, such as a pipe, for which a reader would wait.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISCHR(mode):
            return stack.enter_context(os.fdopen(open_regular(path), "rb"))
    except FileNotFoundError:
        return None
    raise JobStateError(
        given=f"the output {path} is a file no more",
        allowed="jobs whose file is there",
        todo="look at what has taken its place",
    )


def _copy(stream: IO[bytes] | None) -> bytes:
    """Write out what is new, as it is: it is the job's own. Returns the last of it."""
    last = b""
    while stream is not None and (chunk := stream.read(_CHUNK)):
        put(chunk)
        last = chunk
    sys.stdout.buffer.flush()
    return last


def _skip_to_last(stream: IO[bytes], lines: int) -> None:
    """Move to where the last lines begin, reading from the end."""
    at = end = stream.seek(0, 2)
    breaks = 0
    while at > 0 and lines:
        size = min(_CHUNK, at)
        at -= size
        stream.seek(at)
        block = stream.read(size)
        if at + size == end and block.endswith(b"\n"):
            breaks -= 1  # the last line's own
        place = size
        while (place := block.rfind(b"\n", 0, place)) >= 0:
            breaks += 1
            if breaks == lines:
                stream.seek(at + place + 1)
                return
    stream.seek(0 if lines else end)


def _several(given: str, names: Sequence[str]) -> ConfigError:
    """Only one job's output can be followed."""
    shown = ", ".join(names[:_NAMED]) + (f", ... {names[-1]}" if len(names) > _NAMED else "")
    return ConfigError(
        given=f"`tandem logs -f {given}`, an array of {len(names)} jobs",
        allowed=f"one of them: {shown}",
        todo=f"as in `tandem logs -f {names[0]}`, or without -f for all",
    )


def _no_file(job: str, state: str, path: Path, elsewhere: str = "") -> JobStateError:
    """There is no file: the job has not started, or somebody removed it; ``elsewhere`` is what else it printed."""
    if state in words.WAITING or state == "starting":
        return JobStateError(
            given=f"job {job} is {state}, it has printed nothing yet",
            allowed="jobs that have started",
            todo=f"`tandem logs -f {job}` waits for it",
        )
    return JobStateError(
        given=f"the output of job {job} ({state}) is not there: the file was removed",
        allowed=f"jobs whose file is there, here {path}",
        todo=f"see {elsewhere}" if elsewhere else "what was removed is gone; run the job again",
    )
