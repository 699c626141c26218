"""Which blocks go when room is needed: what is needed last goes first.

With the future known this is optimal: no other choice has fewer misses (L. A. Belady, "A study of replacement
algorithms for a virtual-storage computer", IBM Systems Journal 5, 1966). Blocks that no known future holds go before
all others, the least recently used of them first. What is fetched ahead of its use never drives out what is used
before it (the rule "do no harm" of P. Cao et al., "A study of integrated prefetching and caching strategies",
SIGMETRICS 1995).

Legend: V blocks that are held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER = np.inf
"""When a block is needed again of which nobody knows."""


def in_order_of_eviction(
    next_use_s_V: NDArray[np.float64], used_ns_V: NDArray[np.uint64], *, after_s: float = -1.0
) -> NDArray[np.int64]:
    """Places of blocks that may go, the one that should go first at the beginning.

    Args:
        next_use_s_V: In how many seconds each is needed again, `NEVER` where nobody knows.
        used_ns_V: When each was used last.
        after_s: Only blocks that are needed later than this may go.
    """
    order: NDArray[np.int64] = np.lexsort((used_ns_V, -next_use_s_V))
    return order[next_use_s_V[order] > after_s]
