"""What a scheduling policy is: a file in `tandem.share.policies` with these names at its top level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from tandem.core import plug

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tandem.share.events import Decision
    from tandem.share.state.life import Life
    from tandem.share.state.view import View


class Policy(Protocol):
    """A policy. It may also have:

    * ``alarm(life, now) -> float | None``: seconds until it wants to look at a running job again;
    * ``STARTS_ONLY``: True where it does nothing but start jobs in order, so that one more job that neither fits nor
      is first changes nothing;
    * ``WHOLE_NODES``: True where a job takes whole nodes;
    * ``WINDOW``: among how many of the first waiting jobs it chooses freely (for quotes);
    * ``barred_until(view, life) -> float``: until when it refuses a job that would fit (for quotes).
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
    return cast("Policy", plug.load("share.policies", name))


def names() -> list[str]:
    """All policies that can be loaded by name."""
    return plug.names("share.policies")
