"""The peak of memory: seen while it is held, forgotten when counting begins anew; a shortage is told in words."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tandem.chat import memory
from tandem.chat.errors import ShortOfMemoryError

SIZE_BYTES = 64 << 20


def test_a_peak_is_kept_until_counting_begins_anew() -> None:
    memory.begin()
    before = memory.peak_bytes()
    held = np.ones(SIZE_BYTES, dtype=np.uint8)
    assert int(held[-1]) == 1
    del held
    assert memory.peak_bytes() >= before + SIZE_BYTES // 2
    memory.begin()
    assert memory.peak_bytes() < before + SIZE_BYTES // 2


@pytest.mark.parametrize(
    "ask",
    [
        lambda: torch.empty(1 << 60, dtype=torch.uint8),
        lambda: np.empty(1 << 60, dtype=np.uint8),
        lambda: [0] * (1 << 59),
    ],
)
def test_what_does_not_fit_is_told_in_words(ask: Callable[[], object]) -> None:
    told = r"does not fit into memory: \w+Error.*; allowed: .*; set rl"
    with pytest.raises(ShortOfMemoryError, match=told), memory.shortage_in_words():
        ask()


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory.shortage_in_words():
        torch.zeros(2).view(3)
