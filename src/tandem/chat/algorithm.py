"""What an algorithm is: a file of `algorithms/` with a configuration, what it needs, and two functions.

    algorithm = load("grpo")
    config = algorithm.Config()
    targets = algorithm.prepare(experience, config)             # once a batch, without gradients
    loss = algorithm.loss(logps_BT, None, part, part_targets, config, Counts.of(experience.mask_BT))

To add one, write `algorithms/NAME.py`; the contract test finds it by its name.

Shapes: B rows (responses), T token slots. Responses to one prompt are neighbours; for pairs (`GROUP` "pair") the
preferred one comes first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import torch
from torch import Tensor

from tandem.core import plug
from tandem.learn.errors import TrainingInputError

if TYPE_CHECKING:
    from tandem.learn.masking import Counts

FAMILY = "chat.algorithms"

Need = Literal["scores", "reference", "critic"]
Group = Literal["none", "same prompt", "pair"]
Ratio = Literal["token", "response"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """Responses and what is known of them; nothing here has a gradient.

    Attributes:
        mask_BT: Tokens of responses, EOS among them; boolean.
        old_logps_BT: Their log-probabilities under the policy as it was, by the forward pass that trains.
        reference_logps_BT: Under the reference, at the same temperature.
        scores_B: One score a response.
        values_BT: What the critic said before each token.
        bootstrap_B: What it said after the last, of responses that were cut short; 0 for those that ended.
    """

    mask_BT: Tensor
    old_logps_BT: Tensor | None = None
    reference_logps_BT: Tensor | None = None
    scores_B: Tensor | None = None
    values_BT: Tensor | None = None
    bootstrap_B: Tensor | None = None

    def rows(self, index: slice | Tensor) -> Experience:
        """Return some of the rows."""
        return Experience(**_rows(self, index))


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What `prepare` makes of a whole batch.

    Attributes:
        advantages_BT: Of each token, 0 outside of the mask; None where the algorithm has none.
        returns_BT: What the critic is to learn; None without a critic.
    """

    advantages_BT: Tensor | None = None
    returns_BT: Tensor | None = None

    def rows(self, index: slice | Tensor) -> Targets:
        """Return some of the rows."""
        return Targets(**_rows(self, index))


@dataclass(frozen=True, slots=True)
class Loss:
    """A batch's loss, or a part's share of it.

    Attributes:
        total: A scalar to call `backward` on.
        parts: What it is the sum of and what tells how training goes, detached; shares add up as `total` does.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Algorithm(Protocol):
    """What a file of `algorithms/` exposes."""

    Config: type[Any]
    """A frozen dataclass whose every default names its source."""
    NEEDS: frozenset[Need]
    """What of an experience must be there."""
    GROUP: Group
    """Whether responses come alone, in groups of `Config.group_size`, or in pairs."""
    RATIO: Ratio
    """Whose ratio of new to old probability it takes: each token's own, or that of a whole response."""

    def prepare(self, experience: Experience, config: Any) -> Targets:  # noqa: ANN401  # each file has its own Config
        """Return advantages and returns. Takes the whole batch of all ranks: whitening looks at all of it.

        Raises:
            TrainingInputError: Something needed is missing or not finite, or groups are not whole.
        """
        ...

    def loss(
        self,
        logps_BT: Tensor,
        values_BT: Tensor | None,
        experience: Experience,
        targets: Targets,
        config: Any,  # noqa: ANN401  # each file has its own Config
        of: Counts,
    ) -> Loss:
        """Return the loss of a batch or a part of it; parts of one batch, given its counts, add up to its loss.

        Args:
            logps_BT: The policy's log-probabilities now, with their graph.
            values_BT: The critic's values now, where there is a critic.
            experience: The same rows as `logps_BT`; groups may be torn apart, pairs may not.
            targets: The same rows of what `prepare` returned.
            config: The same as `prepare` saw.
            of: Counts of the whole batch.
        """
        ...


def load(name: str) -> Algorithm:
    """Return the algorithm called `name`.

    Raises:
        UnknownPluginError: There is none; the message lists those there are.
        MissingPackageError: torch is not installed; the message names the extra.
    """
    return cast("Algorithm", plug.load(FAMILY, name, Algorithm))


def needed(value: Tensor | None, what: str, mask_BT: Tensor | None = None) -> Tensor:
    """Return the value, checked.

    Args:
        value: A part of an experience.
        what: What it is called.
        mask_BT: Where it has to be finite; None for everywhere.

    Raises:
        TrainingInputError: It is not there, or holds NaN or infinity where it counts.
    """
    if value is None:
        raise TrainingInputError(
            given=f"an experience without {what}",
            allowed=f"one with {what}: this algorithm needs them",
            todo=f"compute {what}, or choose an algorithm that does without",
        )
    looked_at = value if mask_BT is None else value[mask_BT]
    bad = int((~torch.isfinite(looked_at)).sum())
    if bad:
        raise TrainingInputError(
            given=f"{what} of which {bad} of {looked_at.numel()} are NaN or infinite",
            allowed="finite numbers",
            todo="look at the reward's or the model's output for these rows, or lower learning rates and coefficients",
        )
    return value


def check_settings(config: object, allowed: dict[str, bool]) -> None:
    """Refuse settings outside of what is allowed.

    Args:
        config: An algorithm's configuration.
        allowed: What must hold, as `name: condition` ("gamma from 0 to 1": 0 <= gamma <= 1).

    Raises:
        TrainingInputError: Something does not hold.
    """
    broken = [text for text, holds in allowed.items() if not holds]
    if broken:
        raise TrainingInputError(given=str(config), allowed="; ".join(broken), todo="change the setting")


def _rows(of: Experience | Targets, index: slice | Tensor) -> dict[str, Any]:
    values = {name: getattr(of, name) for name in of.__slots__}
    return {name: None if value is None else value[index] for name, value in values.items()}
