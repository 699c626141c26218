"""Training under a mask: what is zero stays exactly zero, the rest makes up for it.

Gradients of pruned weights are set to zero before the optimiser sees them. AdamW then moves such a weight by
lr · 0 / (sqrt(0) + eps) and decays it by lr · decay · 0: it stays 0 to the bit, and no mask is multiplied in.

With a teacher the loss is (1 - a) · cross-entropy + a · T² · KL(teacher || student) at temperature T (Hinton, Vinyals,
Dean: Distilling the Knowledge in a Neural Network, 2015, section 2).
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from tandem.kernels.prune.errors import PruneError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import nn

    from tandem.kernels.prune.blocks import Block

_BETAS = (0.9, 0.95)
_CLIP = 1.0
_WARM_UP = 0.05
_LAST = 0.1


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How to train.

    Attributes:
        steps: Steps of the optimiser, at least 1.
        learning_rate: The highest; a rise over the first twentieth, then half a cosine down to a tenth.
        batch: Windows a step.
        length: Tokens of a window.
        weight_decay: AdamW's.
        temperature: T of the distillation.
        from_teacher: a, the part of the loss that the teacher makes, where there is one.
        seed: Of the order in which windows are drawn.
    """

    steps: int
    learning_rate: float = 1e-4
    batch: int = 8
    length: int = 256
    weight_decay: float = 0.0
    temperature: float = 1.0
    from_teacher: float = 0.5
    seed: int = 0


def tune(
    model: nn.Module,
    ids_N: Tensor,
    tuning: Tuning,
    *,
    pruned: Iterable[Block] = (),
    teacher: nn.Module | None = None,
    tell: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Train a causal language model, in place; it is in evaluation mode afterwards.

    Weights in half precision are trained in float32 and rounded once at the end.

    Args:
        model: All its parameters are trained.
        ids_N: The text; windows begin anywhere in it.
        tuning: How.
        pruned: Blocks in whose linear layers zeros stay zero; without any this is plain training.
        teacher: A model of the same tokens whose predictions are learnt too.
        tell: Is told each step and its loss.

    Returns:
        The loss of each step.

    Raises:
        PruneError: The text is shorter than two tokens, or the loss is not finite.
    """
    parameters = list(model.parameters())
    dtypes = [parameter.dtype for parameter in parameters]
    rng = torch.Generator().manual_seed(tuning.seed)
    model.float().train()
    optimizer = torch.optim.AdamW(parameters, tuning.learning_rate, _BETAS, weight_decay=tuning.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, steps=tuning.steps))
    losses: list[float] = []
    try:
        with _zeros_kept(pruned):
            for step in range(tuning.steps):
                loss = _loss(model, teacher, _draw(ids_N, tuning, rng).to(parameters[0].device), tuning)
                losses.append(_finite(loss, step))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
                torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
                optimizer.step()
                schedule.step()
                tell(step + 1, losses[-1])
    finally:
        model.eval()
        for parameter, dtype in zip(parameters, dtypes, strict=True):
            parameter.data = parameter.data.to(dtype)
            parameter.grad = None
    return losses


@contextmanager
def _zeros_kept(pruned: Iterable[Block]) -> Iterator[None]:
    """Zero the gradients of weights that are zero now."""
    hooks = []
    for block in pruned:
        for layer in block.layers.values():
            weight: Any = layer.module.weight
            zero = weight.data == 0.0
            hooks.append(weight.register_hook(partial(_without, zero)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _without(zero: Tensor, gradient: Tensor) -> Tensor:
    return gradient.masked_fill(zero, 0.0)


def _draw(ids_N: Tensor, tuning: Tuning, rng: torch.Generator) -> Tensor:
    length = min(tuning.length, len(ids_N))
    if length < 2:
        raise PruneError(
            given=f"a text of {length} tokens to train on", allowed="two or more", todo="take a longer text"
        )
    starts = torch.randint(len(ids_N) - length + 1, (tuning.batch,), generator=rng)
    return torch.stack([ids_N[start : start + length] for start in starts.tolist()])


def _loss(model: nn.Module, teacher: nn.Module | None, ids_BT: Tensor, tuning: Tuning) -> Tensor:
    student_NV = _logits(model, ids_BT)
    loss = functional.cross_entropy(student_NV, ids_BT[:, 1:].flatten())
    if teacher is None:
        return loss
    with torch.no_grad():
        teacher_NV = _logits(teacher, ids_BT)
    return (1.0 - tuning.from_teacher) * loss + tuning.from_teacher * distillation(
        student_NV, teacher_NV, tuning.temperature
    )


def distillation(student_NV: Tensor, teacher_NV: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(teacher || student), the mean over N tokens, of logits over V tokens."""
    student = functional.log_softmax(student_NV / temperature, dim=-1)
    taught = functional.log_softmax(teacher_NV / temperature, dim=-1)
    return temperature**2 * functional.kl_div(student, taught, reduction="batchmean", log_target=True)


def _logits(model: nn.Module, ids_BT: Tensor) -> Tensor:
    logits_BTV: Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return logits_BTV[:, :-1].float().flatten(0, 1)


def _finite(loss: Tensor, step: int) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise PruneError(
            given=f"the loss of step {step + 1} is {value}",
            allowed="a training that converges",
            todo="take a lower learning rate",
        )
    return value


def _rate(step: int, steps: int) -> float:
    """The learning rate of a step over the highest."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return _LAST + (1.0 - _LAST) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
