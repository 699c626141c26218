"""Threads that work ahead: results in order, errors where they are taken, nothing held, nothing left behind."""

import _thread
import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from tandem.data.ahead import ClosedError, Crew, Pending


class Calling:
    """A worker that calls its tasks."""

    usable = True

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __call__(self, task: Callable[[], object]) -> object:
        return task()

    def close(self) -> None:
        self.closed.set()


def test_results_are_taken_in_the_order_of_the_requests_whoever_is_done_first() -> None:
    second_done = threading.Event()
    crew = Crew([Calling(), Calling()])
    first = crew.submit(lambda: second_done.wait(60) and "first")
    second = crew.submit(lambda: second_done.set() or "second")
    assert [first.take(), second.take()] == ["first", "second"]
    crew.close()


def test_what_a_worker_raises_is_raised_where_its_result_is_taken_and_the_thread_goes_on() -> None:
    crew = Crew([Calling()])
    failing, fine = crew.submit(lambda: 1 // 0), crew.submit(lambda: 1)
    assert fine.take() == 1
    with pytest.raises(ZeroDivisionError):
        failing.take()
    crew.close()


def test_a_cancelled_request_is_not_worked_on() -> None:
    go = threading.Event()
    done: list[int] = []
    crew = Crew([Calling()])
    crew.submit(lambda: go.wait(60))
    cancelled, kept = crew.submit(lambda: done.append(1)), crew.submit(lambda: done.append(2))
    cancelled.cancelled = True
    go.set()
    kept.take()
    assert done == [2]
    crew.close()


def test_closing_stops_the_threads_closes_the_workers_and_refuses_what_waits() -> None:
    started, go = threading.Event(), threading.Event()
    worker = Calling()
    before = set(threading.enumerate())
    crew = Crew([worker])
    running = crew.submit(lambda: (started.set(), go.wait(60)))
    waiting: Pending[Callable[[], object], object] = crew.submit(lambda: 1)
    assert started.wait(60)
    assert set(threading.enumerate()) - before
    closing = threading.Thread(target=crew.close)
    closing.start()
    assert worker.closed.wait(60)
    go.set()
    closing.join(60)
    assert running.take() == (None, True)
    with pytest.raises(ClosedError):
        waiting.take()
    assert not crew.usable
    assert not set(threading.enumerate()) - before
    crew.close()


def test_a_forgotten_crew_closes_itself() -> None:
    worker = Calling()
    crew = Crew([worker])
    crew.submit(lambda: None).take()
    del crew
    gc.collect()
    assert worker.closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tandem-ahead")]


def test_neither_thread_nor_request_holds_a_result_that_was_taken() -> None:
    class Result:
        pass

    crew = Crew([Calling()])
    pending = crew.submit(Result)
    result = pending.take()
    seen = weakref.ref(result)
    del result
    gc.collect()
    assert seen() is None
    crew.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of forks beside threads
def test_a_forked_process_does_not_believe_that_it_has_the_threads() -> None:
    crew = Crew([Calling()])
    pid = os.fork()
    if pid == 0:
        os._exit(int(crew.usable))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert crew.usable
    crew.close()


def test_a_ctrl_c_that_comes_just_before_a_wait_is_heard() -> None:
    """Such a one is noted, and wakes nobody: as does one that a thread makes."""
    pending: Pending[None, None] = Pending(None)
    noted = threading.Timer(0.05, _thread.interrupt_main)
    late = threading.Timer(30.0, pending.refuse)  # so that this fails, and does not hang for ever
    noted.start()
    late.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            pending.take()
        assert late.is_alive()
    finally:
        late.cancel()
        late.join()
        noted.join()


@pytest.fixture
def _pythons_own_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_pythons_own_handler")
def test_a_ctrl_c_while_workers_are_made_is_heard_once_all_can_be_closed() -> None:
    made: list[Calling] = []

    def making() -> Iterator[Calling]:
        for _ in range(3):
            made.append(Calling())
            signal.raise_signal(signal.SIGINT)
            yield made[-1]

    with pytest.raises(KeyboardInterrupt):
        Crew(making())
    assert [worker.closed.is_set() for worker in made] == [True] * 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tandem-ahead")]
    signal.raise_signal(signal.SIGINT)  # still the same one: whoever is told ends other things too


def test_workers_made_before_one_that_cannot_be_are_closed() -> None:
    made = [Calling()]

    def making() -> Iterator[Calling]:
        yield made[0]
        raise OSError("no more processes")  # noqa: EM101, TRY003 - as the system says it

    with pytest.raises(OSError, match="no more processes"):
        Crew(making())
    assert made[0].closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tandem-ahead")]
