"""Who answers: one thread that holds the model and takes requests in their order, a bounded number of them waiting.

A request has the model to itself, so that no answer can mix with another's. It learns of each piece as it is drawn.
One whose client has gone is passed over while it waits, and given up between two tokens while it runs.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import torch

from tandem.chat import memory
from tandem.chat.engine.errors import GenerationError
from tandem.chat.engine.generate import Sampling, generate
from tandem.chat.errors import ShortOfMemoryError
from tandem.chat.serve.errors import ApiError
from tandem.chat.streaming import Stream

if TYPE_CHECKING:
    from tandem.chat.models import Loaded

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer's text."""

    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer is whole.

    Attributes:
        reasons: Why each choice ended: `stop` or `length`.
        tokens: How many were drawn in all.
    """

    reasons: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer can be had."""

    error: ApiError


Event = Piece | Ended | Failed


@dataclass(frozen=True, slots=True)
class Job:
    """A request that waits or runs.

    Attributes:
        prompt: Its tokens.
        sampling: How tokens are drawn.
        choices: How many answers.
        stops: Before which texts they end.
        seed: Of chance.
        tell: Is told what happens, from the worker's thread.
        dropped: Set when nobody waits for the answer any more.
    """

    prompt: Sequence[int]
    sampling: Sampling
    choices: int
    stops: tuple[str, ...]
    seed: int
    tell: Callable[[Event], None]
    dropped: threading.Event = field(default_factory=threading.Event)


class _LeftError(Exception):
    """Nobody needs the rest."""


@final
class Worker:
    """The thread with the model.

    Args:
        loaded: The model.
        waiting: How many requests may wait.
    """

    def __init__(self, loaded: Loaded, waiting: int) -> None:
        self.loaded = loaded
        self._jobs: queue.Queue[Job | None] = queue.Queue(waiting)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="chat-serve", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Let a job wait for its turn.

        Raises:
            ApiError: Too many wait already.
        """
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            message = "The server is overloaded: too many requests wait. Try again later."
            raise ApiError(503, message, kind="server_error", code="overloaded") from None

    def close(self) -> None:
        """End between two tokens; jobs that wait are told nothing."""
        self._closed.set()
        while True:
            try:
                self._jobs.get_nowait()
            except queue.Empty:
                break
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed.is_set():
            if job.dropped.is_set():
                continue
            try:
                with memory.shortage_in_words(memory.OF_ASKING):
                    self._answer(job)
            except (GenerationError, ShortOfMemoryError) as error:
                log.warning("an answer failed: %s", error)
                job.tell(Failed(ApiError(500, str(error), kind="server_error")))
            except Exception:  # the next request may fare better
                log.exception("an answer failed")
                message = "The server had an error while processing your request."
                job.tell(Failed(ApiError(500, message, kind="server_error")))

    def _answer(self, job: Job) -> None:
        template = self.loaded.template
        streams = [Stream(template, job.stops) for _ in range(job.choices)]

        def on_tokens(rows: list[int], tokens: list[int]) -> None:
            for row, token in zip(rows, tokens, strict=True):
                job.tell(Piece(row, streams[row].add(token)))
            if self._closed.is_set() or job.dropped.is_set() or all(stream.stopped for stream in streams):
                raise _LeftError

        try:
            generate(
                self.loaded.model,
                [job.prompt],
                job.sampling,
                group=job.choices,
                generator=torch.Generator().manual_seed(job.seed),
                pad_id=template.pad_id,
                on_tokens=on_tokens,
            )
        except _LeftError:
            if self._closed.is_set() or job.dropped.is_set():
                return
        for row, stream in enumerate(streams):
            job.tell(Piece(row, stream.rest()))
        reasons = ["stop" if stream.stopped or template.eos_id in stream.tokens else "length" for stream in streams]
        job.tell(Ended(tuple(reasons), sum(len(stream.tokens) for stream in streams)))
