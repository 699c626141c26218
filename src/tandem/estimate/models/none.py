"""Sharing costs nothing, not even on one core: every slowdown is exactly 1.

The estimator of a scheduler that is blind to interference.

It says how little it knows: beside neighbours the upper end of the interval is the class prior of
`tandem.estimate.prior`, and ``known`` is False.
"""

from collections.abc import Iterable

from tandem.estimate.corun import App, Capacity, CoRun, Estimator, Slowdown
from tandem.estimate.prior import UNKNOWN_EXCESS
from tandem.estimate.profile import Profile

USES_PAIRS = False
USES_PROFILES = False

_ALONE = Slowdown(1.0, 1.0, 1.0, True, "alone on the node")
_BESIDE = Slowdown(1.0, 1.0, 1.0 + UNKNOWN_EXCESS, False, "neighbours are assumed to cost nothing")


class _Nothing:
    """Learns nothing and always answers 1."""

    def observe(self, corun: CoRun) -> None:
        """Ignore the observation."""

    def predict(self, apps: tuple[App, ...], capacity: Capacity) -> tuple[Slowdown, ...]:
        """See `Estimator.predict`."""
        return (_BESIDE if len(apps) > 1 else _ALONE,) * len(apps)

    def knows(self, app: App) -> bool:
        """See `Estimator.knows`."""
        return False

    def revision(self, keys: Iterable[str]) -> tuple[int, int]:
        """See `Estimator.revision`."""
        return 0, 0


def make(coruns: Iterable[CoRun], profiles: Iterable[Profile] = ()) -> Estimator:
    """Return the estimator; it ignores ``coruns`` and ``profiles``."""
    return _Nothing()
