"""Room that nobody else can take, on a real disk that is full."""

import math
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tandem.share import events as ev
from tandem.share import paths
from tandem.share.model import Job, Need, Node, Part, State
from tandem.share.node.launch import Launch
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine
from tandem.share.store.database import StoreFullError
from tandem.share.store.entry import Entry
from tandem.share.store.reserve import LEAST_FREE_BYTES, RESERVE_BYTES, Reserve
from tandem.share.store.store import Store
from tests.share.conftest import fill

SETUP = Setup("share", "none")
RUNNING = 64


def commit(store: Store, machine: Machine, now: float, *events: ev.Event) -> None:
    """One step with all its rows, as the driver stores it."""
    step = machine.step(now, events)
    submitted = [machine.jobs[event.job.id] for event in events if isinstance(event, ev.Submitted)]
    launches = {life.id: Launch(("true",), "/") for life in submitted}
    ids = {event.job for event in events if isinstance(event, ev.Started | ev.Ended)}
    store.commit(
        Entry(now, events, step.decisions, step.quotes, launches, submitted, [machine.jobs[job] for job in ids])
    )


@contextmanager
def begun(folder: Path) -> Iterator[tuple[Store, Machine]]:
    """A store of a job, which has its reserve, and the machine that it tells of."""
    place = paths.home(folder)
    paths.prepare(place)
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        commit(store, machine, 1.0, ev.NodeJoined(Node("n", 1000, 4096)), ev.Submitted(job(1)))
        assert store.short_of_room() is None
        yield store, machine


def test_a_full_disk_has_room_for_the_ends_of_all_jobs(small_disk: Path) -> None:
    place = paths.home(small_disk)
    paths.prepare(place)
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        jobs = [Job(k, (Part(Need()),), app="true") for k in range(1, RUNNING + 1)]
        commit(store, machine, 1.0, ev.NodeJoined(Node("n", 1000 * RUNNING, 4096)), *map(ev.Submitted, jobs))
        commit(store, machine, 2.0, *[ev.Started(one.id, 1) for one in jobs])
        assert store.short_of_room() is None
        ballast = fill(small_disk)
        assert isinstance(store.short_of_room(), StoreFullError)
        for one in jobs:  # each by itself: nothing costs more
            commit(store, machine, 3.0, ev.Ended(one.id, 1))
        ballast.unlink()
        assert store.short_of_room() is None
        restored = store.restore()
    assert restored is not None
    assert {restored.ended[one.id] for one in jobs} == {State.DONE}


@pytest.mark.parametrize("count", [501, 4_000, 40_000])
def test_what_does_not_fit_is_refused_before_it_takes_the_room_of_others(
    small_disk: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begun(small_disk) as (store, machine):
        room = os.statvfs(small_disk)
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - LEAST_FREE_BYTES - 200_000))
        free: list[int] = []
        cut = Reserve.cut
        monkeypatch.setattr(Reserve, "cut", lambda *of: (free.append(shutil.disk_usage(small_disk).free), cut(*of)))
        with pytest.raises(StoreFullError):
            commit(store, Machine(SETUP), 2.0, *[ev.Submitted(job(k)) for k in range(2, count + 2)])
        assert free[0] >= LEAST_FREE_BYTES  # before anything is taken back
        assert store.short_of_room() is None
        ballast.unlink()
        commit(store, machine, 3.0, ev.Submitted(job(2)))


@pytest.mark.parametrize("room_mib", [2, 4, 6, 8, 10])
@pytest.mark.parametrize(("count", "argument"), [(3_000, ""), (400, "x" * 4_200), (60, "x" * 50_000)])
def test_a_batch_is_refused_or_leaves_room(small_disk: Path, room_mib: int, count: int, argument: str) -> None:
    """The room for the log, for the database into which it is written later, and for the reserve behind it."""
    with begun(small_disk) as (store, machine):
        (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - (room_mib << 20)))
        before = shutil.disk_usage(small_disk).free
        machine.step(2.0, [ev.Submitted(job(k)) for k in range(2, count + 2)])
        submitted = [machine.jobs[k] for k in range(2, count + 2)]
        launches = {life.id: Launch(("true", argument), "/") for life in submitted}
        try:
            store.commit(Entry(2.0, [], [], [], launches, submitted, []))
        except StoreFullError:
            assert room_mib < 10
            assert shutil.disk_usage(small_disk).free == before
        else:
            assert room_mib > 2
            with store.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)")
        assert store.short_of_room() is None


def job(number: int) -> Job:
    return Job(number, (Part(Need()),), app="true")


def test_what_failed_for_want_of_room_gives_it_back(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reserve, "room_bytes", lambda self: math.inf)  # as on a disk that does not tell its size
    with begun(small_disk) as (store, machine):
        before = shutil.disk_usage(small_disk).free
        environ = {"LONG": "x" * 20_000_000}
        other = Machine(SETUP)
        other.step(2.0, [ev.Submitted(job(2))])
        with pytest.raises(StoreFullError):
            store.commit(Entry(2.0, [], [], [], {2: Launch(("true",), "/", environ)}, [other.jobs[2]], []))
        assert shutil.disk_usage(small_disk).free == before
        assert store.short_of_room() is None
        commit(store, machine, 3.0, ev.Submitted(job(2)))
        restored = store.restore()
    assert restored is not None
    assert sorted(restored.jobs) == [1, 2]


def test_the_reserve_is_not_in_the_way_of_the_log(small_disk: Path) -> None:
    """It is allocated and yet no part of the file; it is whole again once there is room for it."""
    connection = sqlite3.connect(small_disk / "some.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x)")
    log = small_disk / "some.db-wal"
    reserve = Reserve(log)
    size = log.stat().st_size
    assert reserve.is_whole()
    assert log.stat().st_size == size
    assert log.stat().st_blocks * 512 >= size + RESERVE_BYTES
    ballast = fill(small_disk)
    os.truncate(ballast, ballast.stat().st_size - LEAST_FREE_BYTES)
    assert reserve.is_whole()  # just enough is free
    connection.execute("INSERT INTO t VALUES (zeroblob(?))", (2 * LEAST_FREE_BYTES,))
    assert not reserve.is_whole()  # the log has grown into it, and there is not so much to be had
    with pytest.raises(sqlite3.OperationalError, match="full"):
        connection.execute("INSERT INTO t VALUES (zeroblob(?))", (RESERVE_BYTES,))
    ballast.unlink()
    assert reserve.is_whole()
    assert log.stat().st_blocks * 512 >= log.stat().st_size + RESERVE_BYTES
    reserve.close()
    connection.close()
