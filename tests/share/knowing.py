"""A machine whose estimator knows pairs by heart, and small nodes."""

from collections.abc import Iterable

from tandem.estimate.corun import App, Capacity, CoRun, Slowdown
from tandem.share.model import Gpu, Node
from tests.share.told import Told

NODE = Node("a", 4000, 100)
OTHER = Node("b", 4000, 100)
GPUS = Node("g", 16_000, 100, (Gpu(0), Gpu(1)))
TWO_CORES = Node("a", 2000, 100)


def knowing(told: Told, *pairs: tuple[str, str, float], spread: float = 0.0) -> Told:
    """Give the machine's estimator a table of (who, beside whom, slowdown); ``spread`` is its half-width."""
    told.machine.estimator = told.machine.view.estimator = Table({(a, b): slow for a, b, slow in pairs}, spread)
    return told


class Table:
    """An estimator that knows pairs by heart; whom it does not know costs nothing."""

    def __init__(self, pairs: dict[tuple[str, str], float], spread: float = 0.0) -> None:
        self.pairs = pairs
        self.spread = spread

    def observe(self, corun: CoRun) -> None:
        """It has learnt enough."""

    def predict(self, apps: tuple[App, ...], capacity: Capacity) -> tuple[Slowdown, ...]:
        """The product over the neighbours."""
        answers = []
        for i, app in enumerate(apps):
            slow = 1.0
            for j, other in enumerate(apps):
                slow *= self.pairs.get((app.key, other.key), 1.0) if i != j else 1.0
            answers.append(
                Slowdown(slow, max(1.0, slow - self.spread), slow + self.spread, True, f"{slow:.2f} in the table")
            )
        return tuple(answers)

    def knows(self, app: App) -> bool:
        """Whether it is in the table."""
        return any(app.key in pair for pair in self.pairs)

    def revision(self, keys: Iterable[str]) -> tuple[int, int]:
        """It never learns."""
        return 0, 0
