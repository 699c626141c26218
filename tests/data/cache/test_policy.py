"""What goes first: the optimum by brute force where the future is known, the least recently used where it is not."""

import functools
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tandem.data.cache.block_cache import BlockCache, SpaceFolder
from tandem.data.cache.cached_file import CachedFile
from tandem.data.cache.futures import Future
from tandem.data.cache.policy import NEVER, in_order_of_eviction
from tandem.data.cache.remote import Remote
from tests.data import remotes

SIZE = 4096
BLOCKS = 6
ACCESSES = st.lists(st.integers(0, BLOCKS - 1), min_size=1, max_size=14)
SLOW = [HealthCheck.function_scoped_fixture]


def fewest_misses(sequence: Sequence[int], room: int) -> int:
    """By trying every choice of what goes."""

    @functools.cache
    def least(at: int, held: frozenset[int]) -> int:
        if at == len(sequence):
            return 0
        block = sequence[at]
        if block in held:
            return least(at + 1, held)
        after = held | {block}
        choices = [after] if len(after) <= room else [after - {gone} for gone in held]
        return 1 + min(least(at + 1, choice) for choice in choices)

    return least(0, frozenset())


def misses_of_lru(sequence: Sequence[int], room: int) -> int:
    held: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for block in sequence:
        misses += block not in held
        held[block] = None
        held.move_to_end(block)
        if len(held) > room:
            held.popitem(last=False)
    return misses


class Node:
    """A cache with room for some blocks of one file that lies in a folder, and what reads do to it."""

    def __init__(self, folder: Path, room: int) -> None:
        (folder / "at").mkdir(parents=True, exist_ok=True)
        (folder / "at" / "file").write_bytes(bytes(range(BLOCKS)) * SIZE)
        self.cache = BlockCache(remotes.settings(folder / "cache", limit_bytes=room * SIZE))
        self.space = SpaceFolder(self.cache, "ab", "file://")
        self.file = CachedFile(self.space.path, "file", BLOCKS * SIZE, SIZE, "file")
        self.remote = Remote(f"file://{folder / 'at'}", self.cache.settings)

    def read(self, block: int) -> None:
        with self.cache.locks() as keeping:
            self.cache.bring([(self.file, [block])], self.remote, keeping)
        used = np.zeros(BLOCKS, np.uint64)
        used[block] = time.time_ns()
        self.file.note_used(used)

    def misses(self) -> int:
        self.space.close()
        return self.cache.ledger.read().misses


def test_the_references_know_a_case_done_by_hand() -> None:
    sequence = [0, 1, 2, 0, 1, 3, 0, 3, 1, 2]
    assert fewest_misses(sequence, 3) == 5
    assert misses_of_lru(sequence, 3) == 5
    assert misses_of_lru([0, 1, 2, 3] * 3, 3) == 12
    assert fewest_misses([0, 1, 2, 3] * 3, 3) == 6


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=SLOW)
@given(sequence=ACCESSES, room=st.integers(1, 4))
def test_with_the_future_known_no_choice_has_fewer_misses(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[int], room: int
) -> None:
    node = Node(tmp_path_factory.mktemp("node"), room)
    future = Future(node.cache.futures_folder)
    keys = np.array(sequence, np.uint64) + np.uint64(node.file.first_key)
    future.lay_down(keys, np.arange(len(sequence)), (0, 1.0))
    for at, block in enumerate(sequence):
        future.go_on(at, 1.0)
        node.read(block)
    future.close()
    assert node.misses() == fewest_misses(sequence, room)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=SLOW)
@given(sequence=ACCESSES, room=st.integers(1, 4))
def test_without_a_future_the_least_recently_used_goes(
    tmp_path_factory: pytest.TempPathFactory, sequence: list[int], room: int
) -> None:
    node = Node(tmp_path_factory.mktemp("node"), room)
    for block in sequence:
        node.read(block)
    assert node.misses() == misses_of_lru(sequence, room)


@given(
    held=st.lists(st.tuples(st.one_of(st.just(math.inf), st.floats(0, 100)), st.integers(0, 50)), max_size=30),
    after_s=st.floats(-1, 100),
)
def test_order(held: list[tuple[float, int]], after_s: float) -> None:
    next_use = np.array([one[0] for one in held])
    used = np.array([one[1] for one in held], np.uint64)
    order = in_order_of_eviction(next_use, used, after_s=after_s).tolist()
    assert sorted(order) == [place for place, one in enumerate(held) if one[0] > after_s]
    ranks = [(-held[place][0], held[place][1]) for place in order]
    assert ranks == sorted(ranks)


def test_what_nobody_needs_goes_before_what_somebody_does() -> None:
    order = in_order_of_eviction(np.array([5.0, NEVER, 9.0, NEVER]), np.array([1, 8, 2, 7], np.uint64))
    assert order.tolist() == [3, 1, 2, 0]
