"""Users' mistakes: one line on stderr, or one JSON object where --json was asked for."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tandem.core.errors import ConfigError, TandemError, one_line
from tandem.core.nearest import did_you_mean, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = (TandemError, click.ClickException, OSError)
"""What is shown as a mistake of the user's; everything else is a fault of the program and keeps its traceback."""


_ELSEWHERE = {
    "status": "queue' or 'show",
    "ps": "queue",
    "list": "queue",
    "squeue": "queue",
    "run": "submit",
    "sbatch": "submit",
    "kill": "cancel",
    "stop": "cancel",
    "scancel": "cancel",
    "info": "show",
    "sinfo": "nodes",
    "sacct": "history",
}
"""What other programmes call a command of ours, where letters would lead astray."""

_GONE = ConfigError(given="a folder to work in that is gone", allowed="one that is there", todo="cd into another")


def report(error: BaseException, *, as_json: bool) -> int:
    """Write the error to stderr and return the exit status."""
    values = _values(error)
    if as_json:
        print(json.dumps({"error": values}), file=sys.stderr)
    else:
        print(f"tandem: {one_line(str(values['message']))}", file=sys.stderr)
    return int(values["exit_code"])


def unknown_command(given: str, known: Sequence[str], ctx: click.Context) -> click.UsageError:
    """The error for a command that does not exist, with the nearest one that does."""
    means = _ELSEWHERE.get(given)
    todo = (
        f"did you mean '{means}'?"
        if means is not None and {*means.split("' or '")} <= {*known}
        else did_you_mean(given, known, f"there are: {', '.join(known)}")
    )
    return click.UsageError(f"unknown command {given!r}; {todo}", ctx)


def asked_for_json(args: Sequence[str]) -> bool:
    """Whether the command line, up to the job's own, asks for JSON."""
    own = args[: args.index("--")] if "--" in args else args
    return "--json" in own


def _values(error: BaseException) -> dict[str, str | int]:
    if isinstance(error, TandemError):
        return error.as_dict()
    if isinstance(error, click.ClickException):
        return {"error": "UsageError", "message": _usage(error), "exit_code": 2}
    assert isinstance(error, OSError)
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_folder():
        return _GONE.as_dict()
    name = error.filename or ("standard output" if _is_of_stdout(error) else "")
    where = f"{os.fsdecode(name) if isinstance(name, bytes) else name}: " if name else ""
    return {"error": "OSError", "message": f"{where}{error.strerror or error}", "exit_code": 2}


def _has_folder() -> bool:
    """Whether the folder that the command was called in is still there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _is_of_stdout(error: OSError) -> bool:
    """Whether it was raised where a command prints, or what waits to be printed fails in the same way again."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames and frames[-1].f_code is click.echo.__code__:
        return True
    try:
        sys.stdout.flush()
    except OSError as again:
        return again.errno == error.errno
    return False


def _usage(error: click.ClickException) -> str:
    """Click's words in our style, with where to read on."""
    message = " ".join(error.format_message().split())
    if isinstance(error, click.NoSuchOption):
        known = list(error.possibilities or _options(error.ctx))
        is_long = error.option_name.startswith("--")  # one letter is near to every other
        near = nearest(error.option_name[2:], [one.removeprefix("--") for one in known]) if is_long else None
        message = f"unknown option {error.option_name!r}" + (f"; did you mean '--{near}'?" if near else "")
    else:
        message = message[:1].lower() + message[1:]
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "tandem"
    return message if "did you mean" in message else f"{message.rstrip('.')}; see `{path} --help`"


def _options(ctx: click.Context | None) -> list[str]:
    if ctx is None:
        return []
    return [name for option in ctx.command.params if isinstance(option, click.Option) for name in option.opts]
