"""Whether the other ranks still live: each beats in a store that all can read, and looks at the others' beats.

A rank whose beats stand still for `patience` of our own looks is gone: it was killed, its machine is off, or it is
stopped. Looks are counted, not seconds, so that a machine that slept as a whole finds nobody dead when it wakes.
Whoever ends, by an error or well, says so in its last beat.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tandem.learn.errors import RankError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BEAT_S = 1.0
PATIENCE = 30
"""Looks without a beat after which a rank is given up: half a minute."""
NAMED = 5
"""Looks that are enough where a connection broke already, and only whose is to be found."""

ENDED, FAILED = b"ended", b"failed "


class Store(Protocol):
    """What torch's TCPStore has of it."""

    def set(self, key: str, value: bytes) -> None:
        """Write a value."""
        ...

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        """Read values; waits for those that are not there yet."""
        ...


@dataclass(slots=True)
class Seen:
    """What is known of a rank.

    Attributes:
        beat: Its last.
        still: Looks since that changed.
    """

    beat: bytes = b""
    still: int = 0


@dataclass(slots=True)
class Beats:
    """Beats and looks, without a clock.

    Attributes:
        store: Where beats are.
        rank: Which rank this is.
        size: How many there are.
    """

    store: Store
    rank: int
    size: int
    seen: dict[int, Seen] = field(default_factory=dict)
    count: int = 0

    def look(self) -> None:
        """Beat, and look at the others."""
        self.count += 1
        self.store.set(_key(self.rank), str(self.count).encode())
        others = [rank for rank in range(self.size) if rank != self.rank]
        for rank, beat in zip(others, self.store.multi_get([_key(rank) for rank in others]), strict=True):
            before = self.seen.setdefault(rank, Seen())
            self.seen[rank] = Seen(beat, before.still + 1 if beat == before.beat else 0)

    def end(self, failure: str = "") -> None:
        """Say that this rank is done, or how it failed."""
        self.store.set(_key(self.rank), FAILED + failure.encode() if failure else ENDED)

    def gone(self, patience: int) -> list[int]:
        """Return the ranks that have not beaten for so many looks and did not say that they end."""
        return [
            rank for rank, of in self.seen.items() if of.still >= patience and not of.beat.startswith((ENDED, FAILED))
        ]

    def failed(self) -> dict[int, str]:
        """Return what ranks said that ended by an error."""
        return {
            rank: of.beat.removeprefix(FAILED).decode(errors="replace")
            for rank, of in self.seen.items()
            if of.beat.startswith(FAILED)
        }


class Watch:
    """Beats and looks in a thread of its own.

    Args:
        beats: Of this rank.
        on_lost: Is told once, in that thread, when a rank is gone: the main thread may wait for it in native code,
            where nothing reaches it.
        beat_s: Between two looks.
        patience: Looks without a beat after which a rank is given up.
    """

    def __init__(
        self, beats: Beats, on_lost: Callable[[RankError], None], *, beat_s: float = BEAT_S, patience: int = PATIENCE
    ) -> None:
        self._beats, self._on_lost, self._beat_s, self._patience = beats, on_lost, beat_s, patience
        self._ended, self._looked = threading.Event(), threading.Condition()
        self._broken = ""
        beats.look()
        self._thread = threading.Thread(target=self._run, name="ranks", daemon=True)
        self._thread.start()

    def why(self) -> RankError | None:
        """Return which rank's end broke a connection; None where all others live after a few looks more.

        Those looks alone count: a rank may have been slow before, and live.
        """
        with self._looked:
            last = self._beats.count + NAMED + 1
            self._looked.wait_for(
                lambda: bool(self._beats.failed() or self._broken or self._lost_for_good() or self._beats.count >= last)
            )
            if failed := self._beats.failed():
                return _failed(failed)
            if self._broken:
                return _store_gone(self._broken)
            return self._lost(NAMED) if self._beats.count >= last else self._lost_for_good()

    def end(self, failure: str = "") -> None:
        """Stop looking, and tell the others; the first call counts."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        try:
            self._beats.end(failure)
        except RuntimeError:
            return  # the store ended first: nobody is left to be told

    def _run(self) -> None:
        while not self._ended.wait(self._beat_s):
            with self._looked:
                try:
                    self._beats.look()
                except RuntimeError as error:
                    self._broken = str(error)
                self._looked.notify_all()
                lost = _store_gone(self._broken) if self._broken else self._lost_for_good()
            if lost is not None:
                self._on_lost(lost)
                return

    def _lost(self, patience: int) -> RankError | None:
        lost = self._beats.gone(patience)
        return _lost(lost, self._beats.size) if lost else None

    def _lost_for_good(self) -> RankError | None:
        return self._lost(self._patience)


def _key(rank: int) -> str:
    return f"beat/{rank}"


def _lost(ranks: Sequence[int], size: int) -> RankError:
    which = ", ".join(map(str, ranks))
    return RankError(
        given=f"rank {which} of {size} is gone: it was killed, or its machine does not answer",
        allowed="all ranks alive",
        todo="run the same command again: the run goes on from its last checkpoint",
    )


def _failed(said: dict[int, str]) -> RankError:
    rank, text = min(said.items())
    return RankError(
        given=f"rank {rank} ended by an error: {text}",
        allowed="all ranks alive",
        todo="put that right, and run the same command again",
    )


def _store_gone(why: str) -> RankError:
    return RankError(
        given=f"the launcher's store does not answer: {why.splitlines()[0] if why else ''}",
        allowed="all ranks alive, and torchrun on the first machine",
        todo="look at the first machine, and run the same command again",
    )
