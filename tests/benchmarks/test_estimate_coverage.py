"""Intervals of larger sets, on made-up machines whose truth is not the models' own.

Pressures add up, but what they do follows a hinge or a power, each pair has its quirk, and every reading its noise.
Models see profiles and pairs; triples and quadruples are asked for.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import TYPE_CHECKING

import pytest

from benchmarks import estimate_score
from tandem.estimate.contention import FELT
from tandem.estimate.profile import Curve, PhaseProfile, Profile

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
KINDS_USED = ("cache", "membw_read", "membw_write")
NOISE, QUIRK, APPS, LARGER = 0.02, 0.2, 10, 30


class Machine:
    """Applications with demands and sensitivities, and what really happens to them."""

    def __init__(self, law: Callable[[float], float], seed: int) -> None:
        self._rng = rng = random.Random(seed)
        self._law = law
        self.keys = [f"app{n}" for n in range(APPS)]
        self._demand = {key: [rng.betavariate(0.7, 1.5) for _ in KINDS_USED] for key in self.keys}
        self._bound = {key: [0.4 * rng.betavariate(0.6, 1.5) for _ in KINDS_USED] for key in self.keys}
        self._quirk = {pair: math.exp(rng.gauss(0.0, QUIRK)) for pair in itertools.product(self.keys, repeat=2)}

    def profile(self, key: str) -> Profile:
        """As it would be measured."""
        curves, pressure, halves = {}, {}, {}
        for kind in FELT:
            k = KINDS_USED.index(kind) if kind in KINDS_USED else None
            bound, demand = (self._bound[key][k], self._demand[key][k]) if k is not None else (0.0, 0.0)
            slowdowns = tuple(self._noisy(1.0 + bound * self._law(level)) for level in LEVELS[1:])
            curves[kind] = Curve(LEVELS, (1.0, *slowdowns), (0.0, *[1.645 * NOISE] * 4))
            pressure[kind] = max(0.0, demand + self._rng.gauss(0.0, NOISE))
            halves[kind] = 1.645 * NOISE
        phase = PhaseProfile("", 1.0, 1.0, NOISE, 1.0, curves, pressure, halves)
        return Profile(key, (key,), "made up", 1, 0.0, 20.0, 1, (phase,))

    def row(self, members: tuple[str, ...]) -> estimate_score.Row:
        """One set, measured with a core for each."""
        slowdowns = []
        for key in members:
            others = [other for other in members if other != key]
            pressed = [sum(self._demand[o][k] * self._quirk[key, o] for o in others) for k in range(len(KINDS_USED))]
            excess = sum(bound * self._law(level) for bound, level in zip(self._bound[key], pressed, strict=True))
            slowdowns.append(self._noisy(1.0 + excess))
        halves = tuple(1.645 * NOISE * slowdown for slowdown in slowdowns)
        return estimate_score.Row(members, tuple(range(len(members))), tuple(slowdowns), halves)

    def larger(self) -> list[estimate_score.Row]:
        """Triples and quadruples at random."""
        return [self.row(tuple(self._rng.sample(self.keys, size))) for size in (3, 4) for _ in range(LARGER)]

    def _noisy(self, value: float) -> float:
        return value * math.exp(self._rng.gauss(0.0, NOISE))


@pytest.mark.slow
@pytest.mark.parametrize(
    "law", [lambda x: max(0.0, x - 0.4) / 0.6, lambda x: x**1.6], ids=["beyond a threshold", "more than in proportion"]
)
def test_nine_of_ten_larger_sets_are_within_their_intervals(law: Callable[[float], float]) -> None:
    larger, pairs = [], []
    for seed in range(2):
        machine = Machine(law, seed)
        profiles = [machine.profile(key) for key in machine.keys]
        rows = [machine.row(pair) for pair in itertools.combinations(machine.keys, 2)] + machine.larger()
        scores = estimate_score.score(rows, profiles, held_out=())
        larger += [scores[f"{size} members that fit"]["learned"].coverage90 for size in (3, 4)]
        pairs.append(scores["2 members that fit"]["learned"].coverage90)
    assert 0.85 <= sum(pairs) / len(pairs) <= 0.97
    assert 0.85 <= sum(larger) / len(larger) <= 0.97
