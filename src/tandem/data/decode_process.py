"""A process that decodes, for decoders that hold the interpreter lock.

Bytes go over in shared memory and results come back in it (pickle protocol 5, arrays as buffers of their own). The
memory is anonymous and the process watches its parent, so that nothing is left of either when the parent is killed. The
process is spawned, not forked: a fork beside threads may deadlock. A script must therefore guard its main part with
`if __name__ == "__main__":`, and the decoder must be picklable: a function of a module, not one made on the spot.

Limits: Linux. A decoder's results must be picklable too.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import pickle
import select
import signal
import struct
import sys
import threading
import traceback
from contextlib import ExitStack
from multiprocessing.reduction import DupFd
from typing import TYPE_CHECKING, Any

from tandem.core.interrupts import deaf_children
from tandem.data.decoding import (
    DecodeError,
    DecoderEndedError,
    DecoderFailure,
    DecoderResultError,
    DecoderToldError,
    words_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from tandem.data.decoding import Decode

_WATCH_S = 1.0
_LEAST_BYTES = 1 << 20


_PLACE = struct.Struct("<q")
"""At the beginning of what goes over: which sample of the batch is being decoded, or one of these two."""
_NOT_BEGUN, _TOGETHER = -1, -2


class DecoderTraceback(Exception):
    """The traceback of what a decoder raised in a process of its own, as text."""


class Memory:
    """Anonymous shared memory that grows; each side maps it as far as it needs."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls, name: str) -> Memory:
        """New memory without a name in the file system."""
        return cls(os.memfd_create(name, os.MFD_CLOEXEC))

    def reach(self, size_bytes: int) -> mmap.mmap:
        """The mapping, of at least this size; longer than before where need be."""
        size_bytes = max(1, size_bytes)
        if self._map is None or len(self._map) < size_bytes:
            if self._map is not None:
                self._map.close()
            have_bytes = os.fstat(self.fd).st_size
            if have_bytes < size_bytes:
                have_bytes = max(_LEAST_BYTES, size_bytes * 3 // 2)
                os.ftruncate(self.fd, have_bytes)
            self._map = mmap.mmap(self.fd, have_bytes)
        return self._map

    def close(self) -> None:
        """Unmap and close."""
        if self._map is not None:
            self._map.close()
            self._map = None
        os.close(self.fd)


class DecodingProcess:
    """Decodes batches in a process of its own; called by one thread.

    Args:
        decode: What it does.

    Raises:
        DecodeError: The decoder cannot be pickled.
    """

    def __init__(self, decode: Decode) -> None:
        try:
            recipe = pickle.dumps(decode)
        except Exception as error:
            raise DecodeError(
                given=f"a decoder that cannot be pickled: {error}",
                allowed="in processes, functions of a module and what is made of them",
                todo="define it with def at the top of a module, or decode in threads",
            ) from error
        self._closing = threading.Lock()
        self._ended = False
        self._has_answered = False
        context = multiprocessing.get_context("spawn")
        with ExitStack() as undo:  # a start that fails leaves no descriptor; memory goes by `__del__`
            self._ours, theirs = context.Pipe()
            undo.callback(self._ours.close)
            undo.callback(theirs.close)
            life, self._life = os.pipe()  # never written to: the process ends when our end is closed
            undo.callback(os.close, life)
            undo.callback(os.close, self._life)
            self._requests = Memory.create("tandem-requests")
            self._answers = Memory.create("tandem-answers")
            fds = [_Duplicate(fd) for fd in (life, self._requests.fd, self._answers.fd)]
            self._process = context.Process(
                target=serve, args=(theirs, fds, recipe, os.getpid()), name="tandem-decoding", daemon=True
            )
            with deaf_children():  # this process alone is to act on Ctrl-C
                self._process.start()
            undo.pop_all()
        theirs.close()
        os.close(life)

    def __call__(self, views: list[memoryview], numbers: list[int]) -> object:
        """Decode a batch there.

        Raises:
            DecoderFailure: The decoder raised, or the process ended.
        """
        (found,) = self.several([(views, numbers)])
        if isinstance(found, DecoderFailure):
            raise found
        return found

    def several(self, batches: list[tuple[list[memoryview], list[int]]]) -> list[object]:
        """Decode batches there, without a pause between them; in the place of one that failed is its `DecoderFailure`.

        A process that waits for each small batch finds its caches cold whenever others use the processor.
        """
        lengths = [[len(view) for view in views] for views, _ in batches]
        memory = self._requests.reach(_PLACE.size + sum(map(sum, lengths)))
        _PLACE.pack_into(memory, 0, _NOT_BEGUN)
        at = _PLACE.size
        for views, _ in batches:
            for view in views:
                memory[at : at + len(view)] = view
                at += len(view)
        request = [(one, numbers) for one, (_, numbers) in zip(lengths, batches, strict=True)]
        del batches
        found: list[object] = []
        try:
            self._ours.send(request)
            for _ in request:
                found.append(self._taken(self._ours.recv()))  # noqa: PERF401 - what came before an end counts
        except (EOFError, OSError):
            (place,) = _PLACE.unpack_from(memory)
            ended = DecoderEndedError(self._how_it_ended(place))
            found.append(DecoderFailure(place if place >= 0 else None, ended))
            found += [DecoderFailure(None, ended) for _ in request[len(found) :]]
        return found

    def _taken(self, answer: tuple[Any, ...]) -> object:
        """What an answer tells: a batch, or why there is none."""
        self._has_answered = True
        if answer[0] == "failed":
            _, place, *told = answer
            return DecoderFailure(place, _revived(*told))
        ends = answer[1]
        begin = ends[0]
        memory, content = self._answers.reach(ends[-1]), bytearray(ends[-1] - begin)
        with memoryview(memory) as whole:
            content[:] = whole[begin : ends[-1]]
        parts = memoryview(content)
        first, *buffers = (parts[start - begin : end - begin] for start, end in itertools.pairwise(ends))
        try:
            found: object = pickle.loads(first, buffers=buffers)
        except Exception as error:  # whatever the results' classes raise when they are made again
            cause = DecoderResultError(words_of(error))
            cause.__cause__ = error
            return DecoderFailure(None, cause)
        return found

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with self._closing:
            if self._ended:
                return
            self._ended = True
        self._process.kill()
        self._process.join()
        os.close(self._life)

    def __del__(self) -> None:
        """Let the memory go with the last that knows of it."""
        for memory in (getattr(self, "_requests", None), getattr(self, "_answers", None)):
            if memory is not None:
                memory.close()

    @property
    def usable(self) -> bool:
        """Whether the process is there."""
        return self._process.is_alive()

    def _how_it_ended(self, place: int) -> str:
        if self._ended:
            return "the loader was closed"
        self._process.join(_WATCH_S)
        code = self._process.exitcode
        if code == -signal.SIGKILL:
            return "the decoding process was ended by SIGKILL, for want of memory perhaps"
        if code is not None and code < 0:
            return f"the decoding process was ended by {signal.Signals(-code).name}"
        at_once = place == _NOT_BEGUN and not self._has_answered
        guard = "; does the script guard its main part by __name__?" if at_once else ""
        return f"the decoding process ended with status {code}{guard}"


class _Duplicate:
    """A descriptor that goes over with the arguments of a process, and arrives there as its number.

    It is duplicated when it is pickled, which must happen while the process is being started.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[object, ...]:
        return _arrived, (DupFd(self._fd),)


def _arrived(duplicate: Any) -> int:  # noqa: ANN401  # what DupFd makes has no public type
    return int(duplicate.detach())


def _revived(words: str, text: str, cause: bytes | None) -> BaseException:
    """The decoder's own error where it could be pickled, else its words; with the traceback it had there."""
    try:
        error = pickle.loads(cause) if cause is not None else None
    except Exception:  # whatever an unpickled error's constructor raises
        error = None
    if not isinstance(error, BaseException):
        error = DecoderToldError(words)
    error.__cause__ = DecoderTraceback(f"\n{text}")
    return error


def serve(requests: Connection, fds: list[int], recipe: bytes, parent_pid: int) -> None:
    """What the process does: decode what comes until the parent closes or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    life, request_fd, answer_fd = fds
    threading.Thread(target=_watch, args=(life, parent_pid), daemon=True).start()
    incoming, outgoing = Memory(request_fd), Memory(answer_fd)
    decode: Decode = pickle.loads(recipe)
    while True:
        try:
            batches = requests.recv()
        except (EOFError, OSError):
            return
        begin = taken = 0
        for lengths, numbers in batches:
            try:
                ends = _decoded(decode, lengths, numbers, (incoming, begin), (outgoing, taken))
                answer: tuple[Any, ...] = ("done", ends)
                taken = ends[-1]
            except DecoderFailure as failure:
                answer = _failed(failure.place, failure.cause)
            except KeyboardInterrupt:  # a decoder's own: nobody else's arrives
                sys.exit(128 + signal.SIGINT)
            except Exception as error:  # no room for results
                answer = _failed(None, error)
            begin += sum(lengths)
            requests.send(answer)


def _decoded(
    decode: Decode, lengths: list[int], numbers: list[int], incoming: tuple[Memory, int], outgoing: tuple[Memory, int]
) -> list[int]:
    """Decode a batch.

    Args:
        decode: What is done.
        lengths: Of its samples, which lie one after another.
        numbers: Of its samples.
        incoming: Where they lie, and how far from where samples begin there.
        outgoing: Where the result goes, and where it begins there.

    Returns:
        Where its parts begin, and the last one ends; the pickle is the first.
    """
    first, end = _PLACE.size + incoming[1], _PLACE.size + incoming[1] + sum(lengths)
    memory = incoming[0].reach(end)
    whole = memoryview(bytearray(memory[first:end]))  # a decoder may keep what it is given
    views = [whole[begin:end] for begin, end in itertools.pairwise(itertools.accumulate(lengths, initial=0))]
    buffers: list[pickle.PickleBuffer] = []
    with memoryview(memory) as shared, shared[: _PLACE.size].cast("q") as place:
        place[0] = _NOT_BEGUN
        decoded = decode.each(_noted(views, place), numbers)
        place[0] = _TOGETHER
        found = decode.together(decoded)
    try:
        parts: list[Any] = [pickle.dumps(found, protocol=5, buffer_callback=buffers.append)]
    except Exception as error:
        raise DecoderFailure(None, DecoderResultError(words_of(error))) from error
    parts += [buffer.raw() for buffer in buffers]
    ends = list(itertools.accumulate(map(len, parts), initial=outgoing[1]))
    memory = outgoing[0].reach(ends[-1])
    for part, (begin, end) in zip(parts, itertools.pairwise(ends), strict=True):
        memory[begin:end] = part
    return ends


def _noted(views: list[memoryview], place: memoryview) -> Iterator[memoryview]:
    """The views; which one is in use stands in shared memory, so that the process may end at it and it is known."""
    for number, view in enumerate(views):
        place[0] = number
        yield view


def _failed(place: int | None, error: BaseException) -> tuple[Any, ...]:
    text = "".join(traceback.format_exception(error))
    try:
        cause: bytes | None = pickle.dumps(error)
    except Exception:  # an error that holds what cannot be pickled
        cause = None
    return "failed", place, words_of(error), text, cause


def _watch(life: int, parent_pid: int) -> None:
    """End this process with its parent, even in the middle of a decoder."""
    while not select.select([life], [], [], _WATCH_S)[0] and os.getppid() == parent_pid:
        pass
    os._exit(1)
