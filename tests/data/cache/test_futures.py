"""What loaders lay down, and what an evicting process makes of all of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.data.cache.futures import Future, next_uses_s
from tandem.data.cache.policy import NEVER

LOADER = st.tuples(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 20), st.sampled_from([0.5, 1.0, 8.0]))


@pytest.mark.slow
@given(loaders=st.lists(LOADER, max_size=3))
def test_the_soonest_use_by_any_loader(
    tmp_path_factory: pytest.TempPathFactory, loaders: list[tuple[list[int], int, float]]
) -> None:
    folder = tmp_path_factory.mktemp("futures")
    futures = []
    for uses, _, rate in loaders:
        futures.append(Future(str(folder)))
        futures[-1].lay_down(np.array(uses, np.uint64), np.arange(len(uses)), (0, rate))
    for future, (_, position, rate) in zip(futures, loaders, strict=True):
        future.go_on(position, rate)

    def soonest(block: int) -> float:
        waits = [
            (at - position) / rate
            for uses, position, rate in loaders
            for at, used in enumerate(uses)
            if used == block and at >= position
        ]
        return min(waits, default=NEVER)

    found = next_uses_s(str(folder), np.arange(10, dtype=np.uint64))
    assert found.tolist() == [soonest(block) for block in range(10)]
    for future in futures:
        future.close()
    assert list(folder.iterdir()) == []


def test_what_is_laid_down_anew_replaces_what_was(tmp_path: Path) -> None:
    future = Future(str(tmp_path))
    future.lay_down(np.array([1, 2], np.uint64), np.array([0, 1]), (0, 1.0))
    future.lay_down(np.array([2, 3], np.uint64), np.array([4, 9]), (2, 1.0))
    assert next_uses_s(str(tmp_path), np.array([1, 2, 3], np.uint64)).tolist() == [NEVER, 2.0, 7.0]
    assert len(list(tmp_path.iterdir())) == 1
    future.close()


LOADER_SCRIPT = """
import sys, numpy as np
from tandem.data.cache.futures import Future
future = Future(sys.argv[1])
future.lay_down(np.array([7], np.uint64), np.array([3]), (0, 1.0))
print("laid down", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_the_future_of_a_loader_that_was_killed_is_removed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER_SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "laid down\n"
        assert next_uses_s(str(tmp_path), np.array([7], np.uint64)).tolist() == [3.0]
        os.kill(process.pid, signal.SIGKILL)
    assert next_uses_s(str(tmp_path), np.array([7], np.uint64)).tolist() == [NEVER]
    assert list(tmp_path.iterdir()) == []
