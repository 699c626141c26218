"""How long jobs take and how fast they go alone, learned from those that ended.

Durations are robust: the median of an application's last runs, with an interval from the pooled spread of all
applications around their own medians (so that two runs of a new application already get an honest interval).
An application without history is planned with the user's expected duration, times how wrong users were so far;
without that, with the limit; without that, with a wide prior. All of it is a pure function of what was told.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import TYPE_CHECKING, Any

from tandem.share.model import NOTHING, Interval, Job

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNS = 32
"""Runs remembered for each application."""

POOL = 256
"""Residuals remembered over all applications."""

PRIOR_S = (1.0, 600.0, 14_400.0)
"""5 %, median and 95 % of the duration of a job that nothing is known of."""

PRIOR_LOG_SPREAD = 0.25
"""Assumed half-width (5 % to 95 %) of log(duration / median) until enough runs were seen."""

RATES = 32

WORTH_SAYING = 0.05
"""A correction of users' expectations by more than this part is said."""

_EXPECTED = "its expected duration"


class Quantiles:
    """The last ``size`` values, kept sorted as well."""

    def __init__(self, size: int, values: list[float] | None = None) -> None:
        self.size = size
        self.recent: deque[float] = deque(values or [], maxlen=size)
        self._sorted = sorted(self.recent)
        self._known: dict[float, float] = {}
        self._factors: dict[float, tuple[float, float, float]] = {}

    def __len__(self) -> int:
        return len(self.recent)

    def add(self, value: float) -> None:
        """Remember a value, and forget the oldest beyond ``size``."""
        if len(self.recent) == self.size:
            del self._sorted[bisect_left(self._sorted, self.recent[0])]
        self._known.clear()
        self._factors.clear()
        self.recent.append(value)
        insort(self._sorted, value)

    def at(self, q: float) -> float:
        """Linear-interpolated quantile, ``0 <= q <= 1``; there must be a value."""
        found = self._known.get(q)
        if found is None:
            found = self._known[q] = self._interpolated(q)
        return found

    def factors(self, prior: float) -> tuple[float, float, float]:
        """Of log ratios: 5 %, median and 95 % of the ratios, shrunk towards ``prior`` while there are few."""
        found = self._factors.get(prior)
        if found is None:
            low, high = self.spread(prior)
            trust = len(self) / (len(self) + 8)
            mid = trust * self.at(0.5) if trust else 0.0
            found = self._factors[prior] = (math.exp(min(low, mid)), math.exp(mid), math.exp(max(high, mid)))
        return found

    def spread(self, prior: float) -> tuple[float, float]:
        """5 % and 95 % of log residuals, shrunk towards the prior while there are few."""
        if not len(self):
            return -prior, prior
        trust = len(self) / (len(self) + 8)
        return (
            min(0.0, trust * self.at(0.05) - (1 - trust) * prior),
            max(0.0, trust * self.at(0.95) + (1 - trust) * prior),
        )

    def _interpolated(self, q: float) -> float:
        place = q * (len(self._sorted) - 1)
        low = math.floor(place)
        high = min(low + 1, len(self._sorted) - 1)
        return self._sorted[low] + (place - low) * (self._sorted[high] - self._sorted[low])


class History:
    """Durations and solo rates by application key."""

    def __init__(self) -> None:
        self._runs: dict[str, Quantiles] = {}
        self._residuals = Quantiles(POOL)  # log(duration / median of the application's earlier runs)
        self._user_ratio = Quantiles(POOL)  # log(duration / what the user expected)
        self._limit_ratio = Quantiles(POOL)  # log(duration / limit)
        self._alone: dict[str, Quantiles] = {}

    def ended(self, job: Job, seconds: float) -> None:
        """``job`` ended well after ``seconds`` of running, in effect alone (slowdown taken out)."""
        if seconds <= 0:
            return
        if job.expected_s:
            self._user_ratio.add(math.log(seconds / job.expected_s))
        if job.limit_s:
            self._limit_ratio.add(math.log(seconds / job.limit_s))
        if not job.app:
            return
        runs = self._runs.get(job.app)
        if runs is None:
            runs = self._runs[job.app] = Quantiles(RUNS)
        if len(runs):
            self._residuals.add(math.log(seconds / runs.at(0.5)))
        runs.add(seconds)

    def expect(self, job: Job) -> tuple[Interval, str]:
        """How long the job will run alone, and in words what that rests on."""
        runs = self._runs.get(job.app) if job.app else None
        if runs is not None and len(runs):
            low, high = self._residuals.spread(PRIOR_LOG_SPREAD)
            mid = runs.at(0.5)
            widen = math.sqrt(1 + 1 / len(runs))
            factors = math.exp(low * widen), 1.0, math.exp(high * widen)
            return _scaled(mid, factors, job), f"{len(runs)} earlier run{'s' if len(runs) > 1 else ''} of {job.app}"
        if job.expected_s:
            factors = self._user_ratio.factors(0.5)
            return _scaled(job.expected_s, factors, job), _EXPECTED if abs(factors[1] - 1) < WORTH_SAYING else (
                f"{_EXPECTED}, times {factors[1]:.2g} as others took that part of theirs"
            )
        if job.limit_s:
            factors = self._limit_ratio.factors(1.0) if len(self._limit_ratio) >= 8 else (0.05, 0.6, 1.0)
            return _scaled(job.limit_s, factors, job), "its time limit"
        low, mid, high = PRIOR_S
        return Interval(low, mid, high), NOTHING

    def observe_rate(self, app: str, rate: float) -> None:
        """``app`` went at ``rate`` steps per second alone."""
        if app and rate > 0:
            self._alone.setdefault(app, Quantiles(RATES)).add(rate)

    def alone_rate(self, app: str) -> float | None:
        """Median solo rate, or None if the application was never measured alone."""
        rates = self._alone.get(app)
        return rates.at(0.5) if rates is not None else None

    def alone_noise(self, app: str) -> float:
        """Relative half-width of the solo rate's 90 % interval; a floor of 4 % where little is known."""
        rates = self._alone.get(app)
        if rates is None or len(rates) < 3:
            return 0.08
        return max(0.04, (rates.at(0.95) - rates.at(0.05)) / (2 * rates.at(0.5)))

    def closed(self) -> History:
        """The same knowledge, to which nothing is added any more (it follows this one)."""
        return _Closed(self)

    def snapshot(self) -> dict[str, Any]:
        """JSON-able state."""
        return {
            "runs": {app: list(runs.recent) for app, runs in self._runs.items()},
            "alone": {app: list(rates.recent) for app, rates in self._alone.items()},
            "residuals": list(self._residuals.recent),
            "user_ratio": list(self._user_ratio.recent),
            "limit_ratio": list(self._limit_ratio.recent),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> History:
        """The inverse of `snapshot`."""
        history = cls()
        history._runs = {app: Quantiles(RUNS, runs) for app, runs in state["runs"].items()}
        history._alone = {app: Quantiles(RATES, rates) for app, rates in state["alone"].items()}
        history._residuals = Quantiles(POOL, state["residuals"])
        history._user_ratio = Quantiles(POOL, state["user_ratio"])
        history._limit_ratio = Quantiles(POOL, state["limit_ratio"])
        return history


class _Closed(History):
    """Answers from another history, and learns nothing."""

    def __init__(self, of: History) -> None:
        self.__dict__.update(of.__dict__)

    def ended(self, job: Job, seconds: float) -> None:
        """Not learned."""

    def observe_rate(self, app: str, rate: float) -> None:
        """Not learned."""


def _scaled(seconds: float, factors: tuple[float, float, float], job: Job) -> Interval:
    """``seconds`` times each of ``factors``, at most the job's limit."""
    low, mid, high = factors
    most = math.inf if job.limit_s is None else job.limit_s
    return Interval(min(seconds * low, most), min(seconds * mid, most), min(seconds * high, most))
