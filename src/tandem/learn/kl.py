"""Estimates of KL(policy || reference) from tokens that the policy drew.

Source: Schulman, Approximating KL Divergence, 2020 (joschu.net/blog/kl-approx.html). With x drawn from the policy and
log r = log reference(x) - log policy(x):

    k1 = -log r            unbiased; either sign
    k2 = (log r)² / 2      biased, low variance; never negative
    k3 = r - 1 - log r     unbiased; never negative

That is of the values. As a loss, k1's expected gradient is zero, and only k2's is that of the divergence; k3 as a
loss is what GRPO does (Shao et al. 2024, equation 4).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tandem.learn.masking import only

Estimator = Literal["k1", "k2", "k3"]


def kl(logps_BT: Tensor, reference_logps_BT: Tensor, mask_BT: Tensor, estimator: Estimator) -> Tensor:
    """Return the estimate at each token in nats, 0 outside of the mask.

    Args:
        logps_BT: Log-probability of each token under the policy that drew it.
        reference_logps_BT: The same under the reference, at the same temperature.
        mask_BT: Tokens of responses.
        estimator: Which; see above.
    """
    log_r_BT = only(reference_logps_BT, mask_BT) - only(logps_BT, mask_BT)
    if estimator == "k1":
        return -log_r_BT
    if estimator == "k2":
        return 0.5 * log_r_BT.square()
    return torch.expm1(log_r_BT) - log_r_BT
