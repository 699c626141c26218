"""How long a suspended job stays so beside primary ones, so that it does not come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.share.model import JobClass

if TYPE_CHECKING:
    from tandem.share.state.life import Life
    from tandem.share.state.view import View

REST_S = 5.0
"""A suspended job rests at least so long before it is resumed beside a primary one."""

REST_MOST_S = 3600.0
"""It does not rest longer, however often the same primary job suffered from it again."""

HELPED = 0.9
"""A primary job that loses more than this part of what it lost before was not helped by the suspension."""

TRIAL_S = 60.0
"""Who is suspended again for the same primary job before it ran for so long rests twice as long: from so short runs, or
in so large a company, nobody learns that the two do not go together."""


def rest(view: View, life: Life, now: float) -> None:
    """The job was suspended just now, with its clock still running: how long it rests, and from whom."""
    suffering = {
        job: one.slowdown or 1.0 for job, one in view.strained.items() if not set(one.numbers).isdisjoint(life.numbers)
    }
    ran_s = now - life.run_since if life.run_since is not None else 0.0
    again = not life.rests_from.keys().isdisjoint(suffering) and ran_s < TRIAL_S
    life.rest_s = min(2 * life.rest_s, REST_MOST_S) if again else REST_S
    life.rests_until, life.rests_from = now + life.rest_s, suffering


def in_vain_for(view: View, life: Life) -> dict[int, float]:
    """Of a job that goes on: those that suffer still, and were ever slowed no less while it stood still for them.

    With the instants when it was suspended: what was in vain counts until they are fine.
    """
    found = {job: at for job, at in life.in_vain_for.items() if job in view.strained}
    for job, then in life.rests_from.items():
        one = view.strained.get(job)
        if one is None or one.slowdown is None or one.measured_from < life.suspended_at:
            continue
        if one.slowdown - 1.0 >= HELPED * (then - 1.0):
            found[job] = life.suspended_at
    return found


def rests(view: View, life: Life, now: float) -> bool:
    """Whether a suspended job is not to be resumed yet beside the primary ones that run on its nodes."""
    if now >= life.rests_until:
        return False
    from_all = now < life.suspended_at + REST_S
    return any(
        one.job.klass is JobClass.PRIMARY and (from_all or one.id in life.rests_from)
        for n in life.numbers
        for one in view.neighbours(n)
    )
