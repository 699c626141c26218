"""Slowdown from demand over capacity: what everybody asks for together, against what the node has.

If the members that use a resource of capacity C ask for D together, each gets what it asked for times C / D, so one
that asks for m of it takes max(1, D / C) times as long as it would with the resource to itself; what it is slowed by
when alone, max(1, m / C), is taken out again. The resource that slows it most decides. A member that asks for nothing
of a resource is not slowed by it. Every member uses cores; they are given out whole, so they slow anybody only where
the demands together exceed the node.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tandem.estimate.corun import App, Capacity


@dataclass(frozen=True, slots=True)
class Stretch:
    """Slowdown relative to alone, at least 1, and in words what causes it ("" where nothing does)."""

    factor: float
    why: str = ""


def stretch(app: App, others: Sequence[App], capacity: Capacity) -> Stretch:
    """How much ``others`` on the same node slow ``app``."""
    worst = Stretch(1.0)
    if capacity.membw_mbs and app.membw_mbs:
        total = app.membw_mbs + sum(o.membw_mbs for o in others)
        worst = _worse(worst, "memory bandwidth", app.membw_mbs, total, capacity.membw_mbs, 1000, "GB/s")
    if capacity.nic_mbs and app.nic_mbs:
        total = app.nic_mbs + sum(o.nic_mbs for o in others)
        worst = _worse(worst, "network bandwidth", app.nic_mbs, total, capacity.nic_mbs, 1, "MB/s")
    total = app.cpu_milli + sum(o.cpu_milli for o in others)
    return _worse(worst, "cores", app.cpu_milli, total, capacity.cpu_milli, 1000, "cores")


def _worse(so_far: Stretch, name: str, own: int, total: int, capacity: int, unit: int, unit_name: str) -> Stretch:
    if total <= capacity:
        return so_far
    factor = total / max(capacity, own)
    if factor <= so_far.factor:
        return so_far
    words = f"by {name}: {total / unit:.5g} of {capacity / unit:.5g} {unit_name}"
    return Stretch(factor, words)
