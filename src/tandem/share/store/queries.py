"""What people ask the store: jobs that were, promises and how they ended, who ran beside whom."""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from tandem.share.model import ENDS, State
from tandem.share.store import schema

Row = dict[str, Any]

_ENDS = [state.value for state in ENDS]

_ATTEMPTS = sa.select(
    *(schema.ATTEMPTS.c[name] for name in ("job", "attempt", "started_at", "ended_at", "exit_code", "signal", "reason"))
).order_by(schema.ATTEMPTS.c.id)


def job(engine: sa.Engine, job_id: int) -> Row | None:
    """Return one job's row, or None."""
    with engine.connect() as connection:
        found = connection.execute(sa.select(schema.JOBS).where(schema.JOBS.c.id == job_id)).mappings().first()
    return _plain(found) if found is not None else None


def jobs(engine: sa.Engine, ids: Sequence[int]) -> dict[int, Row]:
    """Return the rows of several jobs by id; unknown ones are left out."""
    found: dict[int, Row] = {}
    with engine.connect() as connection:
        for start in range(0, len(ids), 500):
            wanted = sa.select(schema.JOBS).where(schema.JOBS.c.id.in_(ids[start : start + 500]))
            found |= {row["id"]: _plain(row) for row in connection.execute(wanted).mappings()}
    return found


def ends(engine: sa.Engine, ids: Sequence[int]) -> dict[int, State]:
    """Return how jobs ended, leaving out those that have not."""
    table = schema.JOBS.c
    found: dict[int, State] = {}
    with engine.connect() as connection:
        for start in range(0, len(ids), 500):
            wanted = sa.select(table.id, table.state).where(
                table.id.in_(ids[start : start + 500]), table.state.in_(_ENDS)
            )
            found |= {key: State(state) for key, state in connection.execute(wanted)}
    return found


def history(engine: sa.Engine, *, uid: int | None, limit: int, since: float = 0.0) -> list[Row]:
    """Return jobs that ended, the latest first.

    Args:
        uid: Only this user's; None for everybody's.
        limit: At most so many.
        since: Only those that ended at or after this instant (unix seconds).
    """
    table = schema.JOBS.c
    wanted = sa.select(schema.JOBS).where(table.ended_at.is_not(None), table.state.in_(_ENDS), table.ended_at >= since)
    if uid is not None:
        wanted = wanted.where(table.uid == uid)
    wanted = wanted.order_by(table.ended_at.desc(), table.id.desc()).limit(limit)
    with engine.connect() as connection:
        return [_plain(row) for row in connection.execute(wanted).mappings()]


def quotes(engine: sa.Engine, job_id: int) -> list[Row]:
    """Return what one job was promised, in order."""
    wanted = sa.select(schema.QUOTES).where(schema.QUOTES.c.job == job_id).order_by(schema.QUOTES.c.id)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(wanted).mappings()]


def attempts(engine: sa.Engine, job_id: int) -> list[Row]:
    """Return how those attempts of one job ended after which it waited again, in order."""
    with engine.connect() as connection:
        rows = connection.execute(_ATTEMPTS.where(schema.ATTEMPTS.c.job == job_id)).mappings()
        return [dict(row) for row in rows]


def last_quotes(engine: sa.Engine, ids: Sequence[int]) -> dict[int, Row]:
    """Return the last quote of each of several jobs; those without one, or where a hold took it back, are left out."""
    table = schema.QUOTES.c
    found: dict[int, Row] = {}
    with engine.connect() as connection:
        for start in range(0, len(ids), 500):
            last = sa.select(sa.func.max(table.id)).where(table.job.in_(ids[start : start + 500])).group_by(table.job)
            held = sa.exists().where(schema.HOLDS.c.job == table.job, schema.HOLDS.c.at > table.at)
            rows = connection.execute(sa.select(schema.QUOTES).where(table.id.in_(last), ~held)).mappings()
            found |= {row["job"]: dict(row) for row in rows}
    return found


def holds(engine: sa.Engine, job_id: int) -> list[float]:
    """Return when holds took back what one job was promised."""
    with engine.connect() as connection:
        return list(connection.execute(sa.select(schema.HOLDS.c.at).where(schema.HOLDS.c.job == job_id)).scalars())


def promises(engine: sa.Engine, *, uid: int | None, limit: int, since: float = 0.0) -> list[Row]:
    """Return quotes of jobs that ended, but those that a hold took back, beside what happened, the latest end first.

    A quote that was broken when the hold came is not taken back. Holds were not always stored: where there is none, it
    is taken back by a later quote of a submission.

    Each with ``array`` (id, index) where the job is an element of one, ``began_at``, when the next attempt was begun
    that was quoted too (or None), and the `attempts` that ended after it and after which the job waited again.

    Args:
        uid: Only this user's; None for everybody's.
        limit: At most so many quotes.
        since: Only of jobs that ended at or after this instant (unix seconds).
    """
    table, quote, later = schema.JOBS.c, schema.QUOTES.c, schema.QUOTES.alias().c
    columns = (table.name, table.app, table.uid, table["class"], table.state, table.attempt, table.reason)
    times = (table.submitted_at, table.started_at, table.ended_at, table.ran_s)
    after = sa.and_(later.job == quote.job, later.id > quote.id)
    hold = sa.exists().where(schema.HOLDS.c.job == quote.job, schema.HOLDS.c.at > quote.at)
    again = sa.exists().where(after, later.moment == "submit") & ~hold
    taken_back = hold.where(schema.HOLDS.c.at <= quote.finish_high) | again
    began = sa.select(sa.func.min(later.at)).where(after, later.moment == "start").scalar_subquery().label("began_at")
    element = sa.case((table.job.contains('"array":['), table.job)).label("element")
    wanted = (
        sa.select(schema.QUOTES, *columns, *times, began, element)
        .join(schema.JOBS, table.id == quote.job)
        .where(table.state.in_(_ENDS), table.ended_at >= since, ~taken_back)
    )
    if uid is not None:
        wanted = wanted.where(table.uid == uid)
    wanted = wanted.order_by(table.ended_at.desc(), quote.id.desc()).limit(limit)
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(wanted).mappings()]
        over = connection.execute(
            _ATTEMPTS.where(schema.ATTEMPTS.c.ended_at >= min((r["at"] for r in rows), default=0.0))
        )
        by_job: dict[int, list[Row]] = {}
        for attempt in over.mappings():
            by_job.setdefault(attempt["job"], []).append(dict(attempt))
    for row in rows:
        element = row.pop("element")
        row["array"] = None if element is None else json.loads(element)["array"]
        row["attempts"] = [one for one in by_job.get(row["job"], ()) if one["ended_at"] > row["at"]]
    return rows


def policies(engine: sa.Engine) -> list[tuple[float, str]]:
    """Return which policy decided from when on (unix seconds), in order."""
    table = schema.EPOCHS.c
    with engine.connect() as connection:
        rows = connection.execute(sa.select(table.began_at, table.policy).order_by(table.id))
        return [(began, policy) for began, policy in rows]


def coruns(
    engine: sa.Engine,
    *,
    uid: int | None = None,
    job_id: int | None = None,
    limit: int = 10_000,
    measured: bool = False,
) -> list[Row]:
    """Return who ran beside whom, the latest first, of one user's jobs or one job.

    Of ``measured`` stretches only those with a rate that was not throttled.
    """
    wanted = sa.select(schema.CORUNS)
    if measured:
        wanted = wanted.where(schema.CORUNS.c.rate.is_not(None), schema.CORUNS.c.throttled == 0)
    if job_id is not None:
        wanted = wanted.where(schema.CORUNS.c.job == job_id)
    if uid is not None:
        wanted = wanted.join(schema.JOBS, schema.JOBS.c.id == schema.CORUNS.c.job).where(schema.JOBS.c.uid == uid)
    wanted = wanted.order_by(schema.CORUNS.c.id.desc()).limit(limit)
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(wanted).mappings()]
    return [{**row, "beside": json.loads(row["beside"]), "throttled": bool(row["throttled"])} for row in found]


def _plain(row: sa.RowMapping) -> Row:
    """A row of `jobs` with its JSON read."""
    return {**row, "cores": json.loads(row["cores"]), "gpus": json.loads(row["gpus"]), "job": json.loads(row["job"])}
