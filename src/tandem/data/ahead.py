"""Threads that do work before it is asked for, while the results are taken in the order of the requests.

`Crew` knows nothing of samples: it calls workers with tasks. Each thread has a worker of its own. What a worker raises
is raised where its result is taken.

Limits: a worker that never returns cannot be stopped; `close` leaves it behind after two seconds, and the process can
end all the same.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tandem.core.interrupts import counted_once, unbroken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Task = TypeVar("Task")
Result = TypeVar("Result")
Given = TypeVar("Given", contravariant=True)
Made = TypeVar("Made", covariant=True)
_CLOSING_S = 2.0

_LOOK_S = 0.5
"""How often who waits looks up: a Ctrl-C that comes at the moment in which a wait begins does not end it."""


class Worker(Protocol[Given, Made]):
    """Does tasks, one at a time, in one thread."""

    @property
    def usable(self) -> bool:
        """Whether it can do further tasks."""

    def __call__(self, task: Given, /) -> Made:
        """Do it."""

    def close(self) -> None:
        """Let go of what the worker holds; called from another thread, perhaps while it works, to make it stop."""


class ClosedError(RuntimeError):
    """The crew was closed while this result was being waited for."""


class Pending(Generic[Task, Result]):
    """A result that is, or will be, there."""

    __slots__ = ("_done", "_error", "_result", "_task", "cancelled")

    def __init__(self, task: Task) -> None:
        self.cancelled = False
        self._task: Task | None = task
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._done = threading.Lock()  # held until it is done: lighter than a condition, and Ctrl-C gets through
        self._done.acquire()

    def run(self, worker: Worker[Task, Result]) -> None:
        """Do the task, unless nobody wants it any more."""
        task, self._task = self._task, None
        try:
            if not self.cancelled:
                self._result = worker(task)  # type: ignore[arg-type]  # there until now
        except BaseException as error:  # it belongs to whoever takes the result
            self._error = error
        finally:
            del task
            self._done.release()

    def refuse(self) -> None:
        """Nobody will do it."""
        self._task, self._error = None, ClosedError("the loader was closed")
        self._done.release()

    def take(self) -> Result:
        """Wait for the result and hand it over; once.

        Raises:
            Exception: Whatever the worker raised.
        """
        while not self._done.acquire(timeout=_LOOK_S):
            pass
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame
        result, self._result = self._result, None
        return result  # type: ignore[return-value]  # set where there was no error


class Crew(Generic[Task, Result]):
    """A thread for each worker.

    While there is one, Ctrl-C pressed twice in a row counts once (`tandem.core.interrupts`): the second would break off
    what the first one made the program do, which is to end the threads. One that comes while the crew is being made is
    heard when it can be closed.

    Args:
        workers: What the threads call; closed with the crew, and where a later one cannot be made.
    """

    def __init__(self, workers: Iterable[Worker[Task, Result]]) -> None:
        self._pid = os.getpid()
        self._workers: list[Worker[Task, Result]] = []
        self._tasks: queue.SimpleQueue[Pending[Any, Any] | None] = queue.SimpleQueue()
        threads: list[threading.Thread] = []
        # Also when the crew is forgotten, and before the interpreter ends: it must not end under a thread that reads.
        self._closing = weakref.finalize(self, _close_unbroken, self._tasks, self._workers, threads, counted_once())
        try:
            with unbroken():
                for number, worker in enumerate(workers):
                    self._workers.append(worker)
                    work, name = (self._tasks, worker), f"tandem-ahead-{number}"
                    thread = threading.Thread(target=_work, args=work, name=name, daemon=True)
                    thread.start()
                    threads.append(thread)
        except BaseException:
            self.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether it can go on: not after `close`, nor in a process forked off the one that made it."""
        there = self._closing.alive and self._pid == os.getpid()
        return there and all(worker.usable for worker in self._workers)

    def submit(self, task: Task) -> Pending[Task, Result]:
        """Ask for a result."""
        pending: Pending[Task, Result] = Pending(task)
        self._tasks.put(pending)
        return pending

    def close(self) -> None:
        """Stop the threads and close the workers."""
        if self._pid == os.getpid():
            self._closing()
        else:
            self._closing.detach()


def _work(tasks: queue.SimpleQueue[Pending[Any, Any] | None], worker: Worker[Any, Any]) -> None:
    while (pending := tasks.get()) is not None:
        pending.run(worker)
        del pending  # or its result lived on until the next task


def _close_unbroken(*what: Any) -> None:  # noqa: ANN401  # those of `_close`
    with unbroken():  # a join that is broken off takes a thread for ended that is not
        _close(*what)


def _close(
    tasks: queue.SimpleQueue[Pending[Any, Any] | None],
    workers: Sequence[Worker[Any, Any]],
    threads: Sequence[threading.Thread],
    as_usual: Callable[[], None],
) -> None:
    while True:
        try:
            pending = tasks.get_nowait()
        except queue.Empty:
            break
        if pending is not None:
            pending.refuse()
    for worker in workers:
        worker.close()
    for _ in threads:
        tasks.put(None)
    deadline_s = time.monotonic() + _CLOSING_S
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline_s - time.monotonic()))
    as_usual()
