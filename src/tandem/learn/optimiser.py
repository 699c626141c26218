"""One step of AdamW: the rate of the step, clipped gradients, and a stop in words where numbers end.

Parameters of 16 bits have a float32 copy each, which takes the steps and which they are rounded from: at rates of 1e-5
and below most steps are less than bfloat16 tells apart, and weights without such a copy would stay where they are
(Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.1).

Parameters may be shards: the norm is that of all ranks' gradients, and a state that is taken over is whole.

Source: Loshchilov, Hutter, Decoupled Weight Decay Regularization, ICLR 2019; betas (0.9, 0.95) of Ouyang et al.,
InstructGPT, 2022, appendix C; the norm is clipped to 1 as in GPT-3 (Brown et al. 2020, appendix B).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from tandem.learn import sharding
from tandem.learn.errors import TrainingInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

BETAS = (0.9, 0.95)
MOST_NORM = 1.0
LAST_RATE = 0.1


class Optimiser:
    """AdamW over some modules' parameters.

    Args:
        parameters: What learns.
        learning_rate: After the warm-up.
        warmup_steps: Of linear warm-up.
        decay_steps: By when the rate has come down to a tenth, along a cosine (InstructGPT, C.1); 0 for never.
        weight_decay: Of matrices; vectors (norms, biases) have none.

    Attributes:
        adam: Torch's AdamW: a group of matrices, one of vectors.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        learning_rate: float,
        warmup_steps: int = 0,
        decay_steps: int = 0,
        weight_decay: float = 0.0,
    ) -> None:
        self._learnt = [p for p in parameters if p.requires_grad]
        self._parameters = [_wide(p) for p in self._learnt]
        self._rate, self._warmup, self._decay = learning_rate, warmup_steps, decay_steps
        groups = [
            {"params": [p for p in self._parameters if p.dim() > 1], "weight_decay": weight_decay},
            {"params": [p for p in self._parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        filled = [group for group in groups if group["params"]]
        self.adam = torch.optim.AdamW(filled, lr=learning_rate, betas=BETAS, fused=True)  # one pass over each tensor

    def rate(self, step: int) -> float:
        """The rate of a step, from 0."""
        rate = self._rate * min(1.0, (step + 1) / (self._warmup + 1))
        if not self._decay:
            return rate
        done = min(1.0, step / self._decay)
        return rate * (LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * done)))

    def step(self, step: int) -> float:
        """Take a step along the gradients that are there, clear them, and return their norm before it was clipped.

        Raises:
            TrainingInputError: The norm is not finite; no weight has changed.
        """
        self._take_gradients()
        norm = float(sharding.whole(torch.nn.utils.clip_grad_norm_(self._parameters, MOST_NORM)))
        if not norm < float("inf"):
            self.adam.zero_grad(set_to_none=True)
            raise not_finite(norm, step)
        for group in self.adam.param_groups:
            group["lr"] = self.rate(step)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self._round()
        return norm

    @property
    def _copied(self) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
        """Parameters of 16 bits, each with its copy."""
        pairs = zip(self._learnt, self._parameters, strict=True)
        return [(learnt, wide) for learnt, wide in pairs if wide is not learnt]

    def _take_gradients(self) -> None:
        """Give copies the gradients, which are then not there twice."""
        for learnt, wide in self._copied:
            wide.grad = None if learnt.grad is None else learnt.grad.to(wide.dtype)
            learnt.grad = None

    @torch.no_grad()
    def _round(self) -> None:
        for learnt, wide in self._copied:
            learnt.copy_(wide)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; of shards to be put together by `sharding.gathered`."""
        state = self.adam.state_dict()
        copies = {i: wide.detach() for i, wide in enumerate(self._parameters) if wide is not self._learnt[i]}
        return {**state, "weights": copies} if copies else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        numbered = dict(enumerate(p for group in self.adam.param_groups for p in group["params"]))
        moments = {
            index: {name: sharding.like(value, numbered[index]) if value.dim() else value for name, value in of.items()}
            for index, of in state["state"].items()
        }
        self.adam.load_state_dict({"param_groups": state["param_groups"], "state": moments})
        copies = state.get("weights", {})
        for i, (learnt, wide) in enumerate(zip(self._learnt, self._parameters, strict=True)):
            if i in copies or wide is not learnt:  # there are none of a run that was in float32 before
                sharding.put(wide, copies.get(i, learnt.detach()))
        self._round()


def _wide(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    """The parameter itself, or a float32 copy of one of 16 bits."""
    if parameter.dtype not in (torch.bfloat16, torch.float16):
        return parameter
    return torch.nn.Parameter(parameter.detach().float())


def not_finite(norm: float, step: int) -> TrainingInputError:
    """What to raise where a gradient's norm is no finite number."""
    return TrainingInputError(
        given=f"a gradient of norm {norm} in step {step}",
        allowed="finite gradients",
        todo="lower the learning rate, or look at the data of this step",
    )
