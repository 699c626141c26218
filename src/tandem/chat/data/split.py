"""Which phase a prompt serves, and whether it is held out.

    digest = digest_of("1 + 1?", seed=0)
    phase_of(digest, phases_of(["sft", "rl"]), recipe.data)   # "sft", "rl" or HELD_OUT

A prompt's place follows from its text and the seed alone. The phases that share out all places are those that any row
of the prompt can serve, whatever source it stands in; so the same prompt never serves two, nor is held out as well.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tandem.chat.recipe import Data

BITS = {"sft": 1, "reward": 2, "rl": 4}
"""Phases in the order of `data.split`; sets of them are sums."""

HELD_OUT = "held out"


def digest_of(prompt: str, seed: int) -> int:
    """Return what stands for a prompt, below 2^64, the same wherever and whenever it is asked."""
    return xxhash.xxh3_64_intdigest(prompt.encode("utf-8", "surrogatepass"), seed=seed)


def phases_of(names: Iterable[str]) -> int:
    """Return a set of phases."""
    return sum(BITS[name] for name in names)


def phase_of(digest: int, phases: int, data: Data) -> str | None:
    """Return the phase that a prompt serves, or HELD_OUT; None where `data.split` gives none of them a share.

    Args:
        digest: Of the prompt.
        phases: All that rows of the prompt can serve.
        data: The recipe's part.
    """
    at = digest / 2**64
    if at < data.held_out:
        return HELD_OUT
    shares = {
        phase: share for (phase, bit), share in zip(BITS.items(), data.split, strict=True) if phases & bit and share
    }
    left = (at - data.held_out) / (1.0 - data.held_out) * sum(shares.values())
    for phase, share in shares.items():
        left -= share
        if left < 0.0:
            return phase
    return next(reversed(shares), None)  # rounding left something


@dataclass(slots=True)
class Seen:
    """What each row can serve, in 9 bytes a row."""

    _digests: array[int] = field(default_factory=lambda: array("Q"))
    _phases: array[int] = field(default_factory=lambda: array("B"))

    def add(self, digest: int, phases: int) -> None:
        """Note a row of a prompt."""
        self._digests.append(digest)
        self._phases.append(phases)

    def unlike(self) -> dict[int, int]:
        """Return all phases of each prompt whose rows cannot all serve the same, by its digest."""
        if len(set(self._phases)) < 2:
            return {}
        digests, phases = np.asarray(self._digests), np.asarray(self._phases)
        order = np.argsort(digests)
        digests, phases = digests[order], phases[order]
        first = np.flatnonzero(np.concatenate([[True], digests[1:] != digests[:-1]]))
        every = np.bitwise_or.reduceat(phases, first)
        differ = every != np.bitwise_and.reduceat(phases, first)
        return dict(zip(digests[first][differ].tolist(), every[differ].tolist(), strict=True))
