"""The peak of memory: seen while it is held, forgotten when counting begins anew."""

import numpy as np

from tandem.chat import memory

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
