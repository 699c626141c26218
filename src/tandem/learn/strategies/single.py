"""One process, one model: nothing is shared and nothing is sent."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tandem.learn.errors import RankError
from tandem.learn.optimiser import Optimiser
from tandem.learn.strategy import Learning

if TYPE_CHECKING:
    from tandem.learn.ranks import Ranks
    from tandem.learn.strategy import Schedule


def check(ranks: Ranks) -> None:
    """Refuse several processes: each would train a model of its own."""
    if ranks.size > 1:
        raise RankError(
            given=f"strategy 'single' on {ranks.size} ranks",
            allowed="one process",
            todo="choose how they share the model, such as --set strategy=fsdp",
        )


def learning(model: Any, ranks: Ranks, schedule: Schedule) -> Learning:  # noqa: ANN401 - any module
    """Return the model as it is, with AdamW."""
    del ranks
    return Learning(model, Optimiser(model.parameters(), **asdict(schedule)), lambda: nullcontext(model))


def frozen(model: Any, ranks: Ranks) -> Any:  # noqa: ANN401 - any module
    """Return the model as it is."""
    del ranks
    return model
