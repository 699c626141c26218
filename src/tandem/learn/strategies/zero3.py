"""ZeRO-3 of DeepSpeed: weights, gradients and AdamW's moments in pieces; a weight is whole only while its module runs.

Source: Rajbhandari et al., ZeRO, SC 2020, section 5.3. Limits: those of `tandem.learn.zero`.
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
    need_launcher(ranks, "zero3")


def learning(model: Any, ranks: Ranks, schedule: Schedule) -> Learning:  # noqa: ANN401 - any module
    """Cut a model's weights, gradients and moments into pieces."""
    return zero.learning(model, ranks, schedule, stage=3)


def frozen(model: Any, ranks: Ranks) -> Any:  # noqa: ANN401 - any module
    """Cut the weights of a model that is only asked into pieces."""
    return zero.frozen(model, ranks)
