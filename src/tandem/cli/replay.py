"""`tandem replay`: feed a stored day to a fresh state machine and compare every decision."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli.moments import clock_time
from tandem.cli.terminal import json_option, print_json, progress, say
from tandem.cli.words import count
from tandem.cli.workloads import demand_text
from tandem.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHOWN = 5


@click.command()
@click.argument("log", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--policy", metavar="NAME", help="Decide with another policy: what it would have done otherwise.")
@click.option("--export", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write the log there.")
@json_option
def replay(log: Path | None, policy: str | None, export: Path | None, as_json: bool) -> None:
    """Decide a stored day again, and compare.

    LOG is a file that --export wrote; without one, the log of this machine. Exit status 1 if a decision differs
    (without --policy none should). What was decided by a policy that can no longer be had is left out. With --policy
    only what is done counts, and where: each policy has its own reasons.
    """
    from tandem.share.scheduler.admission import check_options
    from tandem.share.simulate import replay as replaying

    if policy is not None:
        check_options([policy], {})
    if log is not None:
        demand_text(log)
    entries = replaying.read_log(log) if log is not None else _stored()
    if export is not None:
        written = _write(entries, export)
        if as_json:
            print_json({"entries": written, "file": str(export)})
        else:
            say(f"{count(written, 'entry').replace('entrys', 'entries')} in {export}")
        return
    with progress("steps", quiet=as_json) as tell:
        found = replaying.replay(_told(entries, tell), policy=policy)
    if as_json:
        print_json({name: getattr(found, name) for name in ("epochs", "steps", "events", "decisions")} | {
            "policy": policy,
            "differences": [
                {"entry": one.entry, "now": one.now, "stored": one.stored, "replayed": one.replayed}
                for one in found.differences
            ],
            "left_out": [{"now": one.now, "why": one.why.given} for one in found.left_out],
        })  # fmt: skip
    else:
        _say(found, policy)
    if found.differences and policy is None:
        raise click.exceptions.Exit(1)


def _stored() -> Iterator[dict[str, Any]]:
    from tandem.share.daemon.client import Client

    with Client.connect() as client:
        yield from client.log()


def _write(entries: Iterator[dict[str, Any]], path: Path) -> int:
    """Write the log aside and rename it: a reader sees a whole one."""
    aside = path.with_name(f".{path.name}.new")
    written = 0
    try:
        with aside.open("w", encoding="utf-8") as out:
            for entry in entries:
                out.write(json.dumps(entry, separators=(",", ":")) + "\n")
                written += 1
        aside.replace(path)
    except OSError as error:
        raise ConfigError(
            given=f"--export {path}: {error.strerror or error}",
            allowed="a file that can be written",
            todo="make room, or name another file",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return written


def _told(entries: Iterator[dict[str, Any]], tell: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    for number, entry in enumerate(entries):
        if number % 1000 == 0:
            tell("replaying", number, max(number, 1))
        yield entry


def _say(found: Any, policy: str | None) -> None:  # noqa: ANN401 - a Replayed
    epochs = f" in {count(found.epochs, 'epoch')}" if found.epochs > 1 else ""
    say(f"{count(found.steps, 'step')}{epochs}, {count(found.events, 'event')}, {count(found.decisions, 'decision')}")
    for left in found.left_out:
        since = clock_time(left.now, time.time())
        say(f"the epoch from {since} is left out, for it can no longer be decided again: {left.why.given}")
    if not found.differences:
        every = "every other decision" if found.left_out else "every decision"
        say(f"{every} is the same" if policy is None else f"{policy} decides all of it the same way")
        return
    who = policy or "this version"
    say(f"{who} decides otherwise in {count(len(found.differences), 'step')}")
    for one in found.differences[:_SHOWN]:
        say(f"  {clock_time(one.now, time.time())}  then: {_words(one.stored)}")
        say(f"  {'':8}  {who}: {_words(one.replayed)}")
    if len(found.differences) > _SHOWN:
        say(f"  ... and {len(found.differences) - _SHOWN} more; --json has all")


def _words(decisions: list[Mapping[str, Any]]) -> str:
    said = []
    for decision in decisions:
        shares = (decision.get("placement") or {}).get("shares") or []
        where = f" on {', '.join(share['node'] for share in shares)}" if shares else ""
        said.append(f"{decision['is'].lower()} {decision['job']}{where}")
    return ", ".join(said) or "nothing"
