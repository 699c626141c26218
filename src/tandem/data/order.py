"""In which order the samples of an epoch come: an exact shuffle of all of them that needs no table.

`Shuffled(count, seed=7, epoch=0).at(positions)` is a pure function of the position. It is a Feistel network on
Z_a x Z_b, where a * b is just above the count (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
2002, their "generalised Feistel"), walked again where it leads out of the range ("cycle walking", the same paper).
Only sums modulo a and b, 32-bit multiplications and shifts are used: every machine gives the same order.

Limits: 2^62 samples; not cryptography - an order that looks random to statistics, not to an adversary.

Legend: N positions, or the samples at them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

MAX_COUNT = 1 << 62
_BLOCK = 16_384  # so many at once stay in the second-level cache
_ROUNDS = 8
_ROUNDS_OF_FEW = 20  # the fewer there are, the less a round stirs
_FEW = 1 << 10
_MASK_64 = (1 << 64) - 1


class Order(Protocol):
    """Which sample is at which position of an epoch."""

    def __len__(self) -> int:
        """How many positions the epoch has."""

    def at(self, positions_N: Numbers) -> Numbers:
        """The samples at these positions, int64."""


@dataclass(frozen=True, slots=True)
class InOrder:
    """The samples as they are numbered.

    Attributes:
        count: How many there are.
    """

    count: int

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    def at(self, positions_N: Numbers) -> Numbers:
        """The samples at these positions, which are the positions themselves."""
        return _within(positions_N, self.count)

    def position_of(self, numbers_N: Numbers) -> Numbers:
        """Where these samples come, which is at their numbers."""
        return _within(numbers_N, self.count)


class Shuffled:
    """A permutation of 0 ... count - 1 for each seed and epoch.

    It takes some 40 ns a position in large calls and needs no memory that grows with the count.

    Args:
        count: How many samples there are, at most 2^62.
        seed: Any whole number; its lowest 64 bits count.
        epoch: Which of the permutations of this seed, likewise.

    Example:
        >>> import numpy as np
        >>> order = Shuffled(10, seed=0, epoch=0)
        >>> sorted(order.at(np.arange(10)).tolist()) == list(range(10))
        True
    """

    def __init__(self, count: int, *, seed: int, epoch: int) -> None:
        if not 0 <= count <= MAX_COUNT:
            message = f"an order of {count} samples; from 0 to 2^62 are possible"
            raise ValueError(message)
        self.count, self.seed, self.epoch = count, seed, epoch
        left = math.isqrt(max(count - 1, 0)) + 1
        self._left = left + left % 2  # an even half, or every permutation would be an even one
        self._right = max(1, -(-count // self._left))
        rounds = _ROUNDS_OF_FEW if count < _FEW else _ROUNDS
        self._keys = _keys(seed, epoch, count, 2 * rounds)

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    def __repr__(self) -> str:
        return f"Shuffled({self.count}, seed={self.seed}, epoch={self.epoch})"

    def at(self, positions_N: Numbers) -> Numbers:
        """The samples at these positions, int64.

        Raises:
            IndexError: A position is not from 0 to count - 1.
        """
        return self._walk(positions_N, backwards=False)

    def position_of(self, numbers_N: Numbers) -> Numbers:
        """At which positions these samples come: the inverse of `at`.

        Raises:
            IndexError: A number is not from 0 to count - 1.
        """
        return self._walk(numbers_N, backwards=True)

    def _walk(self, start_N: Numbers, *, backwards: bool) -> Numbers:
        """Go through the network, and again from where it led out of the range."""
        found_N = self._blocks(_within(start_N, self.count), backwards=backwards)
        while len(out := np.flatnonzero(found_N >= self.count)):
            found_N[out] = self._blocks(found_N[out], backwards=backwards)
        return found_N

    def _blocks(self, start_N: Numbers, *, backwards: bool) -> Numbers:
        found_N = np.empty(len(start_N), dtype=np.int64)
        for begin in range(0, len(start_N), _BLOCK):
            here = slice(begin, begin + _BLOCK)
            found_N[here] = self._once(start_N[here].astype(np.uint64), backwards=backwards)
        return found_N

    def _once(self, at_N: NDArray[np.uint64], *, backwards: bool) -> NDArray[np.uint64]:
        """Go through the network once, forwards or backwards, within 0 ... left * right - 1."""
        whole_N = at_N // self._right
        halves = [whole_N.astype(np.uint32), (at_N - whole_N * self._right).astype(np.uint32)]
        sizes = (self._left, self._right)
        hashed_N, spare_N = np.empty_like(halves[0]), np.empty_like(halves[0])
        rounds = range(len(self._keys) // 2)
        for number in reversed(rounds) if backwards else rounds:
            side = number % 2
            changed_N, size = halves[side], sizes[side]
            _hash(halves[1 - side], self._keys[2 * number], self._keys[2 * number + 1], hashed_N, spare_N)
            whole_N[:] = hashed_N
            whole_N *= size
            whole_N >>= 32
            hashed_N[:] = whole_N  # a number from 0 to size - 1
            if backwards:
                changed_N -= hashed_N
                np.add(changed_N, size, out=spare_N)  # the smaller one: below 0 numbers wrap to large ones
            else:
                changed_N += hashed_N
                np.subtract(changed_N, size, out=spare_N)
            np.minimum(changed_N, spare_N, out=changed_N)
        whole_N[:] = halves[0]
        whole_N *= self._right
        whole_N += halves[1]
        return whole_N


def _hash(
    of_N: NDArray[np.uint32],
    first_key: int,
    second_key: int,
    out_N: NDArray[np.uint32],
    spare_N: NDArray[np.uint32],
) -> None:
    """Mix the bits of each number with two keys, into `out_N`: multiplications by odd constants and shifts.

    The constants are "lowbias32" of https://github.com/skeeto/hash-prospector (public domain).
    """
    np.bitwise_xor(of_N, first_key, out=out_N)
    for shift, multiplier in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        np.right_shift(out_N, shift, out=spare_N)
        out_N ^= spare_N
        out_N *= multiplier
    out_N += second_key
    np.right_shift(out_N, 16, out=spare_N)
    out_N ^= spare_N
    out_N *= 0x7FEB352D


def _keys(seed: int, epoch: int, count: int, number: int) -> list[int]:
    """Keys of 32 bits that share nothing between neighbouring seeds, epochs or counts."""
    state = 0
    for word in (seed, epoch, count):
        state = mix((state ^ word) & _MASK_64)
    return [mix(state + i * 0x9E3779B97F4A7C15) >> 32 for i in range(1, number + 1)]


def mix(word: int) -> int:
    """The 64-bit number that SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) makes of another; one to one."""
    word = (word + 0x9E3779B97F4A7C15) & _MASK_64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return word ^ (word >> 31)


def _within(numbers_N: Numbers, count: int) -> Numbers:
    numbers_N = np.asarray(numbers_N, dtype=np.int64)
    if len(numbers_N) and not (numbers_N.min() >= 0 and numbers_N.max() < count):
        message = f"positions and numbers go from 0 to {count - 1}; given {numbers_N.min()} to {numbers_N.max()}"
        raise IndexError(message)
    return numbers_N
