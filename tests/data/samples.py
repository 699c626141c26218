"""Samples in memory, for tests of what reads samples; and decoders that a spawned process can import."""

import os
import signal
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandem.data.batch import Batch


class InMemory:
    """Numbered bytes with paths; what was asked for is kept in `asked`."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.contents)

    def path(self, number: int) -> str:
        return f"folder/{number}.bin"

    def read_batch(self, numbers_N: NDArray[np.int64]) -> Batch:
        self.asked.append(numbers_N.tolist())
        parts = [self.contents[number] for number in numbers_N.tolist()]
        ends = np.cumsum([0, *map(len, parts)])
        return Batch(numbers_N, np.frombuffer(b"".join(parts), dtype=np.uint8), ends)


class Returning(InMemory):
    """Whose `read_batch` returns what `made` makes of a list of bytes."""

    def __init__(self, contents: list[bytes], made: Callable[[list[bytes]], Any]) -> None:
        super().__init__(contents)
        self.made = made

    def read_batch(self, numbers_N: NDArray[np.int64]) -> Batch:
        return self.made([self.contents[number] for number in numbers_N])


def numbered(count: int) -> InMemory:
    """Samples of different lengths (the first one empty) whose bytes tell their numbers."""
    return InMemory([b"|".join([b"%d" % number] * (number % 4 + 1)) if number else b"" for number in range(count)])


def numbers_of(batch: list[memoryview], samples: InMemory) -> list[int]:
    """Which samples these are, by their bytes."""
    places = {content: number for number, content in enumerate(samples.contents)}
    assert len(places) == len(samples)
    return [places[bytes(view)] for view in batch]


def crc(view: memoryview) -> int:
    return zlib.crc32(view)


def to_array(view: memoryview) -> NDArray[np.uint8]:
    return np.frombuffer(view, dtype=np.uint8)


def with_number(view: memoryview, number: int) -> tuple[int, bytes]:
    return number, bytes(view)


def refuse_seven(view: memoryview) -> int:
    if bytes(view).endswith(b"7"):
        message = f"no sevens: {bytes(view).decode()}"
        raise ValueError(message)
    return len(view)


def process_id(view: memoryview) -> int:
    return os.getpid()


def die(view: memoryview) -> int:
    os._exit(3)


def die_at_seven(view: memoryview) -> int:
    if bytes(view).endswith(b"7"):
        os._exit(3)
    return len(view)


def die_of_want_of_memory_at_seven(view: memoryview) -> int:
    if bytes(view).endswith(b"7"):
        os.kill(os.getpid(), signal.SIGKILL)
    return len(view)


def die_together(found: list[int]) -> int:
    os._exit(4)


class StubbornError(Exception):
    """Cannot be unpickled: its constructor wants more than its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def refuse_stubbornly(view: memoryview) -> int:
    first = "this cannot"
    raise StubbornError(first, "travel")


class OneWay:
    """Pickled, but never made again."""

    def __reduce__(self) -> tuple[object, ...]:
        return _made_again, ()


def _made_again() -> None:
    message = "it only goes there"
    raise EOFError(message)  # pickle itself raises these for what is cut short


def one_way_at_seven(view: memoryview) -> object:
    return OneWay() if bytes(view).endswith(b"7") else len(view)


class SpeechlessError(Exception):
    """Cannot tell what it is."""

    def __str__(self) -> str:
        message = "no words"
        raise RuntimeError(message)


def refuse_speechlessly(view: memoryview) -> int:
    raise SpeechlessError


def interrupted(view: memoryview) -> int:
    raise KeyboardInterrupt


def hang(view: memoryview) -> int:
    print("hanging\n", end="", flush=True)  # in one piece, whoever else does
    time.sleep(3600)
    return 0
