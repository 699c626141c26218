"""An attempt under test, and looking at its processes with a deadline instead of sleeping."""

import os
import select
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import pytest

from tandem.core.process import journal
from tandem.core.process.keeper import Keeper, Message, adopt
from tests.waiting import until

DEADLINE_S = 30.0
ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
T = TypeVar("T")


class Attempt:
    """One attempt under test."""

    def __init__(self, keeper: Keeper, folder: Path) -> None:
        self.keeper = keeper
        self.folder = folder
        self.messages: list[Message] = []

    @property
    def fate(self) -> journal.Fate:
        return journal.read(self.folder)

    @property
    def pid(self) -> int:
        process = until(lambda: self.fate.process, "the pid in the journal")
        return process.pid

    def message(self, *kinds: str) -> Message:
        """Return the next message of one of the kinds."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            select.select([self.keeper], [], [], 1.0)
            found = self.keeper.recv()
            if found is not None:
                self.messages.append(found)
                if found.kind in kinds:
                    return found
                assert found.kind != "gone", f"the keeper ended instead of saying {kinds}: {self.messages}"
        pytest.fail(f"no message {kinds}; got {self.messages}")

    def command(self, text: str) -> Message:
        """Send a command and return its answer."""
        assert self.keeper.send(text)
        return self.message("ok", "error")

    def end(self) -> journal.Fate:
        """Wait for the keeper's end and return the attempt's fate."""
        self.message("gone")
        self.keeper.wait()
        return self.fate

    def kill(self) -> None:
        """Kill what still runs, even if the test lost the connection."""
        self.keeper.close()
        with adopt(self.folder) or nullcontext() as found:
            deadline = time.monotonic() + DEADLINE_S
            while found is not None and ((message := found.recv()) is None or message.kind != "gone"):
                found.send("kill")
                select.select([found], [], [], 0.1)
                assert time.monotonic() < deadline, f"the keeper of {self.folder} does not end"
        self.keeper.wait()


Launch = Callable[..., Attempt]


def is_running(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def cpu_s(pid: int) -> float:
    """Return the CPU time of the process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def state_of(pid: int) -> str:
    """Return the state letter of the process: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def number_in(file: Path) -> int:
    """Wait for the number that a job writes into a file."""
    return int(until(lambda: file.exists() and file.read_text().endswith("\n") and file.read_text(), f"{file.name}"))


def observe(look: Callable[[], T], seconds: float) -> list[T]:
    """Return what is seen at intervals of about 4 ms during the given time."""
    seen: list[T] = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        seen.append(look())
        select.select([], [], [], 0.004)
    return seen
