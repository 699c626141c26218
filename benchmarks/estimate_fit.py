"""Constants of the models, chosen on measured pairs: what `estimate_corun.py --fit` prints.

Run: `python benchmarks/estimate_corun.py --fit`. It prints each constant as the pairs of the table would have it,
beside the one in the source, and changes nothing.

Only pairs that fit the cores and hold none of the held-out applications are used (`estimate_score.drawn`); no triple,
no quadruple. `Physics` are the constants of `tandem.estimate.contention`, chosen for profiles alone: GAIN, EXPONENT,
MOST and DOUBT by the least mean error over a grid, SPREAD as the least whose intervals hold nine tenths of the pairs.
RIDGE of `tandem.estimate.inferred` is chosen for `learned`, on pairs left out of what it saw.

How far such a choice can be trusted: each application is left out in turn, with all its pairs; constants are chosen on
the other pairs and tried on those. The mean error of these trials stands beside that of the constants in the source,
and each constant is shown with how many of the trials agree with it.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.estimate_score import FOLDS, Row, points, summarise, told
from tandem.estimate import contention, estimators, inferred

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.estimate_score import Point
    from tandem.estimate.profile import Profile


class Physics(NamedTuple):
    """Constants of `tandem.estimate.contention`, by their names there in lower case."""

    gain: float
    exponent: float
    spread: float
    most: float
    doubt: float


GAINS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4)
EXPONENTS = (1.0, 1.5, 2.0, 3.0, 8.0)
SPREADS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0)
MOSTS = (0.5, 0.75, 1.0, 1.5, 4.0)
DOUBTS = (0.0, 0.5, 1.0, 2.0)
_TRIED = {"gain": GAINS, "exponent": EXPONENTS, "spread": SPREADS, "most": MOSTS, "doubt": DOUBTS}
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)


class Fitted(NamedTuple):
    """What the pairs say.

    Attributes:
        constants: the best over all pairs.
        ridge: the same for `tandem.estimate.inferred.RIDGE`.
        agreed: for each constant, the part of the trials that chose the same.
        trial_mean: mean error in percent on pairs of an application that was left out of the choice.
        source_mean: the same of the constants in the source, on the same pairs.
        pairs: how many were used.
    """

    constants: Physics
    ridge: float
    agreed: Mapping[str, float]
    trial_mean: float
    source_mean: float
    pairs: int


def in_source() -> Physics:
    """The constants as they are."""
    return Physics(*(getattr(contention, name.upper()) for name in Physics._fields))


def fit(rows: Sequence[Row], profiles: Sequence[Profile], held_out: Sequence[str], apart: float = 0.0) -> Fitted:
    """Choose all constants; see the module.

    Args:
        rows: what was measured; larger sets, and sets with an application of ``held_out``, are passed over.
        profiles: of the applications.
        held_out: see `estimate_score.drawn`.
        apart: see `estimate_score.between`.

    Raises:
        ValueError: There is no pair to choose on.
    """
    pairs = [row for row in rows if len(row.members) == 2 and row.fits and not set(row.members) & set(held_out)]
    if not pairs:
        message = "no pair that fits the cores and holds nobody held out"
        raise ValueError(message)
    tried = {constants: _errors(pairs, profiles, constants) for constants in _grid()}
    every = range(len(pairs))
    best = _least(tried, every)
    apps = sorted({key for row in pairs for key in row.members})
    chosen, trials, sources = [], [], []
    source = _errors(pairs, profiles, in_source())
    for app in apps:
        without = [k for k in every if app not in pairs[k].members]
        within = [k for k in every if app in pairs[k].members]
        one = _least(tried, without or every)
        chosen.append(one)
        trials += [error for k in within for error in tried[one][k]]
        sources += [error for k in within for error in source[k]]
    names = [name for name in Physics._fields if name != "spread"]
    counts = {name: Counter(getattr(one, name) for one in chosen) for name in names}
    return Fitted(
        _with_spread(pairs, profiles, best),
        _ridge(pairs, profiles, apart),
        {name: counts[name][getattr(best, name)] / len(apps) for name in names},
        statistics.fmean(trials),
        statistics.fmean(sources),
        len(pairs),
    )


def show(found: Fitted) -> None:
    """Print the constants beside those in the source."""
    now = in_source()
    print(f"constants, chosen on {found.pairs} pairs (in the source; part of the trials that agree)")
    for name, value in found.constants._asdict().items():
        agreed = f"; {found.agreed[name]:.2f}" if name in found.agreed else ""
        print(f"  {name.upper():9s} {value:5g}  ({getattr(now, name):g}{agreed}){_at_the_end(value, _TRIED[name])}")
    print(f"  {'RIDGE':9s} {found.ridge:5g}  ({inferred.RIDGE:g}){_at_the_end(found.ridge, RIDGES)}")
    print(
        f"  each application left out in turn: mean error {found.trial_mean:.1f} % with constants chosen on the "
        f"others, {found.source_mean:.1f} % with those in the source"
    )


def _at_the_end(value: float, tried: Sequence[float]) -> str:
    return ", at the end of what was tried" if value in (tried[0], tried[-1]) else ""


@contextmanager
def physics(constants: Physics) -> Iterator[None]:
    """Other constants of `tandem.estimate.contention`, within the block."""
    before = in_source()
    _put(constants)
    try:
        yield
    finally:
        _put(before)


def _put(constants: Physics) -> None:
    for name, value in constants._asdict().items():
        setattr(contention, name.upper(), value)


def _grid() -> list[Physics]:
    """All but SPREAD, which is no part of the middle; those most like the source first, so that ties go to them."""
    now = in_source()
    rest = [Physics(*one) for one in itertools.product(GAINS, EXPONENTS, (now.spread,), MOSTS, DOUBTS)]
    rest.sort(key=lambda one: sum(a != b for a, b in zip(one, now, strict=True)))
    return [now, *rest]


def _predicted(pairs: Sequence[Row], profiles: Sequence[Profile], constants: Physics) -> list[list[Point]]:
    with physics(constants):
        model = estimators.make("bubble", (), tuple(profiles))
        return [points(row, model, profiles) for row in pairs]


def _errors(pairs: Sequence[Row], profiles: Sequence[Profile], constants: Physics) -> list[list[float]]:
    """Errors in percent of each pair's members."""
    return [
        [100 * abs(one.predicted.mid / one.measured - 1) for one in found]
        for found in _predicted(pairs, profiles, constants)
    ]


def _least(tried: Mapping[Physics, Sequence[Sequence[float]]], pairs: Sequence[int]) -> Physics:
    def mean(constants: Physics) -> float:
        return round(statistics.fmean(error for k in pairs for error in tried[constants][k]), 6)

    return min(tried, key=mean)


def _with_spread(pairs: Sequence[Row], profiles: Sequence[Profile], best: Physics) -> Physics:
    for spread in SPREADS:
        one = best._replace(spread=spread)
        found = [point for points_ in _predicted(pairs, profiles, one) for point in points_]
        if summarise(found).coverage90 >= 0.9:
            return one
    return best._replace(spread=SPREADS[-1])


def _ridge(pairs: Sequence[Row], profiles: Sequence[Profile], apart: float) -> float:
    """By the mean error of `learned` on each fifth of the pairs, which it has not seen."""

    def mean(ridge: float) -> float:
        errors: list[float] = []
        with _set(ridge):
            for fold in range(FOLDS):
                seen = told([row for k, row in enumerate(pairs) if k % FOLDS != fold], apart)
                model = estimators.make("learned", seen, tuple(profiles))
                found = [point for row in pairs[fold::FOLDS] for point in points(row, model, profiles)]
                errors += [abs(one.predicted.mid / one.measured - 1) for one in found]
        return statistics.fmean(errors)

    return min(RIDGES, key=mean)


@contextmanager
def _set(ridge: float) -> Iterator[None]:
    before, inferred.RIDGE = inferred.RIDGE, ridge
    try:
        yield
    finally:
        inferred.RIDGE = before
