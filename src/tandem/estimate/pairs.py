"""What was seen of applications in company, as every model that learns from pairs holds it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tandem.estimate.covering import Company
from tandem.estimate.inferred import Inferred
from tandem.estimate.observed import Observations, Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tandem.estimate.corun import CoRun

_OFTEN = 20
"""Sets are fitted anew for each twentieth that is new."""


class SeenPairs:
    """Observed sets and pairs, and what they tell of pairs that were not seen.

    Args:
        fit: makes that judgement, in place of one from pairs alone. It is called with the observations when an
            application is seen in new company (of many, every so often), not when an answer is asked for: answers
            depend on what was told alone.
    """

    def __init__(self, fit: Callable[[Observations], Inferred] | None = None) -> None:
        self.observations = Observations()
        self._from_sets = fit is not None
        self._fit = fit or (lambda observations: Inferred(observations.pairs()))
        self._fit_at = 0
        self.inferred = Inferred({})
        self._told: dict[str, int] = defaultdict(int)  # observations kept, by application
        self._pairs: dict[str, tuple[int, dict[str, Observed]]] = {}
        self._companies: dict[str, tuple[int, list[Company]]] = {}
        self._fits = 0

    def observe_all(self, coruns: Iterable[CoRun]) -> None:
        """See `observe`, for each.

        A judgement replaces the one before, so that of those that are due on the way to a first answer only the last
        is made.
        """
        told = list(coruns)
        last = 0
        if not self._told:
            trial = SeenPairs(self._fit if self._from_sets else None)
            last = max((k for k, corun in enumerate(told) if trial._keep(corun)), default=0)
        for k, corun in enumerate(told):
            if self._keep(corun) and k >= last:
                self.inferred = self._fit(self.observations)

    def observe(self, corun: CoRun) -> None:
        """Keep one observation; nothing else is said of one that is of no use."""
        if self._keep(corun):
            self.inferred = self._fit(self.observations)

    def _keep(self, corun: CoRun) -> bool:
        """Keep one observation; returns whether `inferred` is to be made anew."""
        alone, before = self.observations.alone_rate(corun.app), self._company_count()
        if not self.observations.add(corun):
            return False
        self._told[corun.app] += 1
        first_alone = not corun.beside and alone is None and self.observations.has_company(corun.app)
        after = self._company_count()
        due = (
            after != before and after >= self._fit_at
        ) or first_alone  # it tells something of every pair not seen yet
        if due:
            self._fits += 1
            self._fit_at = after + 1 + (after // _OFTEN if self._from_sets else 0)
        return due

    @property
    def fits(self) -> int:
        """How often `inferred` was made anew."""
        return self._fits

    def revision(self, keys: Iterable[str]) -> tuple[int, int]:
        """See `tandem.estimate.corun.Estimator.revision`."""
        told = self._told
        return self._fits, sum([told.get(key, 0) for key in keys])

    def revision_of(self, key: str) -> tuple[int, int]:
        """The revision for one application."""
        return self._fits, self._told.get(key, 0)

    def has_company(self, key: str) -> bool:
        """Whether an application was ever seen beside others, or others beside it."""
        return self.observations.has_company(key)

    def never_alone(self, key: str) -> bool:
        """Whether an application was seen beside others only: what these cost it follows once it was seen alone."""
        return self.observations.never_alone(key)

    def exact(self, key: str, beside: tuple[str, ...]) -> Observed | None:
        """What was seen of an application beside exactly these neighbours (sorted)."""
        return self.observations.slowdown(key, beside)

    def judged(self, app: str, beside: str) -> float | None:
        """Slowdown of a pair that was not seen, by what both did beside others; None where one of them did nothing.

        Of one alone nothing follows: a loud neighbour is not loud to everybody, and a stranger need not be loud.
        """
        inferred = self.inferred
        if not (app and beside and app in inferred.sensitivity and beside in inferred.pressure):
            return None
        return inferred.slowdown(app, beside)

    def _company_count(self) -> int:
        return self.observations.company_count if self._from_sets else self.observations.pair_count

    def of(self, key: str) -> dict[str, Observed]:
        """What was seen of an application beside each neighbour alone."""
        told = self._told.get(key, 0)
        kept = self._pairs.get(key)
        if kept is None or kept[0] != told:
            partners = self.observations.partners(key)
            found = {other: self.observations.slowdown(key, (other,)) for other in partners}
            kept = self._pairs[key] = told, {other: seen for other, seen in found.items() if seen is not None}
        return kept[1]

    def companies(self, key: str) -> Sequence[Company]:
        """In what company an application was seen of late, the largest first, and all its pairs."""
        told = self._told.get(key, 0)
        kept = self._companies.get(key)
        if kept is None or kept[0] != told:
            found = {beside: self.observations.slowdown(key, beside) for beside in self.observations.latest(key)}
            found |= {(other,): seen for other, seen in self.of(key).items()}
            order = sorted(found, key=lambda beside: (-len(beside), beside))
            companies = [Company.of(beside, seen) for beside in order if (seen := found[beside]) is not None]
            kept = self._companies[key] = told, companies
        return kept[1]
