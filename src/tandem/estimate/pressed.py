"""The profiled members of one set: what each feels of the others together, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.estimate import contention
from tandem.estimate.contention import FELT, WORDS, Contended, Vector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tandem.estimate.answering import Members

_NOTHING = (0.0,) * len(FELT)
_NAMED = 3
_SLIGHT = 0.005


class Pressed:
    """What the profiled members of a set do to each other."""

    __slots__ = ("_halves", "_members", "_pressures", "_whole", "unprofiled", "vectors")

    def __init__(self, members: Members, known: Mapping[str, Vector]) -> None:
        self._members = members
        self.vectors = [known.get(app.key) for app in members.apps]
        self.unprofiled = [j for j, vector in enumerate(self.vectors) if vector is None]
        self._whole = all(vector is None or vector.whole for vector in self.vectors)
        self._pressures = [_NOTHING if vector is None else vector.pressure for vector in self.vectors]
        self._halves = [_NOTHING if vector is None else vector.pressure_half for vector in self.vectors]

    def on(self, i: int) -> Contended | None:
        """What member ``i`` feels of the profiled ones; None where it has no profile itself."""
        one = self.vectors[i]
        if one is None:
            return None
        rows = range(len(self.vectors))
        if self._members.weights is None:
            others = [(1.0, j) for j in rows if j != i]
        else:
            others = [(weight, j) for j, weight in enumerate(self._members.weights[i]) if weight > 0.0]
        pressed, variance = list(_NOTHING), list(_NOTHING)
        for weight, j in others:
            for k, pressure in enumerate(self._pressures[j]):
                if pressure > 0.0:
                    pressed[k] += weight * pressure
                    half = weight * self._halves[j][k]
                    variance[k] += half * half
        unsaid = list(_NOTHING)
        if not self._whole:
            for weight, j in others:
                if (vector := self.vectors[j]) is not None:
                    unsaid = [said + weight * silent for said, silent in zip(unsaid, vector.silent, strict=True)]
        return contention.feel(one, pressed, variance, unsaid)

    def words(self, i: int, felt: Contended) -> str:
        """What contends for what."""
        k = felt.kind
        if k < 0 or felt.excess < _SLIGHT:
            return "profiles: hardly feels these neighbours"
        pressing = sorted(
            (
                (-self._members.weight(i, j) * pressures[k], self._members.apps[j].key)
                for j, pressures in enumerate(self._pressures)
                if j != i and pressures[k] > 0.0
            ),
        )
        by = ", ".join([f"{key} {-pressure:.2f}" for pressure, key in pressing[:_NAMED]])
        more = " and others" if len(pressing) > _NAMED else ""
        ignored = " (some kinds not measured)" if felt.ignorance > 0.0 else ""
        return f"{1 + felt.excess:.2f}x by profiles, most by {WORDS[FELT[k]]}: {by}{more}{ignored}"
