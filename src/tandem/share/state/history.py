"""How long jobs take and how fast they go alone, learned from those that ended.

Durations are robust: the median of an application's last runs, with an interval from the pooled spread of all
applications around their own medians (so that two runs of a new application already get an honest interval).
Runs with the same arguments (`Job.variant`) count first. Where there are none, the user's expected duration counts,
times how wrong the same user was about first runs with new arguments, once there are some; then the application's runs
with other arguments, in an interval as wide as first runs with new arguments have missed them; then the limit; then a
wide prior. A job without a variant was named by its user, who says by that that all runs of the name are alike. All of
it is a pure function of what was told.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

from tandem.estimate.observed import LEAST_S
from tandem.share.model import NOTHING, OTHER_ARGUMENTS, Interval, Job
from tandem.share.state.quantiles import Quantiles

if TYPE_CHECKING:
    from collections.abc import Mapping

K = TypeVar("K")

RUNS = 32
"""Runs remembered for each application."""

POOL = 256
"""Residuals remembered over all applications."""

PRIOR_S = (1.0, 600.0, 14_400.0)
"""5 %, median and 95 % of the duration of a job that nothing is known of."""

PRIOR_LOG_SPREAD = 0.25
"""Assumed half-width (5 % to 95 %) of log(duration / median) until enough runs were seen."""

VARIANTS = 1024
"""Sets of arguments whose runs are remembered; those that ran longest ago are forgotten first."""

VARIANT_RUNS = 8
"""Runs remembered for each set of arguments."""

PRIOR_LOG_USER = 0.5
"""Assumed half-width of log(duration / what the user expected) until enough was seen."""

PRIOR_LOG_OTHERS = 2.3
"""Assumed half-width of log(duration / median of runs with other arguments) until enough was seen: a factor of 10."""

RATES = 32

USERS = 1024
"""Users whose expectations are remembered; those whose first runs with new arguments lie longest ago are forgotten."""

RATIOS_LEAST = 8
"""From so many errors on a user's expectation, or a limit, is corrected by their median; fewer only widen."""

WORTH_SAYING = 0.05
"""A correction of a user's expectation by more than this part is said."""

GUESS = 16.0
"""An expected duration whose interval spans more than this factor is a guess."""

_EXPECTED = "its expected duration"


class History:
    """Durations and solo rates by application key."""

    def __init__(self) -> None:
        self._runs: dict[str, Quantiles] = {}
        self._residuals = Quantiles(POOL)  # log(duration / median of the application's earlier runs)
        self._variants: OrderedDict[tuple[str, str], Quantiles] = OrderedDict()
        self._others: dict[str, Quantiles] = {}  # |log(first run with new arguments / median)|
        self._all_others = Quantiles(POOL)
        self._user_ratios: OrderedDict[int, Quantiles] = OrderedDict()  # log(first duration / what that user expected)
        self._limit_ratio = Quantiles(POOL)  # log(duration / limit)
        self._alone: OrderedDict[tuple[str, str], Quantiles] = OrderedDict()  # by application and variant
        # Steps and seconds alone that are not counted yet, by application and variant.
        self._moments: OrderedDict[tuple[str, str], list[float]] = OrderedDict()
        self._reference: dict[str, str] = {}  # the variant whose steps the estimator counts in, by application

    def ended(self, job: Job, seconds: float) -> None:
        """``job`` ended well after ``seconds`` of running, in effect alone (slowdown taken out)."""
        if seconds <= 0:
            return
        if job.limit_s:
            self._limit_ratio.add(math.log(seconds / job.limit_s))
        runs = self._runs.get(job.app) if job.app else Quantiles(RUNS)
        if runs is None:
            runs = self._runs[job.app] = Quantiles(RUNS)
        alike = _of(self._variants, job, VARIANT_RUNS) if job.app and job.variant else runs
        if job.expected_s and not len(alike):  # later ones go by the first
            _latest(self._user_ratios, job.uid, POOL, USERS).add(math.log(seconds / job.expected_s))
        if not job.app:
            return
        if len(alike):
            self._residuals.add(math.log(seconds / alike.at(0.5)))
        elif len(runs):
            missed = abs(math.log(seconds / runs.at(0.5)))
            self._all_others.add(missed)
            self._others.setdefault(job.app, Quantiles(RUNS)).add(missed)
        if alike is not runs:
            alike.add(seconds)
        runs.add(seconds)

    def expect(self, job: Job) -> tuple[Interval, str]:
        """How long the job will run alone, and in words what that rests on."""
        runs = self._runs.get(job.app) if job.app else None
        alike = self._variants.get((job.app, job.variant)) if job.variant else runs
        if alike is not None and len(alike):
            low, high = self._residuals.spread(PRIOR_LOG_SPREAD)
            return _around(alike, low, high, job), _runs_of(alike, job)
        if job.expected_s:
            factors = self._factors_of(job.uid)
            return _scaled(job.expected_s, factors, job), _EXPECTED if abs(factors[1] - 1) < WORTH_SAYING else (
                f"{_EXPECTED}, times {factors[1]:.2g} as this user's other programmes took that part of theirs"
            )
        if runs is not None and len(runs):
            width = self._width_of_others(job.app)
            return _around(runs, -width, width, job), f"{_runs_of(runs, job)} {OTHER_ARGUMENTS}"
        if job.limit_s:
            few = len(self._limit_ratio) < RATIOS_LEAST
            factors = (0.05, 0.6, 1.0) if few else self._limit_ratio.factors(1.0)
            return _scaled(job.limit_s, factors, job), "its time limit"
        low, mid, high = PRIOR_S
        return Interval(low, mid, high), NOTHING

    def rests_on_runs(self, job: Job) -> bool:
        """Whether `expect` goes by runs with the same arguments."""
        alike = self._variants.get((job.app, job.variant)) if job.variant else self._runs.get(job.app)
        return bool(job.app and alike is not None and len(alike))

    def knows_only_others(self, job: Job) -> bool:
        """Whether runs with other arguments are all that `expect` goes by."""
        if not job.variant or job.expected_s or (job.app, job.variant) in self._variants:
            return False
        return job.app in self._runs

    def observe_rate(self, job: Job, rate: float, seconds: float = LEAST_S) -> float | None:
        """``job`` went at ``rate`` steps per second alone; moments count as one rate once they make a second.

        Returns:
            The rate that counts, or None where none does yet.
        """
        if not job.app or rate <= 0:
            return None
        if seconds < LEAST_S:
            key = job.app, job.variant
            steps, held_s = self._moments.pop(key, (0.0, 0.0))
            steps, held_s = steps + rate * seconds, held_s + seconds
            if held_s < LEAST_S - 1e-9:
                self._moments[key] = [steps, held_s]
                if len(self._moments) > VARIANTS:
                    self._moments.popitem(last=False)
                return None
            rate = steps / held_s
        self._reference.setdefault(job.app, job.variant)
        _of(self._alone, job, RATES).add(rate)
        return rate

    def alone_rate(self, job: Job) -> float | None:
        """Median solo rate with the job's arguments, or None if these were never measured alone."""
        rates = self._alone.get((job.app, job.variant))
        return rates.at(0.5) if rates is not None else None

    def alone_noise(self, job: Job) -> float:
        """Relative half-width of the solo rate's 90 % interval, at least 4 %; 8 % where too little is known."""
        return self.measured_noise(job) or 0.08

    def measured_noise(self, job: Job) -> float:
        """The same, but 0 where the job was measured alone less than three times."""
        rates = self._alone.get((job.app, job.variant))
        if rates is None or len(rates) < 3:
            return 0.0
        return max(0.04, (rates.at(0.95) - rates.at(0.05)) / (2 * rates.at(0.5)))

    def takes_over(self, job: Job) -> bool:
        """Whether the job's arguments stand for its application from now on, as those of before never ran alone.

        What was learned in steps of those then says nothing, nor ever would.
        """
        first = self._reference.get(job.app)
        if first is None or first == job.variant or (job.app, first) in self._alone or self.alone_rate(job) is None:
            return False
        self._reference[job.app] = job.variant
        return True

    def reference_rate(self, job: Job, rate: float) -> float | None:
        """``rate`` as the application's first arguments would have shown it: the estimator knows applications only.

        A step of other arguments is another step: their rates are comparable once both were seen alone. None before.
        """
        self._reference.setdefault(job.app, job.variant)
        return self.in_reference_steps(job.app, job.variant, rate)

    def in_reference_steps(self, app: str, variant: str, rate: float) -> float | None:
        """`reference_rate` by what is known by now, of a job that may be long gone; None where nothing was measured."""
        first = self._reference.get(app)
        if first is None or first == variant:
            return rate if first == variant else None
        theirs, own = self._alone.get((app, first)), self._alone.get((app, variant))
        return rate * theirs.at(0.5) / own.at(0.5) if theirs is not None and own is not None else None

    def _factors_of(self, uid: int) -> tuple[float, float, float]:
        """What the user's expectation is multiplied by: 5 %, median and 95 %."""
        ratios = self._user_ratios.get(uid) or Quantiles(POOL)
        if len(ratios) >= RATIOS_LEAST:
            return ratios.factors(PRIOR_LOG_USER)
        low, high = ratios.spread(PRIOR_LOG_USER)
        return math.exp(min(low, -PRIOR_LOG_USER)), 1.0, math.exp(max(high, PRIOR_LOG_USER))

    def _width_of_others(self, app: str) -> float:
        """What 90 % of first runs with new arguments missed at most, up or down: the application's, as it has any."""
        width = PRIOR_LOG_OTHERS
        for missed in (self._all_others, self._others.get(app)):
            if missed:
                trust = len(missed) / (len(missed) + 8)
                width = trust * missed.at(0.9) + (1 - trust) * width
        return width

    def closed(self) -> History:
        """The same knowledge, to which nothing is added any more (it follows this one)."""
        return _Closed(self)

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return {
            "runs": {app: list(runs.recent) for app, runs in self._runs.items()},
            "alone": [[*key, list(rates.recent)] for key, rates in self._alone.items()],
            "moments": [[*key, *held] for key, held in self._moments.items()],
            "reference": dict(self._reference),
            "variants": [[*key, list(runs.recent)] for key, runs in self._variants.items()],
            "others": {app: list(missed.recent) for app, missed in self._others.items()},
            "all_others": list(self._all_others.recent),
            "residuals": list(self._residuals.recent),
            "user_ratios": [[uid, list(ratios.recent)] for uid, ratios in self._user_ratios.items()],
            "limit_ratio": list(self._limit_ratio.recent),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> History:
        """The inverse of `snapshot`, of one without variants as well."""
        history = cls()
        history._runs = {app: Quantiles(RUNS, runs) for app, runs in state["runs"].items()}
        alone = state["alone"]
        for app, variant, rates in [(app, "", of) for app, of in alone.items()] if isinstance(alone, dict) else alone:
            history._alone[app, variant] = Quantiles(RATES, rates)
        for app, variant, *held in state.get("moments", ()):
            history._moments[app, variant] = held
        history._reference = dict(state.get("reference", {}))
        for app, variant, runs in state.get("variants", ()):
            history._variants[app, variant] = Quantiles(VARIANT_RUNS, runs)
        history._others = {app: Quantiles(RUNS, missed) for app, missed in state.get("others", {}).items()}
        history._all_others = Quantiles(POOL, state.get("all_others"))
        history._residuals = Quantiles(POOL, state["residuals"])
        for uid, ratios in state.get("user_ratios", ()):
            history._user_ratios[uid] = Quantiles(POOL, ratios)
        history._limit_ratio = Quantiles(POOL, state["limit_ratio"])
        return history


class _Closed(History):
    """Answers from another history, and learns nothing."""

    def __init__(self, of: History) -> None:
        self.__dict__.update(of.__dict__)

    def ended(self, job: Job, seconds: float) -> None:
        """Not learned."""

    def observe_rate(self, job: Job, rate: float, seconds: float = LEAST_S) -> None:
        """Not learned: no rate counts."""


def is_guess(expected: Interval) -> bool:
    """Whether next to nothing is known of how long a job takes."""
    return expected.high > GUESS * max(expected.low, 1e-9)


def _of(kept: OrderedDict[tuple[str, str], Quantiles], job: Job, size: int) -> Quantiles:
    """What is kept of the job's arguments, as what was seen last."""
    return _latest(kept, (job.app, job.variant), size, VARIANTS)


def _latest(kept: OrderedDict[K, Quantiles], key: K, size: int, most: int) -> Quantiles:
    """What is kept under a key, as what was seen last; beyond ``most`` keys the one seen longest ago is forgotten."""
    found = kept.get(key)
    if found is None:
        found = kept[key] = Quantiles(size)
        if len(kept) > most:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return found


def _around(runs: Quantiles, low: float, high: float, job: Job) -> Interval:
    """The median of ``runs`` with an interval of log factors, wider where there are few."""
    widen = math.sqrt(1 + 1 / len(runs))
    return _scaled(runs.at(0.5), (math.exp(low * widen), 1.0, math.exp(high * widen)), job)


def _runs_of(runs: Quantiles, job: Job) -> str:
    return f"{len(runs)} earlier run{'s' if len(runs) > 1 else ''} of {job.app}"


def _scaled(seconds: float, factors: tuple[float, float, float], job: Job) -> Interval:
    """``seconds`` times each of ``factors``, at most the job's limit."""
    low, mid, high = factors
    most = math.inf if job.limit_s is None else job.limit_s
    return Interval(min(seconds * low, most), min(seconds * mid, most), min(seconds * high, most))
