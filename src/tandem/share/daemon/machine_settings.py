"""What a daemon was told of its machine (`--cores`, `--machine`), kept while it runs.

The next daemon is told anew. Only one that takes over from a daemon that was killed goes on with what that one was
told, as far as it is told nothing else: who restarts it without knowing gives out no cores that were to be left alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING

from tandem.core.durable import written_aside
from tandem.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)


def taken_over(data: Path, given: Mapping[str, str]) -> Mapping[str, str]:
    """What is given, and for the rest what a daemon on this data folder was told that was killed."""
    try:
        kept = json.loads(_file(data).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return given
    if not isinstance(kept, dict):
        return given
    rest = {key: value for key, value in kept.items() if isinstance(value, str) and key not in given}
    if rest:
        told = ", ".join(f"{key}={value}" for key, value in rest.items())
        _log.warning("the daemon before was killed: as that one was told, %s", told)
    return {**rest, **given}


@contextlib.contextmanager
def explained(given: Mapping[str, str], told: Mapping[str, str]) -> Iterator[None]:
    """Say of what does not hold on this machine any more, and was not given now, where it comes from.

    Raises:
        ConfigError: As was raised within, with that.
    """
    try:
        yield
    except ConfigError as error:
        key = error.given.partition(" = ")[0]
        if key in given or key not in told:
            raise
        option = f"--cores {error.allowed.rpartition(' ')[2]}" if key == "cores" else f"--machine {key}=..."
        raise ConfigError(
            given=f"{error.given}, which the daemon before was told that was killed",
            allowed=error.allowed,
            todo=f"give what holds now: `tandem up {option}`",
        ) from error


def keep(data: Path, settings: Mapping[str, str]) -> None:
    """Remember them until `forget`; a full disk does not keep a daemon from starting."""
    if not settings:
        forget(data)
        return
    try:
        with written_aside(_file(data)) as file:
            file.write(json.dumps(dict(settings)).encode())
    except OSError as error:
        _log.warning("what this daemon was told of the machine cannot be kept: %s", error)


def forget(data: Path) -> None:
    """The daemon ends as it was told to."""
    with contextlib.suppress(OSError):
        _file(data).unlink(missing_ok=True)


def _file(data: Path) -> Path:
    return data / "machine.json"
