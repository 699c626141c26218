"""A daemon of the test's own: no command of a test may speak to another."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tandem.core.errors import DaemonError
from tandem.share.daemon.client import Client

COMMAND = [sys.executable, "-c", "from tandem.cli.main import main; main()"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`TANDEM_HOME` in a folder of its own; a daemon that was started there is stopped, and its jobs with it."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TANDEM_HOME", str(folder))
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(tmp_path / "locks"))  # other daemons of this machine hold no core here
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    try:
        client = Client.connect(start=False)
    except DaemonError:
        return
    with client:
        client.down(kill=True)


@dataclass(frozen=True)
class Shell:
    """Runs the command as a user would: a process of its own."""

    cwd: Path
    prefix: Sequence[str] = field(default_factory=lambda: COMMAND)

    def __call__(self, *args: object, status: int = 0) -> str:
        """Run, check the exit status, and return what it printed."""
        done = self.run(*args)
        assert done.returncode == status, (args, done.stdout, done.stderr)
        return done.stdout

    def run(self, *args: object) -> subprocess.CompletedProcess[str]:
        """Run and return all of it."""
        return subprocess.run(
            [*self.prefix, *map(str, args)], capture_output=True, text=True, cwd=self.cwd, timeout=60, check=False
        )

    def start(self, *args: object) -> subprocess.Popen[str]:
        """Start it and leave it running."""
        return subprocess.Popen(
            [*self.prefix, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.cwd
        )


@pytest.fixture
def tandem_(tmp_path: Path) -> Shell:
    """The command."""
    return Shell(tmp_path)
