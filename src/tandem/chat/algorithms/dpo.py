"""DPO: learns from pairs alone, without rewards, critic or drawing; the reference keeps it near.

Rows are pairs, the preferred response first, then the other:

    loss = mean over pairs of -log sigmoid(beta [(log pi/ref)(preferred) - (log pi/ref)(other)])

Source: Rafailov et al., Direct Preference Optimization, NeurIPS 2023, equation 7; label smoothing: Mitchell, A note on
DPO with noisy preferences, 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tandem.chat.algorithm import Experience, Group, Loss, Need, Ratio, Targets, check_settings, needed
from tandem.learn import losses
from tandem.learn.bounds import MOST
from tandem.learn.errors import TrainingInputError
from tandem.learn.masking import Counts, only

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[Need] = frozenset({"reference"})
GROUP: Group = "pair"
RATIO: Ratio = "response"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of DPO.

    Attributes:
        beta: How dear it is to leave the reference (Rafailov et al., appendix B: 0.1).
        label_smoothing: Share of pairs thought to be labelled the wrong way round (Rafailov et al.: none, 0).
    """

    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        smoothing = "label_smoothing of at least 0 and below 0.5"
        check_settings(
            self, {"beta above 0, up to 1e18": 0.0 < self.beta <= MOST, smoothing: 0.0 <= self.label_smoothing < 0.5}
        )


def prepare(experience: Experience, config: Config) -> Targets:
    """Check the pairs; there is nothing to compute.

    Raises:
        TrainingInputError: Rows are not pairs, or one side of a pair is empty.
    """
    del config
    needed(experience.reference_logps_BT, "reference log-probabilities", experience.mask_BT)
    filled_B = experience.mask_BT.any(dim=1)
    if len(filled_B) % 2 or not bool((filled_B[0::2] == filled_B[1::2]).all()):
        raise TrainingInputError(
            given=f"{len(filled_B)} rows, {int(filled_B.sum())} of them with tokens",
            allowed="pairs: a preferred response and then the other, each with at least one token (EOS counts)",
            todo="leave out pairs with an empty side",
        )
    return Targets()


def loss(
    logps_BT: Tensor,
    values_BT: Tensor | None,
    experience: Experience,
    targets: Targets,
    config: Config,
    of: Counts,
) -> Loss:
    """Return the loss over pairs; see `Algorithm.loss`."""
    del values_BT, targets
    mask_BT = experience.mask_BT
    reference_BT = needed(experience.reference_logps_BT, "reference log-probabilities", mask_BT)
    policy_B, reference_B = (only(x_BT, mask_BT).sum(dim=1) for x_BT in (logps_BT, reference_BT))
    losses_P = losses.dpo(
        policy_B[0::2],
        policy_B[1::2],
        reference_B[0::2],
        reference_B[1::2],
        beta=config.beta,
        label_smoothing=config.label_smoothing,
    )
    filled_P = mask_BT[0::2].any(dim=1)
    pairs = max(of.rows // 2, 1)
    total = only(losses_P, filled_P).sum() / pairs
    margins_P = config.beta * (policy_B - reference_B).view(-1, 2).diff(dim=1).squeeze(1).neg()
    right = only((margins_P > 0).to(total), filled_P).sum() / pairs
    return Loss(total, {"preference": total.detach(), "accuracy": right.detach()})
