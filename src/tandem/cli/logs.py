"""`tandem logs`: what a job has printed. The file is read here, with the rights of whoever asks."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import IO

import click

from tandem.cli import words
from tandem.cli.selection import checked, one
from tandem.cli.terminal import json_option, print_json
from tandem.core.errors import JobStateError

_CHUNK = 1 << 16
_LOOK_S = 0.2


@click.command()
@click.argument("job", callback=checked, metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--err", is_flag=True, help="Standard error instead of standard output.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
@json_option
def logs(job: str, follow: bool, err: bool, lines: int | None, as_json: bool) -> None:
    """What a job has printed.

    With --json: where it is written, and the job's state.
    """
    from tandem.share.daemon.client import Client

    with Client.connect() as client:
        number = one(client, job)
        where = client.log_path(number)
        if as_json:
            print_json(where)
            return
        path = Path(where["stderr" if err else "stdout"])
        state = where["state"]
        with contextlib.ExitStack() as stack:
            stream = _opened(path, stack)
            if stream is None and not follow:
                _explain(job, state, path)
                return
            if stream is not None and lines is not None:
                _skip_to_last(stream, lines)
            while True:
                stream = stream or _opened(path, stack)
                _copy(stream)
                if not follow or state not in words.LIVE:
                    return
                time.sleep(_LOOK_S)
                state = client.log_path(number)["state"]  # asked before the last copy: nothing written before is lost


def _opened(path: Path, stack: contextlib.ExitStack) -> IO[bytes] | None:
    try:
        return stack.enter_context(path.open("rb"))
    except FileNotFoundError:
        return None


def _copy(stream: IO[bytes] | None) -> None:
    """Write out what is new, as it is: it is the job's own."""
    out = sys.stdout.buffer
    while stream is not None and (chunk := stream.read(_CHUNK)):
        out.write(chunk)
    out.flush()


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


def _explain(job: str, state: str, path: Path) -> None:
    """There is no file: the job has not started, or somebody removed it."""
    if state in words.WAITING:
        raise JobStateError(
            given=f"job {job} is {state}, it has printed nothing yet",
            allowed="jobs that have started",
            todo=f"`tandem logs -f {job}` waits for it",
        )
    raise JobStateError(
        given=f"job {job} ({state}) has no output: it never started, or the file was removed",
        allowed=f"jobs whose file is there, here {path}",
        todo=f"see `tandem show {job}`",
    )
