"""Processes that train one model together: which of them this is, and what they tell each other.

Each holds the same global batch and works on its share of the rows. What a loss is divided by is then known without
asking anybody, and a batch is the same whatever the number of ranks. Of one process every answer is its own.

    rows = ranks.share(len(batch))
    loss = summed(batch[rows]) / len(batch)
    told = ranks.sums(loss=float(loss))

All methods but `share` and `shares` are collective: every rank has to call them, in the same order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a run.

    Attributes:
        rank: Which this is, from 0.
        size: How many there are.
        launched: Whether they were started to train together, be it one.
    """

    rank: int = 0
    size: int = 1
    launched: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def shares(self, count: int, unit: int = 1) -> list[slice]:
        """Return each rank's rows, in order and as even as whole units allow; those of some may be none.

        Args:
            count: Rows, a multiple of `unit`.
            unit: Rows that stay together.
        """
        ends = [count // unit * rank // self.size * unit for rank in range(self.size + 1)]
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    def share(self, count: int, unit: int = 1) -> slice:
        """Return this rank's rows."""
        return self.shares(count, unit)[self.rank]

    def sums(self, **figures: float) -> dict[str, float]:
        """Return the sum of each figure over all ranks."""
        if self.size == 1:
            return figures
        values_F = torch.tensor(list(figures.values()), dtype=torch.float64)
        dist.all_reduce(values_F)
        return dict(zip(figures, values_F.tolist(), strict=True))

    def most(self, figure: float) -> float:
        """Return the largest of all ranks' figures."""
        if self.size == 1:
            return figure
        values_F = torch.tensor([figure], dtype=torch.float64)
        dist.all_reduce(values_F, dist.ReduceOp.MAX)
        return float(values_F[0])

    def of_first(self, figure: float) -> float:
        """Return the first rank's figure."""
        return self.sums(figure=figure if self.first else 0.0)["figure"]

    def rows(self, own: Tensor, fill: float = 0.0) -> Tensor:
        """Return the rows of all ranks below each other, in their order.

        Args:
            own: This rank's, [B, ...]; of two dimensions at most the second may be as wide as it likes.
            fill: What narrower rows are filled up with.
        """
        if self.size == 1:
            return own
        shape = torch.tensor([own.shape[0], own.shape[1] if own.dim() > 1 else 0])
        shapes = [torch.empty_like(shape) for _ in range(self.size)]
        dist.all_gather(shapes, shape)
        rows, width = torch.stack(shapes).amax(dim=0).tolist()
        wide = own.new_full((rows, width, *own.shape[2:]) if own.dim() > 1 else (rows,), fill)
        wide[(slice(len(own)), slice(own.shape[1])) if own.dim() > 1 else slice(len(own))] = own
        sent = wide.to(torch.uint8) if own.dtype == torch.bool else wide
        found = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(found, sent)
        return torch.cat([one[: int(of[0])] for one, of in zip(found, shapes, strict=True)]).to(own.dtype)

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            dist.barrier()
