"""Opening the database, and what is special about SQLite.

A database that is corrupted, of another program, or newer than this one is said so and never written to.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from tandem.core.durable import FULL
from tandem.core.errors import StoreError
from tandem.share.store import schema
from tandem.share.store.reserve import KEPT, left

_CHECKED_BYTES = 256 << 20  # a larger file is not read whole at every start


class StoreFullError(StoreError):
    """There is no room for another row; what was stored is unharmed."""


def open_engine(path: Path, *, new: bool) -> sa.Engine:
    """Open the database, or make a `new` one in its place, and check that it is ours and whole.

    Raises:
        StoreError: It is corrupted, of another program, newer, or cannot be opened.
        StoreFullError: The disk is full.
    """
    with storing(path):
        if new:
            _make(path)
        engine = _engine(path)
        _check_version(engine, path)
        _check_whole(engine, path)
        _use_wal(engine)
        _upgrade(engine)
    return engine


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sa.Engine]:
    """Open a database only to look at it, also beside a daemon that uses it, and check it as `open_engine` does.

    Raises:
        StoreError: What `open_engine` would say.
    """
    with storing(path):
        engine = _engine(path, read_only=True)
        try:
            _check_version(engine, path)
            _check_whole(engine, path)
            yield engine
        finally:
            engine.dispose()


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the database or the disk complain of into errors that say what to do."""
    try:
        yield
    except exc.DBAPIError as error:
        raise _explained(path, str(error.orig)) from error
    except OSError as error:
        if error.errno in FULL:
            raise full(path) from error
        raise


def _engine(path: Path, *, read_only: bool = False) -> sa.Engine:
    place = f"file:{quote(str(path.absolute()))}?mode=ro&uri=true" if read_only else str(path)
    engine = sa.create_engine(f"sqlite:///{place}", connect_args={"timeout": 5.0})
    sa.event.listen(engine, "connect", _on_connect)
    return engine


def _make(path: Path) -> None:
    """Make the database aside and rename it: one that is there is whole."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    os.close(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    engine = _engine(aside)
    with engine.begin() as connection:
        schema.METADATA.create_all(connection)
        connection.execute(sa.insert(schema.META), {"key": "version", "value": str(schema.VERSION)})
    engine.dispose()
    aside.rename(path)


def _explained(path: Path, words: str) -> StoreError:
    if "full" in words or "disk I/O error" in words:
        return full(path)
    if "not a database" in words or "malformed" in words:
        return corrupted(path, words)
    return StoreError(
        given=f"the database {path} cannot be used ({words})",
        allowed="a database that this user can write",
        todo="look at the file's owner and mode, and whether another program holds it",
    )


def corrupted(path: Path, words: str) -> StoreError:
    """The error for a database that is not whole."""
    return StoreError(
        given=f"the database {path} is corrupted ({words})",
        allowed="a whole database",
        todo=f"nothing was overwritten; put a copy in its place, or move {path.name}* away to begin anew",
    )


def full(path: Path) -> StoreFullError:
    """The error for a disk without room, with what little there is."""
    return StoreFullError(
        given=f"no room left on the disk of {path.parent}{left(path.parent)}",
        allowed=f"what can be stored durably, with {KEPT} kept for the ends of jobs",
        todo="free some space and try again; running jobs go on",
    )


def _check_version(engine: sa.Engine, path: Path) -> None:
    with engine.connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        if schema.META.name not in tables:
            raise _not_ours(path, "no table of Tandem in it")
        found = connection.execute(sa.select(schema.META.c.value).where(schema.META.c.key == "version")).scalar()
    if found is None or not found.isdigit():
        raise _not_ours(path, "no version in it")
    if int(found) > schema.VERSION:
        raise StoreError(
            given=f"the database {path} is of version {found}, written by a newer Tandem",
            allowed=f"versions up to {schema.VERSION}",
            todo="update Tandem, or set TANDEM_HOME to another folder; nothing was overwritten",
        )


def _upgrade(engine: sa.Engine) -> None:
    """Bring an older layout up to this one; cut short, it is done again from the start."""
    version = sa.select(schema.META.c.value).where(schema.META.c.key == "version")
    with engine.begin() as connection:
        if int(connection.execute(version).scalar_one()) == schema.VERSION:
            return
        for table in (schema.ATTEMPTS, schema.HOLDS):
            table.create(connection, checkfirst=True)
        if not _has(connection, schema.ATTEMPTS, "started_at"):
            connection.execute(sa.text("ALTER TABLE attempts ADD COLUMN started_at FLOAT"))
        epochs, jobs = schema.EPOCHS, schema.JOBS.c
        if not _has(connection, schema.JOBS, "ran_s"):
            connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN ran_s FLOAT"))
        lasted = jobs.ended_at - jobs.started_at  # how long of it a job stood still was not kept
        connection.execute(sa.update(schema.JOBS).where(jobs.ran_s.is_(None)).values(ran_s=sa.func.coalesce(lasted, 0)))
        if not _has(connection, epochs, "policy"):
            connection.execute(sa.text("ALTER TABLE epochs ADD COLUMN policy TEXT NOT NULL DEFAULT ''"))
        for epoch, setup in connection.execute(sa.select(epochs.c.id, epochs.c.setup)).all():
            policy = json.loads(setup)["policy"]
            connection.execute(sa.update(epochs).where(epochs.c.id == epoch).values(policy=policy))
        done = sa.update(schema.META).where(schema.META.c.key == "version").values(value=str(schema.VERSION))
        connection.execute(done)


def _has(connection: sa.Connection, table: sa.Table, column: str) -> bool:
    return column in {found["name"] for found in sa.inspect(connection).get_columns(table.name)}


def _check_whole(engine: sa.Engine, path: Path) -> None:
    if engine.dialect.name != "sqlite" or path.stat().st_size > _CHECKED_BYTES:
        return
    with engine.connect() as connection:
        words = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if words != "ok":
        raise _explained(path, f"malformed: {words}")


def _not_ours(path: Path, why: str) -> StoreError:
    return StoreError(
        given=f"the database {path} is not one of Tandem's ({why})",
        allowed="a database that Tandem made",
        todo="move the file away, or set TANDEM_HOME to another folder; nothing was overwritten",
    )


def _use_wal(engine: sa.Engine) -> None:
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")


def _on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own connection
    """Each commit is on the disk before it returns."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
