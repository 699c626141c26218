"""Pairs judged by kin: applications with like traits slow, and are slowed, alike.

For jobs that say what they are (a kind of network and a batch size, say) and were never measured, or hardly. The
logarithm of a slowdown is a Gaussian process over (application, neighbour):

    cov[(a, b), (a', b')] = s^2 * (k(a, a') + k(b, b') + 2 k(a, a') k(b, b')) / 4

sensitivity of a, pressure of b, and what is particular to the two together: a matrix factorisation of unbounded rank
whose factors vary smoothly with traits (kernel matrix factorisation with side information; Abernethy et al., JMLR
2009). Two applications are as kin as their group and their sizes say,

    k(a, a') = (1 - OWN) * (1 or ``stranger``) * exp(-(size - size')^2 / (2 reach^2)) + OWN * [a = a']

where sizes count within a group only. Of a grid, those ``stranger``, ``reach`` and noise are taken that make the pairs
seen most likely (Rasmussen and Williams 2006, eq. 5.8, the scale s^2 in closed form). Intervals are those of the
process, stretched by its leave-one-out residuals (eqs. 5.10-5.12), which costs no further fit.

Limits: as many operations as the cube of the number of pairs; a few thousand pairs at most.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STRANGERS = (0.02, 0.1, 0.3)
REACHES = (1.5, 3.0, 6.0)
NOISES = (0.03, 0.1, 0.25)
OWN = 0.1

_Z = 1.6449  # 95 % quantile of the normal distribution: two-sided 90 %

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Traits:
    """What an application says of itself: what kind it is of, and how large on a scale where 1 matters."""

    group: str
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class _Likeness:
    """Parameters of the covariance."""

    stranger: float
    reach: float
    noise: float


class Kinship:
    """What values of pairs that were seen say of those that were not.

    Args:
        seen: a value for each pair; any real number (the logarithm of a slowdown, or 1 and -1 for yes and no).
        traits: of every application that is seen or will be asked for.
    """

    def __init__(self, seen: Mapping[Pair, float], traits: Mapping[str, Traits]) -> None:
        if not seen:
            message = "at least one pair must have been seen"
            raise ValueError(message)
        self._traits = traits
        self._pairs = sorted(seen)
        values = np.array([seen[pair] for pair in self._pairs])
        self._mean = float(np.median(values))
        y_P = values - self._mean
        grid = [_Likeness(*one) for one in itertools.product(STRANGERS, REACHES, NOISES)]
        self._likeness = max(grid, key=lambda likeness: self._likelihood(likeness, y_P))
        cov_PP = self._seen_cov(self._likeness)
        self._inverse_PP = np.linalg.inv(cov_PP)
        self._alpha_P = self._inverse_PP @ y_P
        self._scale2 = max(1e-12, float(y_P @ self._alpha_P) / len(y_P))
        # Leave-one-out residuals over the deviations that were claimed for them.
        precision_P = np.diag(self._inverse_PP)
        scores_P = np.sort(np.abs(self._alpha_P) / np.sqrt(precision_P * self._scale2))
        self._stretch = float(scores_P[min(len(scores_P) - 1, math.ceil(0.9 * (len(scores_P) + 1)) - 1)])

    def predict(self, pairs: Sequence[Pair]) -> tuple[Floats, Floats]:
        """Value, and half-width of its 90 % interval, for each pair."""
        across_QP = self._cov(pairs, self._pairs, self._likeness)
        mid_Q = self._mean + across_QP @ self._alpha_P
        explained_Q = np.einsum("qp,pr,qr->q", across_QP, self._inverse_PP, across_QP, optimize=True)
        variance_Q = np.maximum(0.0, 1.0 + self._likeness.noise**2 - explained_Q) * self._scale2
        return mid_Q, max(self._stretch, 1e-9) * np.sqrt(variance_Q)

    def _likelihood(self, likeness: _Likeness, y_P: Floats) -> float:
        """Logarithm of the likelihood but for a constant, at the most likely scale."""
        lower_PP = np.linalg.cholesky(self._seen_cov(likeness))
        white_P = np.linalg.solve(lower_PP, y_P)
        count = len(y_P)
        return -0.5 * count * math.log(max(1e-300, float(white_P @ white_P) / count)) - float(
            np.log(np.diag(lower_PP)).sum()
        )

    def _seen_cov(self, likeness: _Likeness) -> Floats:
        noise_PP = likeness.noise**2 * np.eye(len(self._pairs))
        return self._cov(self._pairs, self._pairs, likeness) + noise_PP

    def _cov(self, one: Sequence[Pair], other: Sequence[Pair], likeness: _Likeness) -> Floats:
        sensitive = self._kin([a for a, _ in one], [a for a, _ in other], likeness)
        pressing = self._kin([b for _, b in one], [b for _, b in other], likeness)
        return (sensitive + pressing + 2.0 * sensitive * pressing) / 4.0

    def _kin(self, one: Sequence[str], other: Sequence[str], likeness: _Likeness) -> Floats:
        """How kin applications are, 0 to 1; each row against each column."""
        names = sorted({*one, *other})
        index = {name: n for n, name in enumerate(names)}
        groups = np.array([self._traits[name].group for name in names])
        sizes = np.array([self._traits[name].size for name in names])
        same_NN = groups[:, None] == groups[None, :]
        near_NN = np.exp(-((sizes[:, None] - sizes[None, :]) ** 2) / (2.0 * likeness.reach**2))
        kin_NN = (1.0 - OWN) * np.where(same_NN, near_NN, likeness.stranger) + OWN * np.eye(len(names))
        rows, columns = [index[name] for name in one], [index[name] for name in other]
        return np.asarray(kin_NN[np.ix_(rows, columns)], dtype=np.float64)
