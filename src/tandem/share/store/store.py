"""The store as the daemon uses it: one transaction a step, and what is needed to begin again.

with Store.open(paths) as store:
    machine = store.restore()          # None in a new store
    store.begin_epoch(now, setup)
    store.commit(entry)                # durable when it returns
"""

import contextlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from tandem.core.errors import MissingPackageError, StoreError, TandemError, UnknownPluginError
from tandem.estimate import estimators
from tandem.share.deciding import policy
from tandem.share.node.launch import Launch
from tandem.share.paths import Paths
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine
from tandem.share.scheduler.recorded import follow
from tandem.share.scheduler.snapshot import check as check_snapshot
from tandem.share.store import entry as rows
from tandem.share.store import schema, wal
from tandem.share.store.database import StoreFullError, corrupted, full, open_engine, reading, storing
from tandem.share.store.entry import Entry, Row
from tandem.share.store.lock import Lock
from tandem.share.store.prepared import Prepared
from tandem.share.store.reserve import LEAST_FREE_BYTES, Reserve

_LAUNCHES_KEPT = 20_000
"""Launches of jobs that have not started yet, kept in memory beside the database."""

_FOLDERS_BEFORE = "folders_before"
"""In `meta`: the highest job that had a folder when the database was begun."""

_log = logging.getLogger(__name__)

_STATE = (
    *("state", "started_at", "ended_at", "ran_s", "attempt", "reason"),
    *("node", "cores", "gpus", "exit_code", "signal"),
)
_CHANGE_JOB = (
    sa.update(schema.JOBS)
    .where(schema.JOBS.c.id == sa.bindparam("key"))
    .values({name: sa.bindparam(name) for name in _STATE})
)
_LITTLE_BYTES = LEAST_FREE_BYTES // 4
"""Of rows of one transaction: so much has room wherever the disk does not count as full."""

_DISK_BYTES = 2.25
"""Taken of the disk for each byte of a row: by the log and by the database, pages that are not full included."""

_NUMBERS_BYTES = 60
"""What a row takes besides its texts."""

_PAGE_BYTES = 4096
"""Of the database; the last page of a long text may be as good as empty."""

_STRETCH = ("job", "attempt", "began_at")
_FORGET_STRETCH = sa.delete(schema.CORUNS).where(*(schema.CORUNS.c[name] == sa.bindparam(name) for name in _STRETCH))
_FORGET_QUOTE = sa.delete(schema.QUOTES).where(
    schema.QUOTES.c.job == sa.bindparam("refused"),
    schema.QUOTES.c.moment == sa.literal_column("'start'"),
    schema.QUOTES.c.at
    >= sa.func.coalesce(
        sa.select(sa.func.max(schema.ATTEMPTS.c.ended_at))
        .where(schema.ATTEMPTS.c.job == sa.bindparam("refused"))
        .scalar_subquery(),
        sa.literal_column("0"),
    ),
)
"""What was promised of an attempt that was not started: since the last one ended."""


class Store:
    """The one writer of the database."""

    def __init__(self, paths: Paths, lock: Lock, engine: sa.Engine) -> None:
        self.paths = paths
        self.engine = engine
        self._lock = lock
        self._writer = engine.connect()
        self._insert = {table: _insert(table, engine.dialect) for table in schema.METADATA.sorted_tables}
        self._change_job = Prepared(_CHANGE_JOB, (*_STATE, "key"), engine.dialect)
        self._forget_stretch = Prepared(_FORGET_STRETCH, _STRETCH, engine.dialect)
        self._forget_quote = Prepared(_FORGET_QUOTE, ("refused",), engine.dialect)
        self._epoch, self._seq, self._first = self._last()
        self._environs: set[str] = set()  # keys of environments that are stored
        self._fresh: set[str] = set()  # those of the transaction under way
        self._launches: dict[int, Launch] = {}
        self._reserve = Reserve(paths.write_ahead_log)
        self._taken_bytes = 0  # by rows of the transaction under way
        self._room_bytes: float | None = None  # that it may take; None before it was asked for

    @classmethod
    def open(cls, paths: Paths) -> Self:
        """Take the data folder's lock and open its database.

        Raises:
            DaemonError: Another daemon has the lock.
            StoreError: The database is corrupted, less than there was, newer, of another program, or the disk is full.
        """
        lock = Lock(paths)
        try:
            engine = open_engine(paths.database, new=not is_there(paths))
            with storing(paths.database):
                _check_folders(engine, paths, keep=True)
            return cls(paths, lock, engine)
        except BaseException:
            lock.close()
            raise

    def close(self) -> None:
        """Close the database and give the lock back."""
        self._reserve.close()
        self._writer.close()
        self.engine.dispose()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keep_lock(self) -> None:
        """See that the data folder is still this daemon's, and what shows so in its place.

        Raises:
            DaemonError: It is not.
        """
        self._lock.keep()

    def listen_at(self, socket: Path) -> None:
        """Name another socket as this daemon's."""
        self.paths = replace(self.paths, socket=socket)
        self._lock.name(socket)

    def short_of_room(self) -> StoreFullError | None:
        """Return why only ends and cancellations should be stored now; None while there is room for everything."""
        return None if self._reserve.is_whole() else full(self.paths.database)

    # ------------------------------------------------------------------------------------ the event log

    @property
    def steps_in_epoch(self) -> int:
        """How many steps a restart would have to go through."""
        return self._seq - self._first

    def restore(self, changes: Mapping[str, Any] | None = None) -> Machine | None:
        """Return a machine in the state of the last committed step, or None where there is no epoch yet.

        Args:
            changes: Fields of `Setup` that will be other than the stored ones. Where they name another policy or
                estimator, the stored ones need not be there any more.

        Raises:
            StoreError: The log cannot be read.
            UnknownPluginError: The stored policy or estimator can no longer be had.
            MissingPackageError: The same, for want of a package.
        """
        if self._epoch == 0:
            return None
        with storing(self.paths.database), self.engine.connect() as connection:
            text = connection.execute(
                sa.select(schema.EPOCHS.c.setup).where(schema.EPOCHS.c.id == self._epoch)
            ).scalar_one()
            steps = schema.STEPS.c
            wanted = sa.select(steps.now, steps.events, steps.decisions).where(steps.epoch == self._epoch)
            stored = connection.execute(wanted.order_by(steps.seq)).all()
        try:
            return self._restored(setup_of(text), stored, changes or {})
        except TandemError:
            raise
        except Exception as error:  # a policy from elsewhere may fail in its own way
            name = json.loads(text).get("policy", "")
            other = f"take another policy than {name!r}: tandem up --policy hybrid, " if ":" in name else ""
            raise StoreError(
                given=f"the event log in {self.paths.database} is not understood ({type(error).__name__}: {error})",
                allowed="a log that this version wrote",
                todo=f"{other}run the version that wrote it, or set TANDEM_HOME to another folder; "
                "nothing was overwritten",
            ) from error

    @staticmethod
    def _restored(setup: Setup, stored: Sequence[Any], changes: Mapping[str, Any]) -> Machine:
        try:
            machine = Machine(setup)
            for now, events, _ in stored:
                machine.step(now, rows.decode_list(events))
        except StoreError:
            raise
        except Exception as error:
            if all(changes.get(what, getattr(setup, what)) == getattr(setup, what) for what in ("policy", "estimator")):
                _check_plugins(setup)
                raise
            _log.warning("what was decided is done again as stored: %s: %s", type(error).__name__, error)
            return follow(setup, ((now, rows.decode_list(e), rows.decode_list(d)) for now, e, d in stored))
        return machine

    def begin_epoch(self, now: float, setup: Setup) -> None:
        """Begin a new log from ``setup``; later steps belong to it."""
        row: Row = {"id": self._epoch + 1, "began_at": now, "policy": setup.policy, "setup": setup_text(setup)}
        with self._transaction(may_refuse=True):
            self._take_room([row])
            self._writer.execute(sa.insert(schema.EPOCHS), row)
        self._epoch += 1
        self._first = self._seq

    def commit(self, entry: Entry) -> None:
        """Store one step and all that follows from it, durably.

        Raises:
            StoreFullError: There is no room; nothing of the entry was stored.
        """
        with self._transaction(may_refuse=bool(entry.submitted)):
            self._write(entry)
        self._seq += 1
        self._environs |= self._fresh
        for job, launch in entry.launches.items():
            if len(self._launches) < _LAUNCHES_KEPT:
                self._launches[job] = launch

    @contextlib.contextmanager
    def _transaction(self, *, may_refuse: bool) -> Iterator[None]:
        """All or nothing; one that fails for want of room leaves the disk as it was.

        Args:
            may_refuse: It is refused before it fills the disk, where jobs that run write too.
        """
        before = self._reserve.log_bytes()
        self._taken_bytes, self._room_bytes = 0, None if may_refuse else math.inf
        try:
            with storing(self.paths.database), self._writer.begin():
                yield
        except StoreFullError:
            self._reserve.cut(before)
            raise

    def _take_room(self, added: Sequence[Row]) -> None:
        """Count what rows take, and refuse them where that would be too much; little is kept free in any case."""
        texts = [len(value) for row in added for value in row.values() if isinstance(value, str)]
        on_pages_of_their_own = sum([length > _PAGE_BYTES // 2 for length in texts])
        self._taken_bytes += sum(texts) + _NUMBERS_BYTES * len(added) + _PAGE_BYTES * on_pages_of_their_own
        if self._taken_bytes > _LITTLE_BYTES:
            if self._room_bytes is None:
                self._room_bytes = self._reserve.room_bytes()
            if _DISK_BYTES * self._taken_bytes > self._room_bytes:
                raise full(self.paths.database)

    def _write(self, entry: Entry) -> None:
        self._fresh = set()
        new = {life.id for life in entry.submitted}
        submitted = [rows.job_row(life) for life in entry.submitted]
        step = {
            "seq": self._seq + 1,
            "epoch": self._epoch,
            "now": entry.now,
            "events": rows.encode_list(entry.events, {row["id"]: row["job"] for row in submitted}),
            "decisions": rows.encode_list(entry.decisions),
        }
        changed = (life for life in entry.touched if life.id not in new)
        self._add(schema.STEPS, [step])
        self._add(schema.JOBS, submitted)
        if entry.submitted:
            self._add(schema.LAUNCHES, self._launch_rows(entry.launches))
        self._change_job.run(self._writer, [rows.job_change(life, entry.exits.get(life.id)) for life in changed])
        self._forget_quote.run(self._writer, [{"refused": job} for job in entry.refused])
        self._add(schema.QUOTES, [rows.quote_row(quote) for quote in entry.quotes])
        self._add(schema.HOLDS, [{"job": job, "at": entry.now} for job in entry.taken_back])
        self._add(schema.ATTEMPTS, [rows.attempt_row(over) for over in entry.attempts])
        stretches = [rows.beside_row(beside) for beside in entry.besides]
        again = [row for row, beside in zip(stretches, entry.besides, strict=True) if beside.again]
        self._forget_stretch.run(self._writer, again)
        self._add(schema.CORUNS, stretches)

    def _add(self, table: sa.Table, added: Sequence[Row]) -> None:
        self._take_room(added)
        self._insert[table].run(self._writer, added)

    def _launch_rows(self, launches: Mapping[int, Launch]) -> list[Row]:
        """Rows of `launches`; environments that are not stored yet are stored first."""
        by_identity: dict[tuple[int, int], Row] = {}  # a batch shares one environment object
        for launch in launches.values():
            key = (launch.uid, id(launch.environ))
            if key not in by_identity:
                by_identity[key] = rows.environ_row(launch)
        self._store_environs({row["id"]: row for row in by_identity.values()})
        return [
            rows.launch_row(job, launch, by_identity[launch.uid, id(launch.environ)]["id"])
            for job, launch in launches.items()
        ]

    def _store_environs(self, wanted: Mapping[str, Row]) -> None:
        column = schema.ENVIRONS.c.id
        asked = [key for key in wanted if key not in self._environs]
        if asked:
            found = set(self._writer.execute(sa.select(column).where(column.in_(asked))).scalars())
            missing = [wanted[key] for key in asked if key not in found]
            if missing:
                self._add(schema.ENVIRONS, missing)
            self._fresh.update(asked)

    # --------------------------------------------------------------------------------------------- jobs

    def next_job(self) -> int:
        """Return the id that the next job gets: above any that was ever stored, and above any job's folder.

        A database that is begun anew leaves the folders of the jobs before: a new job must not write into them.
        """
        with storing(self.paths.database), self.engine.connect() as connection:
            stored = connection.execute(sa.select(sa.func.max(schema.JOBS.c.id))).scalar() or 0
        return max([stored, *self.paths.jobs_with_folders()]) + 1

    def launch(self, job: int, *, last_use: bool = False) -> Launch | None:
        """Return how a job is started, None for an unknown job; ``last_use`` frees its place in memory."""
        kept = self._launches.pop(job, None) if last_use else self._launches.get(job)
        return kept if kept is not None else self.launches([job]).get(job)

    def launches(self, jobs: Sequence[int]) -> dict[int, Launch]:
        """Return how each of the jobs is started, with paths in the data folder where that is now."""
        wanted = (
            sa.select(schema.LAUNCHES.c.job, schema.LAUNCHES.c.launch, schema.ENVIRONS.c.environ.label("text"))
            .join(schema.ENVIRONS, schema.ENVIRONS.c.id == schema.LAUNCHES.c.environ)
            .where(schema.LAUNCHES.c.job.in_(jobs))
        )
        with storing(self.paths.database), self.engine.connect() as connection:
            found = {row["job"]: rows.launch_of(dict(row)) for row in connection.execute(wanted).mappings()}
        return {job: launch.moved_to(str(self.paths.job_dir(job))) for job, launch in found.items()}

    def _last(self) -> tuple[int, int, int]:
        """The last epoch, the last step, and the step before that epoch's first; 0 in a new store."""
        with storing(self.paths.database), self.engine.connect() as connection:
            epoch = connection.execute(sa.select(sa.func.max(schema.EPOCHS.c.id))).scalar() or 0
            seq = connection.execute(sa.select(sa.func.max(schema.STEPS.c.seq))).scalar() or 0
            in_epoch = sa.select(sa.func.count()).where(schema.STEPS.c.epoch == epoch)
            steps = connection.execute(in_epoch).scalar() or 0
        return epoch, seq, seq - steps


def _insert(table: sa.Table, dialect: sa.Dialect) -> Prepared:
    """A new row of a table; the database numbers rows where the table leaves that to it."""
    names = [column.name for column in table.columns if column.autoincrement is not True]
    return Prepared(sa.insert(table), names, dialect)


def setup_text(setup: Setup) -> str:
    """Return a setup as JSON text."""
    return json.dumps(
        {
            "policy": setup.policy,
            "estimator": setup.estimator,
            "options": dict(setup.options),
            "snapshot": setup.snapshot,
        }
    )


def setup_of(text: str) -> Setup:
    """The inverse of `setup_text`."""
    values: dict[str, Any] = json.loads(text)
    return Setup(**values)


def is_there(paths: Paths) -> bool:
    """Whether there is a database; an empty file beside no job is none yet.

    Raises:
        StoreError: It is empty, and jobs were here; its write-ahead log is damaged, or lies there without it.
    """
    log = paths.write_ahead_log
    if not paths.database.exists():
        if log.exists() and log.stat().st_size:
            raise corrupted(paths.database, f"it is gone, and its write-ahead log {log.name} lies there")
        return False
    if why := wal.damage(log):
        raise corrupted(paths.database, f"its write-ahead log {log.name}: {why}")
    if paths.database.stat().st_size:
        return True
    if next(paths.jobs_with_folders(), None) is not None:
        raise corrupted(paths.database, "it is empty, and folders of jobs lie beside it")
    return False


def _check_folders(engine: sa.Engine, paths: Paths, *, keep: bool = False) -> None:
    """Refuse a database without the last jobs that have folders beside it, unless those were there before it.

    Args:
        keep: Keep which were there, in a database that does not say so: one that is new, or of before it was kept.
    """
    highest = max(paths.jobs_with_folders(), default=0)  # looked at first: a daemon stores a job before it makes any
    with engine.connect() as connection:
        asked = sa.select(schema.META.c.value).where(schema.META.c.key == _FOLDERS_BEFORE)
        before = connection.execute(asked).scalar()
        if before is None:
            if keep:
                connection.execute(sa.insert(schema.META), {"key": _FOLDERS_BEFORE, "value": str(highest)})
                connection.commit()
                connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)")  # it must not go with the log
            return
        stored = connection.execute(sa.select(sa.func.max(schema.JOBS.c.id))).scalar() or 0
    if highest > max(stored, int(before)):
        raise StoreError(
            given=f"the database {paths.database} knows jobs up to {stored}, and folders of jobs up to {highest} lie "
            "beside it: what was stored last is gone",
            allowed=f"the whole database, with its write-ahead log {paths.write_ahead_log.name}",
            todo="put both back; or, to go on without those jobs, move their folders in jobs and attempts elsewhere",
        )


def examine(paths: Paths) -> None:
    """Look whether a daemon could go on from what is stored; changes nothing, and nothing stored is well.

    Raises:
        StoreError: It could not; says why.
        UnknownPluginError, MissingPackageError: Its policy or estimator can no longer be had.
    """
    if not is_there(paths):
        return
    with reading(paths.database) as engine, engine.connect() as connection:
        _check_folders(engine, paths)
        last = sa.select(schema.EPOCHS.c.setup).order_by(schema.EPOCHS.c.id.desc()).limit(1)
        text = connection.execute(last).scalar()
    kept = None if text is None else json.loads(text).get("snapshot")
    if kept is not None:
        check_snapshot(kept)
    if text is not None:
        _check_plugins(setup_of(text))


def _check_plugins(setup: Setup) -> None:
    """Say what to do where a stored policy or estimator can no longer be had."""
    for load, name, otherwise in (
        (policy.load, setup.policy, f"--policy {Setup().policy}"),
        (estimators.load, setup.estimator, f"--estimator {Setup().estimator}"),
    ):
        try:
            load(name)
        except (UnknownPluginError, MissingPackageError) as error:
            raise type(error)(
                given=f"what the daemon before used can no longer be had: {error.given}",
                allowed=error.allowed,
                todo=f"bring it back, or go on with another: tandem up {otherwise}",
            ) from error


def steps_of(engine: sa.Engine) -> Iterator[tuple[int, str, list[tuple[int, float, str, str]]]]:
    """Yield each epoch as (id, setup text, its steps as (seq, now, events text, decisions text))."""
    steps = schema.STEPS.c
    with engine.connect() as connection:
        epochs = list(
            connection.execute(sa.select(schema.EPOCHS.c.id, schema.EPOCHS.c.setup).order_by(schema.EPOCHS.c.id))
        )
        for epoch, setup in epochs:
            wanted = sa.select(steps.seq, steps.now, steps.events, steps.decisions).where(steps.epoch == epoch)
            yield epoch, setup, [tuple(row) for row in connection.execute(wanted.order_by(steps.seq))]
