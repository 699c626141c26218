"""How fast this machine is today, so that a day for show takes about as long on a slow one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tandem.share.lab.plan import Lab

STANDARD_S = 0.060
"""What `reference_s` is on the machine on which the applications take their standard time: a core of an AMD EPYC of the
fourth generation that nobody else uses."""

LEAST = 0.2
"""On a still slower machine a day takes longer: less work than this says nothing."""


def reference_s(rounds: int = 3) -> float:
    """Seconds for a fixed piece of arithmetic on one core: the least of some rounds."""
    took = []
    for _ in range(rounds):
        rng, began = np.random.default_rng(0), time.perf_counter()
        for _ in range(12):
            float(np.exp(rng.standard_normal(1 << 18)).sum())
        took.append(time.perf_counter() - began)
    return min(took)


def paced(lab: Lab, seconds: float | None = None) -> Lab:
    """The same day with as much less work as the machine is slower than the standard one; never more.

    Args:
        seconds: what `reference_s` is here; None measures it.
    """
    if not lab.pace:
        return lab
    took = reference_s() if seconds is None else seconds
    factor = round(min(1.0, max(LEAST, STANDARD_S / took)), 2)
    return replace(lab, scale=lab.scale * factor, pace=False)
