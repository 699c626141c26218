"""FSDP2: weights, gradients and AdamW's moments in shards, block by block; a block is whole only while it runs.

Gradients of all ranks are summed, not averaged: a rank's loss is its share of the batch's.

Source: Zhao et al., PyTorch FSDP, VLDB 2023; `torch.distributed.fsdp.fully_shard`. Limits: float32 on CPUs, by gloo.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from tandem.learn.optimiser import Optimiser
from tandem.learn.sharding import Through, filled, set_through, shell
from tandem.learn.strategy import Learning, need_launcher

if TYPE_CHECKING:
    from tandem.learn.ranks import Ranks
    from tandem.learn.strategy import Schedule


def check(ranks: Ranks) -> None:
    """Refuse a process that was not started with others."""
    need_launcher(ranks, "fsdp")


def learning(model: Any, ranks: Ranks, schedule: Schedule) -> Learning:  # noqa: ANN401 - any module
    """Shard a model, and return it with an AdamW over this rank's shards."""
    empty = shell(model)
    _shard(model, ranks)
    return Learning(model, Optimiser(model.parameters(), **asdict(schedule)), lambda: filled(empty, model))


def frozen(model: Any, ranks: Ranks) -> Any:  # noqa: ANN401 - any module
    """Shard a model that is only asked."""
    return _shard(model.requires_grad_(False), ranks)


def _shard(model: Any, ranks: Ranks) -> Any:  # noqa: ANN401 - any module
    """Shard each block, and what is around them as one more."""
    mesh = init_device_mesh("cpu", (ranks.size,))
    # Nothing here writes into what a block returns.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    blocks = set(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh)
    owner = Through(model)
    fully_shard(owner, mesh=mesh)
    for module in owner.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no average
    set_through(model, owner)
    return model
