"""The profiled members of one set: what each feels of the others together, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.estimate import contention
from tandem.estimate.contention import FELT, WORDS, Contended, Vector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tandem.estimate.answering import Members

_NAMED = 3
_SLIGHT = 0.005


class Pressed:
    """What the profiled members of a set do to each other."""

    __slots__ = ("_members", "_total", "_total_variance", "_whole", "unprofiled", "vectors")

    def __init__(self, members: Members, known: Mapping[str, Vector]) -> None:
        self._members = members
        self.vectors = vectors = [known.get(app.key) for app in members.apps]
        self.unprofiled = vectors.count(None)
        there = [vector for vector in vectors if vector is not None]
        self._whole = all([vector.whole for vector in there])  # noqa: C419  (a list is faster)
        if members.weights is None:
            self._total = [sum(column) for column in zip(*[vector.pressure for vector in there], strict=True)]
            variances = zip(*[vector.pressure_variance for vector in there], strict=True)
            self._total_variance = [sum(column) for column in variances]

    def on(self, i: int) -> Contended | None:
        """What member ``i`` feels of the profiled ones; None where it has no profile itself."""
        one = self.vectors[i]
        if one is None:
            return None
        if self._members.weights is None:
            pressed = [total - own for total, own in zip(self._total, one.pressure, strict=True)]
            variance = [total - own for total, own in zip(self._total_variance, one.pressure_variance, strict=True)]
        else:
            pressed = self._weighted(i, "pressure", 1)
            variance = self._weighted(i, "pressure_variance", 2)
        felt = contention.feel(one, pressed, variance)
        if not self._whole:
            felt.ignorance = contention.ignorance(one, pressed, self._weighted(i, "silent", 1))
        return felt

    def _weighted(self, i: int, what: str, power: int) -> list[float]:
        """Sum over the others of a part of their vectors, each by a power of how much of the time it is there."""
        total = [0.0] * len(FELT)
        for j, vector in enumerate(self.vectors):
            weight = self._members.weight(i, j) ** power
            if j != i and vector is not None and weight > 0.0:
                total = [so_far + weight * value for so_far, value in zip(total, getattr(vector, what), strict=True)]
        return total

    def words(self, i: int, felt: Contended) -> str:
        """What contends for what."""
        k = felt.kind
        if k < 0 or felt.excess < _SLIGHT:
            return "profiles: hardly feels these neighbours"
        apps, weights = self._members.apps, self._members.weights
        pressing = [
            ((1.0 if weights is None else weights[i][j]) * vector.pressure[k], apps[j].key)
            for j, vector in enumerate(self.vectors)
            if vector is not None and j != i
        ]
        pressing.sort(reverse=True)
        by = ", ".join([f"{key} {pressure:.2f}" for pressure, key in pressing[:_NAMED] if pressure > _SLIGHT])
        more = " and others" if len(pressing) > _NAMED else ""
        ignored = " (some kinds not measured)" if felt.ignorance > 0.0 else ""
        return f"{1 + felt.excess:.2f}x by profiles, most by {WORDS[FELT[k]]}: {by}{more}{ignored}"
