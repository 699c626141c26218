"""The store keeps what it acknowledged, and leaves alone what is not its own."""

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tandem.core.errors import StoreError
from tandem.share import events as ev
from tandem.share import paths
from tandem.share.codec import from_json
from tandem.share.model import After, Interval, Job, Need, Node, Part, Quote, State
from tandem.share.node.launch import Launch
from tandem.share.paths import Paths
from tandem.share.scheduler.cluster import Setup
from tandem.share.scheduler.machine import Machine
from tandem.share.store import entry as rows
from tandem.share.store import queries, schema
from tandem.share.store.database import StoreFullError
from tandem.share.store.decided import decided
from tandem.share.store.entry import AttemptOver, Beside, Entry
from tandem.share.store.store import Store, examine, setup_of, setup_text

NODE = Node("n", 2000, 4096, cores=(0, 1))
SETUP = Setup("share", "none")


@pytest.fixture
def place(tmp_path: Path) -> Paths:
    found = paths.home(tmp_path / "home")
    paths.prepare(found)
    return found


def job(number: int, **values: object) -> Job:
    return Job(number, (Part(Need()),), app="true", **values)  # type: ignore[arg-type]


def launch(**values: object) -> Launch:
    return Launch(("true",), "/", **values)  # type: ignore[arg-type]


def step(store: Store, machine: Machine, now: float, events: list[ev.Event], launches: dict[int, Launch]) -> None:
    """Take one step and store it, as the driver does."""
    taken = machine.step(now, events)
    submitted = [machine.jobs[event.job.id] for event in events if isinstance(event, ev.Submitted)]
    spoken = {item.job for item in taken.instructions} & machine.jobs.keys()
    ends = {event.job: (event.code, event.signal) for event in events if isinstance(event, ev.Ended)}
    touched = [machine.jobs[number] for number in spoken]
    entry = Entry(now, events, taken.decisions, taken.quotes, launches, submitted, touched, ends)
    entry.taken_back = taken.taken_back
    store.commit(entry)


def test_a_restored_machine_is_in_the_state_of_the_last_step(place: Paths) -> None:
    with Store.open(place) as store:
        assert store.restore() is None
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        step(store, machine, 1.0, [ev.NodeJoined(NODE)], {})
        submissions: list[ev.Event] = [ev.Submitted(job(k)) for k in (1, 2, 3)]
        step(store, machine, 2.0, submissions, {k: launch() for k in (1, 2, 3)})
        step(store, machine, 3.0, [ev.Started(1, 1), ev.Ended(1, 1, code=0)], {})
    with Store.open(place) as store:
        again = store.restore()
        assert again is not None
        assert again.snapshot() == machine.snapshot()
        assert store.steps_in_epoch == 3
        assert store.next_job() == 4
        store.begin_epoch(4.0, Setup("share", "none", snapshot=again.snapshot()))
        assert store.steps_in_epoch == 0
    with Store.open(place) as store:
        third = store.restore()
        assert third is not None
        assert third.jobs.keys() == {2, 3}


def test_launches_survive_with_any_bytes_and_share_their_environment(place: Paths) -> None:
    odd = {"NAME": "\udcff\n'\"é", "PATH": "/bin"}
    made = {
        k: Launch(
            ("a b", "\udcfe"), "/tmp/\udcfd", odd, {"K": str(k)}, 1, 2, (3, 4), 0o77, "o", "e", str(place.job_dir(k))
        )
        for k in (1, 2)
    }
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        step(store, Machine(SETUP), 1.0, [ev.Submitted(job(1)), ev.Submitted(job(2))], made)
    with Store.open(place) as store:
        assert store.launches([1, 2]) == made
        assert store.launch(3) is None
        with store.engine.connect() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(schema.ENVIRONS)).scalar() == 1


def test_launches_follow_a_data_folder_that_was_moved(place: Paths, tmp_path: Path) -> None:
    run_dir, data, now = place.job_dir(1), place.data, tmp_path / "moved"
    made = replace(launch(stdout=f"{run_dir}/stdout", stderr=f"{data}/../err", run_dir=str(run_dir)), cwd=str(data))
    beside = launch(run_dir=str(place.job_dir(2)), stdout=f"{data}-too/out", stderr="/e")
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        step(store, Machine(SETUP), 1.0, [ev.Submitted(job(1)), ev.Submitted(job(2))], {1: made, 2: beside})
    place.data.rename(now)
    with Store.open(paths.home(now)) as store:
        found = store.launches([1, 2])
    assert (found[1].run_dir, found[1].stdout) == (f"{now}/jobs/1", f"{now}/jobs/1/stdout")
    assert (found[1].stderr, found[1].cwd) == (f"{data}/../err", str(now))
    assert (found[2].stdout, found[2].stderr) == (f"{data}-too/out", "/e")


def test_what_people_ask_for(place: Paths) -> None:
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        step(store, machine, 1.0, [ev.NodeJoined(NODE), ev.Submitted(job(1, uid=5, name="a'b\nc"))], {1: launch()})
        step(store, machine, 2.0, [ev.Started(1, 1)], {})
        store.commit(Entry(4.0, [], besides=[Beside(1, 1, "true", "n", 2.0, 4.0, ((7, "x"),), 2.0, False)]))
        step(store, machine, 5.0, [ev.Ended(1, 1, code=3)], {})
        store.commit(Entry(6.0, [], besides=[Beside(1, 1, "true", "n", 2.0, 5.0, ((7, "x"),), 2.5, False, again=True)]))
        row = queries.job(store.engine, 1)
        assert row is not None
        assert (row["name"], row["state"], row["exit_code"], row["uid"]) == ("a'b\nc", "failed", 3, 5)
        assert (row["submitted_at"], row["started_at"], row["ended_at"]) == (1.0, 2.0, 5.0)
        assert from_json(row["job"]) == job(1, uid=5, name="a'b\nc")
        assert [r["id"] for r in queries.history(store.engine, uid=5, limit=9)] == [1]
        assert queries.history(store.engine, uid=6, limit=9) == []
        moments = [r["moment"] for r in queries.quotes(store.engine, 1)]
        assert moments == ["submit", "start"]
        promises = queries.promises(store.engine, uid=None, limit=9)
        assert [(r["job"], r["ended_at"], r["array"]) for r in promises] == [(1, 5.0, None), (1, 5.0, None)]
        [beside] = queries.coruns(store.engine, uid=5)
        assert (beside["beside"], beside["rate"], beside["throttled"]) == ([[7, "x"]], 2.5, False)
        assert queries.coruns(store.engine, uid=6) == []


def test_promises_of_elements_say_of_which_array(place: Paths) -> None:
    element, other = replace(job(1, name="a"), array=(1, 7)), job(2, name='"array":[9,9]')
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        events: list[ev.Event] = [ev.NodeJoined(NODE), ev.Submitted(element), ev.Submitted(other)]
        step(store, machine, 1.0, events, {1: launch(), 2: launch()})
        step(store, machine, 2.0, [ev.Ended(1, 1), ev.Ended(2, 1)], {})
        found = {row["job"]: row["array"] for row in queries.promises(store.engine, uid=None, limit=9)}
    assert found == {1: [1, 7], 2: None}


def test_of_the_quotes_of_a_job_that_was_held_the_last_counts(place: Paths) -> None:
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        events: list[ev.Event] = [ev.NodeJoined(NODE), *(ev.Submitted(job(k)) for k in (1, 2, 3))]
        step(store, machine, 1.0, events, {k: launch() for k in (1, 2, 3)})
        step(store, machine, 2.0, [ev.Started(1, 1), ev.Started(2, 1), ev.HoldAsked(3)], {})
        step(store, machine, 3.0, [ev.Ended(1, 1), ev.Ended(2, 1)], {})
        step(store, machine, 9.0, [ev.ReleaseAsked(3)], {})
        step(store, machine, 10.0, [ev.Started(3, 1), ev.Ended(3, 1)], {})
        promises = queries.promises(store.engine, uid=None, limit=9)
        assert [(r["moment"], r["at"]) for r in promises if r["job"] == 3] == [("start", 9.0), ("submit", 9.0)]
        assert [(r["moment"], r["at"]) for r in promises if r["job"] == 2] == [("start", 1.0), ("submit", 1.0)]
        assert [r["at"] for r in queries.quotes(store.engine, 3)] == [1.0, 9.0, 9.0]


@pytest.mark.parametrize("stored", [False, True])
def test_a_hold_takes_back_no_quote_that_was_broken_before(place: Paths, stored: bool) -> None:
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        one, two = job(1, retries=1, expected_s=10.0), job(2, after=(After(1),))
        busy = [ev.NodeJoined(Node("m", 1000, 4096)), ev.Submitted(job(9, priority=1))]  # for one, and taken
        events: list[ev.Event] = [*busy, ev.NodeJoined(NODE), ev.Submitted(one), ev.Submitted(two)]
        step(store, machine, 1.0, events, {1: launch(), 2: launch(), 9: launch()})
        step(store, machine, 2.0, [ev.Started(9, 1), ev.Started(1, 1)], {})
        step(store, machine, 900.0, [ev.NodeLost(NODE.id)], {})
        step(store, machine, 901.0, [ev.HoldAsked(1)], {})
        step(store, machine, 950.0, [ev.ReleaseAsked(1)], {})
        assert queries.last_quotes(store.engine, [1, 2]).keys() == {1, 2}
        step(store, machine, 960.0, [ev.HoldAsked(1)], {})
        assert queries.last_quotes(store.engine, [1, 2]) == {}
        step(store, machine, 970.0, [ev.ReleaseAsked(1), ev.NodeJoined(NODE)], {})
        step(store, machine, 971.0, [ev.Started(1, 2), ev.Ended(1, 2)], {})
        step(store, machine, 972.0, [ev.Started(2, 1), ev.Ended(2, 1)], {})
        assert queries.holds(store.engine, 1) == queries.holds(store.engine, 2) == [901.0, 960.0]
        if not stored:
            with store.engine.begin() as connection:
                connection.execute(sa.delete(schema.HOLDS))
        told = queries.promises(store.engine, uid=None, limit=20)
        assert [r["at"] for r in queries.quotes(store.engine, 1)] == [1.0, 1.0, 950.0, 970.0, 970.0]
        assert [r["at"] for r in told if r["job"] == 1] == [970.0, 970.0, *([1.0, 1.0] if stored else [])]
        assert all(r["finish_high"] < 901.0 for r in told if r["at"] == 1.0)
        assert [r["at"] for r in told if r["job"] == 2] == [971.0, 970.0], "it waits for a job that was held"


@pytest.mark.parametrize("held", [False, True])
def test_a_quote_is_told_with_the_attempts_that_were_over_after_it(place: Paths, held: bool) -> None:
    over = AttemptOver(1, 1, 2.0, 3.0, 3, 0, "exit status 3")
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        step(store, machine, 1.0, [ev.NodeJoined(NODE), ev.Submitted(job(1, retries=1))], {1: launch()})
        step(store, machine, 2.0, [ev.Started(1, 1)], {})
        step(store, machine, 3.0, [ev.NodeLost(NODE.id)], {})
        store.commit(Entry(3.0, [], attempts=[over]))
        if held:
            step(store, machine, 4.0, [ev.HoldAsked(1)], {})
            step(store, machine, 5.0, [ev.ReleaseAsked(1)], {})
        step(store, machine, 8.0, [ev.NodeJoined(NODE)], {})
        step(store, machine, 9.0, [ev.Started(1, 2), ev.Ended(1, 2)], {})
        told = queries.promises(store.engine, uid=None, limit=9)
        found = [(r["moment"], r["at"], r["began_at"], [one["attempt"] for one in r["attempts"]]) for r in told]
    second = ("start", 8.0, None, [])
    if held:
        assert found == [second, ("submit", 8.0, 8.0, [])], "those from before the hold hold no more"
    else:
        assert found == [second, ("start", 1.0, 8.0, [1]), ("submit", 1.0, 1.0, [1])]


def _damage(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 6] = noise(4096 * 5)
    return bytes(data)


def noise(count: int) -> bytes:
    """Bytes that are no database page."""
    return bytes((k * 37 + 11) % 251 for k in range(count))


def test_a_damaged_database_is_refused_and_left_as_it_is(place: Paths) -> None:
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        many = range(1, 400)
        step(store, Machine(SETUP), 1.0, [ev.Submitted(job(k)) for k in many], {k: launch() for k in many})
    for content in (_damage(place.database), noise(9000)):
        place.database.write_bytes(content)
        for look in (Store.open, examine):
            with pytest.raises(StoreError, match="corrupted"):
                look(place)
        assert place.database.read_bytes() == content


def test_ids_go_on_above_the_folders_that_a_lost_database_left(place: Paths) -> None:
    place.job_dir(7).mkdir()
    place.attempt_dir(11, 2).mkdir()
    (place.data / "jobs" / "notes").mkdir()
    with Store.open(place) as store:
        assert store.next_job() == 12
        store.begin_epoch(0.0, SETUP)
        step(store, Machine(SETUP), 1.0, [ev.Submitted(job(12))], {12: launch()})
        assert store.next_job() == 13


def test_an_empty_file_is_a_new_database_only_where_no_job_was(place: Paths) -> None:
    place.database.touch()
    examine(place)
    place.job_dir(1).mkdir()
    for look in (Store.open, examine):
        with pytest.raises(StoreError, match=r"corrupted .*empty"):
            look(place)
        assert place.database.read_bytes() == b""
    place.job_dir(1).rmdir()
    Store.open(place).close()
    assert place.database.stat().st_size


@pytest.fixture
def killed(place: Paths, tmp_path: Path) -> Paths:
    """What a daemon that was killed leaves: what it stored lies in the log only."""
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        step(store, Machine(SETUP), 2.0, [ev.Submitted(job(2))], {2: launch()})
        place.job_dir(2).mkdir()
        shutil.copytree(place.data, tmp_path / "killed")
    return paths.home(tmp_path / "killed")


def test_a_log_that_was_left_is_taken_in(killed: Paths) -> None:
    assert killed.write_ahead_log.stat().st_size
    examine(killed)
    with Store.open(killed) as store:
        assert store.launch(2) == launch()


@pytest.mark.parametrize("harm", ["xxxx", "noise"])
def test_a_damaged_log_is_refused_and_left_as_it_is(killed: Paths, harm: str) -> None:
    content = b"xxxx" + killed.write_ahead_log.read_bytes()[4:] if harm == "xxxx" else noise(9000)
    killed.write_ahead_log.write_bytes(content)
    before = killed.database.read_bytes()
    for look in (Store.open, examine):
        with pytest.raises(StoreError, match=r"corrupted .*tandem.db-wal: its header is damaged"):
            look(killed)
    assert (killed.write_ahead_log.read_bytes(), killed.database.read_bytes()) == (content, before)


@pytest.mark.parametrize("harm", ["removed", "emptied"])
def test_a_database_without_the_last_jobs_that_have_folders_is_refused(killed: Paths, harm: str) -> None:
    killed.write_ahead_log.write_bytes(b"")
    if harm == "removed":
        killed.write_ahead_log.unlink()
    for look in (Store.open, examine):
        with pytest.raises(StoreError, match=r"knows jobs up to 0, and folders of jobs up to 2 .*stored last is gone"):
            look(killed)
    killed.job_dir(2).rmdir()
    examine(killed)
    Store.open(killed).close()


def test_folders_from_before_a_database_do_not_count_against_it(place: Paths) -> None:
    place.job_dir(7).mkdir()
    Store.open(place).close()
    with sqlite3.connect(place.database) as connection:  # as of a version that did not keep it
        connection.execute("DELETE FROM meta WHERE key = 'folders_before'")
    connection.close()
    place.job_dir(8).mkdir()
    for _ in range(2):
        examine(place)
        Store.open(place).close()
    place.job_dir(9).mkdir()
    with pytest.raises(StoreError, match="folders of jobs up to 9"):
        examine(place)


def test_no_new_database_is_begun_beside_the_log_of_one_that_has_gone(killed: Paths) -> None:
    killed.database.unlink()
    for look in (Store.open, examine):
        with pytest.raises(StoreError, match=r"it is gone, and its write-ahead log tandem.db-wal lies there"):
            look(killed)
    assert killed.write_ahead_log.stat().st_size
    killed.write_ahead_log.unlink()
    Store.open(killed).close()


def test_a_newer_database_is_refused_and_left_as_it_is(place: Paths) -> None:
    Store.open(place).close()
    with sqlite3.connect(place.database) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    content = place.database.read_bytes()
    for look in (Store.open, examine):
        with pytest.raises(StoreError, match="version 99"):
            look(place)
    assert place.database.read_bytes() == content


@pytest.mark.parametrize(
    "undone",
    [
        "ALTER TABLE epochs DROP COLUMN policy",
        "UPDATE epochs SET policy = ''",
        "DROP TABLE attempts",
        "ALTER TABLE jobs DROP COLUMN ran_s",
        "DROP TABLE holds",
        "ALTER TABLE attempts DROP COLUMN started_at",
    ],
)
def test_an_older_database_is_brought_up_to_date(place: Paths, undone: str) -> None:
    """Also one whose update was cut short between its steps."""
    with Store.open(place) as store:
        store.begin_epoch(1.0, SETUP)
        store.begin_epoch(2.0, replace(SETUP, policy="las"))
    with sqlite3.connect(place.database) as connection:
        connection.execute(undone)
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'version'")
    connection.close()
    for _ in range(2):
        with Store.open(place) as store:
            assert queries.policies(store.engine) == [(1.0, SETUP.policy), (2.0, "las")]
            assert queries.attempts(store.engine, 1) == []
            assert queries.holds(store.engine, 1) == []


def test_a_submission_is_the_same_text_with_its_job_already_written() -> None:
    events = [ev.Tick(), ev.Submitted(job(1, name='é"')), ev.Submitted(job(2))]
    text = rows.job_row(Machine(SETUP).admit(job(1, name='é"'), State.HELD))["job"]
    assert rows.encode_list(events, {1: text}) == rows.encode_list(events)
    assert rows.decode_list(rows.encode_list(events, {1: text})) == events


def test_of_an_older_database_a_job_ran_from_its_start_to_its_end(place: Paths) -> None:
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        step(store, machine, 1.0, [ev.NodeJoined(NODE), ev.Submitted(job(1))], {1: launch()})
        step(store, machine, 2.0, [ev.Started(1, 1)], {})
        step(store, machine, 9.0, [ev.Ended(1, 1)], {})
    with sqlite3.connect(place.database) as connection:
        connection.execute("ALTER TABLE jobs DROP COLUMN ran_s")
        connection.execute("UPDATE meta SET value = '3' WHERE key = 'version'")
    connection.close()
    with Store.open(place) as store:
        assert (queries.job(store.engine, 1) or {})["ran_s"] == 7.0


def test_somebody_elses_database_is_refused(place: Paths) -> None:
    with sqlite3.connect(place.database) as connection:
        connection.execute("CREATE TABLE songs (name)")
    connection.close()
    content = place.database.read_bytes()
    with pytest.raises(StoreError, match="not one of Tandem's"):
        Store.open(place)
    assert place.database.read_bytes() == content


def test_a_log_of_another_version_is_refused(place: Paths) -> None:
    with Store.open(place) as store:
        store.begin_epoch(0.0, Setup("share", "none", snapshot={"of": "tomorrow"}))
    with Store.open(place) as store, pytest.raises(StoreError, match="not understood"):
        store.restore()


def test_a_snapshot_of_an_unknown_format_is_refused_and_left_as_it_is(place: Paths) -> None:
    examine(place)
    kept = Machine(SETUP).snapshot()
    with Store.open(place) as store:
        store.begin_epoch(0.0, replace(SETUP, snapshot=kept))
        examine(place)
        store.begin_epoch(1.0, replace(SETUP, snapshot=kept | {"format": 99}))
        before = queries.policies(store.engine)
        for look in (Store.restore, lambda store: examine(store.paths)):
            with pytest.raises(StoreError, match=r"format 99; .*nothing was overwritten"):
                look(store)
        assert queries.policies(store.engine) == before


def test_a_full_database_refuses_one_entry_and_takes_the_next(place: Paths) -> None:
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        limit = store._writer.exec_driver_sql("PRAGMA page_count").scalar()
        store._writer.exec_driver_sql(f"PRAGMA max_page_count={limit + 4}")
        store._writer.rollback()
        big = {1: launch(env={"X": "x" * 100_000})}
        with pytest.raises(StoreFullError, match="no room"):
            step(store, Machine(SETUP), 1.0, [ev.Submitted(job(1))], big)
        assert store.next_job() == 1
        assert store.launch(1) is None
        store._writer.exec_driver_sql("PRAGMA max_page_count=1000000")
        store._writer.rollback()
        step(store, Machine(SETUP), 1.0, [ev.Submitted(job(1))], big)
        assert store.launch(1) == big[1]


_FLOATS = st.floats(min_value=-1e12, max_value=1e12) | st.just(float("inf"))


@given(st.tuples(*[_FLOATS] * 6), st.text(max_size=5))
def test_quotes_come_back_as_they_were(bounds: tuple[float, ...], basis: str) -> None:
    quote = Quote(3, 1.5, "start", Interval(*bounds[:3]), Interval(*bounds[3:]), basis)
    again = rows.quote_of(rows.quote_row(quote))
    assert again == quote
    assert again.basis == basis


def test_a_setup_comes_back_as_it_was() -> None:
    setup = Setup("hybrid", "proportional", {"reserve": 2.0}, {"now": 1.0})
    assert setup_of(setup_text(setup)) == setup


def test_what_was_promised_of_an_attempt_that_was_not_started_is_forgotten(place: Paths) -> None:
    def quoted(at: float, moment: str) -> Quote:
        return Quote(1, at, moment, Interval(at, at, at), Interval(at + 1, at + 2, at + 3))

    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        step(store, machine, 1.0, [ev.NodeJoined(NODE)], {})
        step(store, machine, 2.0, [ev.Submitted(job(1))], {1: launch()})
        kept = queries.quotes(store.engine, 1)
        over = AttemptOver(1, 1, 2.5, 3.0, 1, 0, "exit status 1")
        store.commit(Entry(3.0, [], attempts=[over], quotes=[quoted(3.5, "start")]))
        for at in (5.0, 6.0):  # each time it is started again at once
            store.commit(Entry(at, [], refused=[1], quotes=[quoted(at, "start")]))
        found = queries.quotes(store.engine, 1)
        assert found[:-1] == kept
        assert found[-1]["at"] == 6.0


def test_what_was_decided_about_one_job_is_read_out_of_the_log(place: Paths) -> None:
    with Store.open(place) as store:
        store.begin_epoch(0.0, SETUP)
        machine = Machine(SETUP)
        step(store, machine, 1.0, [ev.NodeJoined(NODE)], {})
        step(store, machine, 2.0, [ev.Submitted(job(k)) for k in (1, 10)], {k: launch() for k in (1, 10)})
        step(store, machine, 3.0, [ev.Started(1, 1), ev.Started(10, 1)], {})
        for now in (4.0, 5.0):  # each new daemon tells it
            step(store, machine, now, [ev.WentOn(1, 1, 3.5), ev.WentOn(10, 1, 3.6)], {})
        assert [(one["at"], one["is"]) for one in decided(store.engine, 1, 0.0)] == [(2.0, "Start"), (3.5, "WentOn")]
        assert [one["at"] for one in decided(store.engine, 10, 3.0)] == [3.6]
        assert [*decided(store.engine, 11, 0.0)] == []
