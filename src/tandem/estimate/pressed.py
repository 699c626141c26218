"""The profiled members of one set: what each feels of the others together, and in words."""

from __future__ import annotations

from operator import add, mul, sub
from typing import TYPE_CHECKING

from tandem.estimate import contention
from tandem.estimate.contention import FELT, KINDS_FELT, WORDS, Contended, Vector
from tandem.estimate.prior import UNKNOWN_EXCESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tandem.estimate.answering import Members
    from tandem.estimate.corun import App

_NOTHING = (0.0,) * (2 * KINDS_FELT + 1)
_FEW = 3
_NAMED = 3
_SLIGHT = 0.005


class Pressed:
    """What the profiled members of a set do to each other."""

    __slots__ = ("_loads", "_members", "_there", "_total", "_whole", "unprofiled", "vectors")

    def __init__(self, members: Members, known: Mapping[str, Vector]) -> None:
        self._members = members
        self.vectors: list[Vector | None] = []
        self._there: list[Vector] = []
        self._whole = True
        self._loads: dict[tuple[float, ...], Sequence[float]] = {}
        there, get = self._there, known.get
        for app in members.apps:
            vector = get(app.key)
            self.vectors.append(vector)
            if vector is not None:
                there.append(vector)
                self._whole = self._whole and vector.whole
        self.unprofiled = len(self.vectors) - len(there)
        self._total: list[float] = []
        if members.weights is None and len(there) > _FEW:
            self._total = list(map(sum, zip(*[vector.load for vector in there], strict=True)))

    def on(self, i: int) -> Contended | None:
        """What member ``i`` feels of the profiled ones; None where it has no profile itself."""
        one = self.vectors[i]
        if one is None:
            return None
        weights = self._members.weights
        if weights is not None and not any(weights[i]):  # all are on its core
            return Contended(0.0, 0.0, 0.0, -1)
        load = self._load(i, one) if weights is None else self._weighted_load(weights[i])
        felt = contention.feel(one, load)
        if not self._whole:
            unknown = contention.ignorance(one, load[:KINDS_FELT], self._weighted_silence(i))
            felt.ignorance = min(unknown, UNKNOWN_EXCESS**2 * load[-1])  # as of neighbours of which nothing is known
        return felt

    def beside(self, i: int) -> list[App]:
        """All members but one."""
        return [app for j, app in enumerate(self._members.apps) if j != i]

    def words(self, i: int) -> str:
        """What contends for what with profiled member ``i``."""
        one, felt = self.vectors[i], self.on(i)
        assert one is not None
        assert felt is not None
        ignored = f" ({self._unknown(i, one)})" if felt.ignorance > 0.0 else ""
        if felt.kind < 0 or felt.excess < _SLIGHT:
            weights = self._members.weights
            if weights is not None and not any(weights[i]):
                return "nobody runs on another core meanwhile"
            apart = weights is None or len(weights) - 1 == sum(weight > 0.0 for weight in weights[i])
            whom = "these neighbours" if apart else "those on other cores"
            return f"profiles: hardly feels {whom}{ignored}"
        load = self._load(i, one) if self._members.weights is None else self._weighted_load(self._members.weights[i])
        for excess, k in contention.felt_kinds(one, load):
            by = self._pressing(i, k) if excess >= _SLIGHT else ""
            if by:
                return f"{1 + felt.excess:.2f}x by profiles, most by {WORDS[FELT[k]]}: {by}{ignored}"
        return (
            f"{1 + felt.excess:.2f}x by profiles, none of it for certain: every pressure is within its noise{ignored}"
        )

    def _unknown(self, i: int, one: Vector) -> str:
        """What of member ``i`` and those beside it was not measured."""
        beside = [
            (app.key, vector)
            for j, (app, vector) in enumerate(zip(self._members.apps, self.vectors, strict=True))
            if vector is not None and j != i and self._members.weight(i, j) > 0.0
        ]
        unseen = [f"what slows it in {', '.join(one.unseen)}"] if one.unseen else []
        presses = dict.fromkeys(
            [f"{key} presses in {', '.join(vector.unseen)}" for key, vector in beside if vector.unseen]
        )
        if presses:
            more = " and others" if len(presses) > _NAMED else ""
            unseen.append(f"how hard {' and '.join([*presses][:_NAMED])}{more}")
        known = f"{' and '.join(unseen)} {'are' if len(unseen) > 1 else 'is'} not known" if unseen else ""
        if not one.partly_numb and not any(vector.partly_silent for _, vector in beside):
            return known
        return f"{known}, nor are some kinds elsewhere" if known else "some kinds are not known"

    def _pressing(self, i: int, k: int) -> str:
        """Who presses on the ``k``-th kind beside member ``i``, for certain, and how hard; "" for nobody."""
        members = self._members
        pressing = [
            (vector.pressure[k] if vector.sure[k] else 0.0, app.key, vector.said[k])
            for app, vector in zip(members.apps, self.vectors, strict=True)
            if vector is not None
        ]
        if members.weights is not None:
            weighed = zip(pressing, self._weights(i), strict=True)
            pressing = [(w * p, key, f"{w * p:.2f}") for (p, key, _), w in weighed if w > 0.0]
        else:
            del pressing[i - self.vectors[:i].count(None)]
        named = sorted([one for one in pressing if one[0] > _SLIGHT], reverse=True)
        more = " and others" if len(named) > _NAMED else ""
        return ", ".join([f"{key} {said}" for _, key, said in named[:_NAMED]]) + more

    def _load(self, i: int, one: Vector) -> Sequence[float]:
        """The sum of the others' loads; of one or two it is had faster than by taking one's own out of all."""
        if self._total:
            return list(map(sub, self._total, one.load))
        others = self._there.copy()
        del others[i - self.vectors[:i].count(None) if self.unprofiled else i]
        if len(others) == 1:
            return others[0].load
        return list(map(add, others[0].load, others[1].load)) if others else _NOTHING

    def _weights(self, i: int) -> list[float]:
        """Of the profiled members, beside member ``i``; 0 for itself."""
        return [
            self._members.weight(i, j) if i != j else 0.0 for j, vector in enumerate(self.vectors) if vector is not None
        ]

    def _weighted_load(self, weights: tuple[float, ...]) -> Sequence[float]:
        """The sum of the others' loads, by how much of the time each is there; those on one core have the same."""
        load = self._loads.get(weights)
        if load is None:
            for vector, weight in zip(self.vectors, weights, strict=True):
                if vector is not None and weight > 0.0:
                    weighed = map(mul, vector.load, (weight,) * KINDS_FELT + (weight * weight,) * (KINDS_FELT + 1))
                    load = list(weighed if load is None else map(add, load, weighed))
            load = self._loads[weights] = load or _NOTHING
        return load

    def _weighted_silence(self, i: int) -> list[float]:
        """Of each kind, how many others there are of which it was not measured how hard they press on it."""
        total = [0.0] * KINDS_FELT
        for vector, weight in zip(self._there, self._weights(i), strict=True):
            if weight > 0.0:
                total = [so_far + weight * value for so_far, value in zip(total, vector.silent, strict=True)]
        return total
