"""What was decided about one job, from the event log."""

import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from tandem.share.store import schema

_WENT_ON = '"is":"WentOn"'


def decided(engine: sa.Engine, job: int, since: float) -> Iterator[dict[str, Any]]:
    """Yield each decision about the job since it was submitted, and that its keeper let it go on alone.

    Returns:
        Of each ``at`` (Unix seconds), ``is`` (which decision, or WentOn) and its ``reason``.
    """
    steps = schema.STEPS.c
    about = f'"job":{job}'  # that of job 12 is found for job 1 too: the database only sorts out most of the others
    wanted = sa.select(steps.now, steps.events, steps.decisions).where(
        steps.now >= since, sa.or_(steps.decisions.contains(about), steps.events.contains(_WENT_ON))
    )
    told = 0.0  # each new daemon tells it, until the job is suspended anew
    with engine.connect() as connection:
        for now, events, decisions in connection.execute(wanted.order_by(steps.seq)):
            for event in json.loads(events) if _WENT_ON in events else ():
                if event["is"] == "WentOn" and event["job"] == job and event["at"] > told:
                    told = event["at"]
                    yield {"at": told, "is": "WentOn", "reason": "no daemon ran, and no other job held a core"}
            for decision in json.loads(decisions):
                if decision["job"] == job:
                    yield {"at": now, "is": decision["is"], "reason": decision.get("reason", "")}
