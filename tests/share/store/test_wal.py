"""A damaged write-ahead log is told from one that was cut short: SQLite itself says what it still finds in it."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tandem.share.store import wal

PAGE, HEADER = 4096, 32
FRAME = 24 + PAGE


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process that was killed leaves: commits of several frames each, one row in each commit."""
    folder = tmp_path_factory.mktemp("killed")
    connection = sqlite3.connect(folder / "live.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x TEXT)")
    for k in range(8):
        connection.execute("INSERT INTO t VALUES (?)", (f"{k}" * 9000,))
        connection.commit()
    for end in ("", "-wal"):
        shutil.copy(folder / f"live.db{end}", folder / f"killed.db{end}")
    connection.close()
    return folder / "killed.db-wal"


def rows(log: Path, content: bytes) -> int:
    """How many rows SQLite finds with this log."""
    place = log.with_name("look.db")
    shutil.copy(log.with_name("killed.db"), place)
    place.with_name("look.db-wal").write_bytes(content)
    connection = sqlite3.connect(place)
    try:
        found = connection.execute("SELECT count(*) FROM t").fetchone()[0]
    except sqlite3.OperationalError:  # not even the table
        found = 0
    connection.close()
    return int(found)


def look(log: Path, content: bytes) -> str:
    changed = log.with_name("changed-wal")
    changed.write_bytes(content)
    return wal.damage(changed)


def test_a_whole_one_and_none_are_well(log: Path) -> None:
    assert rows(log, log.read_bytes()) == 8
    assert wal.damage(log) == ""
    assert wal.damage(log.with_name("none")) == ""


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), garbage=st.binary(max_size=2 * FRAME))
def test_a_torn_tail_is_no_damage(log: Path, cut: float, garbage: bytes) -> None:
    whole = log.read_bytes()
    kept = int(cut * len(whole))
    assert look(log, whole[:kept]) == ""
    if kept > HEADER:
        assert look(log, whole[:kept] + garbage) == ""


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True))
def test_what_sqlite_passes_over_in_the_midst_is_damage(log: Path, where: float) -> None:
    content = bytearray(log.read_bytes())
    content[int(where * len(content))] ^= 0x10
    found, left = look(log, bytes(content)), rows(log, bytes(content))
    assert left < 8
    assert bool(found) == (left < 7)  # the last commit might as well be one that was under way


def test_a_header_that_is_none_is_damage_unless_nothing_is_behind_it(log: Path) -> None:
    whole = log.read_bytes()
    assert look(log, b"xxxx" + whole[4:]) == "its header is damaged"
    assert look(log, bytes(HEADER) + whole[HEADER:]) == "its header is damaged"
    assert look(log, random.Random(1).randbytes(len(whole))) == "its header is damaged"
    assert look(log, bytes(len(whole))) == "", "room that was given out, and never written to"


def test_frames_of_an_earlier_log_in_the_same_file_are_no_damage(log: Path) -> None:
    place = log.with_name("again.db")
    connection = sqlite3.connect(place)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (x TEXT)")
    for k in range(8):
        connection.execute("INSERT INTO t VALUES (?)", (f"{k}" * 9000,))
        connection.commit()
    long = place.with_name("again.db-wal").stat().st_size
    connection.execute("PRAGMA wal_checkpoint(FULL)")
    connection.execute("INSERT INTO t VALUES ('short')")
    connection.commit()
    assert place.with_name("again.db-wal").stat().st_size == long
    assert wal.damage(place.with_name("again.db-wal")) == ""
    connection.close()
