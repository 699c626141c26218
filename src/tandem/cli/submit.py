"""`tandem submit`: queue a job, or an array of them, and say when it will be done."""

from __future__ import annotations

import os
import shlex
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli import words
from tandem.cli.selection import elements, parse, resolve
from tandem.cli.terminal import json_option, print_json, say, say_err
from tandem.core.errors import ConfigError, PermissionRefusedError
from tandem.core.pairs import parse_pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tandem.share.daemon.client import Client

_AS_GIVEN = ("cpus", "gpus", "gpu_mem", "mem", "membw", "nic", "nodes", "max_slowdown", "time", "expected", "array")
_SAME = ("retries", "name", "priority", "grace", "cwd")
_RENAMED = {"klass": "class", "checkpoint_signal": "checkpoint", "output": "stdout", "error": "stderr"}


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--cpus", metavar="N", help="Cores on each node. [1]")
@click.option("--gpus", metavar="N", help="GPUs on each node: 2, a fraction such as 0.5, or TYPE:2.")
@click.option("--mem", metavar="SIZE", help="Memory on each node, as a limit: 8G.")
@click.option("--gpu-mem", metavar="SIZE", help="Memory that each GPU must have.")
@click.option("--membw", metavar="RATE", help="Memory bandwidth it takes of each node: 20GB/s.")
@click.option("--nic", metavar="RATE", help="Network bandwidth it takes of each node, where that is known.")
@click.option("--nodes", metavar="N", help="Nodes, all at once. [1]")
@click.option("--label", multiple=True, metavar="NAME", help="Only on nodes with this label.")
@click.option(
    "--class",
    "klass",
    metavar="CLASS",
    help="primary (slowdown is bounded) or harvest (takes what is idle). [primary]",
)
@click.option("--max-slowdown", metavar="X", help="Largest accepted slowdown by neighbours, of a primary job. [1.10]")
@click.option("--time", metavar="TIME", help="Limit; the job is stopped there: 2h, 90 (minutes), 1:30:00.")
@click.option("--expected", metavar="TIME", help="How long you expect it to run, at most --time.")
@click.option("--after", multiple=True, metavar="ID[:any]", help="Wait until a job ends well; with :any, ends at all.")
@click.option("--array", metavar="RANGE", help="One job for each index: 0-9, 1,3,5-8, 0-99%4 (4 at once).")
@click.option("--retries", metavar="N", help="Start it again so often if it fails. [0]")
@click.option("--name", help="Its name, under which its history is kept. [programme or script]")
@click.option("--priority", metavar="N", help="Higher goes first. [0]")
@click.option("--hold", is_flag=True, help="Do not start it before `tandem release`.")
@click.option("--checkpoint-signal", metavar="SIGNAL", help="Makes it save its state before it is stopped: SIGUSR1.")
@click.option("--grace", metavar="TIME", help="From that signal to SIGKILL: 30s, 2 (minutes). [10s]")
@click.option(
    "-o", "--output", metavar="FILE", help="Standard output; %j is the id, %A and %a array and index, %% a %."
)
@click.option("-e", "--error", metavar="FILE", help="Standard error. [with --output: the same file]")
@click.option("--env", multiple=True, metavar="KEY=VALUE", help="A variable of its environment.")
@click.option("--cwd", metavar="DIR", help="Where it runs. [here]")
@click.option("--wait", is_flag=True, help="Wait until it has ended; exit status 1 if it did not end well.")
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone.")
@json_option
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND...")
def submit(argv: tuple[str, ...], wait: bool, quiet: bool, as_json: bool, **given: Any) -> None:  # noqa: ANN401
    """Queue a job; says when it will be done.

    \b
    tandem submit --cpus 4 --gpus 1 --expected 20m -- python train.py
    tandem submit --class harvest --array 0-9 -- ./simulate --seed

    The job finds TANDEM_JOB_ID, TANDEM_ARRAY_INDEX, TANDEM_CORES, TANDEM_RUN_DIR, ... in its environment.
    """
    from tandem.share.daemon.client import Client

    check_outputs(given)
    with Client.connect() as client:
        asked = submission(given, argv)
        asked["after"] = [item for text in given["after"] for item in _after(client, text)] or None
        doubts = misgivings(argv, given["cwd"], asked["env"])  # before it is taken in: nothing may fail after that
        try:
            (made,) = client.submit([{key: value for key, value in asked.items() if value is not None}])
        except ConfigError as error:
            error.given = _as_options(error.given)
            raise
        except KeyboardInterrupt:
            say_err("tandem: the job may have been taken in: `tandem queue` and `tandem history` show whether it was")
            raise
    doubts = [*made["warnings"], *doubts]
    for doubt in () if as_json else doubts:
        say_err(f"tandem: warning: {doubt}")
    if quiet and not as_json:
        click.echo(made["ids"][0])
    elif not as_json:
        _say(made, is_array=given["array"] is not None, held=given["hold"])
    if wait:
        from tandem.cli.wait import wait_for

        try:
            waited = wait_for(lambda _: made["ids"], quiet=quiet or as_json)
        except KeyboardInterrupt:
            first = made["ids"][0]
            what = f"array {first} goes" if given["array"] is not None else f"job {first} goes"
            say_err(f"tandem: {what} on; `tandem wait {first}` waits again, `tandem cancel {first}` stops it")
            raise
        made = {**made, "ends": waited.ends}
    made = {**made, "warnings": doubts}
    if as_json:
        print_json(made)
    if wait and not waited.well:
        raise click.exceptions.Exit(1)


def submission(given: Mapping[str, Any], argv: Sequence[str]) -> dict[str, object]:
    """Turn the options into a submission, without its dependencies; texts with units are the daemon's to read.

    Raises:
        ConfigError: a variable is not KEY=VALUE.
    """
    asked: dict[str, object] = {name: given[name] for name in (*_AS_GIVEN, *_SAME)}
    asked |= {name: given[option] for option, name in _RENAMED.items()}
    asked |= {"argv": list(argv), "labels": list(given["label"]) or None, "hold": given["hold"] or None}
    env = dict(parse_pair(text, "--env", "SEED=3") for text in given["env"])
    return asked | {"env": env or None}


def check_outputs(given: Mapping[str, Any]) -> None:
    """Refuse what is no file for output, such as a folder or a link, or whose folder is not there: it would fail.

    Not where the folder's name has a % (of which the daemon makes the job's id), nor where a job that this one waits
    for may make it: if nobody does, the job says so when it fails.

    Raises:
        ConfigError: the file is none, or is never written to; its folder does not exist, or is none.
    """
    where = Path(given["cwd"] or ".")
    for option in ("output", "error"):
        text = given[option]
        if text is None:
            continue
        parent = Path(text).parent
        folder = where / parent
        if unfit := _unfit(where / text) if text else "which names no file":
            wrong, todo = unfit, "name a file, such as out-%j.txt"
        elif "%" in str(parent) or given["after"] or not where.is_dir() or folder.is_dir():
            continue
        elif folder.exists():
            wrong, todo = f"and the folder {_shown(str(folder))} is none", "name another folder"
        elif link := _leading_nowhere(folder):
            wrong = f"and {_shown(str(link))} is a link that leads nowhere"
            todo = "make what it is to lead to, or name another folder"
        else:
            wrong, todo = f"and the folder {_shown(str(folder))} does not exist", _how_to_make(text, folder)
        raise ConfigError(
            given=f"--{option} {_shown(text) or repr(text)}, {wrong}",
            allowed="a file of your own, or a new one, in a folder that is there",
            todo=todo,
        )


def _unfit(path: Path) -> str | None:
    """What makes the keeper refuse to write to it; None where nothing does that can be seen now."""
    try:
        if path.is_dir():
            return "which is a folder"
        info = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"which cannot be used ({error.strerror})"
    if stat.S_ISLNK(info.st_mode):
        return "which is a link"
    if stat.S_ISCHR(info.st_mode):
        return None
    if not stat.S_ISREG(info.st_mode):
        return "which is a pipe" if stat.S_ISFIFO(info.st_mode) else "which is no file"
    if info.st_nlink > 1:
        return "which has several names"
    return None if info.st_uid == os.geteuid() else "which belongs to another user"


def _leading_nowhere(folder: Path) -> Path | None:
    """The link on the way to the folder whose target is not there, if there is one."""
    return next((path for path in (folder, *folder.parents) if path.is_symlink() and not path.exists()), None)


def _how_to_make(output: str, folder: Path) -> str:
    if output.startswith("~"):
        return "leave ~ unquoted, after a space, so that your shell puts your home folder in for it; or write $HOME"
    return f"make it with `mkdir -p {shlex.quote(str(folder))}`" if str(folder).isprintable() else "make it first"


def _shown(text: str) -> str:
    """The text on one line."""
    return text if text.isprintable() else repr(text)


def misgivings(argv: Sequence[str], cwd: str | None, env: object) -> list[str]:
    """What will make the job fail if nobody changes it before the start, as this user sees it now.

    Args:
        argv: The job's command line.
        cwd: Where it runs; None for here.
        env: Its own variables.
    """
    own = env if isinstance(env, dict) else {}
    folder = Path(cwd or ".")
    try:
        what = "" if stat.S_ISDIR(folder.stat().st_mode) else "is no folder"
    except (FileNotFoundError, NotADirectoryError):
        what = "does not exist"
    except OSError as error:
        what = f"cannot be entered ({error.strerror})"
    if what:
        return [f"the folder {folder} {what}; the job fails unless that has changed when it starts"]
    programme = argv[0]
    if "/" in programme or programme in (".", ".."):
        found, where = [folder / programme], ""
    else:
        places = str(own.get("PATH", os.environ.get("PATH", os.defpath))).split(os.pathsep)
        found, where = [folder / place / programme for place in places], " on your PATH"
    files = [path for path in found if stat.S_ISREG(_mode(path))]
    if any(os.access(path, os.X_OK) for path in files):
        return []
    if files:
        said = f"{programme!r} may not be executed"
    elif not where and stat.S_ISDIR(_mode(found[0])):
        said = f"{programme!r} is a folder, no programme"
    else:
        said = f"there is no programme {programme!r}{where}"
    return [f"{said}; the job fails unless that has changed when it starts"]


def _mode(path: Path) -> int:
    """What kind of file lies there; 0, which is none, where that cannot be seen."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _as_options(given: str) -> str:
    """What the daemon says of a key, said of the option: `--max-slowdown '0.5'` for `max_slowdown = '0.5'`."""
    key, equals, value = given.partition(" = ")
    names = {its: name for name, its in _RENAMED.items() if name != "klass"}
    if not equals or key not in {*_AS_GIVEN, *_SAME, *_RENAMED.values()}:
        return given
    return f"--{names.get(key, key).replace('_', '-')} {value}"


def _after(client: Client, text: str) -> list[str]:
    """Dependencies: an array's first id means all its elements.

    Raises:
        ConfigError: an item is neither an id nor ID:any.
    """
    found = []
    for item in text.split(","):
        job, colon, how = item.strip().partition(":")
        if how not in ("", "ok", "any") or (colon and not how):
            raise ConfigError(
                given=f"--after {text}",
                allowed="ID (it ends well) or ID:any (it ends at all), with commas between several",
                todo=f"write --after {job}:any or --after {job}",
            )
        try:
            found += [f"{one}{colon}{how}" for one in resolve(client, [job])]
        except PermissionRefusedError:  # somebody else's: of an array only what has not ended is to be seen
            theirs = elements(client, parse(job)[0], live=True) if job.isdecimal() else {}
            found += [f"{one['id']}{colon}{how}" for one in theirs.values()] or [item]
    return found


def _say(made: Mapping[str, Any], *, is_array: bool, held: bool) -> None:
    ids, quotes, now = made["ids"], made["quotes"], time.time()
    what = f"array {ids[0]}, {words.count(len(ids), 'job')}" if is_array else f"job {ids[0]}"
    if quotes:
        last = max(quotes, key=lambda quote: words.interval(quote, "finish")[1])
        say(f"{what}: {'the last is ' if len(ids) > 1 else ''}{words.quoted(last, now)}")
    else:
        why = (
            "held; `tandem release` lets it go" if held else f"queued, without a quote: `tandem show {ids[0]}` says why"
        )
        say(f"{what}: {why}")
