"""Following a log whose policy or estimator can no longer be had: what was decided then is done again, as stored.

Nothing is decided or quoted anew. The machine that comes out has the jobs, the nodes and what was learned; how long
each job is planned to take is for the next policy to say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from tandem.share import events as ev
from tandem.share.policies import exclusive
from tandem.share.scheduler.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tandem.share.deciding.policy import Policy
    from tandem.share.scheduler.cluster import Setup
    from tandem.share.state.life import Life
    from tandem.share.state.view import View

_POLICY, _ESTIMATOR = "exclusive", "none"


def follow(setup: Setup, steps: Iterable[tuple[float, Sequence[ev.Event], Sequence[ev.Decision]]]) -> Machine:
    """Return a machine in the state after ``steps``, each with its instant, events and decisions.

    Its policy is a stand-in: begin a new log from its snapshot.
    """
    silent = replace(setup, policy=_POLICY, estimator=_ESTIMATOR, options={"quotes": 0})
    machine = Machine(silent)
    decided = _Decided()
    machine.policy = cast("Policy", decided)
    for life in machine.view.curbed.values():
        life.curbed_before = False  # that they go on is among what was decided
    for now, events, decisions in steps:
        decided.due = decisions
        if decisions:
            machine.dirty()
        machine.step(now, events)
    machine.setup = replace(setup, policy=_POLICY)
    return machine


class _Decided:
    """The policy that decides what is due."""

    PLANS_BY_LIMIT = True

    def __init__(self) -> None:
        self.due: Sequence[ev.Decision] = ()

    @staticmethod
    def rank(life: Life, options: Mapping[str, float]) -> float:
        """See `Policy.rank`."""
        return exclusive.rank(life, options)

    @staticmethod
    def plan_s(life: Life) -> float:
        """See `Policy.plan_s`."""
        return exclusive.plan_s(life)

    def decide(self, view: View, now: float) -> list[ev.Decision]:
        """See `Policy.decide`."""
        del now
        due, self.due = self.due, ()
        return [_placed(view, decision) for decision in due]


def _placed(view: View, decision: ev.Decision) -> ev.Decision:
    if isinstance(decision, ev.Start):
        return replace(decision, placement=view.place_again(view.jobs[decision.job], decision.placement))
    if isinstance(decision, ev.Resume) and view.place_resumed(view.jobs[decision.job]) != decision.placement:
        msg = f"job {decision.job} cannot be resumed where it was"
        raise ValueError(msg)
    return decision
