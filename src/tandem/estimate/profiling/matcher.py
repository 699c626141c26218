"""Looks for a regular expression in a process of its own, which the kernel ends where that takes too long.

Python's `re` may try for years, and nothing within the process can stop it: neither a thread nor a signal's handler
runs before the match is over. So lines go to a child and matches come back; the child gives itself a second of
processor time for each batch (`setitimer(2)`), after which the kernel kills it. It ends, too, when whoever asks does.

    matcher = Matcher(r"step (\\d+)", 1)
    matcher.found(["step 3", "and step 4"])      # ["3", "4"]; None where it took too long
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CPU_S = 1.0
"""Processor time for one batch of lines."""

LONGEST_LINE = 4096
"""Characters of a line that are looked at."""


class Matcher:
    """A child that looks for one expression.

    Args:
        pattern: Python's, sound.
        group: the group whose text is wanted; 0 takes the whole match.
    """

    def __init__(self, pattern: str, group: str | int) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "tandem.estimate.profiling.matcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self._end = weakref.finalize(self, _end, self._child)
        self._dead = not self._say([pattern, group])

    def found(self, lines: Sequence[str]) -> list[str | None] | None:
        """The text of the group in each match of these lines, in order; None where that took too long, and after it."""
        if self._dead or not self._say([line[:LONGEST_LINE] for line in lines]):
            return None
        assert self._child.stdout is not None
        told = self._child.stdout.readline()
        self._dead = not told
        return json.loads(told) if told else None

    def close(self) -> None:
        """End the child; that is done, too, once nobody holds the matcher."""
        self._end()

    def _say(self, what: Sequence[str | int]) -> bool:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(what) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            return False
        return True


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):  # what was not written yet
            if pipe is not None:
                pipe.close()
    child.wait()


def main() -> None:
    """Read the expression and the group, then batches of lines, and answer each, until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks says when it is over
    pattern, group = json.loads(sys.stdin.readline())
    compiled = re.compile(pattern)
    for batch in sys.stdin:
        signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S)
        found = [match.group(group) for line in json.loads(batch) for match in compiled.finditer(line)]
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
