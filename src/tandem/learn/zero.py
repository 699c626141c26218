"""DeepSpeed's ZeRO: a model and its AdamW in one of its engines, which is told as much as any other strategy is.

Two things DeepSpeed does otherwise are put right here. It averages gradients over ranks, where a rank's loss is its
share of the batch's: gradients are multiplied by the number of ranks as they enter the model. And it would count
backward passes to find out when a step is due: it is told, and any number of them are one step's.

Source: Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, SC 2020, section 5.
Limits: float32, on CPUs, by gloo. DeepSpeed keeps an engine of stage 3 for as long as the process lives.
"""

from __future__ import annotations

import itertools
import os
import sys
import warnings
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # it looks when it is imported
import deepspeed

from tandem.learn.optimiser import MOST_NORM, Optimiser, not_finite
from tandem.learn.sharding import filled, laid_out_by, set_through, shell
from tandem.learn.strategy import Learning
from tandem.learn.zero_parts import MOMENTS, EqualParts, WholeParts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tandem.learn.ranks import Ranks
    from tandem.learn.strategy import Schedule

T = TypeVar("T")

MOST_AT_ONCE = 50_000_000
"""Gradients that are summed over ranks in one message."""


class Called(nn.Module):
    """A model that runs a function of itself: DeepSpeed sees a module without inputs begin and end."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.function: Callable[[nn.Module], Any] | None = None

    def forward(self) -> Any:  # noqa: ANN401 - whatever the function says
        """Return what the function says of the model."""
        assert self.function is not None
        return self.function(self.model)


class ZeroOptimiser:
    """AdamW over each rank's share; its state is put together as `Optimiser`'s.

    Args:
        engine: DeepSpeed's, over the same parameters.
        plain: The optimiser it was given: its rates and its AdamW, which steps along shares now.
        numbers: Of the parameters of each of its groups.
        parts: How each parameter lies on the ranks, by its number.
    """

    def __init__(self, engine: Any, plain: Optimiser, numbers: list[list[int]], parts: list[Any]) -> None:  # noqa: ANN401
        self._engine, self._plain, self._numbers, self._parts = engine, plain, numbers, parts
        inner = engine.optimizer
        stage_2 = isinstance(parts[0], WholeParts)
        self._shares = inner.single_partition_of_fp32_groups if stage_2 else inner.fp32_partitioned_groups_flat
        for share in self._shares:  # there before the first step, so that a checkpoint can be taken over
            of_share = {name: torch.zeros_like(share, requires_grad=False) for name in MOMENTS}
            plain.adam.state[share] = {"step": torch.zeros(()), **of_share}
        if stage_2:
            inner._lazy_init_hp_params_optimizer_state()

    def step(self, step: int) -> float:
        """Take a step along the gradients of all ranks, clear them, and return their norm before it was clipped.

        Raises:
            TrainingInputError: The norm is not finite; no weight has changed.
        """
        for group in self._plain.adam.param_groups:
            group["lr"] = self._plain.rate(step)
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        if self._engine.optimizer.overflow:
            raise not_finite(norm, step)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, to be put together by `sharding.gathered`."""
        done = self._plain.adam.state[self._shares[0]]["step"]
        state = {
            number: {"step": done.clone(), **{name: parts.moment(name) for name in MOMENTS}}
            for number, parts in enumerate(self._parts)
        }
        groups = [
            {**{name: value for name, value in group.items() if name != "params"}, "params": numbers}
            for group, numbers in zip(self._plain.adam.param_groups, self._numbers, strict=True)
        ]
        return {"state": state, "param_groups": groups}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of any strategy on any number of ranks.

        Raises:
            ValueError: It is of other parameters.
        """
        numbers = [group["params"] for group in state["param_groups"]]
        if numbers != self._numbers:
            message = f"an optimiser of {sum(map(len, numbers))} parameters, not {len(self._parts)}"
            raise ValueError(message)
        for number, of in state["state"].items():
            for name in MOMENTS:
                self._parts[number].put_moment(name, of[name])
            for share in self._shares:
                self._plain.adam.state[share]["step"].copy_(of["step"])


def learning(model: Any, ranks: Ranks, schedule: Schedule, stage: int) -> Learning:  # noqa: ANN401 - any module
    """Lay a model out by a stage of ZeRO, and return it with an AdamW over this rank's share."""
    empty = shell(model)
    plain = Optimiser(model.parameters(), **asdict(schedule))
    groups = [group["params"] for group in plain.adam.param_groups]  # in whose places DeepSpeed puts shares
    ends = [sum(map(len, groups[:number])) for number in range(len(groups) + 1)]
    numbers = [list(range(start, end)) for start, end in itertools.pairwise(ends)]
    learnt = [parameter for group in groups for parameter in group]
    engine = _engine(model, ranks, stage, plain.adam)
    kind = WholeParts if stage == 2 else EqualParts
    for parameter in model.parameters():
        laid_out_by(kind(parameter), parameter)
    optimiser = ZeroOptimiser(engine, plain, numbers, [kind(parameter) for parameter in learnt])
    return Learning(model, optimiser, lambda: filled(empty, model))


def frozen(model: Any, ranks: Ranks) -> Any:  # noqa: ANN401 - any module
    """Lay out a model that is only asked by stage 3: each rank holds a piece of each parameter."""
    _engine(model.requires_grad_(False), ranks, 3, None)
    for parameter in model.parameters():
        laid_out_by(EqualParts(parameter), parameter)
    return model


def _engine(model: nn.Module, ranks: Ranks, stage: int, adam: torch.optim.Optimizer | None) -> Any:  # noqa: ANN401
    """Give a model to DeepSpeed, and have functions of it called by way of its engine."""
    for handler in deepspeed.utils.logger.handlers:
        handler.setStream(sys.stderr)
    # Reductions for inference through shared memory, which nothing here uses and would be built in C++ for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Of names that DeepSpeed calls torch by.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    called = Called(model)
    engine, *_ = deepspeed.initialize(
        model=called, optimizer=adam, dist_init_required=False, config=_config(model, stage)
    )

    def owner(function: Callable[..., T], *args: object, **kwargs: object) -> T:
        called.function = lambda model: function(model, *args, **kwargs)
        try:
            said: T = engine()
        finally:
            called.function = None
        _each_tensor(said, partial(_multiplied, times=ranks.size))
        return said

    set_through(model, owner)
    return engine


def _config(model: nn.Module, stage: int) -> dict[str, Any]:
    """What DeepSpeed is told."""
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return {
        "train_micro_batch_size_per_gpu": 1,  # it has to be told some; nothing follows from it
        "managed_gradient_accumulation": False,  # `step` is where a step ends
        "gradient_clipping": MOST_NORM,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": False,
            "reduce_bucket_size": max(1, min(learnt, MOST_AT_ONCE)),
            "memory_efficient_linear": False,  # it would put a function of its own into torch, for every model
            "stage3_param_persistence_threshold": 0,
            "stage3_max_reuse_distance": 0,  # a parameter is whole only while its module runs
            "stage3_prefetch_bucket_size": 0,
        },
    }


def _each_tensor(said: object, function: Callable[[Tensor], None]) -> None:
    """Call a function of each tensor in what a model said."""
    if isinstance(said, Tensor):
        function(said)
    elif isinstance(said, list | tuple):
        for one in said:
            _each_tensor(one, function)


def _multiplied(said: Tensor, times: int) -> None:
    """Multiply the gradient that enters a model by way of what it said."""
    if said.requires_grad and times > 1:
        said.register_hook(lambda gradient: gradient * times)  # type: ignore[no-untyped-call]
