"""What really happens when jobs share a node. Only the simulator knows it; policies see the estimator instead.

A truth answers with rates: speed relative to running alone on the same cores, above 0 and at most 1. A member that is
throttled to a fraction q presses on the others with q of its demand, and goes at q times what an unthrottled member
would go: so a fully memory-bound member that is throttled takes q of its share of the bandwidth, no more.

Limits: cores are never shared (placements do not overlap), so cores never slow anybody here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tandem.core.errors import ConfigError
from tandem.estimate.corun import App, Capacity


class Truth(Protocol):
    """How fast each member of a set really goes."""

    def rates(
        self, members: tuple[App, ...], capacity: Capacity, throttles: tuple[float, ...] = ()
    ) -> tuple[float, ...]:
        """Speed of each member relative to alone, in (0, 1].

        Args:
            members: the applications on one node; the same application may be there twice.
            capacity: what the node offers.
            throttles: the fraction in (0, 1] each member may run at, as long as ``members``; () is nobody throttled.
        """

    def quiet(self, members: tuple[App, ...], capacity: Capacity | None = None) -> bool:
        """Whether certainly nobody disturbs anybody: then every unthrottled rate is 1 and need not be asked for.

        Cheap, and allowed to say False of a set that is quiet.
        """


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """Neighbours cost nothing."""

    def rates(
        self, members: tuple[App, ...], capacity: Capacity, throttles: tuple[float, ...] = ()
    ) -> tuple[float, ...]:
        """See `Truth.rates`."""
        return _throttles(members, throttles)

    def quiet(self, members: tuple[App, ...], capacity: Capacity | None = None) -> bool:
        """See `Truth.quiet`."""
        return True


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Memory and network bandwidth that saturate.

    With capacity C and total demand D on a resource (throttled members count with their fraction), the part f of
    member i that waits for that resource is stretched by max(1, D / C); what it is stretched by when alone,
    max(1, m_i / C), is taken out again. So member i, of demand m_i > 0, slows by

        s_i = (1 - f + f * max(1, D / C)) / (1 - f + f * max(1, m_i / C))

    and goes at 1 / s_i; with both resources, the one that slows it more decides. A member without demand is not
    slowed. This is the roofline view of sharing: whoever asks for x of the total gets x of the bandwidth.

    Attributes:
        fraction: f of applications that are not in ``fractions``, in [0, 1].
        fractions: f by application key.
    """

    fraction: float = 1.0
    fractions: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every fraction is one."""
        for key, given in [("*", self.fraction), *self.fractions.items()]:
            if not 0.0 <= given <= 1.0:
                raise ConfigError(
                    given=f"bandwidth-bound fraction {given} for {key!r}",
                    allowed="0 to 1",
                    todo="give the part of its run time that the application waits for bandwidth",
                )

    def rates(
        self, members: tuple[App, ...], capacity: Capacity, throttles: tuple[float, ...] = ()
    ) -> tuple[float, ...]:
        """See `Truth.rates`."""
        limits = _throttles(members, throttles)
        memory = sum(q * app.membw_mbs for app, q in zip(members, limits, strict=True))
        network = sum(q * app.nic_mbs for app, q in zip(members, limits, strict=True))
        rates = []
        for app, limit in zip(members, limits, strict=True):
            f = self.fractions.get(app.key, self.fraction)
            slow = max(
                _stretch(f, app.membw_mbs, memory, capacity.membw_mbs),
                _stretch(f, app.nic_mbs, network, capacity.nic_mbs),
            )
            rates.append(limit / slow)
        return tuple(rates)

    def quiet(self, members: tuple[App, ...], capacity: Capacity | None = None) -> bool:
        """See `Truth.quiet`."""
        memory = network = 0
        askers = [0, 0]
        for app in members:
            memory += app.membw_mbs
            network += app.nic_mbs
            askers[0] += app.membw_mbs > 0
            askers[1] += app.nic_mbs > 0
        if capacity is None:
            return max(askers) < 2
        return (askers[0] < 2 or capacity.membw_mbs is None or memory <= capacity.membw_mbs) and (
            askers[1] < 2 or capacity.nic_mbs is None or network <= capacity.nic_mbs
        )


@dataclass(frozen=True, slots=True)
class Pairwise:
    """A table of slowdowns: ``table[a, b]`` is how much a slows down beside one b, never below 1.

    With several neighbours the pairs are multiplied ("product"), or their excesses over 1 are added ("additive"). A
    neighbour throttled to q counts with q of its excess. Pairs that are not in the table cost nothing.
    """

    table: Mapping[tuple[str, str], float]
    combine: Literal["product", "additive"] = "product"

    def __post_init__(self) -> None:
        """Check that nobody is faster beside others than alone."""
        for (app, beside), given in self.table.items():
            if not given >= 1.0:
                raise ConfigError(
                    given=f"slowdown {given} of {app!r} beside {beside!r}",
                    allowed="1 or more",
                    todo="give run time beside the other over run time alone",
                )

    def rates(
        self, members: tuple[App, ...], capacity: Capacity, throttles: tuple[float, ...] = ()
    ) -> tuple[float, ...]:
        """See `Truth.rates`."""
        limits = _throttles(members, throttles)
        rates = []
        for i, app in enumerate(members):
            slow = 1.0
            for j, other in enumerate(members):
                excess = 0.0 if i == j else limits[j] * (self.table.get((app.key, other.key), 1.0) - 1.0)
                slow = slow * (1.0 + excess) if self.combine == "product" else slow + excess
            rates.append(limits[i] / slow)
        return tuple(rates)

    def quiet(self, members: tuple[App, ...], capacity: Capacity | None = None) -> bool:
        """See `Truth.quiet`."""
        if len(members) < 2:
            return True
        keys = [app.key for app in members]
        return not any(
            self.table.get((a, b), 1.0) > 1.0 for i, a in enumerate(keys) for j, b in enumerate(keys) if i != j
        )


def _throttles(members: tuple[App, ...], throttles: tuple[float, ...]) -> tuple[float, ...]:
    if not throttles:
        return (1.0,) * len(members)
    assert len(throttles) == len(members), "one throttle a member"
    assert all(0.0 < q <= 1.0 for q in throttles), "a throttle is above 0 and at most 1"
    return throttles


def _stretch(fraction: float, own: int, total: float, capacity: int | None) -> float:
    """Return the slowdown relative to alone that one resource causes."""
    if own <= 0 or capacity is None or capacity <= 0:
        return 1.0
    together = 1.0 - fraction + fraction * max(1.0, total / capacity)
    alone = 1.0 - fraction + fraction * max(1.0, own / capacity)
    return max(1.0, together / alone)
