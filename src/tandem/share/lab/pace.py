"""How fast this machine is today, so that a day for show takes about as long on a slow one and on a fast one.

Limits: only arithmetic is measured, and only before the day; memory or a disk that others use makes the day longer.
"""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tandem.share.lab.plan import Lab

STANDARD_S = 0.060
"""What `reference_s` is on the machine on which the applications take their standard time: cores of an AMD EPYC of the
fourth generation that do not slow each other and that nobody else uses."""

LEAST = 0.2
"""On a still slower machine a day takes longer: less work than this says nothing."""


MOST = 1.5
"""On a still faster machine a day is shorter: what else it waits for than arithmetic may be as slow as anywhere."""


def reference_s(rounds: int = 30) -> float:
    """Seconds for a fixed piece of arithmetic on a core while all others do the same, as they do in a day: the median.

    Two cores of one rented machine may be two threads of one real core, or share its memory: what one does alone says
    little of what both do. Such machines change their speed within seconds, so it is looked at for some of them.
    """
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        return statistics.median(took for _ in range(rounds) for took in pool.map(_piece_s, range(cores)))


def _piece_s(seed: int) -> float:
    """Do it once; numpy lets other threads go on meanwhile."""
    rng, began = np.random.default_rng(seed), time.perf_counter()
    for _ in range(12):
        float(np.exp(rng.standard_normal(1 << 18)).sum())
    return time.perf_counter() - began


def paced(lab: Lab, seconds: float | None = None) -> Lab:
    """The same day with as much less work as the machine is slower than the standard one, and more where it is faster.

    Args:
        seconds: what `reference_s` is here; None measures it.
    """
    if not lab.pace:
        return lab
    took = reference_s() if seconds is None else seconds
    factor = round(min(MOST, max(LEAST, STANDARD_S / took)), 2)
    return replace(lab, scale=lab.scale * factor, pace=False)
