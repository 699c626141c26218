"""Where the parts of a gang go: the order in which they choose, on nodes that are only looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tandem.share.state.demand_index import could_ever_fit
from tandem.share.state.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tandem.share.model import Need, Node, Part
    from tandem.share.state.accounts import Forecast


def fit_together(
    parts: Sequence[Part], able: Sequence[np.ndarray], forecasts: Mapping[int, Forecast]
) -> dict[int, tuple[Need, ...]] | None:
    """Places for all parts, as `View.place` finds them by first fit: the part with the least choice goes first.

    Args:
        able: for each part, the mask of the node numbers that it could go to.
        forecasts: what the nodes have, by number; what is placed is taken from them.

    Returns:
        Node number -> what the gang takes there, or None if the parts do not all fit.
    """
    left = list(range(len(parts)))
    needs: dict[int, list[Need]] = {}
    while left:
        fitting = {
            i: [n for n, forecast in forecasts.items() if able[i][n] and forecast.fits(parts[i].need.vector())]
            for i in left
        }
        i = min(left, key=lambda i: (len(fitting[i]) - parts[i].nodes, i))
        left.remove(i)
        if len(fitting[i]) < parts[i].nodes:
            return None
        for n in fitting[i][: parts[i].nodes]:
            forecasts[n].take(parts[i].need)
            needs.setdefault(n, []).append(parts[i].need)
    return {n: tuple(some) for n, some in needs.items()}


def fit_on_empty(parts: Sequence[Part], nodes: Sequence[Node]) -> bool:
    """Whether all parts find places on the nodes, in the way in which they will be placed, if nothing runs there."""
    able = [np.array([could_ever_fit(node, part.need) for node in nodes], dtype=bool) for part in parts]
    if len(parts) == 1:
        return int(able[0].sum()) >= parts[0].nodes
    ledger = Ledger()
    for node in nodes:
        ledger.join(node)
    return fit_together(parts, able, {n: ledger.forecast(n) for n in range(len(nodes))}) is not None
