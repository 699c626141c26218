"""How large a score, a coefficient or a learning rate may be: what is learnt from works with squares, in 32 bits."""

from __future__ import annotations

import math

MOST = 1e18


def may_clip(bound: float) -> bool:
    """Whether values may be clipped at so much: an infinite bound clips nothing."""
    return 0.0 < bound <= MOST or bound == math.inf
