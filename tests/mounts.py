"""A real mount, made by the command as a user would, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.conftest import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Mount:
    """A space that is mounted.

    Attributes:
        process: Serves it.
        log: Where it tells damage.
    """

    process: subprocess.Popen[str]
    log: Path

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def mounted(space: Path | str, mountpoint: Path, *options: str) -> Iterator[Mount]:
    """Mount a space until the block ends; whatever happens in it, nothing stays mounted."""
    if not is_mounted(mountpoint):
        mountpoint.mkdir(exist_ok=True)
    log = mountpoint.with_name("mount.log")
    command = [*COMMAND, "data", "mount", "--log", str(log), *options, str(space), str(mountpoint)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "is mounted at" in process.stdout.readline()
        yield Mount(process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        if is_mounted(mountpoint):
            subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=True)


def is_mounted(mountpoint: Path) -> bool:
    """Whether the kernel lists it, served or not."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return any(line.split()[1].encode().decode("unicode_escape") == str(mountpoint) for line in mounts)
