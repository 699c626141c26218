"""Joining the processes that torchrun starts, and leaving them.

    with joined() as group, group.telling():
        rows = group.ranks.share(16)

A process that nobody started together with others is a rank alone, and nothing of torch's is touched. Where a rank
ends before the others, they end too, with an error that names it.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from tandem.core.errors import TandemError
from tandem.learn.errors import RankError
from tandem.learn.ranks import Ranks
from tandem.learn.watch import BEAT_S, PATIENCE, Beats, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

FOREVER = timedelta(days=30)
"""How long a rank waits for another that beats: scoring and saving may take any time."""


def is_first() -> bool:
    """Whether this process prints and writes, as far as its environment tells."""
    return os.environ.get("RANK", "0") == "0"


class Joined:
    """A rank among others.

    Args:
        ranks: Which.
        watch: Over the others; None of a rank alone.
    """

    def __init__(self, ranks: Ranks, watch: Watch | None) -> None:
        self.ranks = ranks
        self._watch = watch

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the others how the block fails, and where it fails because of them, name who it was.

        Signals are to be handled around it: a launcher asks the ranks that are left to end, and the name takes seconds.

        Raises:
            RankError: Another rank ended while this one needed it.
        """
        if self._watch is None:
            yield
            return
        try:
            yield
        except TandemError as error:
            self._watch.end(str(error))
            raise
        except RuntimeError as error:
            lost = self._watch.why()
            self._watch.end(str(lost or error))
            if lost is None:
                raise
            raise lost from error
        except BaseException as error:
            self._watch.end(type(error).__name__)
            raise


@contextmanager
def joined(*, beat_s: float = BEAT_S, patience: int = PATIENCE) -> Iterator[Joined]:
    """Be one of the ranks while the block runs.

    Args:
        beat_s: Between two looks at the others.
        patience: Looks without a beat after which a rank is given up.

    Raises:
        RankError: They cannot find each other.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Joined(Ranks(), None)
        return
    store, rank, size = _met()
    beats = store.clone()
    beats.set_timeout(timedelta(seconds=max(2.0, patience * beat_s / 2)))  # a store that hangs is one that is gone
    watch = Watch(Beats(beats, rank, size), _leave, beat_s=beat_s, patience=patience)
    try:
        yield Joined(Ranks(rank, size, launched=True), watch)
        dist.destroy_process_group()
    finally:
        watch.end()


def _met() -> tuple[Any, int, int]:
    """Find the others.

    Raises:
        RankError: Not within torch's time.
    """
    try:
        store, rank, size = next(rendezvous("env://"))
        dist.init_process_group("gloo", store=PrefixStore("ranks", store), rank=rank, world_size=size, timeout=FOREVER)
    except (RuntimeError, ValueError) as error:
        raise RankError(
            given=f"ranks that do not find each other: {error}",
            allowed="processes that torchrun starts, with one --master-addr or --rdzv-endpoint",
            todo="check that address, and that all machines were started",
        ) from error
    return store, rank, size


def _leave(lost: RankError) -> None:
    """End at once: the main thread waits for a rank that is gone."""
    sys.stderr.write(f"tandem: {lost}\n")
    sys.stderr.flush()
    os._exit(lost.exit_code)
