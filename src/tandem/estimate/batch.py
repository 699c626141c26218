"""Many candidate sets at once: the answers of `bubble` and `learned` as array arithmetic.

    batch = Batch.of(profiles)              # or Batch.of(profiles, coruns) for `learned`
    mid_SK, low_SK, high_SK = batch.predict(sets_SK)   # rows are sets, entries index batch.keys

Equal to asking the model set by set, but for rounding and for words. Members have cores of their own (sets that share
cores are for the model itself, `tandem.estimate.sharing`) and all have profiles. Sets that were seen as a whole are
answered by what was seen.

Shapes: S sets, K members of each, N applications, R kinds of resources, H hinges of a curve, C sets in a chunk. Arrays
are laid out with sets last, so that every step runs along contiguous memory; a chunk fits the second-level cache.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tandem.core.errors import TandemError
from tandem.estimate import contention
from tandem.estimate.contention import EXPONENT, FELT, FLOOR, GAIN, SPREAD, TIE, Vector
from tandem.estimate.prior import UNKNOWN_EXCESS
from tandem.estimate.refined import Refined

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from tandem.estimate.corun import CoRun
    from tandem.estimate.profile import Profile

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

CHUNK = 4096


class BatchError(TandemError):
    """Sets that are not indices of applications."""


class Batch:
    """Applications as arrays.

    Args:
        vectors: profiles by application.
        refined: what was seen, for `learned`; None for `bubble`.

    Attributes:
        keys: applications, in the order that sets index.
    """

    def __init__(self, vectors: dict[str, Vector], refined: Refined | None = None) -> None:
        self.keys = tuple(sorted(vectors))
        self._refined = refined
        self._whole = all(vector.whole for vector in vectors.values())
        rows = [vectors[key] for key in self.keys]
        shape = (len(FELT), len(rows))
        self._pressure_RN = _table(shape, [row.pressure for row in rows])
        self._variance_RN = _table(shape, [row.pressure_variance for row in rows])
        self._half_RN = _table(shape, [row.curve_half for row in rows])
        self._full_RN = _table(shape, [row.at_full for row in rows])
        self._numb_RN = _table(shape, [row.numb for row in rows])
        self._silent_RN = _table(shape, [row.silent for row in rows])
        self._hinges = [_hinges([row.curves[r] for row in rows]) for r in range(len(FELT))]
        self._index = {key: n for n, key in enumerate(self.keys)}
        self._learn()

    @classmethod
    def of(cls, profiles: Iterable[Profile], coruns: Iterable[CoRun] | None = None) -> Batch:
        """As `bubble` with these profiles; as `learned` where ``coruns`` are given, though there be none."""
        vectors = contention.vectors(profiles)
        if coruns is None:
            return cls(vectors)
        refined = Refined(vectors)
        refined.seen.observe_all(coruns)
        return cls(vectors, refined)

    def indices(self, sets: Sequence[Sequence[str]]) -> Ints:
        """Sets of keys, all of one size, as rows of indices.

        Raises:
            BatchError: They are not of one size, or one of the applications has no profile.
        """
        sizes = sorted({len(one) for one in sets})
        if len(sizes) > 1:
            raise BatchError(
                given=f"sets of {' and '.join(map(str, sizes))} applications",
                allowed="sets of one size at a time",
                todo="make a batch of each size",
            )
        try:
            return np.array([[self._index[key] for key in one] for one in sets], dtype=np.int64)
        except KeyError as missing:
            raise BatchError(
                given=f"application {missing}",
                allowed=f"applications with a profile: {', '.join(self.keys) or 'there are none'}",
                todo="profile it, or ask the model itself",
            ) from None

    def predict(self, sets_SK: Ints) -> tuple[Floats, Floats, Floats]:
        """Middle, lower and upper end of the slowdown of each member, each of the shape of ``sets_SK``.

        Raises:
            BatchError: They are no rows of indices.
        """
        if sets_SK.dtype.kind not in "iu":
            raise BatchError(
                given=f"an array of {sets_SK.dtype}", allowed="integers", todo="make it with Batch.indices"
            )
        if sets_SK.ndim != 2 or (sets_SK.size and not 0 <= sets_SK.min() <= sets_SK.max() < len(self.keys)):
            raise BatchError(
                given=f"an array of shape {sets_SK.shape}",
                allowed=f"shape (sets, members), entries from 0 to {len(self.keys) - 1}",
                todo="make it with Batch.indices",
            )
        mid_KS, low_KS, high_KS = (np.ones(sets_SK.T.shape) for _ in range(3))
        members_KS = np.ascontiguousarray(sets_SK.T)
        if len(members_KS) > 1:
            for begin in range(0, members_KS.shape[1], CHUNK):
                part = slice(begin, begin + CHUNK)
                self._chunk(members_KS[:, part], mid_KS[:, part], low_KS[:, part], high_KS[:, part])
            self._as_seen(members_KS, (mid_KS, low_KS, high_KS))
        return mid_KS.T, low_KS.T, high_KS.T

    # ------------------------------------------------------------------------------------ details

    def _chunk(self, members_KC: Ints, mid_KC: Floats, low_KC: Floats, high_KC: Floats) -> None:
        """Fill in the answers for some of the sets."""
        shape = members_KC.shape
        powers_KC, variance_KC, ignorance_KC = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for r, (level_HN, change_HN) in enumerate(self._hinges):
            if level_HN.shape[0] == 0 and self._whole:
                continue
            pressure_KC, spread_KC = self._pressure_RN[r][members_KC], self._variance_RN[r][members_KC]
            pressed_KC = _of_others(pressure_KC) - TIE
            pressed_variance_KC = _of_others(spread_KC)
            excess_KC, slope_KC = np.zeros(shape), np.zeros(shape)
            for level_N, change_N in zip(level_HN, change_HN, strict=True):
                beyond_KC = pressed_KC - level_N[members_KC]
                change_KC = change_N[members_KC] * (beyond_KC > 0.0)
                excess_KC += change_KC * beyond_KC
                slope_KC += change_KC
            felt_KC = excess_KC > 0.0
            powers_KC += np.maximum(excess_KC, 0.0) ** EXPONENT
            half_KC = self._half_RN[r][members_KC] * pressed_KC
            beyond_KC = slope_KC * np.maximum(pressed_KC - 1.0, 0.0)
            variance_KC += felt_KC * (
                half_KC * half_KC + beyond_KC * beyond_KC + slope_KC * slope_KC * pressed_variance_KC
            )
            if not self._whole:
                numb_KC, full_KC = self._numb_RN[r][members_KC], self._full_RN[r][members_KC]
                unsaid_KC = _of_others(self._silent_RN[r][members_KC])
                ignorance_KC += (UNKNOWN_EXCESS * numb_KC * np.minimum(pressed_KC + TIE, 1.0)) ** 2
                ignorance_KC += (full_KC * np.minimum(unsaid_KC, 1.0)) ** 2
        if not self._whole:
            ignorance_KC = np.minimum(ignorance_KC, UNKNOWN_EXCESS**2 * (len(members_KC) - 1))
        excess_KC = GAIN * powers_KC ** (1.0 / EXPONENT)
        variance_KC = GAIN * GAIN * variance_KC + (SPREAD * excess_KC) ** 2 + FLOOR * FLOOR * (len(members_KC) - 1)
        if self._refined is not None:
            excess_KC, variance_KC, most_KC = self._corrected(members_KC, excess_KC, variance_KC)
        mid_KC[:] = 1.0 + excess_KC
        low_KC[:] = np.maximum(1.0, mid_KC - np.sqrt(variance_KC))
        high_KC[:] = mid_KC + np.sqrt(variance_KC + ignorance_KC)
        if self._refined is not None:
            np.maximum(high_KC, 1.0 + most_KC, out=high_KC)

    def _learn(self) -> None:
        """Corrections of pairs as tables; `most` is above 0 where the pair was seen."""
        shape = len(self.keys), len(self.keys)
        self._correction_NN, self._corrected_NN, self._doubt_NN = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._least_NN, self._most_NN = np.zeros(shape), np.zeros(shape)
        self._sets: dict[int, dict[int, tuple[float, float, float]]] = {}
        if self._refined is None:
            return
        self._sets = self._seen_sets(self._refined)
        for a, app in enumerate(self.keys):
            corrections = self._refined.corrections(app)
            for b, other in enumerate(self.keys):
                correction = corrections[other]
                self._correction_NN[a, b] = correction.excess
                self._corrected_NN[a, b] = correction.variance
                self._doubt_NN[a, b] = correction.doubt
                self._least_NN[a, b], self._most_NN[a, b] = correction.least, correction.most

    def _corrected(self, members_KC: Ints, excess_KC: Floats, variance_KC: Floats) -> tuple[Floats, Floats, Floats]:
        """Excess and its squared half-width with what was seen of pairs, and what the upper end is at least."""
        refined = self._refined
        assert refined is not None
        others = len(members_KC) - 1
        shape = members_KC.shape
        added_KC, half_KC, doubt_KC, seen_KC, least_KC, most_KC = (np.zeros(shape) for _ in range(6))
        n = len(self.keys)
        for i, own_C in enumerate(members_KC):
            for j, other_C in enumerate(members_KC):
                if i != j:
                    pair_C = own_C * n + other_C
                    added_KC[i] += self._correction_NN.take(pair_C)
                    half_KC[i] += self._corrected_NN.take(pair_C)
                    doubt_KC[i] += self._doubt_NN.take(pair_C)
                    np.maximum(least_KC[i], self._least_NN.take(pair_C), out=least_KC[i])
                    most_C = self._most_NN.take(pair_C)
                    seen_KC[i] += most_C > 0.0
                    np.maximum(most_KC[i], most_C, out=most_KC[i])
        half_KC += doubt_KC * (1.0 - 1.0 / np.maximum(seen_KC, 1.0))
        inherited_KC = variance_KC * refined.left(seen_KC, others) * refined.scale**2
        return np.maximum(least_KC, excess_KC + added_KC), half_KC + inherited_KC, most_KC

    def _as_seen(self, members_KS: Ints, answers: tuple[Floats, Floats, Floats]) -> None:
        """Put what was seen of whole sets in place of what was worked out."""
        codes = self._sets.get(len(members_KS) - 1)
        if not codes:
            return
        known = np.array(sorted(codes), dtype=np.int64)
        for i in range(len(members_KS)):
            code_S = members_KS[i].copy()
            for row in np.sort(np.delete(members_KS, i, axis=0), axis=0):
                code_S = code_S * len(self.keys) + row
            at_S = np.minimum(np.searchsorted(known, code_S), len(known) - 1)
            for s in np.flatnonzero(known[at_S] == code_S):
                for answer, value in zip(answers, codes[int(code_S[s])], strict=True):
                    answer[i, s] = value

    def _seen_sets(self, refined: Refined) -> dict[int, dict[int, tuple[float, float, float]]]:
        """What was seen, by the number of neighbours and the code of (application, sorted neighbours)."""
        sets: dict[int, dict[int, tuple[float, float, float]]] = {}
        for app, beside, seen in refined.seen.observations.all_company():
            if app not in self._index or any(key not in self._index for key in beside):
                continue
            code = self._index[app]
            for n in sorted(self._index[key] for key in beside):
                code = code * len(self.keys) + n
            if len(self.keys) ** (len(beside) + 1) < 1 << 62:
                sets.setdefault(len(beside), {})[code] = seen.mid, seen.low, seen.high
        return sets


def _table(shape: tuple[int, int], rows: Sequence[Sequence[float]]) -> Floats:
    """Rows by application as an array (R, N)."""
    return np.array(rows, dtype=np.float64).reshape(shape[::-1]).T.copy()


def _hinges(curves: Sequence[contention.Hinges]) -> tuple[Floats, Floats]:
    """Levels and changes of slope, (H, N); curves with fewer hinges than H have more that change nothing."""
    most = max((len(curve) for curve in curves), default=0)
    level_HN, change_HN = np.full((most, len(curves)), math.inf), np.zeros((most, len(curves)))
    for n, curve in enumerate(curves):
        for h, (level, change) in enumerate(curve):
            level_HN[h, n], change_HN[h, n] = level, change
    level_HN[np.isinf(level_HN)] = 0.0
    return level_HN, change_HN


def _of_others(own_KC: Floats) -> Floats:
    """Each one's sum over the others; summed without itself, since taking itself out again would leave rounding."""
    sum_KC = np.zeros_like(own_KC)
    for i, own_C in enumerate(own_KC):
        sum_KC[:i] += own_C
        sum_KC[i + 1 :] += own_C
    return sum_KC
