"""Bubbles and reporters as processes: what they do at which level, and what is refused."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tandem.estimate.bubbles import Bubble, BubbleError, BubbleMissingError, Calibration, Reporter, Response
from tandem.estimate.profile import KINDS
from tests.estimate.bubbles.processes import alive, bytes_passed, cpu_s, sockets, tcp_connections
from tests.waiting import until

CORES = sorted(os.sched_getaffinity(0))
FIRST, LAST = CORES[:1], CORES[-1:]
LOOPBACK = "0100007F"


def rises(one: Bubble | Reporter, by: int) -> None:
    before = one.count()[0]
    until(lambda: one.count()[0] >= before + by, f"{by} operations of {one.kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bubble_works_when_told_to_and_leaves_with_its_context(kind: str, tmp_path: Path) -> None:
    with Bubble(kind, cores=tuple(FIRST), folder=tmp_path) as bubble:
        assert bubble.count()[0] == 0
        for level in (0.3, 1.0):
            bubble.set(level)
            rises(bubble, 3)
        assert os.sched_getaffinity(bubble.pid) == set(FIRST)
        assert list(tmp_path.iterdir()) == []  # its file has no name
    assert not alive(bubble.pid)
    bubble.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_reporter_counts_only_while_it_goes(kind: str, tmp_path: Path) -> None:
    with Reporter(kind, cores=tuple(LAST), folder=tmp_path) as reporter:
        until(lambda: reporter.rate(0.05) > 0, "an operation while it goes")
        count, at = reporter.count()
        assert count > 0
        reporter.go()
        assert reporter.count()[1] > at  # the pause does not count as time of the operations that follow
        rises(reporter, 1)
        reporter.pause()
        paused = reporter.count()
        time.sleep(0.05)  # nothing can be waited for: it is to be seen that nothing happens
        assert reporter.count() == paused


def test_a_busy_cpu_bubble_never_sleeps_and_an_idle_one_uses_nothing() -> None:
    with Bubble("cpu", cores=tuple(LAST)) as bubble, Reporter("cpu", cores=tuple(FIRST)) as clock:
        idle = cpu_s(bubble.pid)
        clock.rate(0.2)
        assert cpu_s(bubble.pid) - idle <= 0.011
        bubble.set(1.0)
        rises(bubble, 1000)
        slept = voluntary_switches(bubble.pid)
        until(lambda: cpu_s(bubble.pid) - idle >= 0.2, "0.2 s of a core")
        assert voluntary_switches(bubble.pid) == slept
        bubble.set(0.0)
        until(lambda: voluntary_switches(bubble.pid) > slept, "sleep")
        idle = cpu_s(bubble.pid)
        clock.rate(0.2)
        assert cpu_s(bubble.pid) - idle <= 0.011


def voluntary_switches(pid: int) -> int:
    """Of the working threads; the first one only listens."""
    status = [path / "status" for path in Path(f"/proc/{pid}/task").iterdir() if path.name != str(pid)]
    lines = (line for path in status for line in path.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_a_cpu_bubble_takes_no_more_than_its_level() -> None:
    with Bubble("cpu", cores=tuple(LAST)) as bubble:
        bubble.set(0.25)  # a fifth of its core
        rises(bubble, 100)
        used, (_, began) = cpu_s(bubble.pid), bubble.count()
        until(lambda: cpu_s(bubble.pid) - used >= 0.1, "0.1 s of a core")
        assert bubble.count()[1] - began >= 0.9 * 5 * (0.1 - 0.02)  # two ticks of uncertainty


@pytest.mark.parametrize(("kind", "counter"), [("fs_read", "rchar"), ("fs_write", "wchar")])
def test_a_disk_bubble_moves_bytes(kind: str, counter: str, tmp_path: Path) -> None:
    with Bubble(kind, cores=tuple(FIRST), folder=tmp_path) as bubble:
        ready = bytes_passed(bubble.pid, counter)
        bubble.set(1.0)
        until(lambda: bytes_passed(bubble.pid, counter) - ready > 1 << 20, "a megabyte")
        files = [str(fd.readlink()) for fd in Path(f"/proc/{bubble.pid}/fd").iterdir()]
        own = [name for name in files if name.startswith(str(tmp_path))]
        assert own
        assert all(name.endswith("(deleted)") for name in own)


def test_the_network_bubble_speaks_to_itself_only() -> None:
    with Bubble("net", cores=tuple(FIRST)) as bubble:
        bubble.set(1.0)
        rises(bubble, 10)
        ends = [ends for inode, ends in tcp_connections().items() if inode in sockets(bubble.pid)]
        assert ends == [(LOOPBACK, LOOPBACK)] * 2  # and its listener is closed
    assert not alive(bubble.pid)


def test_it_outlives_the_thread_that_started_it() -> None:
    made: list[Bubble] = []
    thread = threading.Thread(target=lambda: made.append(Bubble("cpu", cores=tuple(FIRST))))
    thread.start()
    thread.join()
    with made[0] as bubble:
        bubble.set(1.0)
        rises(bubble, 1000)
        assert alive(bubble.pid)


def test_a_calibrated_dial_is_turned_through_its_calibration() -> None:
    half = Response(raw=(0.0, 0.1, 1.0), slowdowns=(1.0, 1.0, 2.0), noise=0.0)
    calibration = Calibration("here", (0, 1), {"cpu": half}, {"net": "no network"}, 0.0, 1.0)
    with Bubble("cpu", cores=tuple(FIRST), calibration=calibration) as bubble:
        bubble.set(0.5)
        rises(bubble, 10)
    with pytest.raises(BubbleError, match="no network"):
        Bubble("net", cores=tuple(FIRST), calibration=calibration)


@pytest.mark.parametrize("level", [-0.1, 1.01, float("nan")])
def test_a_level_outside_the_dial_is_refused(level: float) -> None:
    with Bubble("cpu", cores=tuple(FIRST)) as bubble, pytest.raises(BubbleError, match="0 \\(idle\\) to 1"):
        bubble.set(level)


def test_what_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BubbleError, match="cache, membw_read"):
        Bubble("membw", cores=tuple(FIRST))
    with pytest.raises(BubbleError, match="cores \\(\\)"):
        Bubble("cpu", cores=())
    with pytest.raises(BubbleError, match="cores that this process may use"):
        Reporter("cpu", cores=(max(CORES) + 1,))
    with pytest.raises(BubbleError, match=f"cannot make a file in {tmp_path / 'nowhere'}"):
        Reporter("fs_read", cores=tuple(FIRST), folder=tmp_path / "nowhere")
    monkeypatch.setenv("TANDEM_BUBBLE", str(tmp_path / "tandem-bubble"))
    with pytest.raises(BubbleMissingError, match=r"install g\+\+"):
        Bubble("cpu", cores=tuple(FIRST))


def test_one_that_somebody_ended_says_so() -> None:
    with Bubble("cpu", cores=tuple(FIRST)) as bubble:
        os.kill(bubble.pid, signal.SIGKILL)
        until(lambda: not alive(bubble.pid), "its end")
        with pytest.raises(BubbleError, match="somebody ended it"):
            bubble.set(0.5)
    with pytest.raises(BubbleError, match="it was closed"):
        bubble.set(0.5)


def test_no_descriptor_and_no_child_is_left() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with Bubble("cpu", cores=tuple(FIRST)):
            pass
        with pytest.raises(BubbleError, match="nowhere"):
            Bubble("fs_read", cores=tuple(FIRST), folder=Path("/nowhere"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
