"""Slowdown from demand over capacity: what everybody asks for together, against what the node has.

If the members that use a resource of capacity C ask for D together, each gets what it asked for times C / D, so one
that asks for m of it takes max(1, D / C) times as long as it would with the resource to itself; what it is slowed by
when alone, max(1, m / C), is taken out again. The resource that slows it most decides. A member that asks for nothing
of a resource is not slowed by it. Cores are another matter: `tandem.estimate.sharing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tandem.estimate.corun import App, Capacity


@dataclass(frozen=True, slots=True)
class Stretch:
    """Slowdown relative to alone, at least 1, and in words what causes it ("" where nothing does)."""

    factor: float
    why: str = ""


class Load:
    """What all members of a set ask for together, against the node."""

    __slots__ = ("_membw", "_nic", "capacity", "fits")

    def __init__(self, members: Sequence[App], capacity: Capacity) -> None:
        self.capacity = capacity
        self._membw = sum(one.membw_mbs for one in members)
        self._nic = sum(one.nic_mbs for one in members)
        within_membw = not capacity.membw_mbs or self._membw <= capacity.membw_mbs
        within_nic = not capacity.nic_mbs or self._nic <= capacity.nic_mbs
        self.fits = within_membw and within_nic
        """Whether the node has all the bandwidth that they ask for."""

    def of_pair(self, app: App, other: App) -> float:
        """How much ``other`` alone slows ``app`` on such a node."""
        return Load((app, other), self.capacity).stretch(app).factor

    def stretch(self, app: App) -> Stretch:
        """How much the other members slow ``app``, which is one of them."""
        if self.fits:
            return _NONE
        capacity, worst = self.capacity, _NONE
        if capacity.membw_mbs and app.membw_mbs:
            worst = _worse(worst, "memory bandwidth", app.membw_mbs, self._membw, capacity.membw_mbs, 1000, "GB/s")
        if capacity.nic_mbs and app.nic_mbs:
            worst = _worse(worst, "network bandwidth", app.nic_mbs, self._nic, capacity.nic_mbs, 1, "MB/s")
        return worst


_NONE = Stretch(1.0)


def _worse(so_far: Stretch, name: str, own: int, total: int, capacity: int, unit: int, unit_name: str) -> Stretch:
    if total <= capacity:
        return so_far
    factor = total / max(capacity, own)
    if factor <= so_far.factor:
        return so_far
    words = f"by {name}: {total / unit:.5g} of {capacity / unit:.5g} {unit_name}"
    return Stretch(factor, words)
