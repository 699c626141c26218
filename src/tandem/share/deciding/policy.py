"""What a scheduling policy is: a file in `tandem.share.policies` with these names at its top level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from tandem.core import plug

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tandem.share.events import Decision
    from tandem.share.state.life import Life
    from tandem.share.state.view import View


@dataclass(frozen=True, slots=True)
class Range:
    """Which numbers an option may have, both ends included.

    >>> 7 in Range(0, 1), str(Range(0, 1)), str(Range(0.5, whole=False))
    (False, 'a whole number from 0 to 1', 'a number of at least 0.5')
    """

    least: float
    most: float = math.inf
    whole: bool = True

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and (not self.whole or value == math.floor(value))

    def __str__(self) -> str:
        ends = f"of at least {self.least:g}" if self.most == math.inf else f"from {self.least:g} to {self.most:g}"
        return f"a {'whole ' if self.whole else ''}number {ends}"


class Policy(Protocol):
    """A policy. It may also have:

    * ``OPTIONS``: what it reads, each in words, and ``RANGES``: which numbers each may have, where not any will do;
    * ``alarm(life, now) -> float | None``: seconds until it wants to look at a running job again;
    * ``wake_at(view) -> float | None``: when it wants to decide again though nothing has happened until then;
    * ``STARTS_ONLY``: True where it does nothing but start jobs in order, so that one more job that neither fits nor
      is first changes nothing;
    * ``RESUMES``: True where it resumes whatever is suspended; else what was suspended by a policy before it goes on as
      soon as its cores are free, which are kept for it (throttles of a policy before are lifted under any);
    * ``WHOLE_NODES``: True where a job takes whole nodes;
    * ``WINDOW``: among how many of the first waiting jobs it chooses freely (for quotes);
    * ``barred_until(view, life) -> float``: until when it refuses a job that would fit (for quotes);
    * ``held_back_until(view, life) -> float`` and ``kept_milli(view, cpu_milli) -> float``: until when a waiting job
      leaves CPU to others on the nodes, and how much for each free GPU (for quotes);
    * ``displaces(life) -> bool`` and ``gives_way(life) -> bool``: for which jobs, once they are first in the queue,
      others are displaced, and which others, of priorities no higher (for quotes).
    """

    PLANS_BY_LIMIT: bool
    """Whether planned ends rest on the users' limits alone, or on measured progress too."""

    @staticmethod
    def rank(life: Life, options: Mapping[str, float]) -> float:
        """Place in the queue among equal priorities: smaller goes first. Asked whenever the job begins to wait."""

    @staticmethod
    def plan_s(life: Life) -> float:
        """Seconds the job is planned to take; infinite for no idea."""

    @staticmethod
    def decide(view: View, now: float) -> Sequence[Decision]:
        """What to do now, each with its reason; everything placed through ``view`` must be in it."""


def load(name: str) -> Policy:
    """The policy of that name.

    Raises:
        UnknownPluginError: there is none; says which there are.
    """
    return cast("Policy", plug.load("share.policies", name, Policy))


def names() -> list[str]:
    """All policies that can be loaded by name."""
    return plug.names("share.policies")
