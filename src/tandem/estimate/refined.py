"""What co-runs teach beyond profiles: a correction for every pair, and how far residuals reach.

A pair that was seen is known twice. Profiles predict an excess b with the half-width h_b of their own error, the
observation says e with h_e, and the better guess weighs both by precision (a Kalman gain):

    correction = K * r,    r = e - b,    K = v / (v + h_e^2),    v = h_b^2 + d,
    d = max(0, r^2 - CONTRADICTED^2 (h_b^2 + h_e^2))

d is 0 unless the two contradict each other: a difference that neither error explains is itself an observation of how
far profiles are off, as in empirical Bayes (Morris, JASA 1983). So noise is shrunk, and what is no noise is believed.
How contradicted pairs go together profiles do not know either: with s pairs seen, (s - 1) / s of the sum of d, each at
most the square of what the pair costs, is added to the squared half-width, by the reasoning of `Refined.left`.

More neighbours do not make anything faster: a larger set is slowed by at least what each of its pairs is believed to
cost, and its upper end is not below that of a pair that was seen.

A pair that was not seen is corrected by the factors of its two members, b * (factor - 1).

Intervals are scaled by *conformal* calibration (Vovk et al. 2005; Lei et al., JASA 2018): pairs are left out of the
fit in turn, a fifth at a time, and the scale is the 90 % quantile of their residuals relative to the half-width that
was claimed, drawn towards 1 while pairs are few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tandem.estimate import contention
from tandem.estimate.inferred import Inferred
from tandem.estimate.pairs import SeenPairs
from tandem.estimate.pairwise import INFERRED
from tandem.estimate.prior import NOISE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from tandem.estimate.contention import Contended, Vector
    from tandem.estimate.observed import Observations

FOLDS = 5

PRIOR_PAIRS = 20
"""The scale 1 weighs as much as this many pairs."""

CONTRADICTED = 2.0
"""Profiles and an observation contradict each other beyond this many half-widths of both errors together, which is 3.3
standard deviations: of a thousand normal errors one is as large."""

FROM_SETS = 0.3
"""Weight of what a larger set tells of one of its pairs, in observations of the pair."""

Part = TypeVar("Part", float, "NDArray[np.float64]")


@dataclass(frozen=True, slots=True)
class Correction:
    """What is to be added to the excess that profiles predict for a set, for one neighbour.

    Attributes:
        excess: by how much.
        variance: square of its 90 % half-width.
        doubt: the square of how far off it may be on top of others, beyond what profiles say of that.
        least: the pair's own excess, so corrected; 0 where it was not seen.
        most: the pair's own excess at the upper end of what was seen; 0 where it was not.
        seen: in words, the pair as it was seen; "" where it was not.
    """

    excess: float
    variance: float
    doubt: float
    least: float
    most: float
    seen: str


class Corrections(dict[str, Correction]):
    """Corrections of one application by neighbour, worked out when first asked for."""

    def __init__(self, refined: Refined, app: str, revision: tuple[int, int]) -> None:
        super().__init__()
        self.revision = revision
        self._refined = refined
        self._app = app

    def __missing__(self, beside: str) -> Correction:
        """What the pair, or its members beside others, proved to be beyond what profiles say."""
        app, refined = self._app, self._refined
        expected, found = refined.by_profile(app, beside), refined.seen.of(app).get(beside)
        factor = refined.seen.inferred.factor(app, beside)
        if found is None:
            correction = Correction((expected.excess if expected else 0.0) * (factor - 1.0), 0.0, 0.0, 0.0, 0.0, "")
        else:
            words = f"{beside} {found.mid:.2f}x"
            excess, most = found.mid - 1.0, found.high - 1.0
            variance = (most - excess) ** 2
            if expected is None:
                correction = Correction(excess, variance, 0.0, excess, most, words)
            else:
                believed = expected.excess * factor
                residual = excess - believed
                off = max(0.0, residual**2 - CONTRADICTED**2 * (expected.variance + variance))
                gain = (expected.variance + off) / (expected.variance + off + variance)
                excess = believed + gain * residual
                doubt = min(off, excess**2)
                correction = Correction(excess - expected.excess, gain * variance, doubt, excess, most, words)
        self[beside] = correction
        return correction


class Refined:
    """Profiles and observations together.

    Attributes:
        vectors: profiles by application.
        seen: observations; whatever is told to it is learned.
        scale: what half-widths of profiles are multiplied by.
        judged_scale: the same for pairs that are judged without profiles.
    """

    def __init__(self, vectors: Mapping[str, Vector]) -> None:
        self.vectors = vectors
        self.seen = SeenPairs(self._fit)
        self.scale = self.judged_scale = 1.0
        self._by_profile: dict[tuple[str, str], Contended | None] = {}
        self._kept: dict[str, Corrections] = {}

    def by_profile(self, app: str, beside: str) -> Contended | None:
        """What profiles say of a pair; None where one has none."""
        pair = app, beside
        if pair not in self._by_profile:
            one, other = self.vectors.get(app), self.vectors.get(beside)
            self._by_profile[pair] = contention.of_pair(one, other) if one and other else None
        return self._by_profile[pair]

    def corrections(self, app: str) -> Corrections:
        """Corrections for one application, by neighbour; filled in as they are asked for."""
        revision = self.seen.revision_of(app)
        kept = self._kept.get(app)
        if kept is None or kept.revision != revision:
            kept = self._kept[app] = Corrections(self, app, revision)
        return kept

    @staticmethod
    def left(seen: Part, neighbours: int) -> Part:
        """What is left of the profiles' squared half-width of a set where some of a member's pairs were seen.

        A pair that was seen tells what this neighbour costs by itself, not what it costs on top of others. Where all n
        pairs were seen, one contribution is known, whichever is taken first, and the n - 1 that come on top are as
        uncertain as pairs that were left out of the fit: (n - 1) / n of the whole. As in a random walk over pressure,
        of which a value was seen at p and the one at n * p is asked for.

        Args:
            seen: how many.
            neighbours: n, at least 1.
        """
        return 1.0 - seen / (neighbours * neighbours)

    def _fit(self, observations: Observations) -> Inferred:
        pairs, weights = self._evidence(observations)
        expected = {pair: felt.excess for pair in pairs if (felt := self.by_profile(*pair)) is not None}
        self._calibrate(pairs, expected, weights)
        return Inferred(pairs, expected, weights)

    def _evidence(
        self, observations: Observations
    ) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
        """Pairs as seen, or as larger sets tell of them; with weights where these are not 1."""
        pairs = observations.pairs()
        parts: dict[tuple[str, str], list[float]] = {}
        for (app, beside), slowdown in sorted(observations.larger_sets().items()):
            expected = [(self.by_profile(app, other), other) for other in beside]
            total = sum(felt.excess for felt, _ in expected if felt is not None)
            for felt, other in expected:
                if (app, other) in pairs:
                    continue
                if total > 0.0 and all(one is not None for one, _ in expected):
                    part = felt.excess / total if felt else 0.0
                else:
                    part = 1.0 / len(beside)
                parts.setdefault((app, other), []).append(1.0 + part * (slowdown - 1.0))
        weights = dict.fromkeys(parts, FROM_SETS)
        return {**pairs, **{pair: sum(told) / len(told) for pair, told in parts.items()}}, weights

    def _calibrate(
        self,
        pairs: Mapping[tuple[str, str], float],
        expected: Mapping[tuple[str, str], float],
        weights: Mapping[tuple[str, str], float],
    ) -> None:
        """Set the scales of half-widths, from pairs that were seen themselves."""
        own = sorted(pair for pair in pairs if pair not in weights)
        profiled, judged = [], []
        for fold in range(FOLDS if len(own) >= FOLDS else 0):
            left_out = set(own[fold::FOLDS])
            fitted = Inferred({pair: seen for pair, seen in pairs.items() if pair not in left_out}, expected, weights)
            for pair in left_out:
                felt = self.by_profile(*pair)
                if felt is not None:
                    guess = 1.0 + felt.excess * fitted.factor(*pair)
                    profiled.append(abs(pairs[pair] - guess) / math.sqrt(felt.variance))
                elif (slowdown := fitted.slowdown(*pair)) is not None:
                    judged.append(abs(pairs[pair] - slowdown) / judged_half(slowdown))
        self.scale, self.judged_scale = _stretch(profiled), _stretch(judged)


def judged_half(slowdown: float) -> float:
    """Half-width of a pair that was judged without profiles, by what both did beside others; before it is scaled."""
    return INFERRED * (slowdown - 1.0) + 2 * NOISE


def _stretch(scores: list[float]) -> float:
    """What half-widths are to be multiplied by so that nine of ten residuals, in half-widths, are within."""
    if len(scores) < FOLDS:
        return 1.0
    quantile = sorted(scores)[min(len(scores) - 1, math.ceil(0.9 * (len(scores) + 1)) - 1)]
    trust = len(scores) / (len(scores) + PRIOR_PAIRS)
    return trust * quantile + (1.0 - trust)
