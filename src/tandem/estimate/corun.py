"""What is known of applications that share a node, and what an estimator answers.

An estimator model is a file in `tandem.estimate.models` that exposes `make(coruns, profiles) -> Estimator` and two
flags: `USES_PAIRS` (it learns from co-runs that were observed) and `USES_PROFILES` (it predicts from profiles). The
scheduler sees only the estimator; what really happens (in a simulation: the truth model) is a separate thing, so that a
wrong estimate costs what it would cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True, order=True)
class App:
    """An application as the estimator sees it: its key in history and what it says it takes of one node.

    ``membw_mbs`` and ``nic_mbs`` are demands in MB/s; 0 where nothing was said. ``cores`` are those it is pinned to;
    () stands for cores of its own. Members pinned to the same core share it, each an equal part as far as it needs it.
    """

    key: str
    cpu_milli: int = 1000
    membw_mbs: int = 0
    nic_mbs: int = 0
    cores: tuple[int, ...] = ()


def known_as(app: str, throttle: float) -> str:
    """How a neighbour is called in measurements: throttled it is another one, which presses less.

    >>> known_as("cg", 1.0), known_as("cg", 0.25)
    ('cg', 'cg@0.25')
    """
    return app if throttle >= 1.0 else f"{app}@{throttle:g}"


def is_throttled(key: str) -> bool:
    """Whether `known_as` made ``key`` of a throttled neighbour."""
    return "@" in key


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one node offers; None where it is not known."""

    cpu_milli: int
    membw_mbs: int | None = None
    nic_mbs: int | None = None


@dataclass(frozen=True, slots=True)
class CoRun:
    """One observation: ``app`` went at ``rate`` (steps per second) for ``seconds`` beside ``beside``.

    ``beside`` holds the neighbours' keys, sorted; () means that the application was alone on the node (on the
    same cores).
    """

    app: str
    beside: tuple[str, ...]
    rate: float
    seconds: float


class Words:
    """A sentence that is made when it is first read: a scheduler asks for thousands of slowdowns and reads a few.

    >>> said = Words("beside {}".format, "cg")
    >>> str(said), said == "beside cg"
    ('beside cg', True)
    """

    __slots__ = ("_from", "_make")

    def __init__(self, make: Callable[..., str], *from_: object) -> None:
        self._make: Callable[..., str] | None = make
        self._from: tuple[object, ...] = from_

    def __str__(self) -> str:
        if self._make is not None:
            self._from, self._make = (self._make(*self._from),), None
        return str(self._from[0])

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, str | Words) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


class Slowdown(NamedTuple):
    """Run time beside the others over run time alone, never below 1, with its 90 % interval.

    ``known`` says whether it rests on an observation of this very set (or of its pairs), ``why`` on what. ``untried``
    says that of some neighbour nothing but a try can tell what it costs: the upper end holds a prior for it.
    """

    mid: float
    low: float
    high: float
    known: bool
    words: str | Words
    untried: bool = False

    @property
    def why(self) -> str:
        """On what it rests, in words."""
        return str(self.words)


class Estimator(Protocol):
    """Answers how much each member of a set slows down. Deterministic in what it was told."""

    def observe(self, corun: CoRun) -> None:
        """Learn from one observation (a model that does not use pairs ignores it)."""

    def predict(self, apps: tuple[App, ...], capacity: Capacity) -> tuple[Slowdown, ...]:
        """One slowdown for each of ``apps``, in their order; a permutation of ``apps`` permutes the answer."""

    def knows(self, app: App) -> bool:
        """Whether a neighbour could change the prediction for ``app`` or ``app`` that of a neighbour."""

    def revision(self, keys: Iterable[str]) -> tuple[int, int]:
        """Another value whenever an answer for a set of applications with these keys may have changed."""
