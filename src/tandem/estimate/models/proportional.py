"""Demand over capacity, corrected by the co-runs that were observed.

For each member of a set, the best of what there is:

1. The very same neighbours were seen: the observed slowdown and its interval.
2. Otherwise demand over capacity for the whole set (`tandem.estimate.demand`), plus, for each neighbour beside which
   the application was seen alone in a pair, what the pair really cost less what demand over capacity says it costs.
   With no pair seen this is demand over capacity; with all pairs seen, and no saturation that only the whole set
   causes, it is 1 + sum(s - 1): additive in the excess. On a public set of co-runs of 15 CPU applications, predicting
   from pairs alone, additive had a mean absolute error of 12.6 % for three (19.9 % for four) applications, the worst
   pair 16.4 % (34.8 %), the product 24.6 % (44.8 %): so additive, with an interval for that error. A pair that agrees
   with stated demands within its own interval corrects nothing: a slowdown is never below 1, so the noise of many
   harmless pairs would add up.
3. A pair that was never seen is judged by what both did beside others (`tandem.estimate.inferred`).
4. Where nothing is known, 1 with the class prior as the upper end; ``why`` says so.

Limits: an application's rate alone is one number, whatever its cores; an observation is not carried over to another
programme with similar demands.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from operator import attrgetter

from tandem.estimate.corun import App, Capacity, CoRun, Estimator, Slowdown
from tandem.estimate.demand import Load, Stretch
from tandem.estimate.inferred import Inferred
from tandem.estimate.observed import LARGEST, Observations, Observed
from tandem.estimate.prior import NOISE, UNKNOWN_EXCESS
from tandem.estimate.profile import Profile

USES_PAIRS = True

_COMBINING = 0.6
"""Relative half-width, on the excess over 1, for combining pairs into a larger set. 12.6 % mean error is a 90 %
half-width of 26 % of the slowdown if errors are normal; at that set's median pair (1.41) three applications slow by
1.82, and 26 % of that is 0.58 of the excess."""

_DEMAND = 0.5
"""The same for a slowdown that rests, for some neighbour, on stated demands alone: a judgement, not a measurement.
Demands are what users say, and programmes do not wait for bandwidth all the time."""

_INFERRED = 0.5
"""The same for a pair that was never seen, judged by what both did beside others."""

_CACHED = 1 << 16

_WITHIN = "within the node's bandwidth"

_ALONE = Slowdown(1.0, 1.0, 1.0, True, "alone on the node")

_ORDER = attrgetter("key", "cpu_milli", "membw_mbs", "nic_mbs")

_Key = tuple[tuple[App, ...], Capacity]


class _Proportional:
    """The model; answers are kept until an observation changes them."""

    def __init__(self) -> None:
        self._observations = Observations()
        self._inferred = Inferred({})
        self._cache: dict[_Key, tuple[tuple[int, int], tuple[Slowdown, ...]]] = {}
        self._told: dict[str, int] = defaultdict(int)  # observations kept, by application
        self._pairs: dict[str, tuple[int, dict[str, Observed]]] = {}
        self._fits = 0

    def observe(self, corun: CoRun) -> None:
        """See `Estimator.observe`."""
        pairs, alone = self._observations.pair_count, self._observations.alone_rate(corun.app)
        if self._observations.add(corun):
            self._told[corun.app] += 1
            first_alone = not corun.beside and alone is None and bool(self._observations.partners(corun.app))
            if pairs != self._observations.pair_count or first_alone:  # it tells something of every pair not seen yet
                # Fitted here, not when it is asked for: what is answered must depend on what was told alone.
                self._inferred = Inferred(self._observations.pairs())
                self._fits += 1
                self._cache.clear()

    def predict(self, apps: tuple[App, ...], capacity: Capacity) -> tuple[Slowdown, ...]:
        """See `Estimator.predict`."""
        key = (apps, capacity)
        revision = self.revision(app.key for app in apps)
        found = self._cache.get(key)
        if found is None or found[0] != revision:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            found = self._cache[key] = revision, self._of_set(apps, capacity)
        return found[1]

    def knows(self, app: App) -> bool:
        """See `Estimator.knows`: it states a bandwidth, or was seen beside others."""
        return app.membw_mbs > 0 or app.nic_mbs > 0 or self._observations.has_company(app.key)

    def revision(self, keys: Iterable[str]) -> tuple[int, int]:
        """See `Estimator.revision`."""
        told = self._told
        return self._fits, sum(told.get(key, 0) for key in keys)

    def _of_set(self, apps: tuple[App, ...], capacity: Capacity) -> tuple[Slowdown, ...]:
        """Work on the sorted set, so that the order of ``apps`` changes nothing, not even a rounding."""
        if len(apps) < 2:
            return (_ALONE,) * len(apps)
        ordered = sorted(apps, key=_ORDER)
        load = Load(ordered, capacity)
        unhurried = _by_demand(Stretch(1.0), len(apps) - 1) if load.fits else None
        stating = {app.key for app in ordered} if all(map(_states, ordered)) else None
        answers: dict[App, Slowdown] = {}
        for i, app in enumerate(ordered):
            if app not in answers:
                answers[app] = self._of_member(app, ordered[:i] + ordered[i + 1 :], load, stating, unhurried)
        return tuple([answers[app] for app in apps])

    def _of_member(
        self, app: App, others: list[App], load: Load, stating: set[str] | None, unhurried: Slowdown | None
    ) -> Slowdown:
        """Of one of the set.

        Args:
            stating: the keys in the set, where all of it states what it takes.
            unhurried: the answer by demand, where all demands together are within the node.
        """
        if len(others) <= LARGEST:
            beside = tuple(other.key for other in others)
            seen = self._observations.slowdown(app.key, beside)
            if seen is not None:
                return Slowdown(seen.mid, seen.low, seen.high, True, _seen_words(seen, beside))
        if stating is not None and stating.isdisjoint(self._observations.partners(app.key)):
            return unhurried or _by_demand(load.stretch(app), len(others))
        return self._combined(app, others, load, all_state=stating is not None)

    def _combined(self, app: App, others: list[App], load: Load, *, all_state: bool) -> Slowdown:
        """Demand over capacity for the whole set, each pair that was seen put in its place."""
        whole = load.stretch(app)
        seen_pairs = self._seen_pairs(app.key)
        excess = whole.factor - 1.0
        near = [other for other in others if other.key in seen_pairs] if all_state else others
        below = above = (len(others) - len(near)) * NOISE**2  # squared half-widths
        pairs: dict[str, Observed] = {}
        inferred: dict[str, float] = {}
        unknown: set[str] = set()
        app_states = _states(app)
        for other in near:
            states = all_state or (app_states and _states(other))
            if (seen := seen_pairs.get(other.key)) is not None:
                by_demand = 1.0 if load.fits else load.of_pair(app, other)
                if not (states and seen.low <= by_demand <= seen.high):  # else both say the same, and one is measured
                    excess += seen.mid - by_demand
                below += (seen.mid - seen.low) ** 2
                above += (seen.high - seen.mid) ** 2
                pairs[other.key] = seen
            elif states:
                below += NOISE**2
                above += NOISE**2
            elif (guess := self._inferred.slowdown(app.key, other.key)) is not None:
                excess += guess - 1.0
                below += (_INFERRED * (guess - 1.0) + NOISE) ** 2
                above += (_INFERRED * (guess - 1.0) + 2 * NOISE) ** 2
                inferred[other.key] = guess
            else:
                above += UNKNOWN_EXCESS**2
                unknown.add(other.key)
        excess = max(0.0, excess)
        all_seen = len(near) == len(others) and all(other.key in pairs for other in others)
        factor = _COMBINING if all_seen else _DEMAND
        spread = (factor * excess) ** 2
        mid = 1.0 + excess
        low, high = max(1.0, mid - math.sqrt(below + spread)), mid + math.sqrt(above + spread)
        return Slowdown(mid, low, high, all_seen, _combined_words(mid, whole.why, pairs, inferred, unknown))

    def _seen_pairs(self, key: str) -> dict[str, Observed]:
        """What was seen of an application beside each neighbour alone."""
        told = self._told.get(key, 0)
        kept = self._pairs.get(key)
        if kept is None or kept[0] != told:
            found = {other: self._observations.slowdown(key, (other,)) for other in self._observations.partners(key)}
            kept = self._pairs[key] = told, {other: seen for other, seen in found.items() if seen is not None}
        return kept[1]


def make(coruns: Iterable[CoRun], profiles: Iterable[Profile] = ()) -> Estimator:
    """Return the estimator with everything in ``coruns`` learned; it has no use for ``profiles``."""
    del profiles
    model = _Proportional()
    for corun in coruns:
        model.observe(corun)
    return model


def _states(app: App) -> bool:
    return app.membw_mbs > 0 or app.nic_mbs > 0


def _by_demand(whole: Stretch, others: int) -> Slowdown:
    """Of one that was seen beside none of its ``others``, where all state what they take."""
    excess = whole.factor - 1.0
    half = math.sqrt(others * NOISE**2 + (_DEMAND * excess) ** 2)
    why = f"{whole.factor:.2f}x {whole.why or _WITHIN}"
    return Slowdown(whole.factor, max(1.0, whole.factor - half), whole.factor + half, False, why)


def _seen_words(seen: Observed, beside: Iterable[str]) -> str:
    times = "once" if seen.count == 1 else f"{seen.count} times"
    return f"seen {times} beside {' + '.join(beside)}: {seen.mid:.2f}x ({seen.low:.2f}-{seen.high:.2f})"


def _combined_words(
    mid: float, cause: str, pairs: dict[str, Observed], inferred: dict[str, float], unknown: set[str]
) -> str:
    words = []
    if cause:
        words.append(cause)
    if pairs:
        words.append("from pairs seen: " + ", ".join(f"{key} {seen.mid:.2f}x" for key, seen in sorted(pairs.items())))
    if inferred:
        guesses = ", ".join(f"{key} {guess:.2f}x" for key, guess in sorted(inferred.items()))
        words.append(f"not seen together, judged by what both did beside others: {guesses}")
    if unknown:
        names = ", ".join(key or "an unnamed programme" for key in sorted(unknown))
        words.append(f"never seen beside {names}: assumed {1.0:.1f}x")
    if not words:
        words.append(_WITHIN)
    only_unknown = bool(unknown) and len(words) == 1
    return words[0] if only_unknown else f"{mid:.2f}x {'; '.join(words)}"
