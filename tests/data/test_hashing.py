"""Our XXH3 against the package `xxhash`, by every code path."""

import random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tandem import _native
from tandem.data.hashing import xxh3

_RANDOM = random.Random(3).randbytes(1 << 20)


@pytest.mark.parametrize("scalar", [False, True])
def test_equals_the_reference_at_every_length_up_to_4096_and_beyond(scalar: bool) -> None:
    rng = random.Random(7)
    lengths = [*range(4097), *(rng.randrange(len(_RANDOM)) for _ in range(30))]
    for length in lengths:
        start = rng.randrange(len(_RANDOM) - length)  # at any alignment
        data = _RANDOM[start : start + length]
        wanted = xxhash.xxh3_64_intdigest(data)
        target = bytearray(length)
        assert _native.xxh3(data, scalar) == wanted
        assert _native.copy_xxh3(target, data, scalar) == wanted
        assert target == data


def test_the_default_is_the_same_function() -> None:
    assert xxh3(b"tandem") == xxhash.xxh3_64_intdigest(b"tandem")


@given(st.binary(max_size=3000), st.data())
def test_one_flipped_bit_changes_it(data: bytes, draw: st.DataObject) -> None:
    if not data:
        return
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    assert _native.xxh3(flipped) != _native.xxh3(data)


def test_a_copy_into_too_little_room_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _native.copy_xxh3(bytearray(3), b"four")
