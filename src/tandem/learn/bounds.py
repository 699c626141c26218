"""How large numbers may be.

A score, a coefficient or a learning rate: what is learnt from works with squares, in 32 bits. A whole number: what
uses it takes 64 bits at most, and often a list or a tensor as long. No model or batch that anybody has trained comes
near the ends; whether one fits a machine's memory is another question.
"""

from __future__ import annotations

import math

MOST = 1e18

MOST_AT_ONCE = 10**6
"""Of what is made or gone through whole: widths, layers, vocabularies, prompts of a step."""

MOST_COUNTED = 10**9
"""Of what is counted one by one: steps, rows, tokens."""


def may_clip(bound: float) -> bool:
    """Whether values may be clipped at so much: an infinite bound clips nothing."""
    return 0.0 < bound <= MOST or bound == math.inf
