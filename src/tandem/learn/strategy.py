"""What a strategy is: a file of `strategies/` that lays a model out over ranks and takes steps with it.

    strategy = load("fsdp")
    strategy.check(ranks)
    learning = strategy.learning(model, ranks, Schedule(learning_rate=1e-5))
    loss(through(learning.model, ...)).backward()               # a rank's share of the loss; gradients are summed
    norm = learning.optimiser.step(0)
    with learning.whole() as plain: plain.save_pretrained(...)

A loss is a rank's share of the batch's: a sum over its rows, divided by what the whole batch counts. To add a strategy,
write `strategies/NAME.py`; the contract test finds it by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from tandem.core import plug
from tandem.learn.errors import RankError

if TYPE_CHECKING:
    from tandem.learn.ranks import Ranks

FAMILY = "learn.strategies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How fast a model learns; see `Optimiser`."""

    learning_rate: float
    warmup_steps: int = 0
    decay_steps: int = 0


class Steps(Protocol):
    """What takes steps; its state is that of one process, whole, whatever the strategy."""

    def step(self, step: int) -> float:
        """Take a step along the gradients of all ranks, clear them, and return their norm before it was clipped."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, to be put together by `sharding.gathered`."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of any strategy on any number of ranks."""
        ...


@dataclass(frozen=True, slots=True)
class Learning:
    """A model that learns.

    Attributes:
        model: What functions are called on, by `sharding.through`.
        optimiser: What takes steps.
        whole: Puts all weights into a plain model while the block runs, to decode with or to save. Collective.
    """

    model: Any
    optimiser: Steps
    whole: Callable[[], AbstractContextManager[Any]]


class Strategy(Protocol):
    """What a file of `strategies/` exposes."""

    def check(self, ranks: Ranks) -> None:
        """Check that it can be had here.

        Raises:
            RankError: On so many ranks it cannot.
        """
        ...

    def learning(self, model: Any, ranks: Ranks, schedule: Schedule) -> Learning:  # noqa: ANN401
        """Lay out a model that learns; every rank gives the same weights."""
        ...

    def frozen(self, model: Any, ranks: Ranks) -> Any:  # noqa: ANN401
        """Lay out a model that is only asked."""
        ...


def load(name: str) -> Strategy:
    """Return the strategy called `name`.

    Raises:
        UnknownPluginError: There is none; the message lists those there are.
        MissingPackageError: Its package is not installed; the message names the extra.
    """
    return cast("Strategy", plug.load(FAMILY, name, Strategy))


def need_launcher(ranks: Ranks, name: str) -> None:
    """Check that processes were started to train together.

    Raises:
        RankError: This is a process of its own.
    """
    if not ranks.launched:
        raise RankError(
            given=f"strategy {name!r} in a process of its own",
            allowed="processes that torchrun starts",
            todo="run: torchrun --nproc-per-node 2 -m tandem chat train ..., or leave the strategy out",
        )
