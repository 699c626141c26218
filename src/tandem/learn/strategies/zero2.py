"""ZeRO-2 of DeepSpeed: weights are whole on each rank; gradients and AdamW's moments lie in shares.

Source: Rajbhandari et al., ZeRO, SC 2020, section 5.2. Limits: those of `tandem.learn.zero`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tandem.learn import zero
from tandem.learn.strategy import Learning, need_launcher

if TYPE_CHECKING:
    from tandem.learn.ranks import Ranks
    from tandem.learn.strategy import Schedule


def check(ranks: Ranks) -> None:
    """Refuse a process that was not started with others."""
    need_launcher(ranks, "zero2")


def learning(model: Any, ranks: Ranks, schedule: Schedule) -> Learning:  # noqa: ANN401 - any module
    """Share out a model's gradients and moments."""
    return zero.learning(model, ranks, schedule, stage=2)


def frozen(model: Any, ranks: Ranks) -> Any:  # noqa: ANN401 - any module
    """Return the model as it is: it has neither gradients nor moments."""
    del ranks
    return model.requires_grad_(False)
