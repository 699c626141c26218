"""Real daemons in folders of their own: started, killed and cleared away."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tandem.core.process import journal, keeper
from tandem.share import paths
from tandem.share.daemon.client import Client
from tests import disks
from tests.waiting import until

DEADLINE_S = 60.0

Answer = TypeVar("Answer")


class Home:
    """A data folder with at most one daemon on it."""

    def __init__(self, folder: Path, locks: Path) -> None:
        self.folder = folder
        self.paths = paths.home(folder)
        self.process: subprocess.Popen[bytes] | None = None
        self.env = {**os.environ, "TANDEM_HOME": str(folder), "TANDEM_LOCK_DIR": str(locks)}

    def start(self, *options: str, **env: str) -> "Home":
        """Start a daemon and wait until it answers or has ended."""
        words = [sys.executable, "-m", "tandem.share.daemon", "--engine-set", "membw=off", *options]
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen(words, env=self.env | env, stdout=out, stderr=out)
        until(lambda: self.answers() or self.ended(), "the daemon's first answer")
        return self

    def answers(self) -> bool:
        """Whether a daemon listens."""
        try:
            self.client().close()
        except Exception:
            return False
        return True

    def ended(self) -> bool:
        """Whether the daemon that was started has ended."""
        return self.process is not None and self.process.poll() is not None

    def client(self) -> Client:
        """Connect to the daemon, which must be there."""
        return Client.connect(start=False, paths=self.paths)

    def kill(self) -> None:
        """Kill the daemon as `kill -9` does; its jobs go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Stop the daemon cleanly; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def clear(self) -> None:
        """End the daemon and every job that is left."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for attempt in (self.folder / "attempts").glob("*"):
            left = keeper.adopt(attempt)
            if left is not None:
                left.send("kill")
                until(lambda attempt=attempt: not journal.keeper_alive(attempt), "the end of a job")
                left.close()


def fill(folder: Path) -> Path:
    """Leave no room on the folder's disk; returns the file to remove for there to be some again."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return ballast


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 16 MiB."""
    with disks.small(tmp_path / "small", 16) as folder:
        yield folder


@pytest.fixture
def make_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Home]]:
    """Return a function that makes data folders; they share one lock folder, as on one machine."""
    locks = tmp_path / "locks"
    locks.mkdir()
    locks.chmod(0o1777)
    monkeypatch.setenv("TANDEM_LOCK_DIR", str(locks))
    made: list[Home] = []

    def make(name: str = "home") -> Home:
        made.append(Home(tmp_path / name, locks))
        return made[-1]

    yield make
    for home in made:
        home.clear()


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    """One data folder, without a daemon yet."""
    return make_home()
