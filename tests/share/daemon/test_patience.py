"""A daemon that hangs is said and given up; one that comes back, or is at work, is not."""

import os
import select
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tandem.core.errors import DaemonError
from tandem.share.daemon import patience
from tests.share.conftest import Home
from tests.waiting import until


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SAY_S", 0.1)
    monkeypatch.setattr(patience, "GIVE_UP_S", 0.3)


@pytest.fixture
def stopped(home: Home) -> Iterator[int]:
    """The id of a daemon that is stopped."""
    home.start()
    assert home.process is not None
    home.process.send_signal(signal.SIGSTOP)
    yield home.process.pid
    home.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_daemon_that_hangs_is_said_and_given_up(home: Home, stopped: int, caplog: pytest.LogCaptureFixture) -> None:
    long = ["x" * 1000] * 1000  # more than a socket holds
    for ask in (lambda client: client.queue(), lambda client: client.call("submit", jobs=long)):
        caplog.clear()
        with home.client() as client, pytest.raises(DaemonError) as caught:
            ask(client)
        assert f"the daemon (process {stopped}) has not answered for 0.3 s, and does nothing" in str(caught.value)
        assert f"kill -CONT {stopped}" in str(caught.value)
        assert [record.getMessage() for record in caplog.records] == [
            f"tandem: the daemon (process {stopped}) has not answered for 0.1 s",
            f"tandem: the daemon (process {stopped}) has not answered for 0.2 s",
        ]


@pytest.mark.slow
def test_one_that_goes_on_is_waited_for_and_who_waits_by_design_is_not_hurried(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "GIVE_UP_S", 60.0)
    home.start()
    assert home.process is not None
    told: list[Any] = []
    with home.client() as client, home.client() as waiting:
        [job] = client.submit([{"argv": ["sleep", "1000"]}])[0]["ids"]
        threads = [threading.Thread(target=lambda: told.append(waiting.wait([job])))]
        threads[0].start()
        home.process.send_signal(signal.SIGSTOP)
        threads.append(threading.Thread(target=lambda: told.append(client.cancel([job]))))
        threads[1].start()
        until(lambda: len(caplog.records) > 1, "two warnings")
        home.process.send_signal(signal.SIGCONT)
        for thread in threads:
            thread.join(30.0)
    assert [job] in told
    assert len(told) == 2
    said = [record.getMessage() for record in caplog.records]
    assert said == sorted(set(said)), "only the request that is answered at once complains"


@pytest.mark.slow
def test_a_process_at_work_is_not_given_up(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(patience, "SAY_S", 0.25)
    monkeypatch.setattr(patience, "GIVE_UP_S", 0.75)
    reads, writes = os.pipe()
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            sum(range(1000))

    worker = threading.Thread(target=work)
    worker.start()

    def answer() -> None:
        until(lambda: len(caplog.records) > 5, "more than the patience")
        os.write(writes, b"x")

    answering = threading.Thread(target=answer)
    answering.start()
    try:
        patience.wait_ready(reads, select.POLLIN, os.getpid())
    finally:
        done.set()
        worker.join()
        answering.join()
        os.close(reads)
        os.close(writes)
    assert all(record.getMessage().endswith("it is at work") for record in caplog.records[1:])
