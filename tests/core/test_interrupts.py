"""Ctrl-C that counts once: heard at first, not a moment later, and again after that; others' handlers stay."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tandem.core.interrupts import AGAIN_S, CountedOnce, counted_once, deaf_children, heard_sigterm, unbroken


@dataclass
class Hands:
    """A clock that is set by hand."""

    time_s: float = 1000.0

    def now(self) -> float:
        return self.time_s

    def monotonic(self) -> float:
        return self.time_s


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_is_heard_those_a_moment_later_are_the_same_and_then_one_is_heard_again() -> None:
    clock = Hands()
    end = counted_once(clock)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        for _ in range(3):
            clock.time_s += AGAIN_S / 4
            signal.raise_signal(signal.SIGINT)
        clock.time_s += AGAIN_S / 4
    end()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_ends_with_the_last_who_asked_for_it_but_not_while_things_are_being_ended() -> None:
    clock = Hands()
    first, second = counted_once(clock), counted_once(clock)
    first()
    assert isinstance(signal.getsignal(signal.SIGINT), CountedOnce)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    second()
    signal.raise_signal(signal.SIGINT)  # no traceback while the rest of the program unwinds
    clock.time_s += AGAIN_S
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    clock.time_s += AGAIN_S
    counted_once(clock)()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_closing_is_not_broken_off_however_long_it_takes_and_one_that_came_meanwhile_is_heard_after_it() -> None:
    clock = Hands()
    end = counted_once(clock)
    closed = []

    def close() -> None:
        with unbroken():
            with unbroken():
                signal.raise_signal(signal.SIGINT)
                closed.append("inner")
            closed.append("outer")

    with pytest.raises(KeyboardInterrupt):
        close()
    assert closed == ["inner", "outer"]
    with unbroken():  # what that one makes the program close
        for _ in range(5):
            clock.time_s += AGAIN_S / 2
            signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    clock.time_s += AGAIN_S
    end()
    with unbroken(), pytest.raises(KeyboardInterrupt):  # nobody asked for it any more
        signal.raise_signal(signal.SIGINT)


def test_what_fails_while_it_is_closed_does_not_make_an_interrupt_forgotten() -> None:
    end = counted_once(Hands())

    def close() -> None:
        with unbroken():
            signal.raise_signal(signal.SIGINT)
            raise OSError

    with pytest.raises(KeyboardInterrupt) as caught:
        close()
    assert isinstance(caught.value.__context__, OSError)
    end()


@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda number, frame: None])
def test_a_handler_of_the_programs_own_stays(own: object) -> None:
    signal.signal(signal.SIGINT, own)  # type: ignore[arg-type]
    end = counted_once()
    assert signal.getsignal(signal.SIGINT) is own
    end()
    assert signal.getsignal(signal.SIGINT) is own


def test_other_threads_change_nothing_and_may_end_it() -> None:
    ends = []
    threads = [threading.Thread(target=lambda: ends.append(counted_once()))]
    threads[0].start()
    threads[0].join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = counted_once(Hands())
    threads = [threading.Thread(target=end) for end in (*ends, ours)]
    for thread in threads:
        thread.start()
        thread.join()
    assert isinstance(signal.getsignal(signal.SIGINT), CountedOnce), "only the main thread may set it"
    counted_once()()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_children_are_deaf_and_oneself_hears_again() -> None:
    code = "import signal; print(sorted({signal.SIGINT, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    with deaf_children():
        deaf = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert deaf.stdout == f"{[signal.SIGHUP, signal.SIGINT]}\n"
    assert not {signal.SIGINT, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_that_is_asked_for_from_outside_is_heard_once_and_closing_is_not_broken_off(
    number: signal.Signals,
) -> None:
    end = counted_once(Hands())
    closed = []
    with heard_sigterm():
        with pytest.raises(SystemExit) as caught:  # noqa: PT012 - it is raised where the closing ends
            with unbroken():
                signal.raise_signal(number)
                closed.append("whole")
            closed.append("more")
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
    assert caught.value.code == 128 + number
    assert closed == ["whole"]
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    end()


def test_a_hangup_that_is_ignored_as_under_nohup_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heard_sigterm():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
