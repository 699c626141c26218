"""The daemon in the foreground: one thread, one loop, until SIGTERM or `tandem down`."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem.core.errors import ConfigError, TandemError
from tandem.share import paths as places
from tandem.share.daemon.daemon import Daemon, DaemonConfig
from tandem.share.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger("tandem.daemon")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a daemon in the foreground; returns its exit code."""
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
    given = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    os.umask(0o077)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _log.debug("descriptors: %d, now %d", soft, hard)
    try:
        Daemon(_config(given)).run()
    except TandemError as error:
        sys.stderr.write(f"{json.dumps(error.as_dict()) if given.json_errors else error}\n")
        return error.exit_code
    return 0


def _config(given: argparse.Namespace) -> DaemonConfig:
    uid = os.geteuid()
    setup: dict[str, Any] = {name: getattr(given, name) for name in ("policy", "estimator") if getattr(given, name)}
    if given.set:
        setup["options"] = {key: _number(key, value) for key, value in map(_pair, given.set)}
    found = places.home(given.home, shared=uid == 0) if given.home else places.of_daemon(os.environ, uid)
    if given.socket:
        found = Paths(found.data, given.socket, found.shared)
    return DaemonConfig(found, setup, given.engine, dict(map(_pair, given.engine_set)))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError(given=f"the setting {text!r}", allowed="KEY=VALUE", todo="write it with an equals sign")
    return key, value


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(given=f"the option {key} = {value!r}", allowed="a number", todo="correct it")
    return number


if __name__ == "__main__":
    sys.exit(main())
