"""What the daemon answers to questions: queue, one job, nodes, history, promises, log. Nothing here changes a thing."""

import bisect
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import tandem
from tandem.core.errors import ConfigError, PermissionRefusedError, UnknownJobError
from tandem.core.units import ranges
from tandem.share.daemon import job_view
from tandem.share.daemon.driver import Driver
from tandem.share.daemon.job_view import View
from tandem.share.model import RESOURCES, UNLIMITED, State, is_founded
from tandem.share.scheduler import waiting
from tandem.share.scheduler.machine import Machine
from tandem.share.state.life import Life
from tandem.share.store import queries
from tandem.share.store.decided import decided
from tandem.share.store.store import steps_of

ROWS_MOST = 100_000
_FAR_S = 1e15


ANOTHERS = "another user's job"
"""What a job is called to whom it does not belong."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the kernel says it.

    Attributes:
        all: Root, or the daemon's own user: may see and do everything.
    """

    uid: int
    gid: int
    pid: int
    all: bool

    def owns(self, uid: int) -> bool:
        """Whether the caller may see and change what belongs to `uid`."""
        return self.all or self.uid == uid

    @property
    def only(self) -> int | None:
        """The only user whose past the caller sees; None for everybody's."""
        return None if self.all else self.uid


def owner_of(driver: Driver, job: int) -> int:
    """Return whose job it is.

    Raises:
        UnknownJobError: No job has this id.
    """
    life = driver.machine.jobs.get(job)
    if life is not None:
        return life.job.uid
    row = queries.job(driver.store.engine, job)
    if row is None:
        raise unknown(job)
    return int(row["uid"])


def demand_own(driver: Driver, caller: Caller, job: int) -> None:
    """Refuse what the caller may not touch.

    Raises:
        UnknownJobError: No job has this id.
        PermissionRefusedError: It is somebody else's.
    """
    owner = owner_of(driver, job)
    if not caller.owns(owner):
        raise PermissionRefusedError(
            given=f"job {job} of uid {owner}, asked for by uid {caller.uid}",
            allowed="your own jobs",
            todo="ask its owner, or root",
        )


def unknown(job: object) -> UnknownJobError:
    """The error for an id that no job has."""
    return UnknownJobError(
        given=f"job {job}",
        allowed="ids of jobs that were submitted here",
        todo="see `tandem queue` and `tandem history`",
    )


def queue(driver: Driver, caller: Caller, params: Mapping[str, Any]) -> list[View]:
    """All live jobs: running ones first, then in the order of ids.

    Only where `why` is asked for: the reason in words, and the last promise. Where `together` is, elements of one array
    that wait alike are one job, the last of them, with their indices as `elements` and how many they are as `count`.
    """
    explained = _flag(params, "why")
    machine = driver.machine
    lives = [life for life in machine.jobs.values() if not life.ended]
    lives.sort(key=lambda life: (life.id not in machine.on_nodes, life.id))
    groups = waiting.together(lives) if _flag(params, "together") else [[life] for life in lives]
    own = {life.id for *_, life in groups if caller.owns(life.job.uid)}
    quoted = [life.id for *_, life in groups if life.id in own and not _is_taken_back(life)] if explained else []
    last = queries.last_quotes(driver.store.engine, quoted)
    promises = {row["job"]: row for row in _with_policies(driver, list(last.values()))}
    known: dict[int, int | None] = {}
    views = []
    for group in groups:
        life = group[-1]
        why = waiting.why_together(machine, group, known) if life.id in own and explained else ""
        beside = neighbours(machine, caller, life)
        view = job_view.of_life(life, own=life.id in own, why=why, promise=promises.get(life.id), beside=beside)
        if len(group) > 1:
            view |= {"elements": ranges([one.job.array[1] for one in group if one.job.array]), "count": len(group)}
        views.append(view)
    return views


def neighbours(machine: Machine, caller: Caller, life: Life) -> list[str]:
    """Who runs on a job's nodes now: names of the caller's own jobs, and no names of others'."""
    held = {job for n in life.numbers for job in machine.ledger.holders(n)} - {life.id}
    others = [machine.jobs[job] for job in sorted(held)]
    return [
        (other.job.name or other.job.app) if caller.owns(other.job.uid) else ANOTHERS
        for other in others
        if other.state is not State.SUSPENDED
    ]


def show(driver: Driver, caller: Caller, params: Mapping[str, Any]) -> View:
    """One job: all that is known, why it waits, its promises, who it ran beside.

    Only where `decisions` is asked for: every decision about it, from the whole log.
    """
    job = one_job(params)
    demand_own(driver, caller, job)
    engine, machine = driver.store.engine, driver.machine
    life = machine.jobs.get(job)
    promises = _with_policies(driver, queries.quotes(engine, job))
    held = life is not None and _is_taken_back(life)
    holds = queries.holds(engine, job)
    promises = taken_back(promises, holds, held=held)
    last = promises[-1] if promises and not held and max(holds, default=0.0) <= promises[-1]["at"] else None
    row = queries.job(engine, job)
    if life is not None:
        why = waiting.named(machine, life.reason) if life.ended else machine.why(job)
        view = job_view.of_life(life, own=True, why=why, promise=last, beside=neighbours(machine, caller, life))
        view |= {"overtaken": waiting.overtaken(machine, life) if caller.all else ""}
        view |= {"exit_code": row["exit_code"], "signal": row["signal"]} if row is not None else {}
    else:
        if row is None:
            raise unknown(job)
        view = job_view.of_row(row, own=True) | {"why": row["reason"], "promise": last}
    launch = driver.store.launch(job)
    if launch is not None:
        view |= {"argv": list(launch.argv), "cwd": launch.cwd, "env": dict(launch.env), "run_dir": launch.run_dir}
        view |= {"stdout": launch.stdout, "stderr": launch.stderr}
    view["attempts"] = _attempts(driver, view)
    view["after"] = [after | {"name": name_of(driver, after["job"])} for after in view["after"]]
    coruns = _masked(driver, caller, queries.coruns(engine, job_id=job, limit=100))
    others = {other for stretch in coruns for other, _ in stretch["beside"]}
    if _flag(params, "decisions"):
        name = cache(partial(name_of, driver))
        told = decided(engine, job, view["submitted_at"])
        view["decisions"] = [one | {"reason": waiting.renamed(one["reason"], name)} for one in told]
    return view | {"promises": promises, "coruns": coruns, "labels": {one: name_of(driver, one) for one in others}}


def _is_taken_back(life: Life) -> bool:
    """Whether what was promised of the job, if anything was, holds no more: it is held, or waits for one that is.

    Nothing was of one that no node which is up could hold, nor of those that wait for it.
    """
    return life.state in (State.HELD, State.BLOCKED, State.QUEUED) and not life.counted


def taken_back(promises: Sequence[View], holds: Sequence[float], *, held: bool) -> list[View]:
    """Each of a job's promises, in order, with whether a hold took it back (see `queries.promises`).

    Args:
        holds: when it was held, as far as that is stored.
        held: whether the job still is held, or waits for one that is.
    """

    def is_gone(place: int, promise: View) -> bool:
        after = [at for at in holds if at > promise["at"]]
        again = any(later["moment"] == "submit" for later in promises[place + 1 :])
        return min(after) <= promise["finish_high"] if after else held or again

    return [one | {"taken_back": is_gone(place, one)} for place, one in enumerate(promises)]


def _attempts(driver: Driver, view: View) -> list[View]:
    """How each attempt that is over ended; the last one's end is the job's."""
    over = queries.attempts(driver.store.engine, view["id"]) if view["attempt"] else []
    if view["started_at"] is not None and view["ended_at"] is not None:
        last = {name: view.get(name) for name in ("attempt", "started_at", "ended_at", "exit_code", "signal", "reason")}
        over.append(last | {"reason": view["reason"] or view["state"]})
    return list({one["attempt"]: one for one in reversed(over)}.values())[::-1]  # an end may have been told twice


def name_of(driver: Driver, job: int) -> str:
    """A job's id as users give it, also of one that has ended."""
    if job in driver.machine.jobs:
        return waiting.name_of(driver.machine, job)
    row = queries.job(driver.store.engine, job)
    array = None if row is None else row["job"].get("array")
    return str(job) if not array else f"{array[0]}_{array[1]}"


def said_of(driver: Driver, job: int) -> str:
    """A job in an error: as users give it and, for an element of an array, by the id that may have been typed."""
    name = name_of(driver, job)
    return f"job {name}" if name == str(job) else f"job {name} (id {job})"


def log_path(driver: Driver, caller: Caller, params: Mapping[str, Any]) -> View:
    """Where a job's output is; the client reads it itself, with its own rights."""
    job = one_job(params)
    demand_own(driver, caller, job)
    launch = driver.store.launch(job)
    if launch is None:
        raise unknown(job)
    life = driver.machine.jobs.get(job)
    row = queries.job(driver.store.engine, job)
    state = life.state.value if life is not None else row["state"] if row is not None else ""
    reason = life.reason if life is not None else row["reason"] if row is not None else ""
    files = {"stdout": launch.stdout, "stderr": launch.stderr, "run_dir": launch.run_dir}
    return files | {"state": state, "reason": reason}


def nodes(driver: Driver, _caller: Caller, _params: Mapping[str, Any]) -> list[View]:
    """All nodes: what they have, what is free, what somebody outside uses, which jobs are there."""
    ledger = driver.machine.ledger
    found = []
    for n, node in enumerate(ledger.nodes):
        foreign_cores, foreign_gpus = ledger.foreign_use(n)
        capacity = [None if value >= UNLIMITED else value for value in node.capacity()]
        free = [None if int(value) >= UNLIMITED // 2 else int(value) for value in ledger.free[n]]
        found.append(
            {
                "id": node.id,
                "up": bool(ledger.is_up(n)),
                "capacity": dict(zip(RESOURCES, capacity, strict=True)),
                "free": dict(zip(RESOURCES, free, strict=True)),
                "cores": list(node.cores),
                "numa": list(node.numa),
                "gpus": [{"index": g.index, "type": g.type, "mem_mib": g.mem_mib, "uuid": g.uuid} for g in node.gpus],
                "labels": sorted(node.labels),
                "foreign_cores": sorted(foreign_cores),
                "foreign_gpus": sorted(foreign_gpus),
                "jobs": sorted(ledger.holders(n)),
            }
        )
    return found


def history(driver: Driver, caller: Caller, params: Mapping[str, Any]) -> list[View]:
    """The caller's jobs that ended (everybody's for root), the latest first."""
    rows = queries.history(driver.store.engine, uid=caller.only, limit=_limit(params), since=_since(params))
    return [job_view.of_row(row, own=True) for row in rows]


def promises(driver: Driver, caller: Caller, params: Mapping[str, Any]) -> list[View]:
    """The ledger: every quote of a job that ended beside what happened; of others' jobs not which and whose."""
    mine = _flag(params, "mine")
    rows = queries.promises(
        driver.store.engine, uid=caller.uid if mine else None, limit=_limit(params), since=_since(params)
    )
    hidden: View = dict.fromkeys(("name", "app", "reason", "basis"), "") | dict.fromkeys(("id", "job", "array", "uid"))
    hidden |= {"attempts": []}
    rows = [row | {"founded": is_founded(row["basis"])} for row in _with_policies(driver, rows)]
    return [row if caller.owns(row["uid"]) else row | hidden for row in rows]


def _with_policies(driver: Driver, quotes: Sequence[View]) -> list[View]:
    """Each quote with the policy that decided when it was made."""
    if not quotes:
        return []
    began, names = zip(*queries.policies(driver.store.engine), strict=True)
    return [row | {"policy": names[max(0, bisect.bisect_right(began, row["at"]) - 1)]} for row in quotes]


def profiles(driver: Driver, caller: Caller, params: Mapping[str, Any]) -> list[View]:
    """Applications with a profile.

    ``stale`` says why one is no longer believed, or is empty; what was seen of it before ``since`` (unix seconds, 0
    where there is no such moment) is of another version.
    """
    del caller, params
    drift = driver.machine.drift
    return [
        {
            "app": key,
            "made": one.made,
            "revision": one.revision,
            "stale": drift.words.get(key, ""),
            "since": drift.since.get(key, 0.0),
        }
        for key, one in sorted(driver.machine.profiles.items())
    ]


def coruns(driver: Driver, caller: Caller, params: Mapping[str, Any]) -> list[View]:
    """Who ran beside whom: stretches of the caller's jobs (everybody's for root).

    Those of ``measured`` ones say their ``reference_rate`` too: in steps of the application's first arguments, as the
    estimator counts; None where these cannot be compared.
    """
    engine, measured = driver.store.engine, _flag(params, "measured")
    rows = queries.coruns(engine, uid=caller.only, limit=_limit(params), measured=measured)
    if measured:
        jobs, known = queries.jobs(engine, sorted({row["job"] for row in rows})), driver.machine.history
        for row in rows:
            variant = jobs[row["job"]]["job"].get("variant", "")
            row["reference_rate"] = known.in_reference_steps(row["app"], variant, row["rate"])
    return _masked(driver, caller, rows)


def _masked(driver: Driver, caller: Caller, coruns: list[View]) -> list[View]:
    """Stretches without the names of other users' jobs, which may be whole command lines."""
    if caller.all:
        return coruns
    jobs = queries.jobs(driver.store.engine, sorted({other for row in coruns for other, _ in row["beside"]}))
    mine = {job for job, row in jobs.items() if caller.owns(row["uid"])}
    return [row | {"beside": [[job, app if job in mine else ANOTHERS] for job, app in row["beside"]]} for row in coruns]


def doctor(driver: Driver, _caller: Caller, _params: Mapping[str, Any]) -> View:
    """What this daemon is and which protections it gives."""
    machine, setup = driver.machine, driver.machine.setup
    live = sum(not life.ended for life in machine.jobs.values())  # one that ended stays until the next step
    return {
        "version": tandem.__version__,
        "pid": os.getpid(),
        "uid": os.geteuid(),
        "data": str(driver.store.paths.data),
        "socket": str(driver.store.paths.socket),
        "shared": driver.store.paths.shared,
        "policy": setup.policy,
        "estimator": setup.estimator,
        "options": dict(setup.options),
        "store": str(driver.full or driver.short or "ok"),
        "engine": driver.engine.describe(),
        "unread_profiles": driver.unread_profiles,
        "jobs": {"live": live, "on_nodes": len(machine.on_nodes)},
    }


def log_entries(driver: Driver, caller: Caller) -> Iterator[list[View]]:
    """The event log in pieces, as `tandem.share.simulate.replay` reads it.

    Raises:
        PermissionRefusedError: The caller may not see everybody's jobs: the log holds them.
    """
    if not caller.all:
        raise PermissionRefusedError(
            given=f"the event log, asked for by uid {caller.uid}",
            allowed="root, since it holds everybody's jobs",
            todo="ask root for `tandem replay`, or replay a daemon of your own",
        )
    for _, setup, steps in steps_of(driver.store.engine):
        yield [{"setup": json.loads(setup)}]
        for start in range(0, len(steps), 1000):
            yield [
                {"step": step, "now": now, "events": json.loads(events), "decisions": json.loads(decisions)}
                for step, now, events, decisions in steps[start : start + 1000]
            ]


def one_job(params: Mapping[str, Any]) -> int:
    """Return the job's id out of the parameters."""
    return job_ids([params.get("job")])[0]


def job_ids(given: object) -> list[int]:
    """Return job ids, each once.

    Raises:
        ConfigError: Not a list of whole numbers.
        UnknownJobError: A number that no job can have.
    """
    if not isinstance(given, Sequence) or isinstance(given, str):
        given = [given]
    for job in given:
        if isinstance(job, bool) or not isinstance(job, int):
            raise ConfigError(given=f"job {job!r}", allowed="a job's id, a whole number", todo="see `tandem queue`")
        if not 0 < job < 1 << 62:
            raise unknown(job)
    return list(dict.fromkeys(given))


def _flag(params: Mapping[str, Any], name: str) -> bool:
    flag = params.get(name, False)
    if not isinstance(flag, bool):
        raise ConfigError(given=f"{name} = {flag!r}", allowed="true or false", todo="correct it")
    return flag


def _limit(params: Mapping[str, Any]) -> int:
    limit = params.get("limit", 1000)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ConfigError(given=f"limit = {limit!r}", allowed="a whole number, 0 or more", todo="correct it")
    return min(limit, ROWS_MOST)


def _since(params: Mapping[str, Any]) -> float:
    since = params.get("since", 0.0)
    if isinstance(since, bool) or not isinstance(since, int | float) or not abs(since) < _FAR_S:
        raise ConfigError(given=f"since = {since!r}", allowed="Unix seconds", todo="0 is all there is")
    return float(since)
