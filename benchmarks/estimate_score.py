"""How well models predicted the co-runs that `estimate_corun.py` measured: the scoring half, without measuring.

    rows = estimate_score.read(json.loads(table.read_text()))
    scores = estimate_score.score(rows, profiles)
    estimate_score.show(scores, noise)

Discipline. Two whole applications (`drawn` by a seed) are in nothing that is fitted: in no pair that models see, in no
pair that constants are fitted on; sets that hold one are scored by themselves. Triples and quadruples are never seen
and never fitted on. A pair is predicted by models that saw a part of the others (five folds); larger sets by models
that saw all pairs. Constants of the models are chosen on pairs alone too (`estimate_fit`).

Sets that fit the cores and those in which cores are shared are scored apart, and so are pairs of an application with
itself. All models have the same CPU-share term;
R2 is of slowdowns over that term, so that nobody is praised for knowing that two on one core take twice as long.
Errors are relative to what was measured, as it was measured. An interval is of the slowdown, not of its next noisy
measurement: for coverage both ends move out by the measurement's own half-width (in squares), and a measured value
below 1 counts as 1, which is where intervals end.
"""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tandem.estimate import estimators, sharing
from tandem.estimate.corun import App, Capacity, CoRun, Estimator, Slowdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tandem.estimate.profile import Profile

HELD_OUT_SEED, HELD_OUT_COUNT = 3, 2
"""The draw of the applications that are held out; the seed is that of the plan of what is measured."""

MODELS = ("none", "proportional", "additive", "worst_pair", "bubble", "learned")
FOLDS = 5
OBSERVED_S = 30.0
"""Length of a measured stretch, as models are told it."""

_NORMAL_HALF = 1.6449 * 1.4826
"""Half-width of a 90 % interval over the median absolute deviation, for normal errors."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured set: members, the core that each was pinned to, slowdowns (None where there was no rate).

    ``halves`` are half-widths of their 90 % intervals.
    """

    members: tuple[str, ...]
    cores: tuple[int, ...]
    slowdowns: tuple[float | None, ...]
    halves: tuple[float | None, ...]

    @property
    def fits(self) -> bool:
        """Whether each member had a core of its own."""
        return len(set(self.cores)) == len(self.cores)

    def apps(self) -> tuple[App, ...]:
        """The members as models are asked about them; where all had cores of their own nothing is said of cores."""
        if self.fits:
            return tuple(App(key) for key in self.members)
        return tuple(App(key, cores=(core,)) for key, core in zip(self.members, self.cores, strict=True))


@dataclass(frozen=True, slots=True)
class Point:
    """One member: what was measured (with its half-width) and predicted, and the part of both that is CPU time."""

    measured: float
    half: float
    predicted: Slowdown
    stretch: float


@dataclass(frozen=True, slots=True)
class Score:
    """Of one model on one group of sets; errors in percent, coverage a fraction."""

    median: float
    mean: float
    r2: float
    coverage90: float
    count: int


def read(raw: Mapping[str, Any]) -> list[Row]:
    """The sets of the table; what was measured again to see noise is left out."""
    return [
        Row(tuple(one["set"]), tuple(one["cores"]), tuple(one["slowdowns"]), tuple(one["halves"]))
        for one in raw["sets"]
        if "again" not in one.get("kind", "")
    ]


def drawn(keys: Iterable[str]) -> tuple[str, ...]:
    """The applications that are held out, by a seeded draw from all names in order; none where there are too few.

    >>> drawn(["cg", "lu", "sort", "stream", "fft3d"])
    ('cg', 'lu')
    """
    names = sorted(set(keys))
    if len(names) < 2 * HELD_OUT_COUNT:
        return ()
    return tuple(sorted(random.Random(HELD_OUT_SEED).sample(names, HELD_OUT_COUNT)))


def noise_floor(raw: Mapping[str, Any]) -> float | None:
    """Percent by which the same measurement with nobody beside differs from 1, in the mean over applications."""
    off = [abs(one["ratio"] - 1.0) for one in raw["noise"]]
    return 100 * statistics.fmean(off) if off else None


def between(raw: Mapping[str, Any]) -> float:
    """Relative half-width by which a pair's slowdown differs at another time, beyond what its own interval says.

    From the pairs that were measured again; 0 where there are none. Intervals come from windows of a few seconds, and a
    machine that is not one's own has moods that last longer.
    """
    first = {tuple(one["set"]): one for one in raw["sets"] if one.get("kind") == "pair"}
    apart, own = [], []
    for again in raw["sets"]:
        before = first.get(tuple(again["set"]))
        if "again" in again.get("kind", "") and before is not None:
            for a, b, *halves in zip(
                before["slowdowns"], again["slowdowns"], before["halves"], again["halves"], strict=True
            ):
                if a and b:
                    apart.append(abs(b / a - 1.0))
                    own += [half / mid for half, mid in zip(halves, (a, b), strict=True)]
    if not apart:
        return 0.0
    single = _NORMAL_HALF * statistics.median(apart) / math.sqrt(2.0)
    return math.sqrt(max(0.0, single**2 - statistics.median(own) ** 2))


def score(
    rows: Sequence[Row],
    profiles: Sequence[Profile],
    held_out: Sequence[str] | None = None,
    apart: float = 0.0,
) -> dict[str, dict[str, Score]]:
    """Group of sets -> model -> score. Groups without a set are absent.

    Args:
        rows: what was measured.
        profiles: what models know.
        held_out: applications that no model sees in a pair; those `drawn` from all in ``rows`` unless given.
        apart: see `between`; models are told pairs that scatter so much the more.
    """
    if held_out is None:
        held_out = drawn(key for row in rows for key in row.members)
    found: dict[str, dict[str, list[Point]]] = {}
    inside = [row for row in rows if not set(row.members) & set(held_out)]
    pairs = [row for row in inside if len(row.members) == 2 and row.fits]
    for name in MODELS:
        models: dict[tuple[Row, ...], Estimator] = {}
        for group, row, known in _questions(rows, pairs, held_out):
            if known not in models:
                models[known] = estimators.make(name, told(known, apart), tuple(profiles))
            model = models[known]
            found.setdefault(group, {}).setdefault(name, []).extend(points(row, model, profiles))
    return {
        group: {name: summarise(one) for name, one in by_model.items() if one}
        for group, by_model in sorted(found.items())
    }


def figures(scores: Mapping[str, Mapping[str, Score]], noise: float | None) -> dict[str, float | None]:
    """The benchmark's figures that come from scoring; None where the group was not measured."""

    def of(groups: Sequence[str], model: str, what: str) -> float | None:
        return _over(scores, groups, model, what)

    fitting = [group for group in scores if group.endswith("that fit")]
    larger = [group for group in scores if group.startswith(("3 ", "4 "))]
    larger = [group for group in larger if group in fitting] or larger
    return {
        "noise_floor": noise,
        "bubble_median": of(fitting, "bubble", "median"),
        "bubble_mean": of(fitting, "bubble", "mean"),
        "learned_mean_3_4": of(larger, "learned", "mean"),
        "additive_mean_3_4": of(larger, "additive", "mean"),
        "worst_pair_mean_3_4": of(larger, "worst_pair", "mean"),
        "coverage90": of(larger, "learned", "coverage90"),
    }


def perfect(rows: Iterable[Row]) -> float | None:
    """Mean error in percent of a model that knew every true slowdown, for normal errors of the measured half-widths.

    The mean of |x| of a normal x is sqrt(2 / pi) of its standard deviation, and the half-width of a 90 % interval is
    1.6449 of it.
    """
    off = [
        half / 1.6449 * math.sqrt(2.0 / math.pi) / slowdown
        for row in rows
        for slowdown, half in zip(row.slowdowns, row.halves, strict=True)
        if slowdown is not None and half is not None
    ]
    return 100 * statistics.fmean(off) if off else None


def goals(scores: Mapping[str, Mapping[str, Score]], noise: float | None) -> Iterator[str]:
    """What was to be reached on sets that fit the cores, and what was; where there are none, on those that share them.

    Larger sets are those of applications that models saw in pairs.
    """
    fitting = [group for group in scores if group.endswith("that fit")]
    larger = [group for group in scores if group.startswith(("3 ", "4 "))]
    larger = [group for group in larger if group in fitting] or larger
    noise = noise or 0.0
    for model, groups, usual in (("bubble", fitting, 5.0), ("learned", larger, 4.0)):
        if (mean := _over(scores, groups, model, "mean")) is None:
            continue
        most = max(usual, 1.5 * noise)
        yield f"{model}: mean {mean:.1f} %, goal at most {most:.1f} %: {'reached' if mean <= most else 'missed'}"
        for other in ("proportional", "additive", "worst_pair"):
            theirs = _over(scores, groups, other, "mean")
            if theirs is not None:
                yield f"{model}: {'better' if mean < theirs else 'not better'} than {other} ({theirs:.1f} %) there"
    for groups, name in ((fitting, "all that fit"), (larger, "triples and quadruples")):
        if (held := _over(scores, groups, "learned", "coverage90")) is not None:
            verdict = "reached" if 0.85 <= held <= 0.95 else "missed"
            yield f"coverage of {name}: {held:.2f}, goal 0.85 to 0.95: {verdict}"


def _over(scores: Mapping[str, Mapping[str, Score]], groups: Sequence[str], model: str, what: str) -> float | None:
    """A figure over several groups, each by its slowdowns."""
    found = [scores[group][model] for group in groups if model in scores[group]]
    count = sum(one.count for one in found)
    return sum(getattr(one, what) * one.count for one in found) / count if count else None


def show(scores: Mapping[str, Mapping[str, Score]]) -> None:
    """Print the table."""
    for group, models in scores.items():
        print(f"{group} ({next(iter(models.values())).count} slowdowns)")
        for name, one in models.items():
            errors = f"median {one.median:5.1f} %  mean {one.mean:5.1f} %"
            print(f"  {name:13s} {errors}  R2 {one.r2:6.2f}  coverage {one.coverage90:.2f}")


def told(pairs: Iterable[Row], apart: float = 0.0) -> tuple[CoRun, ...]:
    """Measured pairs as models are told them: three stretches each, which scatter as the measurement did.

    ``apart`` is the relative half-width by which it differs at other times (`between`).
    """
    rows = list(pairs)
    keys = sorted({key for row in rows for key in row.members})
    coruns = [CoRun(key, (), 1.0, OBSERVED_S) for key in keys]
    for row in rows:
        for own, other, slowdown, half in zip(
            row.members, reversed(row.members), row.slowdowns, row.halves, strict=True
        ):
            if slowdown is not None:
                off = math.hypot(half or 0.0, apart * slowdown) / _NORMAL_HALF
                coruns += [CoRun(own, (other,), 1.0 / (slowdown + shift), OBSERVED_S) for shift in (-off, 0.0, off)]
    return tuple(coruns)


def summarise(points: Sequence[Point]) -> Score:
    """Errors, R2 without the CPU share, and coverage."""
    errors = [100 * abs(point.predicted.mid / point.measured - 1) for point in points]
    measured = [point.measured / point.stretch for point in points]
    missed = sum((m - point.predicted.mid / point.stretch) ** 2 for m, point in zip(measured, points, strict=True))
    mean = statistics.fmean(measured)
    total = sum((m - mean) ** 2 for m in measured)
    return Score(
        statistics.median(errors),
        statistics.fmean(errors),
        1 - missed / total if total else float("nan"),
        statistics.fmean(map(_covered, points)),
        len(points),
    )


def _covered(point: Point) -> bool:
    mid, low, high = point.predicted[:3]
    off = max(1.0, point.measured) - mid
    return -math.hypot(mid - low, point.half) <= off <= math.hypot(high - mid, point.half)


def _questions(
    rows: Sequence[Row], pairs: Sequence[Row], held_out: Sequence[str]
) -> Iterator[tuple[str, Row, tuple[Row, ...]]]:
    """Each set with its group, and the pairs that models may have seen."""
    folds = {row: fold for fold, row in ((k % FOLDS, row) for k, row in enumerate(pairs))}
    for row in rows:
        fitting = "that fit" if row.fits else "that share cores"
        twins = " (an application with itself)" if len(set(row.members)) < len(row.members) else ""
        group = f"{len(row.members)} members{twins} {fitting}"
        if set(row.members) & set(held_out):
            group = f"with an application held out, {group}"
        known = [pair for pair in pairs if folds[pair] != folds[row]] if row in folds else pairs
        yield group, row, tuple(known)


def points(row: Row, model: Estimator, profiles: Sequence[Profile]) -> list[Point]:
    """What a model says of each member of a set that was measured."""
    apps = row.apps()
    node = Capacity(1000 * max(len(apps), len(set(row.cores))))
    shares = sharing.share(apps, node, sharing.needs(profiles))
    return [
        Point(measured, row.halves[i] or 0.0, answer, shares.stretch[i] if shares else 1.0)
        for i, (measured, answer) in enumerate(zip(row.slowdowns, model.predict(apps, node), strict=True))
        if measured is not None
    ]
