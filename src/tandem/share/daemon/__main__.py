"""The daemon in the foreground: one thread, one loop, until SIGTERM or `tandem down`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem.core.errors import TandemError
from tandem.core.pairs import parse_numbers, parse_pair
from tandem.share import paths as places
from tandem.share.daemon.client import UNHEARD
from tandem.share.daemon.daemon import Daemon, DaemonConfig
from tandem.share.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Sequence

_GARBAGE_AFTER = 50_000
"""Python looks for cycles after so many new objects: a long queue is millions that stay, and makes none."""

_log = logging.getLogger("tandem.daemon")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a daemon in the foreground; returns its exit code."""
    given = _arguments(argv)
    try:
        _serve(given)
    except TandemError as error:
        sys.stderr.write(f"{json.dumps(error.as_dict()) if given.json_errors else error}\n")
        return error.exit_code
    return 0


def serve(argv: Sequence[str]) -> None:
    """Run a daemon in the foreground, until it is stopped.

    Raises:
        TandemError: it cannot start.
    """
    _serve(_arguments(argv))


def _serve(given: argparse.Namespace) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, UNHEARD)  # a client that starts one has them blocked meanwhile
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    os.umask(0o077)
    gc.set_threshold(_GARBAGE_AFTER, 20, 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _log.debug("descriptors: %d, now %d", soft, hard)
    Daemon(_config(given)).run()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tandem.share.daemon", description=__doc__)
    parser.add_argument("--home", type=Path, help="the data folder (default: as TANDEM_HOME and the user say)")
    parser.add_argument("--socket", type=Path, help="the socket (default: in the data folder)")
    parser.add_argument("--policy")
    parser.add_argument("--estimator")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=NUMBER", help="an option of the policy")
    parser.add_argument("--engine", default="local")
    parser.add_argument(
        "--engine-set", action="append", default=[], metavar="KEY=VALUE", help="an option of the engine"
    )
    parser.add_argument("--json-errors", action="store_true", help="write an error as JSON, for the client that waits")
    parser.add_argument("--tied", action="store_true", help="end, and all jobs, when standard input does")
    return parser.parse_args(argv)


def _config(given: argparse.Namespace) -> DaemonConfig:
    uid = os.geteuid()
    setup: dict[str, Any] = {name: getattr(given, name) for name in ("policy", "estimator") if getattr(given, name)}
    if given.set:
        setup["options"] = parse_numbers(given.set, "--set", "hybrid_window=2")
    found = places.home(given.home, shared=uid == 0) if given.home else places.of_daemon(os.environ, uid)
    if given.socket:
        found = Paths(found.data, given.socket, found.shared)
    machine = dict(parse_pair(text, "--engine-set", "mem=8G") for text in given.engine_set)
    return DaemonConfig(found, setup, given.engine, machine, sys.stdin.fileno() if given.tied else None)


if __name__ == "__main__":
    sys.exit(main())
