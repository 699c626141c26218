"""Nothing a bubble does outlives the command, not even when the command is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.estimate.bubbles.processes import alive, sockets, tcp_connections
from tests.waiting import until

PROGRAM = """
import json, os, signal, sys, threading
from pathlib import Path
from tandem.estimate.bubbles import Bubble, Reporter
from tandem.estimate.profile import KINDS
core, folder, keeps_pipe = (min(os.sched_getaffinity(0)),), Path(sys.argv[1]), sys.argv[2] == "forked"
made = []
def start():
    for kind in KINDS:
        made.append(Bubble(kind, cores=core, folder=folder))
        made.append(Reporter(kind, cores=core, folder=folder))
thread = threading.Thread(target=start)
thread.start(), thread.join()
for one in made:
    one.set(1.0) if isinstance(one, Bubble) else one._process.set(1.0)
child = os.fork() if keeps_pipe else 0
if keeps_pipe and child == 0:
    os.close(1)
    signal.pause()
print(json.dumps([[one.pid for one in made], child]), flush=True)
signal.pause()
"""


@pytest.fixture(params=["plain", "forked"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A command with every kind of bubble and reporter at full level; "forked": another child holds the pipes too."""
    words = [sys.executable, "-c", PROGRAM, str(tmp_path), request.param]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        patience = threading.Timer(60, process.kill)
        patience.start()
        assert process.stdout is not None
        line = process.stdout.readline()
        patience.cancel()
        assert line, "the command failed"
        pids, child = json.loads(line)
        yield process, pids
        process.kill()
        if child:
            os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_after_kill_9_there_is_no_process_no_file_and_no_socket(
    command: tuple[subprocess.Popen[str], list[int]], tmp_path: Path
) -> None:
    process, pids = command
    assert len(pids) == 14
    assert all(alive(pid) for pid in pids)
    inodes = set().union(*(sockets(pid) for pid in pids))
    assert len(inodes & tcp_connections().keys()) == 4
    process.kill()
    until(lambda: not any(alive(pid) for pid in pids), "the end of every process", deadline_s=1.0)
    assert list(tmp_path.iterdir()) == []
    until(lambda: not inodes & tcp_connections().keys(), "the end of every socket", deadline_s=1.0)


def test_a_signal_from_the_keyboard_is_the_commands_affair(tmp_path: Path) -> None:
    program = PROGRAM.replace("for kind in KINDS", "for kind in ['cpu']")
    words = [sys.executable, "-c", program, str(tmp_path), "plain"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids, _ = json.loads(process.stdout.readline())
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        assert all(alive(pid) for pid in pids)
        process.send_signal(signal.SIGINT)  # KeyboardInterrupt: the command ends without closing anything
        process.communicate()
        until(lambda: not any(alive(pid) for pid in pids), "the end of every process", deadline_s=1.0)
