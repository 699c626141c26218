"""How many weights go, and where zeros may lie: anywhere, or at least M - N in each M neighbours of a row.

Shapes: R rows (outputs), K columns (inputs). Scores say what a weight is worth; the least go. Counts are exact:
what scores alike goes by position, from the left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tandem.kernels.prune.errors import PruneError

Group = Literal["row", "layer"]
"""Among which weights the least are looked for: those of one output, or all of the layer."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A share of zeros, or N:M.

    Attributes:
        sparsity: Share of zeros, at least 0 and below 1.
        kept: N of N:M, how many of `of` neighbours may stay; 0 where zeros may lie anywhere.
        of: M of N:M.

    Raises:
        PruneError: The numbers are outside of what is allowed.

    >>> Pattern.n_of_m("2:4")
    Pattern(sparsity=0.5, kept=2, of=4)
    """

    sparsity: float
    kept: int = 0
    of: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be met."""
        if not 0.0 <= self.sparsity < 1.0:
            raise PruneError(
                given=f"sparsity {self.sparsity:g}",
                allowed="a share of zeros of at least 0 and below 1",
                todo="60 % zeros are 0.6",
            )
        if (self.kept or self.of) and not 0 < self.kept < self.of:
            given = f"{self.kept}:{self.of}"
            raise _not_n_of_m(given)

    @classmethod
    def n_of_m(cls, text: str) -> Pattern:
        """Read N:M, at most N nonzeros in each M neighbours.

        Raises:
            PruneError: It is not N:M with 0 < N < M.
        """
        match = re.fullmatch(r"(\d{1,6}):(\d{1,6})", text.strip())
        if match is None or not 0 < int(match[1]) < int(match[2]):
            raise _not_n_of_m(text)
        kept, of = int(match[1]), int(match[2])
        return cls(1.0 - kept / of, kept, of)

    @classmethod
    def share(cls, sparsity: float) -> Pattern:
        """So large a share of zeros, anywhere.

        Raises:
            PruneError: It is not above 0 and below 1, or not a number.
        """
        if not 0.0 < sparsity < 1.0:
            raise PruneError(
                given=f"--sparsity {sparsity:g}",
                allowed="a share of zeros above 0 and below 1",
                todo="60 % zeros are --sparsity 0.6",
            )
        return cls(sparsity)

    def __str__(self) -> str:
        """In words."""
        return f"{self.kept}:{self.of}" if self.of else f"{self.sparsity * 100:.4g} % zeros"


def keep(scores_RK: Tensor, pattern: Pattern, group: Group) -> Tensor:
    """Return which weights stay (True), those with the highest scores.

    Args:
        scores_RK: What each weight is worth, finite.
        pattern: Under N:M the group is always M neighbours of a row, from the left. Neighbours beyond the last column
            count as zeros already, so that a short last group loses only what is over N.
        group: Among which weights the least are looked for.

    Returns:
        mask_RK of bool. Zeros are exactly `round(sparsity * R * K)`, in rows that differ by one at most where the row
        is the group; under N:M they are M - N in each whole group.
    """
    if pattern.of:
        return _keep_n_of_m(scores_RK, pattern)
    rows, columns = scores_RK.shape
    if group == "row":
        up_to = [round(pattern.sparsity * columns * row) for row in range(rows + 1)]
        return without_least(scores_RK, torch.tensor(up_to, device=scores_RK.device).diff().unsqueeze(1))
    return without_least(scores_RK.reshape(1, -1), round(pattern.sparsity * rows * columns)).view(rows, columns)


def _keep_n_of_m(scores_RK: Tensor, pattern: Pattern) -> Tensor:
    rows, columns = scores_RK.shape
    missing = -columns % pattern.of
    # what pads the last group is worth less than any weight, so it goes first
    padded = torch.nn.functional.pad(scores_RK, (0, missing), value=-torch.inf)
    groups_GM = padded.reshape(-1, pattern.of)
    return without_least(groups_GM, pattern.of - pattern.kept).view(rows, -1)[:, :columns].contiguous()


def without_least(scores_GN: Tensor, least_G1: int | Tensor) -> Tensor:
    """Return which scores of each row stay when so many of its lowest go; of equal ones the leftmost go first."""
    order_GN = torch.argsort(scores_GN, dim=1, stable=True)
    stays_GN = (torch.arange(scores_GN.shape[1], device=scores_GN.device) >= least_G1).expand(scores_GN.shape)
    return torch.empty_like(scores_GN, dtype=torch.bool).scatter_(1, order_GN, stays_GN)


def _not_n_of_m(given: str) -> PruneError:
    return PruneError(
        given=f"--nm {given}",
        allowed="N:M, at most N nonzeros in each M neighbours, with 0 < N < M",
        todo="as in --nm 2:4",
    )
