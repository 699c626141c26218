"""Calibration text on its way through the model, one block at a time.

Only what stands between two blocks is kept: N tokens times the model's width, whatever its depth. A block is run
twice, once to let its layers see their inputs and once, pruned, to make the inputs of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tandem.kernels.prune.blocks import Block
from tandem.kernels.prune.inputs import Inputs, product

if TYPE_CHECKING:
    from torch import nn


Arguments = dict[str, Any]
Product = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Stream:
    """What goes into one block, for every batch.

    Attributes:
        blocks: The model's blocks.
        hidden: The activations, a B x T x C tensor for each batch.
        arguments: For each batch, for each block, what else the block is called with (positions, masks).
    """

    blocks: Sequence[Block]
    hidden: list[Tensor]
    arguments: list[list[tuple[tuple[Any, ...], Arguments]]]

    @classmethod
    @torch.no_grad()
    def into(cls, model: nn.Module, blocks: Sequence[Block], batches_BT: Sequence[Tensor]) -> Stream:
        """Take the text as far as the first block.

        The model is run once with blocks that only note what they were called with and hand on what they got, so that
        each block's own masks and positions are known (they differ where layers of several kinds take turns).

        Args:
            model: In evaluation mode; its blocks work again as before afterwards.
            blocks: Its blocks.
            batches_BT: Token ids.
        """
        stream = cls(blocks, [], [])
        device = next(model.parameters()).device
        for ids_BT in batches_BT:
            with _noting(blocks) as calls:
                model(input_ids=ids_BT.to(device), use_cache=False)
            stream.hidden.append(calls[0][0])
            stream.arguments.append([(args, kwargs) for _, args, kwargs in calls])
        return stream

    @torch.no_grad()
    def observe(self, number: int) -> dict[str, Inputs]:
        """Run one block and return what each of its layers saw; the stream stays where it is."""
        block = self.blocks[number]
        sums = {name: Inputs.none(layer.weight_RK.shape[1], layer.weight_RK) for name, layer in block.layers.items()}
        for place in range(len(self.hidden)):
            with _watching(block, sums):
                self._run(number, place)
        return sums

    @torch.no_grad()
    def advance(self, number: int) -> None:
        """Run one block, as it is now, and keep what comes out of it in the place of what went in."""
        for place in range(len(self.hidden)):
            self.hidden[place] = self._run(number, place)

    def _run(self, number: int, place: int) -> Tensor:
        args, kwargs = self.arguments[place][number]
        out = self.blocks[number].module(self.hidden[place], *args, **kwargs)
        hidden_BTC: Tensor = out[0] if isinstance(out, tuple) else out
        return hidden_BTC


@contextmanager
def _noting(blocks: Sequence[Block]) -> Iterator[list[tuple[Tensor, tuple[Any, ...], Arguments]]]:
    """Blocks that note their arguments and hand on their input, in the shape that a real block answers in."""
    calls: list[tuple[Tensor, tuple[Any, ...], Arguments]] = []
    originals = [block.module.forward for block in blocks]

    def note(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever a block takes
        hidden = args[0] if args else kwargs.pop("hidden_states")
        answer = forward(hidden, *args[1:], **kwargs) if not calls else None
        calls.append((hidden, args[1:], kwargs))
        if answer is not None:
            shape.append(answer[1:] if isinstance(answer, tuple) else None)
        return hidden if shape[0] is None else (hidden, *shape[0])

    shape: list[tuple[Any, ...] | None] = []
    own = [vars(block.module).get("forward") for block in blocks]  # seldom: what the class has is hidden already
    try:
        for block, forward in zip(blocks, originals, strict=True):
            vars(block.module)["forward"] = partial(note, forward)
        yield calls
    finally:
        for block, before in zip(blocks, own, strict=True):
            del vars(block.module)["forward"]
            if before is not None:
                vars(block.module)["forward"] = before


@contextmanager
def _watching(block: Block, sums: dict[str, Inputs]) -> Iterator[None]:
    """Add up what the block's layers are given; those given the same tensor (queries, keys) share its product."""
    last: list[tuple[Tensor, Tensor]] = []

    def see(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        del module
        (x,) = args
        if not last or last[0][0] is not x:
            last[:] = [(x, product(x.reshape(-1, x.shape[-1])))]
        sums[name].add(last[0][1], x.numel() // x.shape[-1])

    hooks = [layer.module.register_forward_pre_hook(partial(see, name)) for name, layer in block.layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
